"""The first module that runs: a Ctrl-C while the program is still being imported ends it in one line."""

import os
import sys

TYPE_CHECKING = False
"""As `typing` has it, which takes longer to import than the command line."""


struck: "list[int]" = []
"""Holds something once a Ctrl-C came: a library that it strikes while it loads may make another error of it."""


def _strike(number, frame):
    struck.append(number)
    raise KeyboardInterrupt


def _stopped(kind, error, place):  # its types would have to be imported
    if issubclass(kind, KeyboardInterrupt):
        print("Stopped.", file=sys.stderr, flush=True)
        os._exit(1)
    sys.__excepthook__(kind, error, place)


def interrupt_again(failure):
    """Raise a Ctrl-C that fell into code which cannot raise (a finalizer, a callback) once more, where it can."""
    if issubclass(failure.exc_type, KeyboardInterrupt):
        import _thread

        _thread.interrupt_main()
    else:
        sys.__unraisablehook__(failure)


_PROGRAM = os.path.basename((sys.argv or [""])[0])
if _PROGRAM in ("imatlas", "imatlas.exe") or (_PROGRAM == "-m" and "imatlas" in sys.orig_argv):  # else a library
    import _signal  # `signal` itself imports more

    _signal.signal(_signal.SIGINT, _strike)
    sys.excepthook, sys.unraisablehook = _stopped, interrupt_again
