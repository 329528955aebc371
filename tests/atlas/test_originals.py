"""Originals: found by their keys in the folder they came from, and nowhere else."""

from __future__ import annotations

import hashlib
import os

import numpy as np
import pytest

from imatlas.atlas.originals import Originals
from imatlas.errors import DecodeError
from imatlas.images.encode import encode
from imatlas.images.sources.files import FileSource


def test_keys_of_a_stranger_name_files_of_the_folder_alone(tmp_path) -> None:
    photos, home = tmp_path / "photos", tmp_path / "home"
    (photos / "sub").mkdir(parents=True), home.mkdir()
    for path in (photos / "sub" / "a.jpg", home / "b.jpg", home / "c.jpg"):
        path.write_bytes(path.name.encode())
    (photos / "linked").symlink_to(home)
    (photos / "d.jpg").symlink_to(home / "c.jpg")
    os.mkfifo(photos / "pipe.jpg")
    originals = Originals(str(photos))
    assert originals.path("sub/a.jpg") == photos / "sub" / "a.jpg"
    for key in ("linked/b.jpg", "d.jpg"):  # links that the user himself has put there: found by listing
        assert originals.path(key) == photos / key
        assert originals.read(key) == (photos / key).read_bytes()
    for key in (
        "../home/b.jpg",
        str(home / "b.jpg"),
        "sub/../../home/b.jpg",
        "linked/../home/b.jpg",
        "",
        ".",
        "pipe.jpg",
    ):
        assert originals.path(key) is None
        with pytest.raises(DecodeError):
            originals.read(key)
    assert Originals("").path("sub/a.jpg") is None
    assert Originals(str(tmp_path / "gone")).path("sub/a.jpg") is None


def test_what_is_handed_on_is_a_picture_with_the_hash_that_is_known(tmp_path) -> None:
    picture = encode(np.zeros((4, 4, 3), np.uint8))
    for name, content in (("a.png", picture), ("id_rsa", b"-----BEGIN KEY-----"), ("b.png", picture + b"\0")):
        (tmp_path / name).write_bytes(content)
    originals = Originals(str(tmp_path))
    known = hashlib.sha256(picture).hexdigest()
    assert originals.content("a.png", known) == picture
    for key in ("id_rsa", "b.png"):
        with pytest.raises(DecodeError, match="has changed"):
            originals.content(key, known)
    with pytest.raises(DecodeError, match="not a picture"):
        originals.content("id_rsa", hashlib.sha256(b"-----BEGIN KEY-----").hexdigest())


@pytest.mark.parametrize("source", ["", "/**/*.jpg"])
def test_no_key_of_a_stranger_makes_a_whole_source_be_listed(tmp_path, monkeypatch, source) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "sbin").symlink_to("bin")
    (tmp_path / "bin" / "ls.jpg").write_bytes(b"ls")

    def refuse(*_: object) -> None:
        raise AssertionError("the source was listed")

    originals = Originals(f"{tmp_path}{source}")
    monkeypatch.setattr(FileSource, "from_folder", refuse)
    monkeypatch.setattr(FileSource, "from_pattern", refuse)
    for key in ("../x", "/etc/passwd", "gone.jpg", "", "sbin/../../x", "a" * 300):
        assert originals.path(key) is None
        with pytest.raises(DecodeError, match="any more"):
            originals.read(key)
    if not source:
        assert originals.read("sbin/ls.jpg") == b"ls"
