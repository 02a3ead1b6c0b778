"""The command line: the only place that parses arguments, prints and chooses exit statuses."""

import signal
import threading

# Ctrl-C while `main` is still being imported ends the process as it does a program in C: without a
# traceback, with status 130 in a shell.
_silent = (
    threading.current_thread() is threading.main_thread()
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
)
if _silent:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from spikefold.cli._main import main  # noqa: E402

if _silent:
    signal.signal(signal.SIGINT, signal.default_int_handler)

__all__ = ["main"]
