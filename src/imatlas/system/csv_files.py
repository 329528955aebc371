"""CSV files: written without formulas for spreadsheets, read in the variants that other programs write.

A cell that a spreadsheet would take for a formula is prefixed by an apostrophe, and so is text after a semicolon or bar
within a cell, where some programs begin another cell; reading removes them again. Supported are UTF-8, UTF-16 and
UTF-32 with a byte order mark, and Windows-1252; commas, semicolons, tabs and bars; Windows, Unix and old Mac newlines.
"""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
import stat
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from imatlas.errors import InputError, Notice, SourceError
from imatlas.system.atomic_io import replacing
from imatlas.system.terminal import visible

MAX_BYTES = 2**28
"""Maximal size of a file: 256 MiB."""

DELIMITERS = ",;\t|"

_FORMULA = re.compile(r"[\s']*[=+\-@\uff1d\uff0b\uff0d\uff20]|'*[\t\r\n]")
_LATER_FORMULA = r"(?=[\s'\"]*[=+\-@\uff1d\uff0b\uff0d\uff20])"
_AFTER_DELIMITER = re.compile(rf"(?<=[;\t|]){_LATER_FORMULA}")
"""Where a spreadsheet that splits at other delimiters than commas would begin a cell with a formula."""
_GUARD_AFTER_DELIMITER = re.compile(rf"(?<=[;\t|])'{_LATER_FORMULA}")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, which has the same prefix
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

_NO_TEXT = (
    (b"PK\x03\x04", "an Excel workbook, or another ZIP file"),
    (b"\xd0\xcf\x11\xe0", "an Excel 97-2003 workbook"),
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"%PDF", "a PDF"),
    (b"SQLite format 3", "a database"),
)


@dataclass(frozen=True)
class CsvRow:
    """One row: the number of its last line in the file, and its cells by column names in lower case."""

    line: int
    cells: dict[str, str]

    def __getitem__(self, column: str) -> str:
        return self.cells[column]


def cell(value: Any) -> Any:
    """A value as a cell: text that no spreadsheet takes for a formula; numbers unchanged."""
    if not isinstance(value, str):
        return value
    text = _AFTER_DELIMITER.sub("'", visible(value))
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def text_of(cell: str) -> str:
    """The text of a cell, the inverse of `cell`."""
    text = cell[1:] if cell.startswith("'") and _FORMULA.match(cell, 1) else cell
    return _GUARD_AFTER_DELIMITER.sub("", text)


def csv_bytes(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """A CSV file in UTF-8 with these rows."""
    text = io.StringIO(newline="")
    _write(text, columns, rows)
    return text.getvalue().encode()


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Replace a file by a CSV file in UTF-8 with these rows, which are written one by one."""
    with replacing(path) as aside, open(aside, "w", encoding="utf-8", newline="") as file:
        _write(file, columns, rows)


def _write(file: TextIO, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    writer = csv.writer(file)
    writer.writerow([cell(name) for name in columns])
    writer.writerows([cell(value) for value in row] for row in rows)


def read_csv(path: str | Path, required: Sequence[str], *, what: str) -> Iterator[CsvRow]:
    """Yield the non-empty rows of a CSV file.

    Comments before the header, which begin with "#", and empty rows are skipped. Missing cells are "".

    Parameters
    ----------
    path : path
        A regular file.
    required : sequence of str
        The columns that it must have, in any order and case; others are allowed.
    what : str
        What the file should be, for messages: "a plan", "a file of labels".

    Raises
    ------
    SourceError, InputError
        If the file is missing, too large, not CSV text, or lacks a column; with the line number.

    Warns
    -----
    UserWarning
        If it is not Unicode and is therefore read as Windows-1252.
    """
    path = Path(path)
    text = _text(_content(path, what), path)
    first, delimiter, names = _header(text, required, path, what)
    reader = csv.reader(io.StringIO(text[first:], newline=""), delimiter=delimiter, strict=True)
    before = _n_lines(text[:first])
    for number, cells in enumerate(_parsed(reader, before, path)):
        if number == 0 or not any(value.strip() for value in cells):
            continue
        line = before + reader.line_num
        if any(value.strip() for value in cells[len(names) :]):
            if not cells[0].startswith("#"):  # else a comment
                raise InputError(
                    f"Line {line} of '{path}' has {len(cells)} cells and its header {len(names)}; put a text that "
                    f"holds {delimiter!r} in double quotes."
                )
            continue
        values = [text_of(value) for value in cells]
        yield CsvRow(line, dict(zip(names, values + [""] * (len(names) - len(values)), strict=False)))


def _parsed(reader: Any, before: int, path: Path) -> Iterator[list[str]]:
    """The rows of a parser, with line numbers in its errors."""
    while True:
        began = before + reader.line_num + 1
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(
                f"The row that begins in line {began} of '{path}' cannot be read ({error}); is a double quote unclosed?"
            ) from None


def _content(path: Path, what: str) -> bytes:
    """The bytes of a regular file of bounded size; a pipe does not block."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError | ValueError | NotADirectoryError):
            raise SourceError(f"There is no file '{path}'; give {what}.") from None
        raise SourceError(f"'{path}' cannot be opened ({error.strerror}); give {what}.") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise SourceError(f"'{path}' is not a regular file; give {what}.")
    with open(descriptor, "rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise InputError(f"'{path}' is larger than {MAX_BYTES // 2**20} MiB, too large for {what}; give a smaller one.")
    return content


def _text(content: bytes, path: Path) -> str:
    """Bytes as text: by their byte order mark, as UTF-8, or as Windows-1252."""
    for mark, kind in _NO_TEXT:
        if content.startswith(mark):
            raise InputError(f"'{path}' is {kind}, not a text file; save it as CSV.")
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return _decoded(content[len(mark) :], encoding, path)
    head = content[:4096]
    if b"\0" in head:  # UTF-16 without a mark: every other byte of ASCII is 0
        even, odd = head[0::2].count(0), head[1::2].count(0)
        if max(even, odd) > 0.4 * len(head) / 2 and min(even, odd) == 0:
            return _decoded(content, "utf-16-be" if even else "utf-16-le", path)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        # Windows-1252 leaves five bytes undefined, which are controls in Latin-1.
        text = content.decode("cp1252", "latin_1_where_open")
        warnings.warn(
            f"'{path}' is not UTF-8 (line {line}) and was read as Windows-1252; if names look wrong, save it as UTF-8.",
            Notice,
            stacklevel=2,
        )
    return _without_nul(text, path)


def _decoded(content: bytes, encoding: str, path: Path) -> str:
    try:
        return _without_nul(content.decode(encoding), path)
    except UnicodeDecodeError as error:
        raise InputError(
            f"'{path}' is damaged: it is not valid {encoding.upper()} ({error.reason}); save it again."
        ) from None


def _without_nul(text: str, path: Path) -> str:
    if "\0" in text:
        line = _n_lines(text[: text.index("\0")]) + 1
        raise InputError(
            f"Line {line} of '{path}' contains a null byte, so it is not a text file; save it as CSV in UTF-8."
        )
    return text


def _open_byte(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return error.object[error.start : error.end].decode("latin-1"), error.end


codecs.register_error("latin_1_where_open", _open_byte)


def _header(text: str, required: Sequence[str], path: Path, what: str) -> tuple[int, str, list[str]]:
    """The offset of the header, the delimiter, and the column names in lower case."""
    best: list[str] = []
    for start, line in _lines(text):
        plain = line.strip().lstrip("\ufeff")
        named = re.fullmatch(r'"?sep=(.)"?', plain, re.IGNORECASE)  # Excel's declaration of the delimiter
        if not plain or named:
            continue
        comment = plain.startswith("#")
        for delimiter in DELIMITERS:
            names = _names(plain.lstrip("# ") if comment else plain, delimiter)
            if set(required) <= set(names):
                return start, delimiter, names
            if not comment and len(names) > len(best):
                best = names
        if not comment:
            break
    if text.lstrip("\ufeff \t\r\n").startswith(("{", "[")):
        raise InputError(f"'{path}' looks like JSON, not CSV; {what} must have the columns {', '.join(required)}.")
    best = [name if len(name) <= 40 else f"{name[:40]}…" for name in best[:10]]
    columns = f"{', '.join(required[:-1])} and {required[-1]}"
    raise InputError(
        f"'{path}', as {what}, must have the columns {columns}. Got {', '.join(best) or 'none'}; there is "
        f"no column {' and no column '.join(name for name in required if name not in best)}."
    )


def _names(line: str, delimiter: str) -> list[str]:
    try:
        cells = next(csv.reader([line[:10_000]], delimiter=delimiter), [])
    except csv.Error:
        return []
    return [text_of(name.strip()).strip().casefold() for name in cells]


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Each line with its offset."""
    start = 0
    for found in re.finditer(r"\r\n|\r|\n", text):
        yield start, text[start : found.start()]
        start = found.end()
    yield start, text[start:]


def _n_lines(text: str) -> int:
    """The number of newlines."""
    return text.count("\n") + text.count("\r") - text.count("\r\n")
