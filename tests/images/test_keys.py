"""Keys and file names: one to one for any name."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imatlas.images.keys import file_name_of, is_key, key_of, keys_of
from imatlas.system.terminal import UNSAFE

PLAIN = ["a.png", "b/a b.png", "12:30.png", "a\\b.png", "=1+1.png", "[/b].png", "…", "é☃.png", "#.png", "\\user.png"]


def test_keys_of_equivalent_unicode_names():
    composed, apart = "\u00c4pfel.jpg", "A\u0308pfel.jpg"
    assert keys_of(composed)[0] == composed
    assert keys_of(apart)[0] == apart
    assert apart in keys_of(composed)
    assert composed in keys_of(apart)


@pytest.mark.parametrize("name", PLAIN)
def test_an_ordinary_name_is_its_own_key(name):
    assert key_of(name) == name == file_name_of(name)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        (b"\xff.png", "\\xff.png"),
        (b"\\xff.png", "\\x5cxff.png"),
        (b"\\x5cxff.png", "\\x5cx5cxff.png"),
        (b"\x1b]0;a\x07.png", "\\x1b]0;a\\x07.png"),
        (b"a\nb.png", "a\\x0ab.png"),
        ("\u202egnp.exe".encode(), "\\u202egnp.exe"),
        ("\u0085.png".encode(), "\\u0085.png"),
        (b"\x85.png", "\\x85.png"),
        (b"\\u202e.png", "\\x5cu202e.png"),
    ],
)
def test_unprintable_names_are_escaped(name, key):
    assert key_of(os.fsdecode(name)) == key
    assert os.fsencode(file_name_of(key)) == name


@given(st.binary(max_size=12) | st.text("\\xu0125cdeff\udcff\udcc3\udca9\x1b\n\x85\u202eé").map(os.fsencode))
def test_key_and_name_are_one_to_one(content):
    name = os.fsdecode(content)
    key = key_of(name)
    assert not UNSAFE.search(key)
    assert os.fsencode(file_name_of(key)) == content
    assert is_key(key)


def test_keys_are_unique():
    assert file_name_of("\\xc3\\xa9.png") == "é.png"
    assert not is_key("\\xc3\\xa9.png")
    assert not is_key("a\nb.png")
    assert not is_key("\\x5cz.png")
