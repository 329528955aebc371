"""Plans are written, read, and refused where they are invalid or not the user's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from imatlas.cli import main
from imatlas.errors import ArtifactError, InputError
from imatlas.tasks.duplicates.plans import read_plan
from imatlas.tasks.duplicates.trash import apply_plan
from tests.tasks.duplicates.plan_files import edited, everything


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("a.jpg,keep,1", "a.jpg,move,1", "Every image of group 1"),
        ("b.jpg,keep,2", "b.jpg,drop,2", "must be keep or move"),
        ("b2.jpg,move,2", "../b2.jpg,move,2", "must name a file in the folder"),
        ("b2.jpg,move,2", "/etc/passwd,move,2", "must name a file in the folder"),
        ("b2.jpg,move,2", "b.jpg,move,2", "more than once"),
        ("key,action", "name,action", "no column key"),
    ],
)
def test_an_invalid_plan_is_refused(folder: Path, plan: Path, old: str, new: str, words: str) -> None:
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


def test_a_plan_keeps_files_behind_a_link_and_one_more(folder: Path, private: Path, tmp_path: Path) -> None:
    from PIL import Image

    photos = tmp_path / "pictures"
    photos.mkdir()
    rng = __import__("numpy").random.default_rng(0)
    pixels = rng.integers(0, 255, (40, 40, 3), "uint8").repeat(4, 0).repeat(4, 1)
    for path in (photos / "b.png", photos / "c.png", private / "x.png", private / "y.png"):
        Image.fromarray(pixels).save(path)
    (photos / "a-linked").symlink_to(private)
    (photos / "a.png").symlink_to(private / "x.png")
    before = everything(private)
    assert main(["duplicates", str(photos), "-o", str(tmp_path / "plan.csv")]) == 0
    actions = {row.key: row.action for row in read_plan(tmp_path / "plan.csv").rows}
    assert actions == {
        "a.png": "keep",
        "a-linked/x.png": "keep",
        "a-linked/y.png": "keep",
        "b.png": "keep",
        "c.png": "move",
    }
    assert main(["duplicates", "--apply", str(tmp_path / "plan.csv")]) == 0
    assert everything(private) == before
    assert sorted(os.listdir(photos)) == ["a-linked", "a.png", "b.png"]


def test_a_plan_for_another_folder_than_the_one_named_is_refused(
    folder: Path, plan: Path, private: Path, tmp_path: Path
) -> None:
    before = everything(tmp_path)
    with pytest.raises(ArtifactError, match="which still exists, not for"):
        read_plan(plan, private)
    edited(plan, str(folder), str(private))
    with pytest.raises(ArtifactError, match="which still exists, not for"):
        read_plan(plan, folder)
    with pytest.raises(ArtifactError, match=r"was not made here for .*private'; .*imatlas duplicates .*--apply"):
        read_plan(plan)
    plan.unlink()
    assert everything(tmp_path) == {k: v for k, v in before.items() if k != "plan.csv"}


def test_a_plan_that_came_with_a_folder_moves_files_only_there(folder: Path, plan: Path, private: Path) -> None:
    rows = [line.rsplit(",", 1)[0] for line in plan.read_text().splitlines()]  # unsigned
    came = folder / "plan.csv"
    came.write_text("\n".join(rows).replace(str(folder), str(private)))
    with pytest.raises(ArtifactError, match="was not made here"):
        read_plan(came)
    came.write_text("\n".join(rows))
    assert apply_plan(read_plan(came)).metrics == {"n_moved": 3}
