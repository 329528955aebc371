"""One run of the program: parse the arguments, run the command, turn every outcome into an exit code and one line."""

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
from imatlas.system import processes
from imatlas.system.interrupts import struck
from imatlas.system.terminal import forgiving, is_open, say

# isort: off
# Registers the commands, in the order of `--help`.
import imatlas.cli.learn
import imatlas.cli.explore
import imatlas.cli.outliers
import imatlas.cli.duplicates
import imatlas.cli.generate
import imatlas.cli.restore
import imatlas.cli.compress
import imatlas.cli.segment
import imatlas.cli.studio
import imatlas.cli.export  # noqa: F401
# isort: on

OUTPUT_CLOSED = 141
"""Exit code if the reader of the output closed the pipe, as `head` does: 128 + SIGPIPE, as in any program."""


def call(arguments: list[str]) -> int:
    """Run the program and return its exit code; raises KeyboardInterrupt if it was interrupted."""
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
        return OUTPUT_CLOSED
    except BaseException as error:
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # a usage error
            _show_usage(error)
            return int(error.exit_code)
        if struck or _was_interrupted(error):
            raise KeyboardInterrupt from None
        # A panic in a Rust extension derives from BaseException, but is an ordinary failure.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        if debug:
            for line in "".join(traceback.format_exception(error)).splitlines():
                say(line, error=True)
        else:
            where = f" in process {processes.rank()}" if processes.count() > 1 else ""
            say(f"Error{where}: {_one_line(error)}", error=True)
        return 1


def close(code: int) -> int:
    """Flush the output; returns the exit code, changed if that fails."""
    try:
        if not is_open(sys.stdout) and sys.stdout is not None:
            code = code or OUTPUT_CLOSED
    except OSError as error:  # the disk is full
        say(f"Error: {_one_line(error)}", error=True)
        code = code or 1
        sys.stdout = None  # otherwise the interpreter flushes again and prints an error of its own
    return code


def _invoke(arguments: list[str]) -> int:
    """Parse and run without Typer's `main`, which handles Ctrl-C and closed pipes itself; only completion needs it."""
    if arguments[:1] != ["fit"]:
        processes.check_alone(f"'imatlas {' '.join(arguments[:1])}'")
    add_models(arguments)
    if "_IMATLAS_COMPLETE" in os.environ:
        app(arguments, prog_name="imatlas")
    command: Any = typer.main.get_command(app)
    with command.make_context("imatlas", arguments) as context:
        code = command.invoke(context)
    return code if isinstance(code, int) else 0


def _note(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print a warning as one line, without its source location; under torchrun that of one process."""
    if processes.is_first():
        say(f"Note: {message}", error=True)


def _show_usage(error: Any) -> None:
    """Print a usage error; the arguments in it are escaped."""
    if type(error).__name__ == "NoArgsIsHelpError":  # prints the help
        error.show()
        return
    context = getattr(error, "ctx", None)
    if context is not None:
        for line in context.get_usage().splitlines():
            say(line, error=True)
        say(f"Try '{context.command_path} --help' for help.", error=True)
        say(error=True)
    say(f"Error: {error.format_message()}", error=True)


def _was_interrupted(error: BaseException) -> bool:
    """Whether a Ctrl-C caused an error: a library interrupted during import may raise another exception."""
    visited = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in visited:
        if isinstance(cause, KeyboardInterrupt):
            return True
        visited.add(id(cause))
        cause = cause.__cause__ or cause.__context__
    return False


def _one_line(error: BaseException) -> str:
    """An error as one line; an unexpected one says how to get the traceback."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return f"Out of memory{f' ({text})' if text else ''}; close other programs, or use fewer or smaller images."
    if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None:  # while printing
        return "There is no space left on the disk of the output; free some, or write it elsewhere."
    if isinstance(error, ImatlasError | OSError):
        return text or type(error).__name__
    described = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return f"{described} (unexpected error; run again with --debug for the traceback)"
