"""Curves of size and quality, beside other formats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from imatlas.errors import InputError
from imatlas.images.encode_small import coded_at
from imatlas.models.codec import ImageCodec
from imatlas.models.lossless_codec import LosslessCodec
from imatlas.result import Comparisons, Curve
from imatlas.tasks.compress import Target
from imatlas.tasks.rate_distortion import OWN, rate_distortion
from imatlas.testing import synthetic_images


def test_curves_rise_and_are_of_files(tmp_path: Path) -> None:
    pixels = synthetic_images(2, size=48, channels=3)
    for i, each in enumerate(pixels):
        Image.fromarray(each).save(tmp_path / f"{i}.png")
    tifffile.imwrite(tmp_path / "deep.tif", synthetic_images(1, size=32, dtype="uint16")[0, ..., 0])
    result = rate_distortion(tmp_path, ImageCodec.general(), Target(step=30))
    curve, pairs, table = result.panels
    assert isinstance(curve, Curve)
    assert {OWN, "WebP", "AVIF", "JPEG"} <= set(curve.series)
    bits, levels = curve.series[OWN]
    assert list(bits) == sorted(bits)
    assert list(levels) == sorted(levels)
    sizes = [len(coded_at("WebP", each, False, 40).content) for each in pixels]  # type: ignore[union-attr]
    row = next(row for row in table.rows if row[:2] == ["WebP", 40])  # type: ignore[attr-defined]
    assert row[2] == pytest.approx(8 * np.mean(sizes) / 48**2, abs=1e-3)
    assert isinstance(pairs, Comparisons)
    assert len(pairs.pairs) == 2


def test_images_with_alpha_have_no_jpeg_and_only_common_formats_are_drawn(tmp_path: Path) -> None:
    Image.fromarray(synthetic_images(1, size=32, channels=4)[0]).save(tmp_path / "a.png")
    Image.fromarray(synthetic_images(1, size=32)[0, ..., 0]).save(tmp_path / "b.png")
    result = rate_distortion(tmp_path, ImageCodec.general(), Target(psnr=35))
    assert "JPEG" not in result.panels[0].series  # type: ignore[attr-defined]
    assert "WebP" in result.panels[0].series  # type: ignore[attr-defined]


def test_what_has_no_qualities_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="only one quality"):
        rate_distortion(synthetic_images(1, size=16), LosslessCodec.general(), Target())
    with pytest.raises(InputError, match="8 bits"):
        rate_distortion(synthetic_images(1, size=16, dtype="uint16"), ImageCodec.general(), Target(step=30))
