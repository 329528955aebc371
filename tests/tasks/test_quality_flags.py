"""Quality flags: each planted fault is flagged, nothing else is, and nothing that is typical of a set."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from imatlas.images.encode import encode
from imatlas.tasks.quality_flags import edge_widths, measure, quality_flags
from imatlas.testing import synthetic_images

SIDE = 96


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    """Thirty colorful pictures with edges, (SIDE, SIDE, 3)."""
    return list(synthetic_images(30, size=SIDE, channels=3, random_state=0))


def flagged(pictures: list[np.ndarray]) -> list[str]:
    sizes = np.array([picture.shape[:2] for picture in pictures])
    return quality_flags([encode(picture) for picture in pictures], sizes[:, 1], sizes[:, 0]).of


def test_each_planted_fault_is_found_and_nothing_else(pictures) -> None:
    one = pictures[0].astype(float)
    planted = {
        "blurred": gaussian_filter(one, (5, 5, 0)),
        "dark": one * 0.15,
        "bright": 245 + one * 10 / 255 * 0.9 + 0 * one,
        "nearly uniform": np.full_like(one, 90) + one / 255 * 6,
        "odd size": np.repeat(np.repeat(one, 4, 0), 4, 1),
        "odd shape": np.concatenate([one] * 4, axis=1)[: SIDE // 2],
        "gray among color": np.repeat(one.mean(axis=2, keepdims=True), 3, axis=2),
    }
    found = flagged([*pictures, *(np.clip(p, 0, 255).astype(np.uint8) for p in planted.values())])
    assert not any(found[: len(pictures)])
    for name, flags in zip(planted, found[len(pictures) :], strict=True):
        assert name in flags, (name, flags)


def test_what_is_typical_of_a_set_is_not_flagged(pictures) -> None:
    dark = [(p * 0.2).astype(np.uint8) for p in pictures]
    sizes = np.full(len(dark), SIDE)
    found = quality_flags([encode(p) for p in dark], sizes, sizes)
    assert "dark" in found.typical
    assert not any("dark" in text for text in found.of)
    gray = [np.repeat(p.mean(2, keepdims=True).astype(np.uint8), 3, 2) for p in pictures]
    assert not any("gray" in text for text in flagged(gray))


@pytest.mark.parametrize("sigma", [0.8, 1.2, 1.6])
def test_the_width_of_a_step_is_the_sigma_of_its_blur(sigma) -> None:
    step = np.zeros((64, 64), np.float32)
    step[:, 32:] = 200
    blurred = gaussian_filter(step, sigma)
    assert edge_widths(np.stack([blurred, blurred.T]), np.full(2, 200.0)) == pytest.approx(sigma, rel=0.15)


@pytest.mark.parametrize("channels", [2, 4])
def test_white_shapes_on_transparency_are_not_flagged(pictures, channels) -> None:
    shapes = []
    for value in (0, 255):
        for size in (20, 30, 40):
            shape = np.full((SIDE, SIDE, channels), value, np.uint8)
            shape[..., -1] = 0
            shape[20 : 20 + size, 30 : 30 + 2 * size, -1] = 255
            shapes.append(shape)
    found = flagged([*pictures, *shapes])[len(pictures) :]
    assert not any("uniform" in text or "bright" in text for text in found), found


def test_small_and_empty_sets_and_transparency() -> None:
    assert quality_flags([], np.empty(0), np.empty(0)).of == []
    flat = np.full((1, 1, 3), 200, np.uint8)
    assert np.isnan(measure([encode(flat)])["edge"][0])
    clear = np.zeros((20, 20, 4), np.uint8)  # transparent black is composited on white
    assert measure([encode(clear)])["low"][0] == 255
