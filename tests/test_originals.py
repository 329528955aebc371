"""Originals: found by their keys in the folder they came from, and nowhere else."""

from __future__ import annotations

import os

import pytest

from imatlas.errors import DecodeError
from imatlas.originals import Originals


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
