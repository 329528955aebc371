"""Images of every kind on the walls and pages of the studio."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

import imatlas as ia
from imatlas.atlas.recipes import Inpainting, Morphing, Sampling, Sliding, cannot, packed
from imatlas.errors import InputError
from imatlas.studio.create import Workshop
from imatlas.studio.decide import Review
from imatlas.studio.opened import Studio
from imatlas.studio.views import Views
from imatlas.testing import synthetic_images


def size_of(content: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(content)).size


def learned(tmp_path: Path, n: int, **kind: Any) -> Views:
    """The views of a small atlas of images of a kind."""
    for i, pixels in enumerate(synthetic_images(n, size=24, **kind)):
        options: dict[str, Any] = {"photometric": "rgb" if pixels.shape[2] in (3, 4) else "minisblack"}
        options |= {"planarconfig": "contig"} if pixels.shape[2] > 1 else {}
        tifffile.imwrite(tmp_path / f"{i}.tif", pixels.squeeze(), **options)
    return Views(ia.learn(tmp_path, tmp_path / "a.atlas", budget="1s", encoder="own", progress=False))


@pytest.mark.parametrize(
    "kind",
    [{"channels": 1}, {"channels": 4}, {"channels": 7}, {"channels": 1, "dtype": "uint16"}, {"dtype": "float32"}],
    ids=["gray", "rgba", "seven channels", "16 bits", "float"],
)
def test_every_kind_is_shown_and_created(kind: dict[str, Any], tmp_path: Path, one_thread: None) -> None:
    views = learned(tmp_path, 10, **kind)
    tiles = views.layouts["map"]
    for level in range(tiles.max_level + 1):
        content = tiles.tile(level, 0, 0)
        assert content is not None
        drawn = np.asarray(Image.open(io.BytesIO(content)).convert("RGBA"))
        assert drawn[drawn[..., 3] > 0, :3].std() > 5
    content, is_original = views.picture(0, 800)
    assert (size_of(content), is_original) == ((24, 24), True)
    workshop = Workshop(Studio(views.atlas))
    some = views.keys[:2]
    mask = packed(np.pad(np.ones((8, 8), bool), 8))
    recipes = [
        Sampling(kind="sample", images=some, n=2),
        Sampling(kind="sample", images=some, n=2, strength=0.5),
        Morphing(kind="morph", images=some, frames=3),
        Sliding(kind="sliders", images=some[:1], directions=2, steps=3),
        Inpainting(kind="inpaint", images=some[:1], mask=mask, n=1),
    ]
    for recipe in recipes:
        if recipe.kind in cannot(views.store):
            continue
        found = workshop.made(recipe)
        for image in range(found["n"]):
            assert size_of(workshop.file(found["id"], image)) == (24, 24)
    assert size_of(workshop.image(0)) == (24, 24)
    assert views.image(0)["neighbors"]


def test_two_images_have_a_wall(tmp_path: Path, one_thread: None) -> None:
    views = learned(tmp_path, 2, channels=3)
    assert views.overview(read_only=False)["n_images"] == 2
    assert views.layouts["map"].tile(0, 0, 0) is not None
    with pytest.raises(InputError, match="at least 4"):
        Review(views).outliers(0.01, 10)
