"""Measurements, outlines and files of regions."""

import json
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageDraw

from imatlas.errors import InputError, ParameterError
from imatlas.images.decode import read_picture
from imatlas.tasks.region_files import (
    coco_text,
    cut_out,
    label_file,
    label_png,
    mean_colors,
    measure_regions,
    outlines,
    overlay,
)


def random_labels(seed, shape=(13, 17), n=5):
    return np.random.default_rng(seed).integers(-1, n, shape)


def area_of(rings):
    return sum(float(np.sum(r[:, 0] * np.roll(r[:, 1], -1) - np.roll(r[:, 0], -1) * r[:, 1])) / 2 for r in rings)


def test_the_outline_of_a_rectangle_has_its_four_corners():
    labels = np.full((6, 7), -1)
    labels[1:4, 2:6] = 0
    (ring,) = outlines(labels)[0]
    assert sorted(map(tuple, ring.tolist())) == [(2, 1), (2, 4), (6, 1), (6, 4)]


@pytest.mark.parametrize("seed", range(8))
def test_outlines_enclose_exactly_the_area_of_their_region(seed):
    labels = random_labels(seed)
    found = outlines(labels)
    assert sorted(found) == [k for k in range(5) if (labels == k).any()]
    for label, rings in found.items():
        assert area_of(rings) == (labels == label).sum()
        for ring in rings:
            steps = np.roll(ring, -1, 0) - ring
            assert ((steps == 0).sum(1) == 1).all()  # along pixel edges, and each corner is one


def test_parts_that_touch_at_a_corner_are_separate_and_holes_are_negative():
    labels = np.full((4, 4), -1)
    labels[0, 0] = labels[1, 1] = 0
    assert len(outlines(labels)[0]) == 2
    ring = np.zeros((5, 5), int)
    ring[2, 2] = -1
    assert sorted(area_of([r]) for r in outlines(ring)[0]) == [-1, 25]


def test_measurements_of_a_known_rectangle():
    labels = np.zeros((10, 12), int)
    labels[2:6, 3:11] = 1
    pixels = np.zeros((10, 12, 2), np.uint16)
    pixels[2:6, 3:11, 1] = 40_000
    table = measure_regions(labels, pixels)
    row = {name: values[1] for name, values in table.items()}
    assert row["label"] == 1
    assert row["area"] == 32
    assert (row["row"], row["column"]) == (3.5, 6.5)
    assert (row["top"], row["left"], row["bottom"], row["right"]) == (2, 3, 6, 11)
    assert row["solidity"] == 1
    assert (row["mean_0"], row["mean_1"], row["std_1"]) == (0, 40_000, 0)
    assert abs(row["orientation"]) == pytest.approx(np.pi / 2)


def test_units_scale_areas_and_lengths():
    labels, pixels = random_labels(0), np.zeros((13, 17, 1), np.uint8)
    plain, scaled = measure_regions(labels, pixels), measure_regions(labels, pixels, pixel_size=0.5)
    np.testing.assert_allclose(scaled["area"], plain["area"] / 4)
    np.testing.assert_allclose(scaled["row"], plain["row"] / 2)
    np.testing.assert_allclose(scaled["perimeter"], plain["perimeter"] / 2)
    np.testing.assert_array_equal(scaled["top"], plain["top"])
    with pytest.raises(ParameterError):
        measure_regions(labels, pixels, pixel_size=0)


@pytest.mark.parametrize("shape", [(1, 9), (9, 1), (1, 1)])
def test_thin_images(shape):
    labels = np.zeros(shape, int)
    table = measure_regions(labels, np.ones((*shape, 1)))
    assert table["area"].tolist() == [shape[0] * shape[1]]
    assert np.isfinite(np.concatenate(list(table.values()))).all()
    assert area_of(outlines(labels)[0]) == shape[0] * shape[1]


def test_no_regions_give_empty_tables():
    labels = np.full((4, 5), -1)
    assert {len(values) for values in measure_regions(labels, np.zeros((4, 5, 3))).values()} == {0}
    assert outlines(labels) == {}


def test_the_png_is_read_back_with_labels_from_one():
    labels = np.arange(-1, 599).reshape(20, 30)
    with Image.open(BytesIO(label_png(labels))) as image:
        np.testing.assert_array_equal(np.asarray(image).astype(int) - 1, labels)
    with pytest.raises(InputError, match="65,535"):
        label_png(np.array([[70_000]]))


def test_pictures_of_regions():
    labels = np.zeros((8, 8), int)
    labels[:, 4:] = 1
    labels[0, 0] = -1
    pixels = np.random.default_rng(0).integers(0, 200, (8, 8, 3), dtype=np.uint8)
    drawn = overlay(pixels, labels)
    assert (drawn[1:, 3:5] == (255, 220, 0)).all()
    np.testing.assert_array_equal(drawn[2:, :3], pixels[2:, :3])
    flat = mean_colors(pixels, labels)
    np.testing.assert_array_equal(flat[0, 0], pixels[0, 0])
    assert len(np.unique(flat[:, 4:].reshape(-1, 3), axis=0)) == 1
    part = cut_out(pixels, labels == 1)
    assert part.shape == (8, 4, 4)
    np.testing.assert_array_equal(part[..., :3], pixels[:, 4:])
    with pytest.raises(InputError, match="empty"):
        cut_out(pixels, labels == 9)
    with pytest.raises(InputError, match="one size"):
        cut_out(pixels, labels[:4] == 1)


@pytest.mark.parametrize("seed", range(4))
def test_coco_masks_are_the_regions(seed):
    labels = random_labels(seed)
    labels[3:6, 3:6], labels[4, 4] = 0, 1
    titles = ["sky", "sea", "sand", "rock", "tree"]
    found = json.loads("".join(coco_text([("a.png", labels), ("b.png", labels[:5])], titles)))
    assert [image["height"] for image in found["images"]] == [13, 5]
    for region in found["annotations"]:
        of_image = labels if region["image_id"] == 1 else labels[:5]
        wanted = of_image == region["category_id"] - 1
        assert region["label"] == region["category_id"]
        if region["iscrowd"]:
            counts = region["segmentation"]["counts"]
            flat = np.repeat(np.arange(len(counts)) % 2, counts)
            made = flat.reshape(wanted.shape, order="F").astype(bool)
        else:
            made = np.zeros(wanted.shape, bool)
            for ring in region["segmentation"]:  # drawn at 4 x, so that pixel centers lie off the edges
                corners = [(4 * x - 0.5, 4 * y - 0.5) for x, y in zip(ring[::2], ring[1::2], strict=True)]
                drawn = Image.new("1", (4 * wanted.shape[1], 4 * wanted.shape[0]))
                ImageDraw.Draw(drawn).polygon(corners, fill=1)
                made |= np.asarray(drawn)[2::4, 2::4]
        np.testing.assert_array_equal(made, wanted)
        assert region["area"] == wanted.sum()
        rows, columns = np.nonzero(wanted)
        box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
        assert region["bbox"] == box
    assert any(region["iscrowd"] for region in found["annotations"])


def test_more_labels_than_16_bits_hold_are_a_tiff():
    labels = np.arange(300 * 300).reshape(300, 300)
    suffix, content = label_file(labels)
    assert suffix == ".tif"
    np.testing.assert_array_equal(read_picture(content).pixels()[..., 0], labels + 1)
    assert label_file(labels[:200] % 65535)[0] == ".png"


def test_coco_without_categories_has_labels_and_may_be_empty():
    maps = [np.kron([[0, 1], [2, 1]], np.ones((3, 4), int)), np.full((4, 4), -1)]
    found = json.loads("".join(coco_text(zip(["a.png", "b.png"], maps, strict=True))))
    assert [region["label"] for region in found["annotations"]] == [1, 2, 3]
    assert {region["category_id"] for region in found["annotations"]} == {1}
    assert [category["name"] for category in found["categories"]] == ["region"]
    assert len(found["images"]) == 2
