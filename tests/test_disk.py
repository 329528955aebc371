"""Names that stay in their folder, writes that are whole or not there, deletions by list."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from imatlas.disk import open_new, remove_listed, replacing, within, write_file, write_folder
from imatlas.errors import ArtifactError, UnsafePathError


@pytest.mark.parametrize("name", ["", ".", "/etc/passwd", "../x", "a/../../x", "a/..", "a\0b"])
def test_a_name_that_leads_out_of_its_folder_is_refused(tmp_path, name) -> None:
    with pytest.raises(UnsafePathError, match="does not lie in"):
        within(tmp_path, name)


@pytest.mark.parametrize("name", ["a.png", "a/b.png", "12:30.png", "a\\b.png", "..a", "a..b/c", " "])
def test_any_name_below_the_folder_is_taken(tmp_path, name) -> None:
    assert within(tmp_path, name) == tmp_path / name


def test_links_are_seen_on_the_whole_way(tmp_path) -> None:
    home, photos = tmp_path / "home", tmp_path / "photos"
    home.mkdir(), photos.mkdir()
    (home / "a.png").write_bytes(b"mine")
    (photos / "linked").symlink_to(home)
    (photos / "b.png").symlink_to(home / "a.png")
    for name in ("linked/a.png", "linked", "b.png"):
        with pytest.raises(UnsafePathError, match="is a link"):
            within(photos, name)
    assert within(photos, "b.png", link=True) == photos / "b.png"
    with pytest.raises(UnsafePathError):
        within(photos, "linked/a.png", link=True)
    (tmp_path / "way").symlink_to(photos)
    assert within(tmp_path / "way", "c.png") == tmp_path / "way" / "c.png"  # the folder's own name is trusted


def test_new_files_never_follow_a_link_and_have_names_that_nobody_guesses(tmp_path) -> None:
    mine = tmp_path / "mine"
    mine.write_bytes(b"mine")
    (tmp_path / "out").symlink_to(mine)
    with pytest.raises(FileExistsError):
        open_new(tmp_path / "out")
    names = set()
    for _ in range(2):
        with replacing(tmp_path / "out") as aside:
            names.add(aside.name)
            aside.write_bytes(b"new")
    assert len(names) == 2
    assert mine.read_bytes() == b"mine"
    assert (tmp_path / "out").read_bytes() == b"new"
    assert not (tmp_path / "out").is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["mine", "out"]


def test_a_write_that_fails_leaves_what_stood_there(tmp_path) -> None:
    write_file(tmp_path / "a", b"old")
    with pytest.raises(UnicodeEncodeError), replacing(tmp_path / "a") as aside:
        aside.write_text("half \ud800", encoding="utf-8")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _fill(*names: str):
    def write(folder: Path) -> None:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(name.encode())

    return write


def test_a_folder_is_overwritten_only_where_all_of_it_is_ours(tmp_path) -> None:
    folder = tmp_path / "model"
    write_folder(folder, _fill("a", "sub/b"))
    with pytest.raises(ArtifactError, match="already exists"):
        write_folder(folder, _fill("a"))
    for mine in ("notes.txt", "sub/notes.txt", "empty-folder/"):
        (folder / mine).mkdir() if mine.endswith("/") else (folder / mine).write_text("mine")
        with pytest.raises(ArtifactError, match=f"holds '{mine.rstrip('/')}', which imatlas did not write"):
            write_folder(folder, _fill("a"), replaces=("a", "sub/b"))
        assert (folder / "sub" / "b").read_bytes() == b"sub/b"
        (folder / mine).rmdir() if mine.endswith("/") else (folder / mine).unlink()
    write_folder(folder, _fill("c"), replaces=("a", "sub/b"))
    assert os.listdir(tmp_path) == ["model"]
    assert os.listdir(folder) == ["c"]


def test_a_folder_behind_a_link_is_not_overwritten(tmp_path) -> None:
    write_folder(tmp_path / "real", _fill("a"))
    (tmp_path / "model").symlink_to(tmp_path / "real")
    with pytest.raises(ArtifactError, match="not a folder that imatlas wrote"):
        write_folder(tmp_path / "model", _fill("a"), replaces=("a",))


def test_only_what_is_listed_goes_and_never_through_a_link(tmp_path) -> None:
    ours, home = tmp_path / "ours", tmp_path / "home"
    home.mkdir()
    (home / "a").write_text("mine")
    _fill("a", "sub/b", "sub/mine", "deep/er/c")(ours)
    (ours / "link").symlink_to(home)
    (ours / "l").symlink_to(home / "a")
    remove_listed(ours, ["a", "sub/b", "deep/er/c", "gone", "link/a", "../home/a", str(home / "a"), "sub", "l"])
    assert (home / "a").read_text() == "mine"
    assert sorted(p.relative_to(ours).as_posix() for p in ours.rglob("*")) == ["link", "sub", "sub/mine"]
    (ours / "sub" / "mine").unlink(), (ours / "link").unlink()
    remove_listed(ours, ["sub/b"])
    assert not ours.exists()
