"""A small folder with an exact duplicate, a near-duplicate, flat images, a broken file and a text."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def mixed_folder(tmp_path: Path) -> Path:
    from skimage import data

    photo = Image.fromarray(data.astronaut())
    photo.save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    photo.resize((200, 200)).save(tmp_path / "c.jpg", quality=70)
    Image.fromarray(data.coffee()).save(tmp_path / "d.jpg")
    for i, value in enumerate((0, 128, 255)):  # all flat, but not the same
        Image.new("RGB", (300, 200), (value, value, value)).save(tmp_path / f"flat{i}.png")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    (tmp_path / "notes.txt").write_text("words")
    return tmp_path
