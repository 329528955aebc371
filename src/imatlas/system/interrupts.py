"""The first module that runs: Ctrl-C during imports ends the program with one line."""

import os
import sys

TYPE_CHECKING = False
"""As in `typing`, which is slow to import."""


struck: "list[int]" = []
"""Not empty after a Ctrl-C: a library interrupted while loading may raise another error instead."""


def strike(number, frame):
    """The handler of Ctrl-C in the program."""
    struck.append(number)
    raise KeyboardInterrupt


def _stopped(kind, error, place):  # untyped, as types would have to be imported
    if issubclass(kind, KeyboardInterrupt):
        print("Stopped.", file=sys.stderr, flush=True)
        os._exit(1)
    sys.__excepthook__(kind, error, place)


def interrupt_again(failure):
    """Raise a Ctrl-C again that occurred in code which cannot raise (a finalizer, a callback)."""
    if issubclass(failure.exc_type, KeyboardInterrupt):
        import _thread

        _thread.interrupt_main()
    else:
        sys.__unraisablehook__(failure)


_PROGRAM = os.path.basename((sys.argv or [""])[0])
if _PROGRAM in ("imatlas", "imatlas.exe") or (
    _PROGRAM == "-m" and "imatlas" in sys.orig_argv
):  # else imported as a library
    import _signal  # `signal` itself imports more

    _signal.signal(_signal.SIGINT, strike)
    sys.excepthook, sys.unraisablehook = _stopped, interrupt_again
    if hasattr(_signal, "pthread_sigmask"):  # who began this process may have held Ctrl-C back until here
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (_signal.SIGINT,))
