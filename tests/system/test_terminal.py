"""Text for a terminal: control characters are escaped, and any encoding works."""

from __future__ import annotations

import io
import json
import os
import subprocess

import pytest

from imatlas.system.terminal import UNSAFE, console, file_word, json_text, say, shell, visible
from imatlas.training.progress import Progress

HOSTILE = "\x1b[31m\x1b]0;t\x07\n\r\t\x08\x7f\x85\x9b\u202e\u2066\u200b\u2028\udcff\ud800é👩‍👧"


def test_control_characters_are_escaped():
    shown = (
        "\\x1b[31m\\x1b]0;t\\x07\\x0a\\x0d\\x09\\x08\\x7f\\u0085\\u009b\\u202e\\u2066\\u200b\\u2028\\xff\\ud800é👩‍👧"
    )
    assert visible(HOSTILE) == shown
    assert visible("C:\\users\\é [b]") == "C:\\users\\é [b]"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_line_can_be_printed_in_every_locale(encoding):
    stream = io.TextIOWrapper(io.BytesIO(), encoding, newline="")
    say(HOSTILE, stream=stream)
    written = stream.buffer.getvalue().decode(encoding)
    assert written.count("\n") == 1
    assert not UNSAFE.search(written.rstrip("\n"))


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_json_round_trips_without_control_characters(encoding):
    stream = io.TextIOWrapper(io.BytesIO(), encoding)
    text = json_text({"key": [HOSTILE, 1.5, float("nan")]}, stream)
    text.encode(encoding)
    assert not UNSAFE.search(text.replace("\n", ""))
    assert json.loads(text) == {"key": [HOSTILE, 1.5, None]}


@pytest.mark.parametrize("word", ["a b; rm -rf ~", "a'b\n\x1b$(id)\\", "\udcff é", "plain.png", "*", ""])
def test_a_command_can_be_pasted(word):
    command = shell("printf", "%s", word)
    assert not UNSAFE.search(command)
    done = subprocess.run(["bash", "-c", os.fsencode(command)], capture_output=True, check=True)
    assert os.fsdecode(done.stdout) == word


@pytest.mark.parametrize("name", ["~", "~root", "-o", "a b"])
def test_any_file_name_can_be_pasted(tmp_path, name):
    (tmp_path / name).write_text("found")
    command = shell("cat", file_word(name))
    assert subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, check=True).stdout == b"found"
    assert os.path.expanduser(file_word(name)) == file_word(name)


def test_text_is_not_parsed_as_markup():
    stream = io.StringIO()
    console(file=stream).print("[link=http://e.x]a[/b] :dog: [bold]")
    assert stream.getvalue() == "[link=http://e.x]a[/b] :dog: [bold]\n"


def test_progress_bars_show_text_literally():
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    progress = Progress("a[/b]\x1b]0;t\x07", show=False)
    progress.stream = Screen()
    progress.tick(0.5, 1.0, "[/x]\x07")
    progress.event("note", "[/y]\x07 é")
    progress.close()
    shown = progress.stream.getvalue()
    assert "a[/b]\\x1b]0;t\\x07" in shown
    assert "[/x]\\x07" in shown
    assert "[/y]\\x07 é" in shown
