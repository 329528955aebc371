"""A planted scene for the tests of segmentation, in images of every kind."""

import numpy as np

from imatlas.images.spec import ImageSpec

HEIGHT, WIDTH = 60, 80


def planted_parts():
    """A disc (1), a bar (2) and the ground (0)."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    parts = np.where((y - 30) ** 2 + (x - 25) ** 2 < 18**2, 1, 0)
    parts[10:50, 55:72] = 2
    return parts


def picture(truth, channels, rng, noise=0.03):
    """Each part of `truth` in its own values (H, W, channels) in [0, 1], with noise."""
    values = np.linspace(0.15, 0.85, 3)[np.stack([np.roll(np.arange(3), c) for c in range(channels)], axis=1)]
    return np.clip(values[truth] + rng.normal(0, noise, (*truth.shape, channels)), 0, 1)


def kinds(truth, rng):
    """Name, pixels and range of images of the same parts."""
    gray, rgb, many = (picture(truth, channels, rng) for channels in (1, 3, 7))
    cut_out = np.concatenate([np.zeros_like(rgb), (truth > 0)[..., None]], axis=-1)
    gaps = many.astype(np.float32)
    gaps[:4, :4] = np.nan
    return {
        "gray": ((gray * 255).astype(np.uint8), 0, 255),
        "RGB": ((rgb * 255).astype(np.uint8), 0, 255),
        "RGBA": ((np.concatenate([rgb, np.ones_like(gray)], axis=-1) * 255).astype(np.uint8), 0, 255),
        "alpha alone": ((cut_out * 255).astype(np.uint8), 0, 255),
        "16-bit": ((1000 + rgb * 3000).astype(np.uint16), 1000, 4000),
        "dark 16-bit": ((30000 + rgb * 900).astype(np.uint16), 0, 65535),
        "two channels": ((picture(truth, 2, rng) * 255).astype(np.uint8), 0, 255),
        "seven channels": ((many * 60000).astype(np.uint16), 0, 60000),
        "float with gaps": (gaps * 8 - 4, -4, 4),
    }


def spec_of(pixels, low=0.0, high=255.0):
    return ImageSpec(*pixels.shape, dtype=pixels.dtype.name, low=low, high=high)
