"""The command line: parse, call, print. Heavy imports wait until a command runs, so that `--help` answers at once."""

from __future__ import annotations

import sys
from importlib import import_module

import typer

from imatlas.cli.fit import add_models
from imatlas.cli.shared import app
from imatlas.errors import ImatlasError

for part in (
    "look",
    "explore",
    "odd",
    "tidy",
    "make",
    "export",
):  # what they define, they add to the program, in this order
    import_module(f"imatlas.cli.{part}")


def _one_line(error: Exception) -> str:
    """An error as one line; what nobody foresaw says how to see more."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, ImatlasError | OSError | MemoryError):
        return text
    return f"{type(error).__name__}: {text} (not foreseen; run again with --debug for the traceback)"


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 1 a failure told in one line, 2 wrong usage."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    try:
        add_models(arguments)
        code = app(arguments, standalone_mode=False, prog_name="imatlas")
        return code if isinstance(code, int) else 0
    except typer.Exit as stop:
        return stop.exit_code
    except (KeyboardInterrupt, typer.Abort):
        print("Stopped. What was finished is saved; the same command again continues.", file=sys.stderr)
        return 1
    except Exception as error:
        if hasattr(error, "show") and hasattr(error, "exit_code"):  # a usage error: the parser words it best
            error.show()
            return int(error.exit_code)
        if debug:
            raise
        print(f"Error: {_one_line(error)}", file=sys.stderr)
        return 1


def run() -> None:
    """The installed `imatlas` command."""
    sys.exit(main())
