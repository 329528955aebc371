r"""Keys and file names: every possible file name has one key, and every key names one file.

A key is what a table, a page and a terminal can hold: Unicode without controls. So what a file name may hold besides is
written as a backslash escape: a byte that is not UTF-8 as `\xff`, a line end as `\x0a`, a mark that turns the direction
of writing as `\u202e`. A backslash stays as it is, unless what follows would make it such an escape: then it is `\x5c`.
"""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path

from imatlas.system.atomic_io import within
from imatlas.system.terminal import UNSAFE, escape

_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8}))")

_VIDEO_FRAME = re.compile(r"(.+)#t=(\d{1,8})(?:\.(\d{1,3}))?", re.DOTALL)


def key_of(name: str) -> str:
    r"""The key of a file name.

    Parameters
    ----------
    name : str
        As Python returns it: relative to the source, bytes that are not UTF-8 as `surrogateescape`. On Windows
        backslashes are converted to slashes.

    Examples
    --------
    >>> print(key_of("a\nb.png"), key_of("a\\b.png"), key_of("a\\xff.png"))
    a\x0ab.png a\b.png a\x5cxff.png
    """
    if os.sep != "/":
        name = name.replace(os.sep, "/")
    name = _ESCAPE.sub(lambda found: found[0] if _meaning(found) is None else "\\x5c" + found[0][1:], name)
    return UNSAFE.sub(lambda found: escape(found[0]), name)


def member_key(name: str) -> str:
    r"""The key of a file in an archive: a plain relative name, whatever the name of the member.

    Examples
    --------
    >>> member_key("../../a.png"), member_key("/etc/a.png"), member_key("C:\\b\\.\\a.png"), member_key("..")
    ('a.png', 'etc/a.png', 'C_/b/a.png', 'unnamed')
    """
    parts = [part for part in re.split(r"[/\\]", name) if part not in ("", ".", "..")]
    return key_of(re.sub(r"^([A-Za-z]):", r"\1_", "/".join(parts))) or "unnamed"


def row_keys(n: int) -> list[str]:
    """The keys of the rows of a table or an array: their numbers, so that they sort as the rows do."""
    digits = max(6, len(str(n)))
    return [f"{row:0{digits}d}" for row in range(n)]


def file_name_of(key: str) -> str:
    """The file name that a key stands for, the inverse of `key_of`."""
    name = _ESCAPE.sub(lambda found: _meaning(found) or found[0], key)
    try:
        return os.fsdecode(os.fsencode(name))  # escaped bytes that form valid UTF-8 become characters
    except UnicodeEncodeError:
        return name


def file_of(folder: str | Path, key: str, *, link: bool = False) -> Path:
    """The file below a folder that a key names; see `atomic_io.within`, which may raise `UnsafePathError`."""
    return within(folder, file_name_of(key), link=link)


def video_frame_key(key: str, milliseconds: int, n_digits: int = 1) -> str:
    """The key of a frame of a video: that of the file and the time in seconds, as in a W3C Media Fragment.

    Whole seconds are padded with zeros to `n_digits`, so that keys are in the order of time.

    Examples
    --------
    >>> video_frame_key("a/clip.mp4", 12400), video_frame_key("a/clip.mp4", 8000, 2)
    ('a/clip.mp4#t=12.4', 'a/clip.mp4#t=08')
    """
    seconds, rest = divmod(milliseconds, 1000)
    return f"{key}#t={seconds:0{n_digits}d}" + (f".{rest:03d}".rstrip("0") if rest else "")


def video_frame(key: str) -> tuple[str, int] | None:
    """The key of the file and the milliseconds of a frame of a video; None for any other key.

    Examples
    --------
    >>> video_frame("a/clip.mp4#t=12.4"), video_frame("a/clip.mp4")
    (('a/clip.mp4', 12400), None)
    """
    found = _VIDEO_FRAME.fullmatch(key)
    return None if found is None else (found[1], int(found[2]) * 1000 + int((found[3] or "").ljust(3, "0")))


def copy_name(key: str) -> str:
    """The key under which a copy of an image is written: a frame of a video becomes a PNG file."""
    return f"{key}.png" if video_frame(key) else key


def is_key(text: str) -> bool:
    """Whether a text is a key as `key_of` makes it."""
    return key_of(file_name_of(text)) == text


def keys_of(text: str) -> list[str]:
    """The keys that a text from a person or a program may mean: the text itself, or the key of that file name."""
    meant = [*([] if re.search("[\ud800-\udfff]", text) else [text]), key_of(text)]
    # "ä" is one character or two (macOS); a typed name may be either.
    meant += [key_of(unicodedata.normalize(form, text)) for form in ("NFC", "NFD")]
    return list(dict.fromkeys(meant))


def _meaning(found: re.Match[str]) -> str | None:
    """The character that an escape stands for; None if `key_of` does not make such an escape."""
    byte, short, long = found.groups()
    code = int(byte or short or long, 16)
    if byte:
        character = chr(0xDC00 + code) if code >= 0x80 else chr(code)
    elif code > 0x10FFFF or code < (0x80 if short else 0x10000) or 0xDC80 <= code <= 0xDCFF:
        return None
    else:
        character = chr(code)
    return character if character == "\\" or UNSAFE.match(character) else None
