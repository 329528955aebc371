"""Search in parts of the images of an atlas, and their segments."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import imatlas as ia
from imatlas.atlas.region_search import framed, query_region
from imatlas.errors import InputError, ParameterError, SourceError
from imatlas.images.decode import read_picture
from imatlas.images.encode import encode

pytestmark = pytest.mark.usefixtures("one_thread")


def write_photo(path: Path, seed: int) -> tuple[int, int, int, int]:
    """A gray background with stripes, and a disc, red in even images and a green box in odd ones; returns its place."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:64, :96]
    pixels = np.repeat((90 + 20 * np.sin(x / (3 + seed % 4)) + rng.normal(0, 3, (64, 96)))[..., None], 3, axis=2)
    left, top = int(rng.integers(4, 60)), int(rng.integers(4, 28))
    inside = (y >= top) & (y < top + 30) & (x >= left) & (x < left + 30)
    if seed % 2 == 0:
        inside &= (y - top - 15) ** 2 + (x - left - 15) ** 2 < 225
    pixels[inside] = (210, 40, 40) if seed % 2 == 0 else (40, 190, 60)
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)
    return left, top, 30, 30


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("regions") / "photos"
    folder.mkdir()
    for i in range(10):
        write_photo(folder / f"{i}.png", i)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n no")
    return folder


@pytest.fixture(scope="module")
def learned(photos: Path) -> Path:
    ia.learn(photos, photos.parent / "p.atlas", budget="1s", progress=False)
    return photos.parent / "p.atlas"


@pytest.fixture
def atlas(learned: Path, tmp_path: Path) -> Path:
    """A copy without the parts of earlier searches."""
    copy = Path(shutil.copytree(learned, tmp_path / "p.atlas"))
    shutil.rmtree(copy / "cache" / "segments", ignore_errors=True)
    return copy


def test_a_part_is_found_in_other_images_and_then_without_the_originals(
    atlas: Path, photos: Path, tmp_path: Path
) -> None:
    place = write_photo(tmp_path / "query.png", 20)
    found = ia.load(atlas).search(tmp_path / "query.png", 4, region=place, regions=True)
    assert {int(key[0]) % 2 for key in found["key"].to_pylist()} == {0}
    assert found["distance"].to_pylist() == sorted(found["distance"].to_pylist())
    assert query_region(found) == place
    for row in found.to_pylist():
        own = write_photo(tmp_path / "same.png", int(row["key"][0]))
        assert np.abs(np.array([row["left"], row["top"], row["width"], row["height"]]) - own).max() <= 4
    away = photos.rename(photos.with_name("away"))
    try:
        assert ia.load(atlas).search(tmp_path / "query.png", 4, region=place, regions=True).equals(found)
        with pytest.raises(SourceError, match="needs the original images"):
            ia.load(atlas).search("3.png", regions=True)
        shutil.rmtree(atlas / "cache" / "segments")
        with pytest.raises(SourceError, match="needs the original images"):
            ia.load(atlas).search(tmp_path / "query.png", regions=True)
    finally:
        away.rename(photos)


def test_own_images_by_point_and_only_what_is_new_is_computed(atlas: Path) -> None:
    opened = ia.load(atlas)
    left, top, *_ = write_photo(atlas.parent / "same.png", 3)
    found = opened.search("3.png", 20, regions=True, point=(left + 15, top + 15))
    assert found.num_rows == 9
    assert "3.png" not in found["key"].to_pylist()
    assert {int(key[0]) % 2 for key in found["key"].to_pylist()[:4]} == {1}
    (file,) = (atlas / "cache" / "segments").glob("*.npy")
    rows = np.load(file)
    assert len(rows) == 10
    np.save(file, rows[:5])  # a file that is not as written is not used
    again = opened.search("3.png", 20, regions=True, point=(left + 15, top + 15))
    assert again.equals(found)
    added = np.load(file.with_name("segments.1-000002.npy"))
    np.testing.assert_array_equal(np.sort(added["features"], axis=None), np.sort(rows["features"], axis=None))


def test_wrong_questions_are_refused(atlas: Path) -> None:
    opened = ia.load(atlas)
    with pytest.raises(InputError, match="one query"):
        opened.search("3.png", like=["4.png"], regions=True)
    with pytest.raises(InputError, match="regions=True"):
        opened.search("3.png", point=(1, 1))
    with pytest.raises(InputError, match="either a region or a point"):
        opened.search("3.png", point=(1, 1), region=(0, 0, 5, 5), regions=True)
    with pytest.raises(InputError, match="96 x 64"):
        opened.search("3.png", point=(96, 1), regions=True)
    with pytest.raises(InputError, match="must be inside"):
        opened.search("3.png", region=(90, 1, 20, 20), regions=True)
    with pytest.raises(ParameterError, match="two ints"):
        opened.search("3.png", point=(1.5, 2), regions=True)  # type: ignore[arg-type]


def test_the_images_of_an_atlas_are_segmented(atlas: Path, photos: Path, tmp_path: Path) -> None:
    write_photo(photos / "late.png", 11)  # not in the atlas
    content = (photos / "4.png").read_bytes()
    write_photo(photos / "4.png", 5)
    try:
        result = ia.load(atlas).segment(tmp_path / "out", n_segments=2)
    finally:
        (photos / "late.png").unlink()
        (photos / "4.png").write_bytes(content)
    with open(tmp_path / "out" / "images.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert sorted(row["key"] for row in rows) == [f"{i}.png" for i in range(10) if i != 4]
    assert result.data["skipped"] == [["4.png", "'4.png' has changed since the atlas was learned"]]


def test_a_box_is_drawn_on_a_thumbnail() -> None:
    thumbnail = encode(np.zeros((20, 30, 1), np.uint8))
    drawn = read_picture(framed(thumbnail, (300, 200), (100, 50, 100, 100))).pixels()
    y, x = np.nonzero(drawn[..., 0])
    assert (x.min(), x.max(), y.min(), y.max()) == (10, 19, 5, 14)
    assert len(y) == 36  # a frame
    assert drawn.shape == (20, 30, 3)
    assert read_picture(framed(thumbnail, (300, 200), (-5, 900, 10**9, 2))).pixels().shape == (20, 30, 3)
