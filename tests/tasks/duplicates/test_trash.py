"""Applying a plan and undoing it: no file is lost, whatever is edited, changed or interrupted."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

import pytest

from imatlas.errors import ArtifactError, ImatlasError, InputError, SourceError
from imatlas.tasks.duplicates.lock import locked
from imatlas.tasks.duplicates.plans import LOG, PlanRow, read_plan, write_plan
from imatlas.tasks.duplicates.trash import apply_plan, undo
from tests.tasks.duplicates.plan_files import contents, edited, everything, rows_of


def test_there_and_back(folder: Path, plan: Path) -> None:
    before = contents(folder)
    trash = Path(apply_plan(read_plan(plan)).data["trash"])
    assert set(contents(trash)) == {"sub/a copy.jpg", "sub/a, again.jpg", "b2.jpg"}
    assert contents(trash) | contents(folder) == before
    with pytest.raises(ArtifactError, match="already applied"):
        apply_plan(read_plan(plan))
    assert undo(folder).metrics == {"n_restored": 3, "n_left": 0}
    assert contents(folder) == before
    assert not trash.parent.exists()
    with pytest.raises(SourceError, match="nothing to restore"):
        undo(folder)
    assert apply_plan(read_plan(plan)).metrics == {"n_moved": 3}


@pytest.mark.parametrize("name", ["link", "unlink", "mkdir"])
@pytest.mark.parametrize("calls", range(4))
@pytest.mark.parametrize("after", ["apply", "undo"])
def test_interrupted_at_any_step_nothing_is_lost_and_both_ways_continue(
    folder: Path, plan: Path, monkeypatch: pytest.MonkeyPatch, name: str, calls: int, after: str
) -> None:
    before, root = contents(folder), folder.parent
    real, left = getattr(os, name), [calls]

    def cut(*arguments, **options):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, name, cut)
        with contextlib.suppress(KeyboardInterrupt):
            apply_plan(read_plan(plan))
    everywhere = {content for where in (folder, root / "photos-trash") for content in contents(where).values()}
    assert everywhere == set(before.values())
    if after == "apply":
        with contextlib.suppress(ArtifactError):  # "already applied", where the cut came after the end
            apply_plan(read_plan(plan))
        assert set(contents(folder)) == {"a.jpg", "b.jpg"}
    try:
        undo(folder)
    except SourceError:  # nothing was begun
        assert after == "undo"
    assert contents(folder) == before


def test_undo_never_overwrites_a_new_file(folder: Path, plan: Path) -> None:
    old = (folder / "b2.jpg").read_bytes()
    trash = Path(apply_plan(read_plan(plan)).data["trash"])
    (folder / "b2.jpg").write_bytes(b"new")
    undone = undo(folder)
    assert undone.metrics == {"n_restored": 2, "n_left": 1}
    assert "b2.jpg: another file has its name now" in undone.sentences[1]
    assert (folder / "b2.jpg").read_bytes() == b"new"
    assert (trash / "b2.jpg").read_bytes() == old
    (folder / "b2.jpg").unlink()
    assert undo(folder).metrics == {"n_restored": 1, "n_left": 0}
    assert (folder / "b2.jpg").read_bytes() == old


@pytest.mark.parametrize("key", ["b2.jpg", "b.jpg"])
@pytest.mark.parametrize("change", ["edit", "remove"])
def test_changed_files_stop_it_before_anything_moves(folder: Path, plan: Path, key: str, change: str) -> None:
    if change == "edit":
        (folder / key).write_bytes(b"edited")
    else:
        (folder / key).unlink()
    before = contents(folder)
    with pytest.raises(ArtifactError, match="make a new plan"):
        apply_plan(read_plan(plan))
    assert contents(folder) == before
    assert not (folder.parent / "photos-trash").exists()


def test_a_kept_link_to_a_moved_file_does_not_count(folder: Path, tmp_path: Path) -> None:
    (folder / "b.jpg").unlink()
    (folder / "b.jpg").symlink_to(folder / "b2.jpg")
    write_plan(rows_of(folder), folder, tmp_path / "plan.csv")
    with pytest.raises(ArtifactError, match="No image that group 2 keeps"):
        apply_plan(read_plan(tmp_path / "plan.csv"))


def test_a_folder_that_was_moved_must_be_named(folder: Path, plan: Path) -> None:
    moved = folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(SourceError, match="where it is now"):
        apply_plan(read_plan(plan))
    assert apply_plan(read_plan(plan, moved)).metrics == {"n_moved": 3}


def test_a_second_process_is_refused(folder: Path, plan: Path) -> None:
    with locked(folder), pytest.raises(ImatlasError, match="Another process"):
        apply_plan(read_plan(plan))


def test_files_behind_a_link_are_never_moved(folder: Path, private: Path, tmp_path: Path) -> None:
    (folder / "linked").symlink_to(private)
    (folder / "one.jpg").symlink_to(private / "b2.jpg")
    sha256 = hashlib.sha256((private / "b2.jpg").read_bytes()).hexdigest()
    kept = PlanRow("b2.jpg", "keep", "1", "", sha256)
    before = everything(tmp_path)
    for key in ("linked/b2.jpg", "one.jpg"):
        write_plan([kept, PlanRow(key, "move", "1", "", sha256)], folder, tmp_path / "plan.csv")
        with pytest.raises(ArtifactError, match=f"is a link.* Remove the line of '{key}'"):
            apply_plan(read_plan(tmp_path / "plan.csv"))
        (tmp_path / "plan.csv").unlink()
    assert everything(tmp_path) == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"key": "b2.jpg"', '"key": "{mine}"'),
        ('"key": "b2.jpg"', '"key": "../../home/private/b2.jpg"'),
        ('"key": "b2.jpg"', '"key": "linked/b2.jpg"'),
        ('"key": "b2.jpg"', '"key": ""'),
        ('"key": "b2.jpg"', '"key": 3'),
        ('"key": "b2.jpg"', '"key": "b2.jpg\\u0000"'),
        ('"format": 1', '"format": 2'),
        ('"sha256": "', '"sha256": "x'),
        ('"done": true', '"done": "yes"'),
        ('"files": [', '"files": "'),
        ('"plan": "', '"plan": ' + "[" * 100_000 + '"'),
    ],
)
def test_an_edited_log_deletes_and_overwrites_nothing(
    folder: Path, plan: Path, private: Path, tmp_path: Path, old: str, new: str
) -> None:
    trash = Path(apply_plan(read_plan(plan)).data["trash"])
    (folder / "linked").symlink_to(private)
    (trash / "linked").mkdir()
    (trash / "linked" / "b2.jpg").write_bytes((trash / "b2.jpg").read_bytes())
    edited(trash / LOG, old, new.replace("{mine}", str(private / "b2.jpg")))
    before = everything(tmp_path)
    (private / "b2.jpg").unlink()
    for _ in range(2):
        assert left_or_refused(folder) in (1, "refused")
        assert not (private / "b2.jpg").exists()
    (private / "b2.jpg").write_bytes(before["home/private/b2.jpg"])
    left_or_refused(folder)
    assert (private / "b2.jpg").read_bytes() == before["home/private/b2.jpg"]
    assert everything(private) == {"b.jpg": b"b.jpg" * 100, "b2.jpg": b"b2.jpg" * 100}
    assert trash.joinpath("b2.jpg").exists() or folder.joinpath("b2.jpg").exists()


def left_or_refused(folder: Path) -> int | str:
    try:
        return undo(folder).metrics["n_left"]
    except ArtifactError:
        return "refused"


def test_a_trash_that_is_a_link_is_not_used(folder: Path, plan: Path, private: Path, tmp_path: Path) -> None:
    (tmp_path / "photos-trash").symlink_to(private)
    before = everything(tmp_path)
    for call in (lambda: apply_plan(read_plan(plan)), lambda: undo(folder)):
        with pytest.raises(ArtifactError, match="is not a folder"):
            call()
    assert everything(tmp_path) == before
    (tmp_path / "photos-trash").unlink()
    (tmp_path / "photos-trash").mkdir()
    (tmp_path / "photos-trash" / "0001").symlink_to(private)
    assert apply_plan(read_plan(plan)).metrics == {"n_moved": 3}
    assert sorted(os.listdir(private)) == ["b.jpg", "b2.jpg"]


def test_links_in_the_trash_are_not_followed(folder: Path, plan: Path, private: Path) -> None:
    trash = Path(apply_plan(read_plan(plan)).data["trash"])
    (trash / "b2.jpg").rename(trash / "saved")
    (trash / "b2.jpg").symlink_to(private / "b2.jpg")
    (folder / "sub").rename(folder / "elsewhere")
    (folder / "sub").symlink_to(private)
    assert undo(folder).metrics == {"n_restored": 0, "n_left": 3}
    assert sorted(os.listdir(private)) == ["b.jpg", "b2.jpg"]
    assert (trash / "sub" / "a copy.jpg").is_file()


def test_a_file_that_changed_in_the_trash_stays_there(folder: Path, plan: Path) -> None:
    trash = Path(apply_plan(read_plan(plan)).data["trash"])
    (trash / "b2.jpg").write_bytes(b"another")
    (trash / "empty").mkdir()  # a user's own
    undone = undo(folder)
    assert undone.metrics == {"n_restored": 2, "n_left": 1}
    assert "not the file that was moved there" in undone.sentences[1]
    assert (trash / "b2.jpg").read_bytes() == b"another"
    (trash / "b2.jpg").unlink()
    undo(folder)
    assert os.listdir(trash) == ["empty"]


def test_the_log_of_another_folder_is_not_used(folder: Path, plan: Path, tmp_path: Path) -> None:
    trash = Path(apply_plan(read_plan(plan)).data["trash"])
    other = tmp_path / "other"
    other.mkdir()
    trash.parent.rename(tmp_path / "other-trash")
    with pytest.raises(ArtifactError, match="which still exists, not for"):
        undo(other)
    assert not os.listdir(other)
    folder.rename(tmp_path / "gone") and other.rmdir()
    (tmp_path / "gone").rename(other)  # the folder with its trash, under another name
    assert undo(other).metrics == {"n_restored": 3, "n_left": 0}


def test_hard_links_count_as_two_files_only_while_both_stay(folder: Path, tmp_path: Path) -> None:
    (folder / "b.jpg").unlink()
    os.link(folder / "b2.jpg", folder / "b.jpg")
    write_plan(rows_of(folder), folder, tmp_path / "plan.csv")
    assert apply_plan(read_plan(tmp_path / "plan.csv")).metrics == {"n_moved": 3}
    assert (folder / "b.jpg").read_bytes() == b"b2.jpg" * 100
    assert undo(folder).metrics == {"n_restored": 3, "n_left": 0}
    text = (tmp_path / "plan.csv").read_text().replace("b2.jpg,move", "./b.jpg,move")
    (tmp_path / "plan.csv").write_text(text)
    with pytest.raises(InputError, match="must name a file in the folder"):  # one file under two spellings
        read_plan(tmp_path / "plan.csv")


def test_pipes_and_folders_are_refused(folder: Path, plan: Path, tmp_path: Path) -> None:
    (folder / "b2.jpg").unlink()
    os.mkfifo(folder / "b2.jpg")
    with pytest.raises(ArtifactError, match="has changed"):
        apply_plan(read_plan(plan))
    os.mkfifo(tmp_path / "pipe.csv")
    for other in (tmp_path / "pipe.csv", folder):
        with pytest.raises(SourceError):
            read_plan(other)


def test_the_root_of_a_disk_has_no_trash() -> None:
    with pytest.raises(InputError, match="is the root of a disk"):
        undo("/")
