"""Files of generated images: pixels in the right places; wrong names are refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from imatlas.errors import ArtifactError, InputError
from imatlas.tasks.sample import GAP, contact_sheet, write_samples


@pytest.mark.parametrize("shape", [(1, 8, 8, 1), (7, 6, 10, 3), (4, 9, 5, 4)])
def test_a_sheet_holds_every_image_once(rng, shape):
    images = rng.integers(0, 255, shape, dtype=np.uint8)
    sheet = contact_sheet(images)
    n, height, width, _ = shape
    columns = (sheet.shape[1] - GAP) // (width + GAP)
    for i in range(n):
        top, left = GAP + i // columns * (height + GAP), GAP + i % columns * (width + GAP)
        np.testing.assert_array_equal(sheet[top : top + height, left : left + width], images[i])


def test_files_contain_their_recipes(rng, tmp_path):
    images = rng.integers(0, 255, (3, 8, 8, 3), dtype=np.uint8)
    paths = write_samples(images, tmp_path / "new", recipe={"seed": 5})
    assert [json.loads(Image.open(p).text["imatlas"]) for p in paths] == [{"seed": 5, "image": i} for i in range(3)]
    np.testing.assert_array_equal(np.asarray(Image.open(paths[1])), images[1])
    with pytest.raises(InputError, match=r"Got 'new\.tiff'"):
        write_samples(images, tmp_path / "new.tiff", recipe={})


def test_only_files_with_our_recipe_are_overwritten(rng, tmp_path):
    images = rng.integers(0, 255, (3, 8, 8, 3), dtype=np.uint8)
    write_samples(images, tmp_path / "new", recipe={})
    with pytest.raises(ArtifactError, match="already holds generated images"):
        write_samples(images, tmp_path / "new", recipe={})
    write_samples(images[:2], tmp_path / "new", recipe={}, overwrite=True)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["00000.png", "00001.png"]
    for mine in ("holiday.png", "00001.png"):
        Image.fromarray(images[0]).save(tmp_path / "new" / mine)
        with pytest.raises(ArtifactError, match=f"contains '{mine}', which imatlas did not write"):
            write_samples(images, tmp_path / "new", recipe={}, overwrite=True)
    assert len(list((tmp_path / "new").iterdir())) == 3


def test_files_that_a_user_changed_are_not_replaced(rng, tmp_path):
    images = rng.integers(0, 255, (3, 8, 8, 3), dtype=np.uint8)
    folder = tmp_path / "new"
    write_samples(images, folder, recipe={"seed": 5})
    first = (folder / "00000.png").read_bytes()
    for mine in ("2024-my-favorite.png", "1.png", "00009.png"):  # of which the last would be a name of ours
        (folder / mine).write_bytes(first)
        with pytest.raises(ArtifactError, match=f"contains '{mine}', which imatlas did not write"):
            write_samples(images, folder, recipe={}, overwrite=True)
        assert (folder / mine).read_bytes() == first
        (folder / mine).unlink()
    with Image.open(folder / "00002.png") as image:
        words = PngInfo()
        for name, text in image.text.items():
            words.add_itxt(name, text)
        image.load()
        image.putpixel((0, 0), (1, 2, 3))
        image.save(folder / "00002.png", pnginfo=words)  # retouched, its texts kept
    with pytest.raises(ArtifactError, match=r"contains '00002\.png', which imatlas did not write"):
        write_samples(images, folder, recipe={}, overwrite=True)
    assert len(list(folder.iterdir())) == 3


def test_dots_in_the_output_do_not_reach_a_folder_of_the_user(rng, tmp_path):
    images = rng.integers(0, 255, (2, 8, 8, 3), dtype=np.uint8)
    write_samples(images, tmp_path / "new", recipe={})
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.png")}
    with pytest.raises(ArtifactError, match="already holds generated images"):
        write_samples(images[:1], tmp_path / "x" / ".." / "new", recipe={"seed": 1})
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
