"""Previews of an atlas: files of images side by side, numbered on, that no full disk can stop."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imatlas.atlas.previews import N_SHOWN, Previews, known_previews, preview_file
from imatlas.images.spec import ImageSpec


@pytest.mark.parametrize(
    ("n", "shape", "dtype", "size"),
    [
        (8, (64, 64, 3), "uint8", (64, 64)),
        (1, (28, 28, 1), "uint8", (84, 84)),
        (20, (10, 20, 4), "uint8", (80, 40)),
        (3, (300, 200, 1), "uint16", (85, 128)),
        (2, (16, 16, 7), "uint8", (64, 64)),
        (2, (16, 16, 2), "float32", (64, 64)),
    ],
)
def test_images_of_every_kind_stand_side_by_side(
    tmp_path: Path, n: int, shape: tuple[int, int, int], dtype: str, size: tuple[int, int]
) -> None:
    events: list[dict[str, object]] = []
    spec = ImageSpec(*shape, dtype, 0, 1 if dtype == "float32" else np.iinfo(dtype).max, alpha=shape[2] == 4)  # type: ignore[arg-type]
    previews = Previews(tmp_path / "cache" / "previews", spec, events.append)
    previews.add(np.full((n, *shape), spec.high, dtype), {"model": "VAE", "step": 3})
    previews.add(np.zeros((n, *shape), dtype), {"model": "VAE", "step": 9})
    shown = min(n, N_SHOWN)
    assert events[1] == {"event": "samples", "number": 1, "shown": shown, "model": "VAE", "step": 9}
    with Image.open(BytesIO(preview_file(previews.folder, 0).read_bytes())) as found:
        gap = max(1, size[0] // 16)
        assert found.size == (shown * size[0] + (shown - 1) * gap, size[1])
        assert found.convert("RGB").getpixel((size[0] // 2, size[1] // 2))[0] > 250  # type: ignore[index]


def test_numbers_go_on_and_other_files_stay(tmp_path: Path) -> None:
    events: list[dict[str, object]] = []
    previews = Previews(tmp_path, ImageSpec(8, 8, 1), events.append)
    (tmp_path / "0041.webp").write_bytes(b"")
    (tmp_path / "mine.webp").write_bytes(b"mine")
    previews.add(np.zeros((1, 8, 8, 1), np.uint8), {})
    assert events[0]["number"] == 42
    assert known_previews(tmp_path) == ["0041.webp", "0042.webp"]


def test_what_is_in_the_way_does_not_end_the_learning(tmp_path: Path) -> None:
    events: list[dict[str, object]] = []
    (tmp_path / "cache").write_text("in the way")
    Previews(tmp_path / "cache" / "previews", ImageSpec(8, 8, 1), events.append).add(
        np.zeros((1, 8, 8, 1), np.uint8), {}
    )
    assert events == []
