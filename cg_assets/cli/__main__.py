"""`python -m cg_assets.cli`."""

import sys

from cg_assets.cli import main

sys.exit(main())
