"""The command line: parse, call, print. Heavy imports are deferred until a command runs, so that `--help` is fast.

This module itself imports almost nothing, so that it handles a Ctrl-C during the imports.
"""

from __future__ import annotations

import os
import sys

from imatlas.system.interrupts import interrupt_again

STOPPED = "Stopped. Finished work is saved; run the same command again to continue."


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0: success; 1: failure, explained in one line, or Ctrl-C; 2: usage error; 141: the output pipe was closed.
    """
    try:
        return _call(argv)
    except KeyboardInterrupt:
        _tell_stopped()
        return 1


def run() -> None:
    """Entry point of the installed `imatlas` command."""
    try:
        sys.unraisablehook = interrupt_again
        code = _call(None)
        from imatlas.cli.program import close

        code = close(code)
        import signal

        signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing left to clean up
    except KeyboardInterrupt:
        _stop()
    sys.exit(code)


def _call(argv: list[str] | None) -> int:
    from imatlas.cli.program import call

    return call(list(sys.argv[1:] if argv is None else argv))


def _tell_stopped() -> None:
    from imatlas.system import processes

    if processes.is_first():
        print(STOPPED, file=sys.stderr, flush=True)


def _stop() -> None:
    """End the process at once after a Ctrl-C; a second one during a slow exit would print a traceback."""
    import atexit
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _tell_stopped()
    atexit._run_exitfuncs()  # removes temporary files
    os._exit(1)
