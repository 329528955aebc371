"""Duplicates in the studio: what is none, what is kept, and files that go to the trash and come back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import imatlas as ia
from imatlas.errors import InputError
from tests.studio.conftest import Studio
from tests.studio.test_server import result


@pytest.fixture
def source(learned: Path, tmp_path: Path) -> Path:
    """A copy of the folder, of which two equal files and one is a resized copy of them."""
    return Path(shutil.copytree(learned.with_name("photos"), tmp_path / "photos"))


@pytest.fixture
def copied(opened: Callable[..., Studio], learned: Path, source: Path, tmp_path: Path) -> Studio:
    """The studio of an atlas of that copy, whose files may be moved."""
    copy = Path(shutil.copytree(learned, tmp_path / "mine.atlas"))
    ia.learn(source, copy, progress=False, budget="25s", image_size=32, moved_from=learned.with_name("photos"))
    return opened(copy)


def searched(studio: Studio) -> list[list[dict[str, Any]]]:
    found: list[list[dict[str, Any]]] = result(studio, studio.json("/api/duplicates")["job"])["groups"]
    return found


def keys(groups: list[list[dict[str, Any]]]) -> list[list[str]]:
    return [[each["key"] for each in group] for group in groups]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_undo_brings_the_files_of_a_plan_back_and_redo_moves_them_again(
    copied: Studio, source: Path, opened: Callable[..., Studio]
) -> None:
    before = names(source)
    group = next(group for group in searched(copied) if "59.png" in keys([group])[0])
    rows = [each["row"] for each in group[1:]]
    gone = sorted(each["key"] for each in group[1:])
    moved = copied.json("/api/duplicates/move", {"rows": rows})["atlas"]
    assert moved["undo"] == f"move {len(rows)} image{'s' if len(rows) > 1 else ''} to the trash"
    copied.json("/api/decisions", {"kind": "label", "rows": [0], "value": "cat"})
    again = opened(copied.folder)  # the next day
    assert again.json("/api/undo", {})["sentences"] == []  # the label
    assert names(source) == sorted(set(before) - set(gone))
    back = again.json("/api/undo", {})
    assert back["sentences"][0].startswith(f"Restored {len(rows)} file")
    assert (back["moved"], names(source), back["redo"]) == ([], before, moved["undo"])
    redone = opened(copied.folder).json("/api/redo", {})
    assert "nothing was deleted" in redone["sentences"][0]
    assert redone["moved"] == rows
    brought = copied.json("/api/duplicates/undo", {})  # the button does the same, so nothing is left to undo
    assert (brought["atlas"]["undo"], names(source)) == (None, before)


def test_what_cannot_come_back_is_told(copied: Studio, source: Path) -> None:
    group = next(group for group in searched(copied) if "59.png" in keys([group])[0])
    copied.json("/api/duplicates/move", {"rows": [each["row"] for each in group[1:]]})
    gone = group[1]["key"]
    (source / gone).write_bytes(b"another file")
    sentences = copied.json("/api/undo", {})["sentences"]
    assert "another file has its name now" in sentences[1]
    assert (source / gone).read_bytes() == b"another file"
    assert copied.json("/api/atlas")["undo"] is None
    status, content, _ = copied.ask("/api/redo", {})
    assert status == 400
    assert "already applied" in json.loads(content)["error"]
    (source / gone).unlink()
    copied.json("/api/duplicates/undo", {})
    copied.json("/api/redo", {})
    shutil.rmtree(source.with_name("photos-trash"))
    assert "neither in the trash nor in" in copied.json("/api/undo", {})["sentences"][0]


def test_another_copy_is_kept_and_images_are_no_duplicates(copied: Studio, opened: Callable[..., Studio]) -> None:
    found = searched(copied)
    group = next(group for group in found if "59.png" in keys([group])[0])
    assert {each["kind"] for each in group} >= {"", "exact"}
    other = group[1]
    chosen = copied.json("/api/decisions", {"kind": "best", "row": other["row"]})
    assert chosen["undo"] == "choose the image to keep of a duplicate group"
    now = copied.json("/api/duplicates/groups")["groups"]
    assert next(g for g in keys(now) if other["key"] in g)[0] == other["key"]
    assert next(g for g in keys(searched(copied)) if other["key"] in g)[0] == other["key"]  # by a new search, too
    plan = copied.folder.with_name("plan.csv")
    ia.Atlas(copied.folder).duplicates().plan(plan)
    assert f"{other['key']},keep" in plan.read_text(encoding="utf-8-sig")
    copied.json("/api/decisions", {"kind": "different", "rows": [each["row"] for each in group]})
    expected = [g for g in keys(found) if "59.png" not in g]
    answer = copied.json("/api/duplicates/groups")
    assert (keys(answer["groups"]), answer["different"]) == (expected, sorted(each["row"] for each in group))
    assert keys(searched(opened(copied.folder))) == expected
    assert copied.ask("/api/duplicates/move", {"rows": [other["row"]]})[0] == 400
    copied.json("/api/undo", {})
    assert len(copied.json("/api/duplicates/groups")["groups"]) == len(found)  # without a new search
    copied.json("/api/undo", {})
    assert keys(searched(copied)) == keys(found)
    one, rest = group[1]["row"], [each["row"] for each in group if each is not group[1]]
    copied.json("/api/decisions", {"kind": "different", "rows": [one], "others": rest})
    assert all(group[1]["key"] not in g for g in keys(searched(copied)))
    copied.json("/api/decisions", {"kind": "different", "rows": [one], "value": False})
    assert keys(searched(copied)) == keys(found)
    status, content, _ = copied.ask("/api/decisions", {"kind": "different", "rows": [one], "value": False})
    assert (status, "None of these" in json.loads(content)["error"]) == (400, True)


def test_learning_again_marks_duplicates_as_they_were_reviewed(copied: Studio, source: Path) -> None:
    def marked() -> dict[str, Any]:
        table = ia.Atlas(copied.folder).table()
        both = zip(table["key"].to_pylist(), table["duplicate_of"].to_pylist(), strict=True)
        return {key: original for key, original in both if original is not None}

    def learn() -> None:
        ia.learn(source, copied.folder, progress=False, budget="25s", image_size=32)

    before = marked()
    assert before["59.png"] == "04.png"
    atlas = ia.Atlas(copied.folder)
    atlas.best_duplicate("59.png")
    learn()
    assert marked() == {**{key: of for key, of in before.items() if key != "59.png"}, "04.png": "59.png"}
    atlas.not_duplicates(["04.png", "59.png"])
    learn()
    assert marked() == {key: of for key, of in before.items() if key != "59.png"}
    atlas.undo()
    atlas.undo()
    learn()
    assert marked() == before
    with pytest.raises(InputError, match="no image"):
        atlas.not_duplicates(["04.png", "none.png"])
