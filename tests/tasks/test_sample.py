"""Files of new images: the right pixels in the right places, and refused where the name is wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

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


def test_recipes_travel_in_the_files(rng, tmp_path):
    images = rng.integers(0, 255, (3, 8, 8, 3), dtype=np.uint8)
    paths = write_samples(images, tmp_path / "new", recipe={"seed": 5})
    assert [json.loads(Image.open(p).text["imatlas"]) for p in paths] == [{"seed": 5, "image": i} for i in range(3)]
    np.testing.assert_array_equal(np.asarray(Image.open(paths[1])), images[1])
    with pytest.raises(InputError, match=r"Got 'new\.tiff'"):
        write_samples(images, tmp_path / "new.tiff", recipe={})


def test_only_files_with_our_recipe_are_overwritten(rng, tmp_path):
    images = rng.integers(0, 255, (3, 8, 8, 3), dtype=np.uint8)
    write_samples(images, tmp_path / "new", recipe={})
    with pytest.raises(ArtifactError, match="already holds new images"):
        write_samples(images, tmp_path / "new", recipe={})
    write_samples(images[:2], tmp_path / "new", recipe={}, overwrite=True)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["00000.png", "00001.png"]
    for mine in ("holiday.png", "00001.png"):
        Image.fromarray(images[0]).save(tmp_path / "new" / mine)
        with pytest.raises(ArtifactError, match=f"holds '{mine}', which imatlas did not write"):
            write_samples(images, tmp_path / "new", recipe={}, overwrite=True)
    assert len(list((tmp_path / "new").iterdir())) == 3
