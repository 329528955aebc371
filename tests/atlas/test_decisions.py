"""Decisions about images: they last, are undone, and survive a process that dies while it writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import imatlas as ia
from imatlas.atlas.decisions import NAME, Decisions
from imatlas.errors import ArtifactError, AtlasBusyError, InputError, UnsafePathError
from imatlas.system.locks import locked
from imatlas.testing import synthetic_images


def test_decisions_add_up_and_are_undone_in_order(tmp_path: Path) -> None:
    decisions = Decisions(tmp_path)
    decisions.label(["a", "b"], "cat")
    decisions.label(["b"], None)
    decisions.leave_out(["c", "d"])
    decisions.leave_out(["d"], False)
    state = decisions.name_cluster("a", " first ")
    assert (state.labels, state.left_out, state.names) == ({"a": "cat"}, {"c"}, {("a",): "first"})
    assert state.undo == "name a cluster 'first'"
    assert decisions.undo().names == {}
    assert decisions.undo().left_out == {"c", "d"}
    assert decisions.redo().left_out == {"c"}
    assert decisions.label(["e"], "dog").redo is None  # what was undone is forgotten
    with pytest.raises(InputError, match="nothing to redo"):
        decisions.redo()
    assert Decisions(tmp_path).state.labels == {"a": "cat", "e": "dog"}


def test_several_labels_are_one_decision(tmp_path: Path) -> None:
    decisions = Decisions(tmp_path)
    decisions.label(["a"], "old")
    state = decisions.label_each({"a": " cat ", "b": "dog", "c": "dog"})
    assert state.labels == {"a": "cat", "b": "dog", "c": "dog"}
    assert state.undo == "label 3 images with 2 labels"
    assert Decisions(tmp_path).state.labels == state.labels
    assert decisions.undo().labels == {"a": "old"}
    for labels in ({}, {"a": "  "}):
        with pytest.raises(InputError, match="not empty"):
            decisions.label_each(labels)
    path = tmp_path / NAME
    path.write_bytes(path.read_bytes() + b'{"kind": "label", "keys": ["a", "b"], "values": ["x"]}\n')
    with pytest.raises(ArtifactError, match="one for each key"):
        Decisions(tmp_path).state  # noqa: B018


def test_another_process_sees_what_was_decided(tmp_path: Path) -> None:
    one, other = Decisions(tmp_path), Decisions(tmp_path)
    one.label(["a"], "x")
    assert other.state.labels == {"a": "x"}
    other.undo()
    assert one.state.labels == {}
    with pytest.raises(InputError, match="nothing to undo"):
        one.undo()
    assert Decisions(tmp_path).state.revision == 2


@pytest.mark.parametrize("n_bytes", [1, 10, 40])
def test_a_line_that_was_cut_off_is_ignored_and_then_replaced(tmp_path: Path, n_bytes: int) -> None:
    decisions = Decisions(tmp_path)
    decisions.label(["a"], "x")
    decisions.label(["b"], "y")
    path = tmp_path / NAME
    path.write_bytes(path.read_bytes()[:-n_bytes])
    again = Decisions(tmp_path)
    assert again.state.labels == {"a": "x"}
    again.label(["c"], "z")
    assert Decisions(tmp_path).state.labels == {"a": "x", "c": "z"}


def test_a_damaged_line_is_told_and_nothing_is_written(tmp_path: Path) -> None:
    Decisions(tmp_path).label(["a"], "x")
    path = tmp_path / NAME
    path.write_bytes(path.read_bytes() + b'{"kind": "explode"}\n')
    before = path.read_bytes()
    with pytest.raises(ArtifactError, match="Line 2"):
        Decisions(tmp_path).label(["b"], "y")
    assert path.read_bytes() == before


def test_links_are_not_followed_and_a_lock_is_respected(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / NAME).symlink_to(tmp_path / "mine.txt")
    with pytest.raises((UnsafePathError, ArtifactError)):
        Decisions(tmp_path).label(["a"], "x")
    assert (tmp_path / "mine.txt").read_text() == "mine"
    (tmp_path / NAME).unlink()
    with locked(tmp_path / ".decisions.lock", tmp_path), pytest.raises(AtlasBusyError):
        Decisions(tmp_path).label(["a"], "x")
    assert not (tmp_path / NAME).exists()


def test_the_next_learning_leaves_out_what_was_decided_and_labels_are_used(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    dark_and_bright = np.repeat([40, 210], 8)
    for i, pixels in enumerate(synthetic_images(16, size=16, channels=3)):
        Image.fromarray((pixels // 8 + dark_and_bright[i]).astype(np.uint8)).save(folder / f"{i:02d}.png")
    options = {"budget": "1s", "encoder": "own", "image_size": 16, "progress": False}
    atlas = ia.learn(folder, tmp_path / "a.atlas", **options)
    atlas.decisions.leave_out(["03.png", "gone.png"])
    atlas.decisions.label(["00.png", "01.png"], "dark")
    atlas.decisions.label(["14.png", "15.png"], "bright")
    again = ia.learn(folder, tmp_path / "a.atlas", **options)
    assert "03.png" not in again.keys
    assert len(again) == 15
    assert set(again.classify().labels) == {"dark", "bright"}
    again.decisions.leave_out(["03.png"], False)
    assert len(ia.learn(folder, tmp_path / "a.atlas", **options)) == 16


def test_names_of_any_letters_come_back(tmp_path: Path) -> None:
    key = "ä\\x0a '\"\u202e 猫.png"
    Decisions(tmp_path).label([key], 'Käse, "a"\n')
    assert Decisions(tmp_path).state.labels == {key: 'Käse, "a"'}
    with pytest.raises(ValueError, match="200"):
        Decisions(tmp_path).label([key], "x" * 201)
