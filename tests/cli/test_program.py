"""How the program ends: Ctrl-C at any time, a closed pipe, an unexpected error, any locale."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
from PIL import Image

from imatlas.cli import main, program
from imatlas.errors import Notice

AT_IMPORT = """
import builtins, signal, sys
left, real = [int(sys.argv.pop(1))], builtins.__import__
def counting(*args, **named):
    left[0] -= 1
    if left[0] == 0:
        signal.raise_signal(signal.SIGINT)
    return real(*args, **named)
sys.argv[0] = "imatlas"
builtins.__import__ = counting
from imatlas.cli import run
run()
"""


@pytest.fixture
def photos(tmp_path, rng):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(9):
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.mark.parametrize("n", [14, 30, 100, 300, 800, 1500, 3000])
def test_ctrl_c_during_any_import_is_one_line(photos, n):
    done = subprocess.run(
        [sys.executable, "-c", AT_IMPORT, str(n), "check", str(photos)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("Stopped.")
    assert done.stderr.count("\n") == 1


def test_ctrl_c_at_any_time_prints_no_traceback(photos):
    for delay in (0.4, 0.6, 0.9):  # earlier times are covered by the imports above
        process = subprocess.Popen(
            [sys.executable, "-m", "imatlas", "check", str(photos)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        err = process.communicate(timeout=60)[1]
        if "/imatlas/" in err or "Traceback" not in err:  # otherwise Python itself had not started
            assert err.startswith("Stopped.")
            assert err.count("\n") == 1
            assert process.returncode == 1


def test_a_library_leaves_the_hooks_alone():
    code = "import sys; import imatlas, imatlas.cli; sys.exit(sys.excepthook is not sys.__excepthook__)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.skipif(os.name == "nt", reason="pipes of another kind")
def test_a_closed_pipe_is_not_an_error(photos):
    command = f"{sys.executable} -m imatlas check {photos} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr in ("", "Reading images: 9 of 9\n")
    assert done.returncode == program.OUTPUT_CLOSED


@pytest.mark.parametrize(
    "locale", [{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"PYTHONIOENCODING": "ascii"}]
)
def test_an_ascii_locale_is_not_an_error(photos, locale):
    os.rename(photos / "0.png", os.fsencode(photos) + "/é\udcff☃.png".encode("utf-8", "surrogateescape"))
    (photos / "1.png").write_bytes((photos / "2.png").read_bytes())
    for arguments in (
        ["check", str(photos)],
        ["check", str(photos), "--json"],
        ["--help"],
        ["duplicates", str(photos)],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "imatlas", *arguments], capture_output=True, check=False, env=os.environ | locale
        )
        assert done.returncode == 0, done.stderr
        done.stdout.decode("ascii")


class PanicException(BaseException):
    """Like the exception of a panic in Rust."""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            PanicException("index out\nof \x1b[31mbounds"),
            "PanicException: index out of \\x1b[31mbounds (unexpected error",
        ),
        (RecursionError("too deep"), "RecursionError: too deep (unexpected error"),
        (MemoryError(), "Out of memory; close other programs"),
        (KeyError("a[/b]\u202e"), "KeyError: 'a[/b]\\u202e' (unexpected error"),
        (OSError("no \udcff"), "no \\xff"),
        (ExceptionGroup("several", [ValueError("one")]), "ExceptionGroup: several"),
    ],
)
@pytest.mark.parametrize("debug", [False, True])
def test_an_unexpected_error_is_one_line(monkeypatch, capsys, error, words, debug):
    def fail(arguments):
        raise error

    monkeypatch.setattr(program, "_invoke", fail)
    assert main(["info", *(["--debug"] if debug else [])]) == 1
    err = capsys.readouterr().err
    assert not [c for c in err if c in "\x1b\u202e\udcff"]
    if debug:
        assert "Traceback (most recent call last)" in err
    else:
        assert err.startswith(f"Error: {words}")
        assert err.count("\n") == 1


def test_a_notice_is_a_line_without_its_source_location(monkeypatch, capsys):
    monkeypatch.setattr(program, "_invoke", lambda _: warnings.warn("a\x1b[/b]", Notice, stacklevel=1) or 0)
    assert main(["info"]) == 0
    assert capsys.readouterr().err == "Note: a\\x1b[/b]\n"


@pytest.mark.parametrize(
    "arguments",
    [["no\x1b[31m"], ["learn", "\x1b]0;x\x07[/b]", "--no\x1b"], ["outliers", "a", "--false-positive-rate", "\x1b[/b]"]],
)
def test_wrong_usage_shows_hostile_arguments_as_text(capsys, arguments):
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert "\\x1b" in err
    assert "\x1b" not in err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no such device here")
def test_a_full_disk_of_the_output_is_one_line():
    command = [sys.executable, "-m", "imatlas", "--version"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "Error: There is no space left on the disk of the output; free some, or write it elsewhere.\n"
