"""The command line: parse, call, print. Heavy imports wait until a command runs, so that `--help` answers at once.

This module itself imports next to nothing, so that a Ctrl-C in the first half second finds it ready.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # as typing has it, which takes longer to import than all of this
if TYPE_CHECKING:
    from typing import Any

STOPPED = "Stopped. What was finished is saved; the same command again continues."


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0 done, 1 a failure told in one line or a Ctrl-C, 2 wrong usage, 141 the reader of the output is gone.
    """
    try:
        from imatlas.cli.program import call

        return call(list(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:
        print(STOPPED, file=sys.stderr)
        return 1


def run() -> None:
    """The installed `imatlas` command."""
    # Threads that spin while they wait make a step 5 to 20 times slower once another program wants a core; sleeping
    # costs nothing measurable. PyTorch reads this when it is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.unraisablehook = _interrupt_again
    code = main()
    try:
        from imatlas.cli.program import close

        code = close(code)
        import signal

        signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing is left that a Ctrl-C should wait for
    except KeyboardInterrupt:
        code = code or 1
    sys.exit(code)


def _interrupt_again(failure: Any) -> None:
    """Raise a Ctrl-C that fell into code which cannot raise (a finalizer, a callback) once more, where it can."""
    if issubclass(failure.exc_type, KeyboardInterrupt):
        import _thread

        _thread.interrupt_main()
    else:
        sys.__unraisablehook__(failure)
