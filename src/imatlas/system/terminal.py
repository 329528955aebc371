r"""Safe text for a terminal: file names, labels and errors are displayed as text, never as control sequences.

A name may contain escape sequences, newlines, bidirectional controls, or bytes that are not UTF-8. Every line that
imatlas prints goes through `visible`, which shows these as backslash escapes (`\x1b`), and every command that it
proposes through `shell`, which quotes them.
"""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import sys
from typing import Any, TextIO

from imatlas.system import processes

UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # controls
    "\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"  # invisible
    "\ud800-\udfff]"  # halves of characters, and bytes that are not UTF-8
)
"""Control, invisible and unencodable characters. Joiners are kept, as emoji and Persian need them."""


def escape(character: str) -> str:
    r"""One character as a backslash escape: "\x1b", "\u202e"; a byte that is not UTF-8 as "\xff"."""
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # surrogateescape
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def visible(text: object) -> str:
    """A text as one line in which the characters of `UNSAFE` are escaped."""
    return UNSAFE.sub(lambda found: escape(found[0]), str(text))


def say(line: object = "", *, error: bool = False, stream: TextIO | None = None) -> None:
    """Print one line to standard output or standard error, escaping characters that the encoding lacks.

    Of several processes that train together only the first prints to standard output.
    """
    if stream is None and not error and not processes.is_first():
        return
    stream = stream or (sys.stderr if error else sys.stdout)
    if stream is not None:  # None in a program without a console
        print(writable(visible(line), stream), file=stream, flush=True)


def writable(text: str, stream: TextIO) -> str:
    """A text for a stream: characters that its encoding lacks are escaped."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def shell(*words: object) -> str:
    """A command that can be pasted into a shell: words are quoted if necessary.

    Examples
    --------
    >>> print(shell("imatlas", "check", "a b; rm -rf ~"))
    imatlas check 'a b; rm -rf ~'
    """
    return " ".join(_quoted(str(word)) for word in words)


def file_word(path: object) -> str:
    """A path as a word of a command, protected if it begins with "-" (an option) or "~"."""
    text = str(path)
    return f"./{text}" if text.startswith(("-", "~")) else text


def _quoted(word: str) -> str:
    if not UNSAFE.search(word):
        return shlex.quote(word)

    def escaped(found: re.Match[str]) -> str:
        if found[0] in "\\'":
            return "\\" + found[0]
        return "".join(f"\\x{byte:02x}" for byte in found[0].encode("utf-8", "surrogateescape"))

    halves = re.sub("[\ud800-\udc7f\udd00-\udfff]", lambda found: escape(found[0]), word)
    return "$'" + re.sub(rf"{UNSAFE.pattern}|[\\']", escaped, halves) + "'"


def json_text(value: Any, stream: TextIO | None = None) -> str:
    """A value as JSON for a terminal: `UNSAFE` characters are escaped, non-finite numbers are null.

    Parameters
    ----------
    value : JSON values
    stream : text stream, optional
        The destination; characters that its encoding lacks are escaped too.
    """
    text = json.dumps(finite(value), indent=1, ensure_ascii=False)
    # Newlines are those of json.dumps; within strings they are escaped already.
    text = re.sub(f"(?!\n){UNSAFE.pattern}", lambda found: json.dumps(found[0])[1:-1], text)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return json.dumps(finite(value), indent=1)
    return text


def finite(value: Any) -> Any:
    """JSON values with null for non-finite numbers, which JSON lacks."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return value


def console(*, error: bool = False, file: TextIO | None = None) -> Any:
    """A Rich console without markup, emoji codes and highlighting."""
    from rich.console import Console

    class Raising(Console):
        def on_broken_pipe(self) -> None:  # Rich would exit
            raise BrokenPipeError

    return Raising(file=file, stderr=error, markup=False, emoji=False, highlight=False)


def forgiving(*streams: TextIO | None) -> None:
    """Let streams escape characters that their encoding lacks instead of failing, as under `LC_ALL=C`."""
    for stream in streams:
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def is_open(stream: TextIO | None) -> bool:
    """Whether a stream can still be written to; if its reader has gone, it is redirected to the null device."""
    if stream is None:
        return False
    try:
        stream.flush()
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        return False
    return True
