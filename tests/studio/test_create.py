"""New images over HTTP: every recipe, the same images after a restart, and where their pixels come from."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import imatlas as ia
from imatlas.atlas.recipes import packed
from tests.studio.conftest import Studio
from tests.studio.test_server import last_event, result

MASK = np.zeros((32, 32), bool)
MASK[8:20, 10:24] = True
RECIPES: dict[str, dict[str, Any]] = {
    "anywhere": {"kind": "sample", "n": 2, "seed": 1},
    "places": {"kind": "sample", "images": ["04.png", "05.png"], "n": 3, "novelty": 0.8},
    "tile": {"kind": "sample", "images": ["04.png"], "n": 1, "tile": True},
    "variations": {"kind": "sample", "images": ["04.png"], "n": 2, "strength": 0.4},
    "morph": {"kind": "morph", "images": ["04.png", "05.png"], "frames": 5},
    "blend": {"kind": "blend", "images": ["04.png", "05.png"], "n": 2, "axis": "vertical"},
    "panorama": {"kind": "panorama", "images": ["04.png", "05.png"], "n": 1},
    "inpaint": {"kind": "inpaint", "images": ["04.png"], "mask": packed(MASK), "n": 2},
    "extend": {"kind": "extend", "images": ["04.png"], "right": 8, "top": 5, "n": 2},
}
SIZES = {"panorama": (96, 32), "extend": (40, 37)}
NUMBERS = {"morph": 5, "places": 3, "tile": 1, "panorama": 1}


def made(studio: Studio, recipe: dict[str, Any]) -> Any:
    return result(studio, studio.json("/api/create", recipe)["job"])


def file_of(studio: Studio, creation: str, image: int) -> Image.Image:
    status, content, _ = studio.ask(f"/api/creations/{creation}/{image}")
    assert status == 200, content
    return Image.open(io.BytesIO(content))


def pixels_of(studio: Studio, creation: str, image: int) -> np.ndarray:
    return np.asarray(file_of(studio, creation, image))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_makes_the_same_images_after_a_restart(
    name: str, studio: Studio, opened: Callable[..., Studio]
) -> None:
    found = made(studio, RECIPES[name])
    assert found["n"] == NUMBERS.get(name, 2)
    assert RECIPES[name].items() <= found["recipe"].items()
    before = [file_of(studio, found["id"], i) for i in range(found["n"])]
    assert {image.size for image in before} == {SIZES.get(name, (32, 32))}
    stored = json.loads(before[-1].text["imatlas"])
    assert (stored["recipe"], stored["image"]) == (found["recipe"], found["n"] - 1)
    again = opened(studio.folder)
    (listed,) = again.json("/api/creations")["creations"]
    assert listed["recipe"] == found["recipe"]
    assert listed["pictures"]
    assert again.ask(f"/api/creations/{found['id']}/0")[0] == 404  # not at hand yet
    recalled = result(again, again.json(f"/api/creations/{found['id']}", {})["job"])
    assert recalled["same_generator"]
    assert recalled["n"] == found["n"]
    for i, image in enumerate(before):
        assert np.array_equal(pixels_of(again, found["id"], i), np.asarray(image))
    assert again.json(f"/api/creations/{found['id']}", {})["result"]["id"] == found["id"]  # now it is at hand
    assert again.json("/api/creations")["total"] == 1


def test_another_seed_makes_others_and_variants_are_its_successors(studio: Studio) -> None:
    first = made(studio, {**RECIPES["inpaint"], "seed": 7})
    second = made(studio, {**RECIPES["inpaint"], "seed": 8})
    one, other = (pixels_of(studio, first["id"], i) for i in range(2))
    assert not np.array_equal(one, other)
    assert np.array_equal(pixels_of(studio, second["id"], 0), other)


def test_only_what_is_masked_changes_and_an_extended_image_keeps_its_own(studio: Studio) -> None:
    given = np.asarray(Image.open(io.BytesIO(studio.ask("/api/generator/images/4")[1])))
    assert given.shape == (32, 32, 3)
    filled = pixels_of(studio, made(studio, RECIPES["inpaint"])["id"], 0)
    assert np.array_equal(filled[~MASK], given[~MASK])
    assert (filled[MASK] != given[MASK]).any()
    wide = pixels_of(studio, made(studio, RECIPES["extend"])["id"], 0)
    assert np.array_equal(wide[5:, :32], given)


def test_pixels_know_their_source(studio: Studio) -> None:
    found = made(studio, RECIPES["places"])
    numbers = np.frombuffer(studio.ask(f"/api/creations/{found['id']}/1/sources")[1], np.uint8)
    assert len(numbers) == 32 * 32
    sources = found["sources"][1]
    shares = [source["share"] for source in sources]
    assert shares == sorted(shares, reverse=True)
    assert np.isclose(sum(shares), 1)
    for number, source in enumerate(sources):
        assert source["key"] == ia.Atlas(studio.folder).keys[source["row"]]
        assert np.isclose((numbers == number).mean(), source["share"])
    assert studio.ask(f"/api/creations/{made(studio, RECIPES['morph'])['id']}/1/sources")[0] == 404


def test_a_tile_has_no_seam(studio: Studio) -> None:
    tile, plain = ({**RECIPES["places"], "n": 8, "tile": tile} for tile in (True, False))

    def seam(recipe: dict[str, Any]) -> float:
        id = made(studio, recipe)["id"]
        images = [pixels_of(studio, id, i).astype(float) for i in range(8)]
        return float(np.mean([np.abs(image[:, 0] - image[:, -1]).mean() for image in images]))

    assert seam(tile) < 0.6 * seam(plain)


def test_what_the_generator_cannot_make_is_told_and_refused(studio: Studio) -> None:
    about = studio.json("/api/generator")
    assert (about["name"], about["width"], about["height"]) == ("PatchDiffusion", 32, 32)
    assert set(about["cannot"]) == {"sliders"}
    job = studio.json("/api/create", {"kind": "sliders"})["job"]
    assert last_event(studio, job)["error"] == about["cannot"]["sliders"]
    assert studio.json("/api/creations")["total"] == 0


def test_images_are_kept_and_no_longer(studio: Studio, opened: Callable[..., Studio]) -> None:
    id = made(studio, RECIPES["anywhere"])["id"]
    assert studio.json("/api/keep", {"id": id, "image": 1, "kept": True}) == {"note": ""}
    again = opened(studio.folder)
    (kept,) = again.json("/api/creations")["kept"]
    assert (kept["id"], kept["image"]) == (id, 1)
    assert again.ask("/api/keep", {"id": id, "image": 0, "kept": True})[0] == 404  # not at hand
    again.json("/api/keep", {"id": id, "image": 1, "kept": False})
    assert again.json("/api/creations")["kept"] == []
    assert studio.ask("/api/keep", {"id": id, "image": 2, "kept": True})[0] == 404
    assert studio.ask("/api/keep", {"id": "0" * 16, "image": 0, "kept": True})[0] == 404


def test_what_was_cancelled_is_not_remembered(studio: Studio) -> None:
    first = studio.json("/api/create", {"kind": "sample", "n": 64, "tile": True})["job"]
    waiting = studio.json("/api/create", {"kind": "sample", "n": 1})["job"]
    for job in (first, waiting):
        assert studio.json(f"/api/jobs/{job}", method="DELETE")["state"] == "cancelled"
    found = made(studio, {"kind": "sample", "n": 1, "seed": 5})
    assert [one["id"] for one in studio.json("/api/creations")["creations"]] == [found["id"]]


def test_a_morph_is_a_video(studio: Studio) -> None:
    video = Image.open(io.BytesIO(studio.ask(f"/api/creations/{made(studio, RECIPES['morph'])['id']}/video")[1]))
    assert (video.format, video.n_frames, video.size) == ("WEBP", 5, (32, 32))


def test_a_read_only_studio_makes_but_writes_nothing(opened: Callable[..., Studio]) -> None:
    studio = opened(read_only=True)
    found = made(studio, RECIPES["anywhere"])
    assert found["note"] == ""
    studio.json("/api/keep", {"id": found["id"], "image": 0, "kept": True})
    assert [one["id"] for one in studio.json("/api/creations")["kept"]] == [found["id"]]
    assert not (studio.folder / "creations.jsonl").exists()


def test_an_earlier_creation_of_another_generator_says_so(studio: Studio, opened: Callable[..., Studio]) -> None:
    id = made(studio, RECIPES["anywhere"])["id"]
    path = studio.folder / "creations.jsonl"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "generator": "0" * 16}) + '\n{"id": "half a li')
    again = opened(studio.folder)
    assert not again.json("/api/creations")["creations"][0]["same_generator"]
    assert not result(again, again.json(f"/api/creations/{id}", {})["job"])["same_generator"]


@pytest.mark.parametrize(
    ("recipe", "error"),
    [
        ({"kind": "sample", "images": ["gone.png"]}, "There is no image 'gone.png'"),
        ({"kind": "sample", "images": ["../photos/04.png"]}, "There is no image"),
        ({"kind": "inpaint", "images": ["04.png"], "mask": packed(np.ones((3, 3), bool))}, "one bit per pixel"),
        ({"kind": "inpaint", "images": ["04.png"], "mask": "no base 64"}, "one bit per pixel"),
        ({"kind": "inpaint", "images": ["04.png"], "mask": packed(np.zeros((32, 32), bool))}, "no missing pixels"),
        ({"kind": "extend", "images": ["04.png"]}, "by at least one pixel"),
        ({"kind": "sample", "images": ["04.png"], "strength": 0.5, "tile": True}, "'tile'"),
    ],
)
def test_what_does_not_fit_fails_in_words(recipe: dict[str, Any], error: str, studio: Studio) -> None:
    assert error in last_event(studio, studio.json("/api/create", recipe)["job"])["error"]


def test_no_path_of_a_request_is_read(studio: Studio, folder: Path) -> None:
    recipe = {"kind": "sample", "images": [str(folder / "04.png")], "strength": 0.5}
    assert "There is no image" in last_event(studio, studio.json("/api/create", recipe)["job"])["error"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"kind": "explode"},
        {"kind": "sample", "n": 65},
        {"kind": "sample", "novelty": 2},
        {"kind": "sample", "seed": -1},
        {"kind": "sample", "colour": "red"},
        {"kind": "morph", "images": ["04.png"]},
        {"kind": "blend", "images": ["04.png", "05.png", "06.png"]},
        {"kind": "extend", "images": ["04.png"], "left": 513},
    ],
)
def test_bad_recipes_are_refused(body: dict[str, Any], studio: Studio) -> None:
    status, content, _ = studio.ask("/api/create", body)
    assert status == 422
    assert json.loads(content)["error"]
    assert studio.ask("/api/creations/0000000000000000", {})[0] == 404
    assert studio.ask("/api/creations/no", {})[0] == 422
