"""The command line: parse, call, print. Heavy imports wait until a command runs, so that `--help` answers at once.

This module itself imports next to nothing, so that a Ctrl-C in the first half second finds it ready.
"""

from __future__ import annotations

import os
import sys

from imatlas.system.interrupts import interrupt_again

STOPPED = "Stopped. What was finished is saved; the same command again continues."


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0 done, 1 a failure told in one line or a Ctrl-C, 2 wrong usage, 141 the reader of the output is gone.
    """
    try:
        return _call(argv)
    except KeyboardInterrupt:
        print(STOPPED, file=sys.stderr)
        return 1


def run() -> None:
    """The installed `imatlas` command."""
    try:
        sys.unraisablehook = interrupt_again
        code = _call(None)
        from imatlas.cli.program import close

        code = close(code)
        import signal

        signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing is left that a Ctrl-C should wait for
    except KeyboardInterrupt:
        _stop()
    sys.exit(code)


def _call(argv: list[str] | None) -> int:
    from imatlas.cli.program import call

    return call(list(sys.argv[1:] if argv is None else argv))


def _stop() -> None:
    """End the process after a Ctrl-C: at once, as a second one would be shown with all that it struck."""
    import atexit
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print(STOPPED, file=sys.stderr, flush=True)
    atexit._run_exitfuncs()  # temporary files go
    os._exit(1)
