"""Thumbnails for a white page: white shapes are composited on black."""

from __future__ import annotations

import numpy as np
import pytest

from imatlas.images.decode import read_picture
from imatlas.images.encode import encode
from imatlas.images.thumbnails import shown, shrink


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
