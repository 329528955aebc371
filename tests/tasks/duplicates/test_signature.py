"""Signatures and locks belong to one user."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from imatlas.errors import ImatlasError
from imatlas.system import user_folders
from imatlas.tasks.duplicates import lock, signature
from imatlas.tasks.duplicates.lock import locked
from imatlas.tasks.duplicates.signature import is_signed, sign


def test_the_lock_is_not_a_file_that_others_could_have_made(folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with locked(folder), pytest.raises(ImatlasError, match="Another process"), locked(folder):
        raise AssertionError("both hold it")
    assert not (tmp_path / "state").exists()
    monkeypatch.setattr(lock, "folder_lock", lambda *_: None)  # a file system that cannot lock a folder
    with locked(folder), pytest.raises(ImatlasError, match="Another process"), locked(folder):
        raise AssertionError("both hold it")
    (tmp_path / "state" / "imatlas").chmod(0o777)
    monkeypatch.setattr(user_folders.tempfile, "gettempdir", lambda: str(tmp_path / "x"))
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / f"imatlas-{os.getuid()}").symlink_to(tmp_path / "state")
    assert user_folders.user_folder() is None
    assert signature.sign("x") == ""
    with locked(folder):
        pass


def test_a_signature_is_valid_for_one_user_only(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "mine"))
    word = sign("/a")
    assert is_signed("/a", word)
    assert not is_signed("/b", word)
    assert not is_signed("/a", "")
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "mine" / "imatlas").iterdir()] == [0o600]
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "theirs"))
    assert not is_signed("/a", word)
