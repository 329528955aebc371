"""A thousand damaged files: no crash, no hang, no terminal output, and every one accounted for."""

from __future__ import annotations

import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imatlas.errors import DecodeError
from imatlas.images.decode import read_frames, read_picture
from tests.images.corrupt import damaged, originals

N = 1000


def test_undamaged_originals_are_read() -> None:
    for ending, content in originals():
        picture = read_picture(content, name=f"a.{ending}")
        assert {picture.width, picture.height} == {40, 30}


def test_a_thousand_damaged_files_are_used_or_skipped_with_a_reason(tmp_path: Path) -> None:
    for name, content in damaged(N, seed=2):
        (tmp_path / name).write_bytes(content)
    script = (
        "import sys, warnings, imatlas\n"
        "warnings.simplefilter('error')\n"
        "images = imatlas.Images(sys.argv[1], image_size=32, frames=sys.argv[2], thumbnail_size=40)\n"
        "for key in images.keys: print('used', key)\n"
        "for key, reason in images.skipped: print('skipped', key, reason)\n"
    )
    for frames in ("first", "all"):
        # In a process of its own: a crash or a hang inside a decoder must fail this test, not end it.
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path), frames], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        lines = [line.split(" ", 2) for line in done.stdout.splitlines()]
        used = {line[1].partition("#")[0] for line in lines if line[0] == "used"}
        skipped = {line[1] for line in lines if line[0] == "skipped" and len(line[2]) > 5}
        assert used | {key.partition("#")[0] for key in skipped} == {f.name for f in tmp_path.iterdir()}
        assert not used & skipped
        assert len(used) > 100
        assert len(skipped) > 400


@pytest.mark.parametrize("frames", ["first", "all"])
def test_a_container_without_a_picture_is_damaged(frames):
    """Without the parameters of its codec, a HEIC file contains no readable picture."""
    pillow_heif = pytest.importorskip("pillow_heif", reason="needs the extra: pip install 'imatlas[heif]'")
    out = BytesIO()
    picture = Image.fromarray(np.full((64, 64, 3), 90, np.uint8))
    pillow_heif.from_pillow(picture).save(out, format="HEIF")
    content = out.getvalue()
    assert len(list(read_frames(content, frames=frames))) == 1
    assert content.count(b"hvcC") == 1
    with pytest.raises(DecodeError):
        list(read_frames(content.replace(b"hvcC", b"hvcX"), frames=frames))
