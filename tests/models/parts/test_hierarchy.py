"""Hierarchies of one image: cuts, saliency, and images of every kind and size."""

import numpy as np
import pytest
from scipy.ndimage import label

from imatlas.errors import InputError
from imatlas.images.spec import ImageSpec
from imatlas.metrics.hierarchies import cut_saliency
from imatlas.metrics.segmentation import covering
from imatlas.models.parts.channels import rgb_of
from imatlas.models.parts.hierarchy import hierarchy_of, ordered
from tests.models.parts.scenes import HEIGHT, WIDTH, kinds, picture, spec_of


@pytest.fixture
def hierarchy(truth, rng):
    pixels = (picture(truth, 3, rng) * 255).astype(np.uint8)
    return hierarchy_of(pixels, spec_of(pixels))


@pytest.mark.parametrize(
    "kind",
    ["gray", "RGB", "RGBA", "alpha alone", "16-bit", "two channels", "seven channels", "float with gaps"],
)
def test_the_parts_of_images_of_each_kind(kind, truth, rng):
    pixels, low, high = kinds(truth, rng)[kind]
    found = hierarchy_of(pixels, spec_of(pixels, low, high))
    if kind == "alpha alone":
        truth = (truth > 0) * label(truth > 0)[0]
    assert found.regions.shape == truth.shape
    assert covering(found.segments(3), truth) > 0.8  # two segments reach 0.76


@pytest.mark.parametrize("contrast", [0.1, 0.2])
def test_levels_mean_the_same_without_color(contrast, truth, rng):
    """A gray image, in which color tells nothing apart, is split at the default level, too; weights are its own."""
    gray = 0.5 + contrast * (truth - 1) + rng.normal(0, 0.03, truth.shape)
    pixels = (np.clip(gray, 0, 1) * 255).astype(np.uint8)[..., None]
    for same in (pixels, np.repeat(pixels, 3, axis=2)):
        assert 3 <= len(np.unique(hierarchy_of(same, spec_of(same)).cut(0.5))) <= 10  # 1 by the weights of color


@pytest.mark.parametrize("kind", ["gray", "RGBA", "alpha alone", "16-bit", "seven channels", "float with gaps"])
def test_a_reduced_copy_finds_the_same_parts(kind, truth, rng):
    """At four times the size, so that the image is halved twice."""
    truth = truth.repeat(4, axis=0).repeat(4, axis=1)
    pixels, low, high = kinds(truth, rng)[kind]
    found = hierarchy_of(pixels, spec_of(pixels, low, high), max_pixels=HEIGHT * WIDTH)
    if kind == "alpha alone":
        truth = (truth > 0) * label(truth > 0)[0]
    assert found.regions.shape == truth.shape
    assert found.n_regions == found.regions.max() + 1 < 200
    assert all(label(found.regions == region)[1] == 1 for region in range(found.n_regions))
    assert covering(found.segments(3), truth) > 0.9


def test_sixteen_bits_are_not_read_as_eight(truth, rng):
    """Parts that differ by less than a step of 8 bits in the full range."""
    pixels = (30000 + 40 * truth[..., None] + rng.integers(0, 4, (*truth.shape, 1))).astype(np.uint16)
    found = hierarchy_of(pixels, spec_of(pixels, 29990, 30100))
    assert covering(found.segments(3), truth) > 0.9


def test_cuts_are_nested_connected_and_hit_their_number(hierarchy):
    finer = hierarchy.regions
    for n in (hierarchy.n_regions, 10, 7, 3, 2, 1):
        labels = hierarchy.segments(n)
        assert labels.dtype == np.int32
        assert np.array_equal(np.unique(labels), np.arange(n))
        assert all(label(labels == i)[1] == 1 for i in range(n))
        assert all(len(np.unique(labels[finer == i])) == 1 for i in np.unique(finer))
        finer = labels
    assert np.array_equal(hierarchy.segments(10**6), hierarchy.regions)


def test_levels_run_from_the_finest_to_the_whole(hierarchy):
    numbers = [len(np.unique(hierarchy.cut(level))) for level in np.linspace(0, 1, 21)]
    assert numbers[0] == hierarchy.n_regions
    assert numbers[-1] == 1
    assert numbers == sorted(numbers, reverse=True)
    assert (np.diff(hierarchy.levels) >= 0).all()
    assert 0 <= hierarchy.levels[0] <= hierarchy.levels[-1] <= 1


@pytest.mark.parametrize("level", [0.01, 0.1, 0.3, 0.6])
def test_cuts_of_the_saliency_are_cuts_of_the_hierarchy(hierarchy, level):
    cut = hierarchy.cut(level)
    by_saliency = cut_saliency(*hierarchy.saliency(), [level])[0]
    assert covering(cut, by_saliency) == covering(by_saliency, cut) == 1


def test_confidence_is_high_at_the_boundaries_of_parts(hierarchy, truth):
    confidence = hierarchy.confidence()
    assert confidence.shape == truth.shape
    assert confidence[30, 40:46].max() > 0.5
    assert confidence[18:40, 20:30].max() < confidence[30, 40:46].max() / 2


def test_the_same_image_gives_the_same_hierarchy(truth, rng):
    pixels = (picture(truth, 3, rng) * 255).astype(np.uint8)
    first, second = (hierarchy_of(pixels, spec_of(pixels)) for _ in range(2))
    assert np.array_equal(first.regions, second.regions)
    assert np.array_equal(first.levels, second.levels)


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (1, 50), (50, 1), (3, 200), (33, 31)])
@pytest.mark.parametrize("channels", [1, 3, 7])
def test_images_of_any_size(shape, channels, rng):
    pixels = rng.integers(0, 256, (*shape, channels)).astype(np.uint8)
    found = hierarchy_of(pixels, spec_of(pixels))
    assert found.regions.shape == found.confidence().shape == shape
    assert len(np.unique(found.cut(0))) == found.n_regions
    assert not found.cut(1).any()
    assert np.isfinite(found.levels).all()


@pytest.mark.parametrize("value", [0, 77, 255])
def test_one_color_is_one_segment(value):
    pixels = np.full((40, 50, 3), value, np.uint8)
    found = hierarchy_of(pixels, spec_of(pixels))
    assert found.n_regions == 1
    assert not found.cut(0).any()
    assert not found.segments(5).any()
    assert not found.confidence().any()


def test_what_is_refused(hierarchy):
    with pytest.raises(InputError, match=r"in \[0, 1\].*1.5"):
        hierarchy.cut(1.5)
    with pytest.raises(InputError, match="at least 1"):
        hierarchy.segments(0)
    with pytest.raises(InputError, match="at least one pixel"):
        hierarchy_of(np.zeros((0, 4, 3), np.uint8), ImageSpec(1, 4, 3))


def test_order_of_levels():
    """Merge 3 joins 0 and 1 late; merge 4 joins all, earlier by its own separation."""
    found = ordered(np.array([[0, 1, 2]]), np.array([3, 3, 4, 4, 4]), np.array([0, 0, 0, 0.8, 0.5]))
    assert found.levels.tolist() == [0, 0, 0, 0.8, 0.8]
    # Two independent merges in the wrong order change places.
    parents, separation = np.array([4, 4, 5, 5, 6, 6, 6]), np.array([0, 0, 0, 0, 0.6, 0.2, 0.9])
    found = ordered(np.array([[0, 1, 2, 3]]), parents, separation)
    assert found.levels.tolist() == [0, 0, 0, 0, 0.2, 0.6, 0.9]
    assert found.segments(3).tolist() == [[0, 1, 2, 2]]


def test_color_keeps_its_depth_and_many_channels_their_contrast(rng):
    deep = np.array([[[0], [1], [2]]], np.uint16)
    np.testing.assert_allclose(rgb_of(deep, spec_of(deep, 0, 2))[0, :, 0], [0, 0.5, 1])
    many = rng.random((5, 6, 7)).astype(np.float32)
    rgb = rgb_of(many, spec_of(many, 0, 1))
    assert rgb.shape == (5, 6, 3)
    assert 0 <= rgb.min() < rgb.max() <= 1
    # The first principal axis is lightness.
    centered = (many - many.mean(axis=(0, 1))).reshape(-1, 7)
    first = centered @ np.linalg.svd(centered, full_matrices=False)[2][0]
    assert abs(np.corrcoef(first, rgb.mean(axis=2).ravel())[0, 1]) > 0.99
