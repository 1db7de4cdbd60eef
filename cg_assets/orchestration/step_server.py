"""Imported first by the process that steps fork from: Ctrl-C is left to the run, which ends its steps.

Otherwise it would also end the server while that imports, and the run would fail for want of it. Dagster puts its own
handlers in place while a step runs. In any other process the import does nothing.
"""

import signal
import sys

if any("multiprocessing.forkserver" in word for word in sys.orig_argv):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
