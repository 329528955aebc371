"""Names confined to their folder, atomic writes, deletion by list."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from imatlas.errors import ArtifactError, UnsafePathError
from imatlas.system import atomic_io
from imatlas.system.atomic_io import (
    check_free,
    make_folder,
    open_append,
    open_new,
    output_path,
    refuse_links,
    remove_listed,
    replacing,
    within,
    write_file,
    write_folder,
)


@pytest.mark.parametrize("name", ["", ".", "/", "/etc/passwd", "../x", "a/../../x", "a/..", "a\0b", "a\ud800"])
def test_a_name_that_leads_out_of_its_folder_is_refused(tmp_path, name) -> None:
    with pytest.raises(UnsafePathError, match="leads out of"):
        within(tmp_path, name)


@pytest.mark.parametrize("name", ["a.png", "a/b.png", "12:30.png", "a\\b.png", "..a", "a..b/c", " "])
def test_any_name_below_the_folder_is_accepted(tmp_path, name) -> None:
    assert within(tmp_path, name) == tmp_path / name


def test_links_are_detected_at_every_level(tmp_path) -> None:
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


def test_new_files_have_random_names_and_follow_no_links(tmp_path) -> None:
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


def test_a_failed_write_keeps_the_old_file(tmp_path) -> None:
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


def test_a_folder_is_overwritten_only_if_imatlas_wrote_all_of_it(tmp_path) -> None:
    folder = tmp_path / "model"
    write_folder(folder, _fill("a", "sub/b"))
    with pytest.raises(ArtifactError, match="already exists"):
        write_folder(folder, _fill("a"))
    for mine in ("notes.txt", "sub/notes.txt", "empty-folder/"):
        (folder / mine).mkdir() if mine.endswith("/") else (folder / mine).write_text("mine")
        with pytest.raises(ArtifactError, match=f"contains '{mine.rstrip('/')}', which imatlas did not write"):
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


def test_only_listed_files_are_deleted_and_never_through_a_link(tmp_path) -> None:
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


def test_special_files_are_neither_replaced_nor_opened(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(ArtifactError, match="so it is not replaced"):
            write_file(tmp_path / name, b"new")
        with pytest.raises(ArtifactError, match="so it is not replaced"):
            open_append(tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == ["folder", "pipe"]


def test_long_names_and_missing_folders(tmp_path) -> None:
    for name in ("a" * 251 + ".csv", "ö" * 127, "new/folder/a.csv"):
        write_file(tmp_path / name, b"new")
        assert (tmp_path / name).read_bytes() == b"new"


def test_appending_follows_no_links_and_keeps_other_hard_links(tmp_path) -> None:
    mine = tmp_path / "mine"
    mine.write_bytes(b"mine")
    (tmp_path / "link").symlink_to(mine)
    with pytest.raises(UnsafePathError, match="is a link"):
        open_append(tmp_path / "link")
    os.link(mine, tmp_path / "second")
    for name in ("second", "new"):
        with open_append(tmp_path / name) as file:
            file.write(b"+")
    assert [(tmp_path / name).read_bytes() for name in ("mine", "second", "new")] == [b"mine", b"mine+", b"+"]


def test_links_among_outputs_are_refused_at_any_depth(tmp_path) -> None:
    _fill("log", "cache/a/b/c")(tmp_path)
    refuse_links(tmp_path, ["log", "gone", "cache/", "gone/"])
    (tmp_path / "cache" / "a" / "b" / "link").symlink_to(tmp_path)
    (tmp_path / "out").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "pipe")
    for name, error in (
        ("cache/", UnsafePathError),
        ("out", UnsafePathError),
        ("out/", UnsafePathError),
        ("pipe", ArtifactError),
        ("log/", ArtifactError),
        ("cache", ArtifactError),
    ):
        with pytest.raises(error, match=name.strip("/")):
            refuse_links(tmp_path, ["log", name])


@pytest.mark.parametrize("in_one_step", [True, False])
@pytest.mark.parametrize("calls", range(4))
def test_a_kill_at_any_step_leaves_the_old_or_the_new_folder(tmp_path, monkeypatch, in_one_step, calls) -> None:
    folder, real, left = tmp_path / "model", os.rename, [calls]
    write_folder(folder, _fill("a"))

    class KilledError(BaseException):
        pass

    def cut(*arguments) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KilledError
        real(*arguments)

    if not in_one_step:
        monkeypatch.setattr(atomic_io, "_exchange", lambda one, other: False)
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", cut)
        patch.setattr(atomic_io, "remove_listed", lambda *_: cut(tmp_path / "gone", tmp_path / "gone too"))
        with contextlib.suppress(KilledError, OSError):
            write_folder(folder, _fill("b"), replaces=["a"])
    there = [folder] if in_one_step or folder.exists() else list(tmp_path.glob("model.before-*"))
    assert os.listdir(there[0]) in (["a"], ["b"])


def test_a_file_created_during_a_replacement_is_kept_with_a_warning(tmp_path, monkeypatch) -> None:
    folder, real = tmp_path / "model", atomic_io._change_places
    write_folder(folder, _fill("a"))

    def meanwhile(aside: Path, folder: Path) -> Path:
        (folder / "holiday.jpg").write_bytes(b"mine")
        return real(aside, folder)

    monkeypatch.setattr(atomic_io, "_change_places", meanwhile)
    with pytest.warns(UserWarning, match="others wrote to"):
        write_folder(folder, _fill("b"), replaces=["a"])
    [kept] = tmp_path.glob("model.before-*")
    assert os.listdir(kept) == ["holiday.jpg"]
    assert os.listdir(folder) == ["b"]


def test_a_folder_with_other_files_is_refused_before_and_after_writing(tmp_path) -> None:
    folder = tmp_path / "model"
    write_folder(folder, _fill("a"))

    def long_work(aside: Path) -> None:
        (folder / "holiday.jpg").write_bytes(b"mine")

    with pytest.raises(ArtifactError, match="holiday"):
        write_folder(folder, long_work, replaces=["a"])
    assert sorted(os.listdir(folder)) == ["a", "holiday.jpg"]
    assert os.listdir(tmp_path) == ["model"]


def test_replacements_keep_permissions(tmp_path) -> None:
    write_file(tmp_path / "page", b"old")
    (tmp_path / "page").chmod(0o600)
    write_file(tmp_path / "page", b"new")
    assert (tmp_path / "page").stat().st_mode & 0o777 == 0o600


def test_an_output_path_does_not_depend_on_existing_folders(tmp_path) -> None:
    (tmp_path / "keep").mkdir()
    (tmp_path / "way").symlink_to(tmp_path / "keep")
    keep = Path(os.path.realpath(tmp_path)) / "keep"
    assert output_path(tmp_path / "keep" / "a") == tmp_path / "keep" / "a"  # as it was typed
    for typed in ("keep/x/../a", "keep/x/y/../../a", "way/x/../a", "keep/x/../../keep/a"):
        assert output_path(tmp_path / typed) == keep / "a"
    for typed in ("keep/x/..", "way/x/..", "x/../way"):
        assert Path(os.path.realpath(output_path(tmp_path / typed))) == keep
    (keep / "a").symlink_to(tmp_path / "elsewhere")
    assert output_path(tmp_path / "keep/x/../a") == keep / "a"  # the last name may be a link, which is reported


def test_dots_after_a_missing_folder_hide_no_existing_output(tmp_path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a").write_text("mine")
    for call in (write_folder, check_free):
        with pytest.raises(ArtifactError, match="already exists"):
            call(tmp_path / "x" / ".." / "model", *([_fill("a")] if call is write_folder else [None]))
    write_file(tmp_path / "x" / ".." / "model" / "y" / ".." / "b", b"new")
    assert (tmp_path / "model" / "b").read_bytes() == b"new"
    assert sorted(os.listdir(tmp_path)) == ["model"]
    assert sorted(os.listdir(tmp_path / "model")) == ["a", "b"]


def test_a_parent_that_is_not_a_folder_is_named(tmp_path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "broken").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "pipe")
    for name in ("file", "broken", "pipe"):
        for below in ("", "a", "a/b"):
            with pytest.raises(ArtifactError, match=rf"{name}' is not a folder, so nothing can be written there"):
                make_folder(tmp_path / name / below)
        with pytest.raises(ArtifactError, match=rf"{name}' is not a folder"):
            write_file(tmp_path / name / "a", b"")
