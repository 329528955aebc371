"""Edited duplicates are found and grouped, different images are not; leaks; plans."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from imatlas import Images
from imatlas.cli import main
from imatlas.errors import ArtifactError, InputError
from imatlas.tasks.duplicates import candidates
from imatlas.tasks.duplicates.gallery import Gallery
from imatlas.tasks.duplicates.groups import find_duplicates
from imatlas.tasks.duplicates.plans import read_plan


def patches(n: int) -> list[Image.Image]:
    """Different crops of photographs."""
    from skimage import data

    pictures = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]
    found = []
    for i in range(n):
        picture = pictures[i % len(pictures)]
        top, left = 37 * (i // 4) % (picture.shape[0] - 160), 53 * (i // 4) % (picture.shape[1] - 160)
        found.append(Image.fromarray(picture[top : top + 160, left : left + 160]))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("duplicates") / "photos"
    (folder / "more").mkdir(parents=True)
    pieces = patches(20)
    for i, piece in enumerate(pieces):
        piece.save(folder / f"{i:02d}.png")
    (folder / "more" / "same.png").write_bytes((folder / "00.png").read_bytes())
    pieces[1].save(folder / "more" / "small.jpg", quality=50)
    pieces[2].crop((0, 8, 146, 154)).save(folder / "more" / "crop.png")
    ImageEnhance.Brightness(pieces[3]).enhance(0.7).save(folder / "more" / "dark.jpg", quality=90)
    pieces[4].resize((90, 90)).save(folder / "more" / "little.png")
    pieces[5].transpose(Image.Transpose.ROTATE_90).save(folder / "more" / "rotated.jpg", quality=90)
    pieces[6].transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "more" / "mirrored.jpg", quality=90)
    return folder


def kinds_of(folder: Path, **options) -> dict[str, tuple[str, str]]:
    found = find_duplicates(folder, **options).result.data["groups"]
    return {each["key"]: (group["best"], each["kind"]) for group in found for each in group["duplicates"]}


def test_each_edit_is_found_and_nothing_else(folder: Path) -> None:
    near = {
        "more/same.png": ("00.png", "exact"),
        "more/small.jpg": ("01.png", "near"),
        "more/crop.png": ("02.png", "near"),
        "more/dark.jpg": ("03.png", "near"),
        "more/little.png": ("04.png", "near"),
    }
    assert kinds_of(folder) == near
    rotated = {"more/rotated.jpg": ("05.png", "rotated by 270°"), "more/mirrored.jpg": ("06.png", "mirrored")}
    assert kinds_of(folder, rotated=True) == near | rotated


def test_the_answer_does_not_depend_on_the_order(folder: Path) -> None:
    images = Images(folder, image_size=64, fit="stretch")
    order = np.random.default_rng(0).permutation(len(images))
    keys = np.array(
        ["00.png" if key == "more/same.png" else key for key in images.keys]
    )  # of equals, the first is kept
    one, other = find_duplicates(images), find_duplicates(images[order])
    bests = dict(zip(keys, keys[one.best_of], strict=True))
    assert bests == dict(zip(keys[order], keys[order][other.best_of], strict=True))


def test_groups_larger_than_the_candidate_lists_are_complete(folder: Path) -> None:
    pieces = [np.asarray(piece) for piece in patches(12)]
    many = [np.clip(pieces[0].astype(int) + 3 * i, 0, 255).astype(np.uint8) for i in range(1, 15)]
    found = find_duplicates(np.stack(pieces + many))
    assert found.result.metrics == {"n_images": 26, "n_groups": 1, "n_duplicates": 14, "n_exact": 0}
    assert found.best.nonzero()[0].tolist() == [0]


def test_search_in_cells_finds_what_the_exhaustive_search_finds(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    images = Images(folder, image_size=64, fit="stretch")
    whole = find_duplicates(images, rotated=True)
    monkeypatch.setattr(candidates, "EXHAUSTIVE_LIMIT", 10)
    np.testing.assert_array_equal(find_duplicates(images, rotated=True).best_of, whole.best_of)


def test_leaks_name_the_other_image(folder: Path) -> None:
    found = find_duplicates(folder / "more", against=[folder / f"{i:02d}.png" for i in range(20)])
    assert {leak["key"]: leak["other"] for leak in found.result.data["leaks"]} == {
        "same.png": "00.png",
        "small.jpg": "01.png",
        "crop.png": "02.png",
        "dark.jpg": "03.png",
        "little.png": "04.png",
    }


def test_one_image_and_flat_ones_have_no_duplicates() -> None:
    assert find_duplicates(np.zeros((1, 20, 20, 3), np.uint8)).result.metrics["n_duplicates"] == 0
    flat = np.full((3, 20, 20, 3), [[[[10]]], [[[120]]], [[[240]]]], np.uint8)
    assert find_duplicates(flat).result.metrics["n_duplicates"] == 0


@pytest.mark.parametrize("copy", ["b (1).png", "b copy.png", "b-Copy 2.png"])
def test_of_equal_files_the_copy_goes(tmp_path: Path, copy: str) -> None:
    patches(1)[0].save(tmp_path / "b.png")
    (tmp_path / copy).write_bytes((tmp_path / "b.png").read_bytes())  # comes first in order
    assert kinds_of(tmp_path) == {copy: ("b.png", "exact")}


def test_a_plan_needs_files_of_a_folder(tmp_path: Path) -> None:
    found = find_duplicates(np.zeros((2, 20, 20, 3), np.uint8))
    assert found.result.metrics["n_exact"] == 1
    with pytest.raises(InputError, match="files of a folder"):
        found.plan(tmp_path / "plan.csv")


def test_plan_apply_and_undo_from_the_command_line(folder: Path, tmp_path: Path, capsys) -> None:
    plan = tmp_path / "plan.csv"
    assert main(["duplicates", str(folder), "--rotated", "-o", str(plan), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["n_duplicates"] == 7
    with plan.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["action"] for row in rows] == ["keep", "move"] * 7
    before = sorted(path.relative_to(folder) for path in folder.rglob("*"))
    assert main(["duplicates", "--apply", str(plan)]) == 0
    assert "Moved 7 files" in capsys.readouterr().out
    trash = folder.with_name("photos-trash")
    assert (trash / "0001" / "more" / "crop.png").is_file()
    assert main(["duplicates", "--apply", str(plan)]) == 1
    assert "already applied" in capsys.readouterr().err
    assert main(["duplicates", str(folder), "--undo"]) == 0
    assert sorted(path.relative_to(folder) for path in folder.rglob("*")) == before
    assert not trash.exists()


def test_wrong_calls_are_usage_errors(tmp_path: Path, capsys) -> None:
    assert main(["duplicates"]) == 2
    assert main(["duplicates", "x", "--undo", "--apply", "plan.csv"]) == 2
    assert main(["duplicates", str(tmp_path / "none")]) == 1
    assert "no file or folder" in capsys.readouterr().err


def test_a_folder_recorded_by_an_atlas_must_be_named_before_its_files_are_moved(folder: Path, tmp_path: Path) -> None:
    """The atlas may come from somebody else, and record a folder of the user."""
    plan, gallery = tmp_path / "plan.csv", replace(Gallery.of(folder), user_named_folder=False)
    gallery.keys[gallery.keys.index("more/same.png")] = "../same.png"
    find_duplicates(gallery).plan(plan)
    assert ".." not in plan.read_text()
    with pytest.raises(ArtifactError, match="was not made here"):
        read_plan(plan)
    assert read_plan(plan, folder).folder == folder
