"""Imported first by the process that steps fork from: Ctrl-C before a step has begun ends it without a traceback.

Dagster puts its own handlers in place while a step runs. In any other process the import does nothing.
"""

import os
import signal
import sys

if any("multiprocessing.forkserver" in word for word in sys.orig_argv):
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
