"""Imported first by the process that steps fork from; in any other process the import does nothing.

Ctrl-C is left to the run, which ends its steps: it would otherwise also end the server while that imports, and the run
would fail for want of it. Dagster puts its own handlers in place while a step runs. Imports make many objects and no
garbage: the server looks for none, which saves a quarter of their time, and steps only among objects of their own. At
its end it skips taking apart all that it imported, which takes seconds.
"""

import atexit
import gc
import os
import signal
import sys

if any("multiprocessing.forkserver" in word for word in sys.orig_argv):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.disable()
    os.register_at_fork(before=gc.freeze, after_in_child=gc.enable)
    atexit.register(os._exit, 0)  # registered first, called last
