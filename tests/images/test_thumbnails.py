"""Thumbnails for a white page: white shapes are composited on black."""

from __future__ import annotations

import numpy as np
import pytest

from imatlas.images.decode import read_picture
from imatlas.images.encode import encode, encode_thumbnail
from imatlas.images.thumbnails import quick_view, shown, shrink, square_view
from imatlas.testing import synthetic_images


@pytest.mark.parametrize("value", [0, 255])
def test_shapes_on_a_transparent_ground_are_visible_on_a_white_page(value) -> None:
    shape = np.full((64, 64, 4), value, np.uint8)
    shape[..., -1] = 0
    shape[20:40, 20:40, -1] = 255
    data = encode(shape, "png")
    if value == 0:
        assert shown(data, 32) == shrink(data, 32)  # black on white is seen as it is
    else:
        pixels = read_picture(shown(data, 32)).pixels()[..., :3]
        assert pixels[15, 15].min() > 240
        assert pixels[2, 2].max() < 15


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(64, 64), (40, 90)])
def test_the_quick_view_is_the_square_view_but_for_rounding(channels: int, size: tuple[int, int]) -> None:
    data = encode_thumbnail(synthetic_images(1, size=size, channels=channels)[0])
    quick, exact = quick_view(data, 32).astype(float), square_view(data, 32, "crop").astype(float)
    assert quick.shape == (32, 32, 3)
    assert np.abs(quick - exact).mean() < (3 if channels < 4 else 1e-9)
