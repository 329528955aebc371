"""Plans: nothing is lost, whatever is edited, changed or cut short."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

import pytest

from imatlas.errors import ArtifactError, ImatlasError, InputError, SourceError
from imatlas.tasks import tidy
from imatlas.tasks.tidy import PlanRow, apply_plan, read_plan, undo, write_plan


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for key in ("a.jpg", "sub/a copy.jpg", "sub/a, again.jpg", "b.jpg", "b2.jpg"):
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(key.encode() * 100)
    return folder


def rows_of(folder: Path) -> list[PlanRow]:
    def row(key: str, action: str, group: str) -> PlanRow:
        return PlanRow(key, action, group, "why", hashlib.sha256((folder / key).read_bytes()).hexdigest())

    return [
        row("a.jpg", "keep", "1"),
        row("sub/a copy.jpg", "move", "1"),
        row("sub/a, again.jpg", "move", "1"),
        row("b.jpg", "keep", "2"),
        row("b2.jpg", "move", "2"),
    ]


@pytest.fixture
def plan(folder: Path, tmp_path: Path) -> Path:
    write_plan(rows_of(folder), folder, tmp_path / "plan.csv")
    return tmp_path / "plan.csv"


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file() and p.name != tidy.LOG}


def test_there_and_back(folder: Path, plan: Path) -> None:
    before = contents(folder)
    told = apply_plan(read_plan(plan))
    trash = Path(told.data["trash"])
    assert set(contents(trash)) == {"sub/a copy.jpg", "sub/a, again.jpg", "b2.jpg"}
    assert contents(trash) | contents(folder) == before
    with pytest.raises(ArtifactError, match="applied already"):
        apply_plan(read_plan(plan))
    assert undo(folder).metrics == {"back": 3, "left": 0}
    assert contents(folder) == before
    assert not trash.parent.exists()
    with pytest.raises(SourceError, match="nothing to bring back"):
        undo(folder)
    assert apply_plan(read_plan(plan)).metrics == {"moved": 3}


@pytest.mark.parametrize("name", ["link", "unlink", "mkdir"])
@pytest.mark.parametrize("calls", range(4))
@pytest.mark.parametrize("after", ["apply", "undo"])
def test_cut_at_any_step_nothing_is_lost_and_both_ways_go_on(
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
        with contextlib.suppress(ArtifactError):  # "applied already", where the cut came after the end
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
    told = undo(folder)
    assert told.metrics == {"back": 2, "left": 1}
    assert "b2.jpg (another file has its name now" in told.sentences[1]
    assert (folder / "b2.jpg").read_bytes() == b"new"
    assert (trash / "b2.jpg").read_bytes() == old
    (folder / "b2.jpg").unlink()
    assert undo(folder).metrics == {"back": 1, "left": 0}
    assert (folder / "b2.jpg").read_bytes() == old


@pytest.mark.parametrize("key", ["b2.jpg", "b.jpg"])
@pytest.mark.parametrize("change", ["edit", "remove"])
def test_what_changed_since_stops_it_before_anything_moves(folder: Path, plan: Path, key: str, change: str) -> None:
    if change == "edit":
        (folder / key).write_bytes(b"edited")
    else:
        (folder / key).unlink()
    before = contents(folder)
    with pytest.raises(ArtifactError, match=r"make the plan anew"):
        apply_plan(read_plan(plan))
    assert contents(folder) == before
    assert not (folder.parent / "photos-trash").exists()


def test_a_kept_link_to_a_moved_file_is_no_copy(folder: Path, tmp_path: Path) -> None:
    (folder / "b.jpg").unlink()
    (folder / "b.jpg").symlink_to(folder / "b2.jpg")
    write_plan(rows_of(folder), folder, tmp_path / "plan.csv")
    with pytest.raises(ArtifactError, match="No copy that group 2 keeps"):
        apply_plan(read_plan(tmp_path / "plan.csv"))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("a.jpg,keep,1", "a.jpg,move,1", "Every copy of group 1"),
        ("b.jpg,keep,2", "b.jpg,drop,2", "must be keep or move"),
        ("b2.jpg,move,2", "../b2.jpg,move,2", "must name a file in the folder"),
        ("b2.jpg,move,2", "/etc/passwd,move,2", "must name a file in the folder"),
        ("b2.jpg,move,2", "b.jpg,move,2", "more than once"),
        ("key,action", "name,action", "no column key"),
    ],
)
def test_a_plan_that_was_edited_wrongly_is_refused(folder: Path, plan: Path, old: str, new: str, words: str) -> None:
    text = plan.read_text()
    assert old in text
    plan.write_text(text.replace(old, new))
    with pytest.raises(InputError, match=words):
        read_plan(plan)


def test_a_plan_from_a_spreadsheet_is_read(folder: Path, plan: Path) -> None:
    text = plan.read_text().replace('"sub/a, again.jpg"', "sub/a copy 3.jpg").replace(",", ";")
    plan.write_bytes(b"\xef\xbb\xbf" + text.replace("move;2", "KEEP ;2").encode())
    read = read_plan(plan)
    assert [row.key for row in read.moves] == ["sub/a copy.jpg", "sub/a copy 3.jpg"]


def test_a_folder_that_was_moved_is_named(folder: Path, plan: Path) -> None:
    moved = folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(SourceError, match="where it is now"):
        apply_plan(read_plan(plan))
    assert apply_plan(read_plan(plan, moved)).metrics == {"moved": 3}


def test_a_second_process_waits_its_turn(folder: Path, plan: Path) -> None:
    with tidy._locked(folder), pytest.raises(ImatlasError, match="Another process"):
        apply_plan(read_plan(plan))
