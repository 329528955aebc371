"""CSV files: no cell is a formula, round trips are lossless, and files of other programs are read."""

from __future__ import annotations

import codecs
import csv
import io
import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imatlas.errors import InputError, Notice, SourceError
from imatlas.system.csv_files import cell, csv_bytes, read_csv, text_of, write_csv
from imatlas.system.terminal import visible

ROWS = [("a.png", "fig"), ("Süd/b.png", "nut"), ("c.png", "€ oat")]


def rows_of(path) -> list[tuple[str, str]]:
    return [(row["key"], row["label"]) for row in read_csv(path, ("key", "label"), what="a file of labels")]


@pytest.mark.parametrize(
    "text", ["=1+1", "+a", "-a", "@SUM(A1)", "\t=1", "\r=1", " =1", "＝1", "－a", "'=1", "''@", "-1-1"]
)
def test_no_cell_is_a_formula_and_text_round_trips(text):
    written = cell(text)
    assert written[0] in "'\\"  # a control before it is an escape
    assert csv_bytes(["key"], [[text]]).decode().splitlines()[1].lstrip('"') == written
    assert cell(text_of(written)) == written


@pytest.mark.parametrize(
    "text",
    ["x;=HYPERLINK(1).jpg", "x|=1", ";-1", "a; +1", "a;'@b", 'a;"=1+1"', "=a;=b|=c", ";;=1", "x;＝1", "a;'=b;''=c"],
)
def test_no_cell_is_a_formula_with_other_delimiters(tmp_path, text):
    content = csv_bytes(["key", "more"], [["first", text], [text, "last"]]).decode()
    for delimiter in ";|\t":
        parsed = [value for row in csv.reader(io.StringIO(content, newline=""), delimiter=delimiter) for value in row]
        cut = [value for line in content.splitlines() for value in line.split(delimiter)]
        assert not [value for value in parsed + cut if value.strip(' "')[:1] in {*"=+-@＝"}]
    write_csv(tmp_path / "l.csv", ("key", "label"), [("first", text), (text, "last")])
    assert rows_of(tmp_path / "l.csv") == [("first", text), (text, "last")]


@pytest.mark.parametrize("value", [-1, 0.5, -2.5e-3, True, None, "-1", "+0.5", "-1e-3", "a=b", "'tis", "a.png", ""])
def test_numbers_and_ordinary_texts_are_unchanged(value):
    assert cell(value) == value


@given(st.text(st.sampled_from("'=+-@ a1.,;|\"＝"), max_size=6) | st.text(max_size=8))
def test_text_without_control_characters_round_trips(text):
    (read,) = csv.reader(io.StringIO(csv_bytes([text, "x"], []).decode(), newline=""))
    assert text_of(read[0]) == visible(text)


def test_a_file_round_trips(tmp_path):
    rows = [("=1.png", "'=x"), ("-rf.png", "a,b"), ('"q".png', "é"), ("#no comment.png", "-1"), (" s ", "+a")]
    write_csv(tmp_path / "l.csv", ("key", "label"), rows)
    assert rows_of(tmp_path / "l.csv") == rows


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
def test_encodings_delimiters_and_newlines(tmp_path, encoding, delimiter, end):
    lines = ["# made by hand", "", f" KEY {delimiter}Label", *(delimiter.join(row) for row in ROWS), delimiter, "", ""]
    path = tmp_path / "l.csv"
    path.write_bytes(end.join(lines).encode(encoding))
    if encoding == "cp1252":
        with pytest.warns(Notice, match="read as Windows-1252"):
            assert rows_of(path) == ROWS
    else:
        assert rows_of(path) == ROWS


def test_short_rows_other_columns_and_excels_sep_line(tmp_path):
    path = tmp_path / "l.csv"
    path.write_text('sep=;\r\nwho;label;key\r\nme;fig;"a;b.png"\r\nme\r\nme;nut\r\nyou;oat;c.png;;\r\n')
    assert rows_of(path) == [("a;b.png", "fig"), ("", ""), ("", "nut"), ("c.png", "oat")]


def test_bytes_undefined_in_windows_1252_are_read(tmp_path):
    path = tmp_path / "l.csv"
    path.write_bytes(b"key,label\na\x81.png,f\xe4n\n")
    with pytest.warns(Notice, match="line 2"):
        assert rows_of(path) == [("a\x81.png", "fän")]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "Got none"),
        (b"file,class\na,b\n", r"must have the columns key and label\. Got file, class"),
        (b"key,label\na,b.png,fig\n", "Line 2 .* 3 cells and its header 2"),
        (b'key,label\na.png,fig\n"b.png,nut\nc.png,oat\n', "begins in line 3"),
        (b"key,label\na.png,fig\n" + b"x" * 200_000 + b",nut\n", "begins in line 3"),
        (b"key,label\na\0.png,fig\nb.png,nut\nccccccccccccccccc,d\n", "Line 2 .* null byte"),
        (codecs.BOM_UTF16_LE + "key,label\n".encode("utf-16-le") + b"a", "damaged: it is not valid UTF-16-LE"),
    ],
)
def test_errors_name_the_line(tmp_path, content, words):
    path = tmp_path / "l.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words):
        rows_of(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK\x03\x04\x14\0\0\0", "Excel workbook.*save it as CSV"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "Excel 97-2003 workbook"),
        (b"PAR1\x15\x04", "a Parquet file"),
        (b'[{"key": "a.png", "label": "cat"}]', "looks like JSON"),
    ],
)
def test_files_of_other_kinds_are_named(tmp_path, content, words):
    (tmp_path / "labels").write_bytes(content)
    with pytest.raises(InputError, match=words):
        list(read_csv(tmp_path / "labels", ("key", "label"), what="a file of labels"))


def test_excels_sep_line_may_be_quoted(tmp_path):
    (tmp_path / "labels.csv").write_text('"sep=;"\nkey;label\na.png;cat\n')
    assert [row["label"] for row in read_csv(tmp_path / "labels.csv", ("key", "label"), what="labels")] == ["cat"]


def test_only_regular_files_of_bounded_size_are_opened(tmp_path, monkeypatch):
    with pytest.raises(SourceError, match="There is no file"):
        rows_of(tmp_path / "none.csv")
    with pytest.raises(SourceError, match="not a regular file"):
        rows_of(tmp_path)
    os.mkfifo(tmp_path / "pipe.csv")

    def read() -> None:
        with pytest.raises(SourceError, match="not a regular file"):
            rows_of(tmp_path / "pipe.csv")

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(5)
    assert not reader.is_alive(), "a pipe was waited for"
    monkeypatch.setattr("imatlas.system.csv_files.MAX_BYTES", 100)
    (tmp_path / "large.csv").write_text("key,label\n" + "a" * 100)
    with pytest.raises(InputError, match="too large"):
        rows_of(tmp_path / "large.csv")
