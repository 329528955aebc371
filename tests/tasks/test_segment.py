"""Segments of the images of a folder."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet

from imatlas.errors import ArtifactError, InputError, ParameterError
from imatlas.tasks.segment import segment_files


def scene(dtype=np.uint8, channels=3):
    """A bright square on a dark background, with a little noise."""
    rng = np.random.default_rng(0)
    image = rng.normal(60, 2, (48, 64, channels))
    image[12:36, 20:44] += 120
    return (image * (257 if dtype == np.uint16 else 1)).astype(dtype)


@pytest.fixture
def folder(tmp_path):
    photos = tmp_path / "photos"
    (photos / "more").mkdir(parents=True)
    Image.fromarray(scene()).save(photos / "a b.png")
    Image.fromarray(scene(channels=1)[..., 0]).save(photos / "more" / "gray.png")
    Image.fromarray(scene(np.uint16, 1)[..., 0]).save(photos / "deep.png")
    Image.fromarray(scene(channels=4)).save(photos / "alpha.png")
    np.save(photos / "seven.npy", scene(np.float32, 7))
    Image.new("RGB", (1, 30), "red").save(photos / "thin.png")
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not an image")
    return photos


def pixels_of(path):
    with Image.open(path) as image:
        return np.asarray(image)


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_images_of_every_kind_are_split_where_they_differ(folder, tmp_path):
    out = tmp_path / "out"
    result = segment_files(folder, out, n_segments=2, with_coco=True, with_cut_outs=True)
    files = {row["key"]: row for row in rows_of(out / "images.csv")}
    assert sorted(files) == ["a b.png", "alpha.png", "deep.png", "more/gray.png", "seven.npy", "thin.png"]
    assert [key for key, _ in result.data["skipped"]] == ["broken.jpg"]
    square = np.zeros((48, 64), bool)
    square[12:36, 20:44] = True
    for key in ("a b.png", "deep.png", "more/gray.png", "seven.npy"):
        labels = pixels_of(out / files[key]["labels"])
        assert sorted(np.unique(labels)) == [1, 2]
        inside = labels == labels[24, 32]
        assert (inside & square).sum() / (inside | square).sum() > 0.9
        assert pixels_of(out / files[key]["overlay"]).shape == (48, 64, 3)
    assert files["thin.png"]["segments"] == "1"
    assert json.loads((out / "coco.json").read_text())["images"][0]["file_name"] == "a b.png"
    assert list((out / "cut-outs").glob("00001-a-b-*.png"))


def test_the_table_has_a_row_for_each_segment(folder, tmp_path):
    segment_files(folder, tmp_path / "out", n_segments=2, pixel_size=0.5)
    rows = rows_of(tmp_path / "out" / "regions.csv")
    assert len(rows) == 5 * 2 + 1
    of_first = [row for row in rows if row["key"] == "a b.png"]
    assert sum(float(row["area"]) for row in of_first) == 48 * 64 / 4
    assert {row["label"] for row in of_first} == {"1", "2"}
    assert parquet.read_table(tmp_path / "out" / "regions.parquet").num_rows == len(rows)


def test_levels_go_from_fine_to_coarse(folder, tmp_path):
    counts = []
    for level in (0.0, 0.5, 1.0):
        result = segment_files(folder / "a b.png", tmp_path / str(level), level=level)
        counts.append(result.metrics["n_segments"])
    assert counts[0] > counts[1] >= counts[2] == 1


def test_superpixels_have_a_number_and_no_level(folder, tmp_path):
    segment_files(folder, tmp_path / "out", method="superpixels", n_segments=40)
    files = {row["key"]: row["segments"] for row in rows_of(tmp_path / "out" / "images.csv")}
    assert files.pop("thin.png") == "30"  # as many as pixels
    assert set(files.values()) == {"40"}
    result = segment_files(folder / "a b.png", tmp_path / "default", method="superpixels")
    assert result.metrics["n_segments"] == 200
    with pytest.raises(InputError, match="no level"):
        segment_files(folder, tmp_path / "more", method="superpixels", level=0.5)
    with pytest.raises(ParameterError, match="method"):
        segment_files(folder, tmp_path / "more", method="slic")


def test_refusals(folder, tmp_path):
    with pytest.raises(InputError, match="not both"):
        segment_files(folder, tmp_path / "out", level=0.5, n_segments=3)
    with pytest.raises(ParameterError):
        segment_files(folder, tmp_path / "out", level=2)
    with pytest.raises(InputError, match="No image"):
        segment_files(folder / "broken.jpg", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("kept")
    with pytest.raises(ArtifactError):
        segment_files(folder, tmp_path / "out")
    assert (tmp_path / "out" / "mine.txt").read_text() == "kept"
