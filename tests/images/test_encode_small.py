"""Images as the smallest files of other formats, at a quality or without loss."""

from __future__ import annotations

import numpy as np
import pytest

from imatlas.images.encode_small import READABLE, read_small, small_files, smallest_file
from imatlas.metrics.restoration import psnr
from imatlas.testing import synthetic_images


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_files_are_as_good_as_they_must_be(channels: int, rng: np.random.Generator) -> None:
    image = synthetic_images(1, size=(40, 56), channels=3 if channels > 2 else 1)[0] * 1.0
    image = (image + rng.normal(0, 4, image.shape)).clip(0, 255).astype(np.uint8)
    alpha = channels in (2, 4)
    if alpha:
        image = np.concatenate([image, np.indices((40, 56)).sum(0)[..., None].astype(np.uint8) + 100], 2)

    def is_good(pixels: np.ndarray) -> bool:
        return psnr(image[None], pixels[None], span=255) >= 33

    lossy, exact = list(small_files(image, alpha, is_good)), list(small_files(image, alpha, None))
    assert {file.format for file in lossy} >= set(READABLE)
    assert "WebP" in {file.format for file in exact}
    for file in lossy:
        assert file.pixels.shape == image.shape
        assert is_good(file.pixels)
        assert len(file.content) < min(len(other.content) for other in exact)
    assert all(np.array_equal(file.pixels, image) for file in exact)
    best = smallest_file(image, alpha, is_good)
    assert best
    assert best.format in READABLE
    assert np.array_equal(read_small(best.content, channels), best.pixels)


def test_what_no_format_holds_is_left_out() -> None:
    assert not list(small_files(np.zeros((9, 9, 1), np.uint16), False, None))
    assert smallest_file(np.zeros((9, 9, 7), np.uint8), False, None) is None
