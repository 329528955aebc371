"""Superpixels: their number, that each is connected, what they follow, and images of every kind and size."""

import tarfile
from itertools import islice

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import label

from imatlas.errors import InputError
from imatlas.images.spec import ImageSpec
from imatlas.metrics.boundaries import boundary_map
from imatlas.metrics.segmentation import (
    achievable_accuracy,
    boundary_recall,
    compactness,
    region_contrast,
    undersegmentation_error,
)
from imatlas.models.parts.hierarchy import MAX_PIXELS
from imatlas.models.parts.superpixels import merged, superpixels_of
from tests.conftest import need_data
from tests.models.parts.scenes import HEIGHT, WIDTH, kinds, picture, spec_of


def found_in(pixels, n, low=0.0, high=255.0):
    return superpixels_of(pixels, spec_of(pixels, low, high), n)


def check(labels, shape, n):
    """`n` connected segments with labels from 0."""
    assert labels.dtype == np.int32
    assert labels.shape == shape
    assert np.array_equal(np.unique(labels), np.arange(n))
    assert all(label(labels == i)[1] == 1 for i in range(n))


@pytest.mark.parametrize("kind", kinds(np.zeros((1, 1), int), np.random.default_rng(0)))
def test_planted_boundaries_are_found_in_images_of_each_kind(kind, truth, rng):
    pixels, low, high = kinds(truth, rng)[kind]
    labels = found_in(pixels, 20, low, high)
    check(labels, truth.shape, 20)
    shown = (truth > 0).astype(int) if kind == "alpha alone" else truth
    assert boundary_recall(labels, shown, tolerance=0.01) > 0.98
    assert achievable_accuracy(labels, shown) > 0.98


@pytest.mark.parametrize("n", [1, 2, 7, 100, 1000, HEIGHT * WIDTH - 1, HEIGHT * WIDTH, 10**6])
def test_exactly_as_many_as_asked_for(n, truth, rng):
    pixels = (picture(truth, 3, rng) * 255).astype(np.uint8)
    check(found_in(pixels, n), truth.shape, min(n, truth.size))


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (1, 50), (50, 1), (3, 200), (33, 31)])
@pytest.mark.parametrize("channels", [1, 3, 7])
@pytest.mark.parametrize("n", [1, 3, 40])
def test_images_of_any_size(shape, channels, n, rng):
    pixels = rng.integers(0, 256, (*shape, channels)).astype(np.uint8)
    check(found_in(pixels, n), shape, min(n, shape[0] * shape[1]))


@pytest.mark.parametrize("value", [0, 77])
def test_one_color_is_divided_evenly(value):
    labels = found_in(np.full((90, 120, 3), value, np.uint8), 30)
    check(labels, (90, 120), 30)
    sizes = np.bincount(labels.ravel())
    assert sizes.min() > 0.25 * sizes.mean()
    assert sizes.max() < 3 * sizes.mean()
    assert compactness(labels) > 0.3


def test_a_small_object_keeps_a_superpixel_of_its_own(rng):
    """49 pixels, where a mean superpixel has 1,000."""
    pixels = rng.normal(100, 2, (100, 100, 3))
    pixels[40:47, 60:67] += 100
    labels = found_in(pixels.astype(np.uint8), 10)
    inside = labels == labels[43, 63]
    assert inside[41:46, 61:66].all()
    assert inside.sum() <= 11 * 11  # the object is smoothed


def test_a_large_image_is_divided_at_a_reduced_size(truth, rng):
    """900 x 800 pixels: the boundaries found at half the size are those of the full size."""
    truth = np.kron(truth, np.ones((15, 10), int))
    assert truth.size > MAX_PIXELS
    labels = found_in((picture(truth, 1, rng) * 255).astype(np.uint8), 40)
    check(labels, truth.shape, 40)
    assert boundary_recall(labels, truth) > 0.98
    assert achievable_accuracy(labels, truth) > 0.995


def test_the_same_image_gives_the_same_superpixels(truth, rng):
    pixels = (picture(truth, 3, rng) * 255).astype(np.uint8)
    assert np.array_equal(found_in(pixels, 50), found_in(pixels, 50))


def test_merging_minimizes_the_growth_of_squares():
    """0 0 0 | 9 | 4 4 4: of three regions, 9 alone adds 18.75 and 3 more of them 24; of two regions."""
    features = np.array([0, 0, 0, 9, 4, 4, 4], float)[:, None]
    assert merged(features, (1, 7), 3, jitter=0).tolist() in ([0, 0, 0, 1, 2, 2, 2], [1, 1, 1, 0, 2, 2, 2])
    assert len({*merged(features, (1, 7), 2, jitter=0)[3:].tolist()}) == 1


def test_contrast_lies_across_the_boundaries_of_a_photograph():
    """Squares of the same size have a contrast of 0.57."""
    with Image.open(need_data("kodak/kodim23.png")) as image:
        pixels = np.asarray(image.convert("RGB"))
    labels = found_in(pixels, 150)
    check(labels, pixels.shape[:2], 150)
    assert region_contrast(pixels, labels) > 0.7
    assert boundary_map(labels, thinned=False).mean() < 0.15  # few boundaries do that


def test_boundaries_that_people_drew():
    """Three images of BSDS500."""
    recalls, errors = [], []
    with (
        np.load(need_data("bsds500/groundtruth_train_val.npz")) as truths,
        tarfile.open(need_data("bsds500/images_train_val.tar")) as images,
    ):
        for member in islice((m for m in images if m.name.startswith("train/")), 3):
            with Image.open(images.extractfile(member)) as image:
                labels = found_in(np.asarray(image.convert("RGB")), 200)
            truth = truths[member.name.removesuffix(".jpg")]
            recalls.append(np.mean([boundary_recall(labels, one) for one in truth]))
            errors.append(np.mean([undersegmentation_error(labels, one) for one in truth]))
    assert np.mean(recalls) > 0.7
    assert np.mean(errors) < 0.13


def test_what_is_refused():
    pixels = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(InputError, match="at least 1"):
        found_in(pixels, 0)
    with pytest.raises(InputError, match="at least one pixel"):
        superpixels_of(np.zeros((0, 4, 3), np.uint8), ImageSpec(1, 4, 3), 5)
