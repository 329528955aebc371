"""The command `segment`."""

import json

import numpy as np
import pytest
from PIL import Image

from imatlas.cli import main


@pytest.fixture
def photo(tmp_path):
    pixels = np.full((40, 40, 3), 50, np.uint8)
    pixels[10:30, 10:30] = (200, 60, 60)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_segments_are_written_and_told(photo, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["segment", str(photo), "-o", str(out), "--segments", "2", "--coco"]) == 0
    assert "1 image split into 2 segments" in capsys.readouterr().out
    assert sorted(p.name for p in out.iterdir()) == [
        "coco.json", "images.csv", "labels", "overlays", "regions.csv", "regions.parquet", "segments.json"
    ]  # fmt: skip
    assert main(["segment", str(photo), "-o", str(out)]) == 1  # nothing is overwritten
    assert "already exists" in capsys.readouterr().err


def test_json_says_what_was_skipped(photo, tmp_path, capsys):
    (tmp_path / "b.jpg").write_bytes(b"\xff\xd8\xff broken")
    assert main(["segment", str(tmp_path), "-o", str(tmp_path / "out"), "--level", "0.3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["metrics"]["n_images"] == 1
    assert found["skipped"][0][0] == "b.jpg"
    assert main(["segment", str(photo), "-o", str(tmp_path / "x"), "--level", "0.3", "--segments", "2"]) == 2
    assert "not both" in capsys.readouterr().err


def test_superpixels(photo, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["segment", str(photo), "-o", str(out), "--method", "superpixels", "--segments", "30"]) == 0
    assert "1 image split into 30 segments" in capsys.readouterr().out


def test_objects_and_strokes(photo, tmp_path, capsys):
    strokes = tmp_path / "strokes.csv"
    strokes.write_text("key,y,x,label\na.png,20,20,5\na.png,2,2,1\n")
    out = tmp_path / "out"
    assert main(["segment", str(photo), "-o", str(out), "--objects", "--scribbles", str(strokes)]) == 0
    assert "1 image split into 2 segments" in capsys.readouterr().out
    with Image.open(next((out / "objects").iterdir())) as cut:
        assert cut.mode == "RGBA"
    assert main(["segment", str(photo), "-o", str(tmp_path / "x"), "--scribbles", str(tmp_path / "no.csv")]) == 1
    assert "which is none" in capsys.readouterr().err
