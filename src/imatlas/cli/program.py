"""One call of the command line: parsed and run, every way that it can end told in a line and an exit code."""

from __future__ import annotations

import errno
import os
import sys
import traceback
import warnings
from typing import Any

import typer
import typer.main

from imatlas.cli.fit import add_models
from imatlas.cli.shared import app
from imatlas.errors import ImatlasError, Notice
from imatlas.system.interrupts import struck
from imatlas.system.terminal import forgiving, is_open, say

# isort: off
# The commands, in the order in which `--help` lists them.
import imatlas.cli.learn
import imatlas.cli.explore
import imatlas.cli.outliers
import imatlas.cli.duplicates
import imatlas.cli.generate
import imatlas.cli.export  # noqa: F401
# isort: on

READER_GONE = 141
"""The exit code where what reads the output closed it, as `head` does: that of every program that the signal ends."""


def call(arguments: list[str]) -> int:
    """Run the program and return its exit code; raises KeyboardInterrupt where it was stopped."""
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    forgiving(sys.stdout, sys.stderr)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", Notice)
            warnings.showwarning = _note
            return _invoke(arguments)
    except typer.Exit as stop:
        return stop.exit_code
    except typer.Abort:
        raise KeyboardInterrupt from None
    except BrokenPipeError:
        return READER_GONE
    except BaseException as error:
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # a usage error: the parser words it best
            _show_usage(error)
            return int(error.exit_code)
        if struck or _was_stopped(error):
            raise KeyboardInterrupt from None
        # A panic of a library in Rust is no Exception, and must not look like the end of the world either.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        if debug:
            for line in "".join(traceback.format_exception(error)).splitlines():
                say(line, error=True)
        else:
            say(f"Error: {_one_line(error)}", error=True)
        return 1


def close(code: int) -> int:
    """Flush what was printed; the exit code where that fails."""
    try:
        if not is_open(sys.stdout) and sys.stdout is not None:
            code = code or READER_GONE
    except OSError as error:  # a full disk behind it
        say(f"Error: {_one_line(error)}", error=True)
        code = code or 1
        sys.stdout = None  # the interpreter would try again, and say so in its own words
    return code


def _invoke(arguments: list[str]) -> int:
    """Parse and run. Typer's own `main` would swallow Ctrl-C and a closed pipe, so only completion goes through it."""
    add_models(arguments)
    if "_IMATLAS_COMPLETE" in os.environ:
        app(arguments, prog_name="imatlas")
    command: Any = typer.main.get_command(app)
    with command.make_context("imatlas", arguments) as context:
        code = command.invoke(context)
    return code if isinstance(code, int) else 0


def _note(message: Warning | str, *_: Any, **__: Any) -> None:
    """Show a warning as a line, without the place in the code."""
    say(f"Note: {message}", error=True)


def _show_usage(error: Any) -> None:
    """What is wrong with the arguments, which may hold anything."""
    if type(error).__name__ == "NoArgsIsHelpError":  # the help itself
        error.show()
        return
    context = getattr(error, "ctx", None)
    if context is not None:
        for line in context.get_usage().splitlines():
            say(line, error=True)
        say(f"Try '{context.command_path} --help' for help.", error=True)
        say(error=True)
    say(f"Error: {error.format_message()}", error=True)


def _was_stopped(error: BaseException) -> bool:
    """Whether a Ctrl-C lies behind an error: libraries that it strikes while they load make others of it."""
    seen = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        if isinstance(cause, KeyboardInterrupt):
            return True
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__
    return False


def _one_line(error: BaseException) -> str:
    """An error as one line; what no code expected says how to see more."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return f"Not enough memory{f' ({text})' if text else ''}; close other programs, or use fewer or smaller images."
    if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None:  # of the output
        return "There is no space left where the output goes; free some, or write it elsewhere."
    if isinstance(error, ImatlasError | OSError):
        return text or type(error).__name__
    named = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return f"{named} (unexpected error; run again with --debug for the traceback)"
