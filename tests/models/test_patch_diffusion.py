"""New images composed of patches: where their pixels come from, what edits keep, and which images are taken."""

from functools import partial

import numpy as np
import pytest

import imatlas as ia
from imatlas import PatchDiffusion
from imatlas.errors import ImatlasError, InputError
from imatlas.testing import synthetic_images
from imatlas.training import devices

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = 16


def quick(**parameters) -> PatchDiffusion:
    return PatchDiffusion(**{"novelty": 0.5, "n_steps": 6, "device": "cpu", "random_state": 0} | parameters)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return synthetic_images(24, size=SIZE, channels=3, random_state=0)


@pytest.fixture(scope="module")
def model(images) -> PatchDiffusion:
    return quick().fit(images)


def smooth(rng, n, height, width, channels=3):
    """Smooth random images (n, height, width, channels) uint8."""
    waves = rng.normal(size=(n, channels, 4, 3))
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    sums = sum(
        waves[:, :, i, 2, None, None]
        * np.sin(4 * waves[:, :, i, 0, None, None] * x + 4 * waves[:, :, i, 1, None, None] * y)
        for i in range(4)
    )
    return np.clip(127 + 60 * np.moveaxis(sums, 1, -1), 0, 255).astype(np.uint8)


def distance_to_nearest(new, known):
    """Root mean square difference of each image to the nearest of others, shifted by up to 2 pixels."""
    padded = np.pad(known, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge").astype(float)
    height, width = known.shape[1:3]
    others = np.concatenate(
        [padded[:, down : down + height, right : right + width] for down in range(5) for right in range(5)]
    )
    return np.array([np.sqrt(np.square(one - others).mean((1, 2, 3)).min()) for one in new.astype(float)])


# -- new images ----------------------------------------------------------------------------------------------------


def test_sample_i_depends_on_the_seed_and_i_alone(model):
    three = model.sample(3, random_state=5)
    assert three.dtype == np.uint8
    assert np.array_equal(model.sample(2, random_state=5), three[:2])
    assert not np.array_equal(three[0], three[1])
    assert not np.array_equal(model.sample(1, random_state=6), three[:1])
    assert model.sample(0).shape == (0, SIZE, SIZE, 3)


def test_novelty_0_copies_and_novelty_1_does_not(rng):
    known = smooth(rng, 40, 24, 24)
    model = quick(n_steps=12, mirror=False).fit(known)
    copies, collages = (distance_to_nearest(model.sample(6, novelty=novelty), known) for novelty in (0.0, 1.0))
    assert np.median(copies) < 3
    assert copies.max() < 15
    assert collages.min() > 30


def test_no_image_gives_more_than_its_largest_share(rng):
    model = quick(n_steps=12).fit(smooth(rng, 30, 24, 24))
    _, provenance = model.sample(4, novelty=0.9, return_provenance=True)
    assert max(max(one.values()) for one in provenance.sources) < 0.19 + 0.05  # pixels, not weights


def test_provenance_adds_up(model):
    images, provenance = model.sample(3, shape=(20, 30), return_provenance=True)
    assert provenance.rows.shape == images.shape[:3] == (3, 20, 30)
    for rows, sources in zip(provenance.rows, provenance.sources, strict=True):
        assert sum(sources.values()) == pytest.approx(1)
        assert list(sources.values()) == sorted(sources.values(), reverse=True)
        assert {row: (rows == row).mean() for row in np.unique(rows)} == pytest.approx(sources)
    assert model.sample(0, return_provenance=True)[1].sources == []


def test_blue_pixels_come_from_the_only_blue_image():
    known = np.zeros((16, SIZE, SIZE, 3), np.uint8)
    known[np.arange(16), :, :, np.arange(16) % 2] = 220
    known[5] = 0
    known[5, ..., 2] = 220
    images, provenance = quick(novelty=0.8, n_steps=10).fit(known).sample(12, return_provenance=True)
    blue = (images[..., 2] > 110) & (images[..., :2].max(-1) < 110)
    assert blue.any()
    assert (provenance.rows[blue] == 5).all()
    assert not (provenance.rows[images[..., 2] < 10] == 5).any()


def test_pixels_are_those_of_their_sources():
    """Of images of one gray each, the value of a pixel is close to that of its source."""
    known = np.broadcast_to(np.linspace(10, 240, 9, dtype=np.uint8)[:, None, None], (9, SIZE, SIZE))
    images, provenance = quick(n_steps=12).fit(np.ascontiguousarray(known)).sample(4, return_provenance=True)
    sources = known[:, 0, 0][provenance.rows].astype(int)
    assert np.abs(images[..., 0].astype(int) - sources).mean() < 15


# -- labels, vectors, weights --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [int, str])
def test_a_label_uses_only_its_own_images(kind, images):
    y = np.array([kind(i % 3) for i in range(len(images))])
    model = quick().fit(images, y=y)
    for label in (kind(0), kind(2)):
        _, provenance = model.sample(2, y=label, return_provenance=True)
        assert set(y[provenance.rows].ravel()) == {label}
    _, provenance = model.sample(2, y=[kind(1), kind(0)], return_provenance=True)
    assert [set(y[rows].ravel()) for rows in provenance.rows] == [{kind(1)}, {kind(0)}]
    assert model.panorama([kind(0), kind(1)]).shape == (SIZE, 3 * SIZE, 3)
    assert model.panorama(kind(1)).shape == (SIZE, SIZE, 3)
    assert model.morph(3, y=[kind(0), kind(2)]).shape == (3, SIZE, SIZE, 3)
    with pytest.raises(InputError, match="'y' must be"):
        model.sample(1, y=kind(7))
    with pytest.raises(InputError, match="have a weight of 0"):
        model.sample(1, y=kind(1), weights=y != kind(1))


def test_a_panorama_of_labels_may_need_more_windows_than_a_label_has_images(images):
    y = np.repeat([0, 1], [4, 20])
    made = quick(n_neighbors=2).fit(images, y=y).panorama([0, 0, 1], shape=(SIZE, 8 * SIZE))
    assert made.shape == (SIZE, 8 * SIZE, 3)


def test_images_of_weight_0_are_never_used(model, images):
    weights = np.where(np.arange(len(images)) % 3 == 0, 1.0, 0.0)
    _, provenance = model.sample(4, weights=weights, return_provenance=True)
    assert (provenance.rows % 3 == 0).all()
    one = np.zeros(len(images))
    one[7] = 3
    _, provenance = model.sample(1, weights=one, novelty=0, return_provenance=True)
    assert (provenance.rows == 7).all()


def test_a_larger_weight_gives_a_larger_share(model, images):
    weights = np.ones(len(images))
    weights[:4] = 1000
    shares = [
        np.mean(model.sample(6, weights=w, novelty=0.3, return_provenance=True)[1].rows < 4) for w in (None, weights)
    ]
    assert shares[1] > shares[0] + 0.4


def test_vectors_choose_the_neighbors(images):
    vectors = np.stack([np.arange(len(images)), np.zeros(len(images))], 1).astype(np.float32)
    model = quick(n_neighbors=3).fit(images, y=vectors)
    assert model.takes_vectors
    _, provenance = model.sample(2, y=[[2.0, 0.0], [20.0, 0.0]], return_provenance=True)
    assert set(provenance.rows[0].ravel()) <= {1, 2, 3}
    assert set(provenance.rows[1].ravel()) <= {19, 20, 21}
    assert np.array_equal(model.sample(2, y=[20.0, 0.0])[1:], model.sample(2, y=[[0.0, 0.0], [20.0, 0.0]])[1:])
    assert model.panorama([3.0, 0.0]).shape == (SIZE, SIZE, 3)  # one place, not two
    assert model.panorama([[3.0, 0.0], [9.0, 0.0]]).shape == (SIZE, 3 * SIZE, 3)
    assert model.vary(images[:2], y=[3.0, 0.0]).shape == (2, SIZE, SIZE, 3)
    assert model.morph(2, y=[[3.0, 0.0], [9.0, 0.0]]).shape == (2, SIZE, SIZE, 3)
    with pytest.raises(InputError, match="vector of length 2"):
        model.sample(1, y=[1.0, 2.0, 3.0])


# -- canvases ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 8), (8, 50), (50, 9), (17, 31), (10, SIZE), (40, 40)])
@pytest.mark.parametrize("tile", [False, True])
def test_any_shape(shape, tile, model):
    made = model.sample(1, shape=shape, tile=tile)
    assert made.shape == (1, *shape, 3)
    assert made.std() > 5


def test_every_pixel_of_a_wide_canvas_is_covered_at_every_scale(rng):
    """No window is rounded away at half the size: a NaN would become a line of 0."""
    model = quick(n_steps=2).fit(np.full((2, 66, 65), 200, np.uint8))
    for width in (98, 99, 103):
        assert (model.sample(1, shape=(66, width)) > 190).all()
        assert (model.sample(1, shape=(66, width), tile=True) > 190).all()


def test_a_tile_has_no_seam(rng):
    model = quick(n_steps=12).fit(smooth(rng, 20, 24, 24))
    made = model.sample(3, shape=(36, 36), tile=True).astype(float)
    for axis in (1, 2):
        steps = np.abs(made - np.roll(made, 1, axis)).mean((0, 3 - axis, 3))
        assert steps[0] < 2 * steps[1:].mean() + 1
        assert steps[0] <= 1.2 * steps[1:].max()
    plain = model.sample(3, shape=(36, 36)).astype(float)
    steps = np.abs(plain - np.roll(plain, 1, 1)).mean((0, 2, 3))
    assert steps[0] > 3 * steps[1:].mean()  # this would be seen


@pytest.mark.parametrize("shape", [None, (8, 60), (60, 10), (12, 12)])
def test_panorama_of_any_shape(shape, model):
    made = model.panorama(None, shape=shape)
    assert made.shape == (*(shape or (SIZE, SIZE)), 3)
    assert np.array_equal(made, model.panorama(None, shape=shape))


@pytest.mark.parametrize("size", [128, 256])
def test_large_images_are_made_from_coarse_to_fine(size, rng):
    known = smooth(rng, 6, size, size)
    model = quick(n_steps=4, n_neighbors=6).fit(known)
    made, provenance = model.sample(1, return_provenance=True)
    assert made.shape == (1, size, size, 3)
    assert provenance.rows.shape == (1, size, size)
    step = np.abs(np.diff(made.astype(float), axis=1)).mean()
    assert step < 3 * np.abs(np.diff(known.astype(float), axis=1)).mean() + 1
    if size == 128:
        mask = np.zeros((size, size), bool)
        mask[40:80, 50:90] = True
        filled = model.inpaint(known[:1], mask)
        assert np.array_equal(filled[:, ~mask], known[:1, ~mask])
        assert model.vary(known[:1], strength=0.4).shape == (1, size, size, 3)


# -- edits ---------------------------------------------------------------------------------------------------------


def test_inpaint_keeps_known_pixels(model, images, rng):
    mask = np.zeros((2, SIZE, SIZE), bool)
    mask[0, 4:9, 3:12], mask[1, :, 10:] = True, True
    spoilt = np.where(mask[..., None], 99, images[:2]).astype(np.uint8)
    filled = model.inpaint(spoilt, mask)
    assert np.array_equal(filled[~mask], images[:2][~mask])
    assert np.array_equal(model.inpaint(np.where(mask[..., None], 7, spoilt).astype(np.uint8), mask), filled)
    assert np.array_equal(model.inpaint(np.ma.MaskedArray(spoilt, np.repeat(mask[..., None], 3, 3)), None), filled)
    assert np.array_equal(model.inpaint(images[:2]), images[:2])
    assert np.array_equal(model.inpaint(spoilt, mask[0])[0], filled[0])  # one mask for all


def test_inpaint_takes_nan_as_missing(images):
    values = images.astype(np.float32) / 255
    model = quick().fit(values)
    mask = np.zeros((2, SIZE, SIZE), bool)
    mask[:, 5:12, 5:12] = True
    with_nan = np.where(mask[..., None], np.float32(np.nan), values[:2])
    filled = model.inpaint(with_nan)
    assert np.isfinite(filled).all()
    assert np.array_equal(filled[~mask], values[:2][~mask])
    assert np.array_equal(filled, model.inpaint(values[:2], mask))


def test_inpaint_finds_the_image_that_a_hole_was_cut_from(rng):
    known = smooth(rng, 20, 24, 24)
    mask = np.zeros((24, 24), bool)
    mask[8:16, 8:16] = True
    filled = quick(n_steps=12).fit(known).inpaint(known[:4], mask)
    error = np.abs(filled[:, mask].astype(float) - known[:4, mask]).mean()
    middle = np.abs(known.mean(0)[mask] - known[:4, mask]).mean()
    assert error < 0.4 * middle


def test_extend_keeps_the_image(model, images):
    made = model.extend(images[:2], (24, 40))
    assert np.array_equal(made[:, 4:20, 12:28], images[:2])
    made = model.extend(images[:1], (16, 30), at=(0, 14))
    assert np.array_equal(made[:, :, 14:], images[:1])
    assert made[:, :, :14].std() > 1
    for shape, at in (((15, 30), None), ((20, 20), (5, 0)), ((20, 20), (-1, 0))):
        with pytest.raises(InputError, match="canvas must hold"):
            model.extend(images[:1], shape, at=at)
    for shape in (20, (20, 30, 3), (20.5, 30)):
        with pytest.raises(InputError, match="'shape' must be"):
            model.extend(images[:1], shape)


def test_vary_changes_more_with_strength(model, images):
    assert np.array_equal(model.vary(images[:3], strength=0), images[:3])
    changes = [
        np.abs(model.vary(images[:3], strength=strength).astype(float) - images[:3]).mean()
        for strength in (0.1, 0.5, 1.0)
    ]
    assert changes[0] < changes[1] < changes[2]


def test_blend_joins_pairs(model, images):
    faded = model.blend(images[:2], images[2:4], 0.5, strength=0)
    assert np.abs(faded.astype(float) - (images[:2].astype(float) + images[2:4]) / 2).max() <= 1
    half = np.broadcast_to(np.arange(SIZE) >= SIZE // 2, (SIZE, SIZE)).astype(float)
    sides = model.blend(images[:2], images[2:4], half, strength=0)
    assert np.array_equal(sides[:, :, :8], images[:2, :, :8])
    assert np.array_equal(sides[:, :, 8:], images[2:4, :, 8:])
    assert model.blend(images[:2], images[2:4]).shape == (2, SIZE, SIZE, 3)
    with pytest.raises(InputError, match="as many"):
        model.blend(images[:2], images[:1])
    with pytest.raises(InputError, match="mask"):
        model.blend(images[:2], images[:2], np.zeros((3, 3)))
    for wrong, words in ((1.5, "Got values from 1.5 to 1.5"), (half - 0.5, "-0.5 to 0.5"), (np.nan, "nan")):
        with pytest.raises(InputError, match=f"must be from 0 to 1.*{words}"):
            model.blend(images[:2], images[2:4], wrong)


def test_a_canvas_beyond_the_memory_is_refused_before_it_is_made(model, images, monkeypatch):
    for call in (model.sample, partial(model.sample, tile=True), partial(model.extend, images[:1])):
        with pytest.raises(InputError, match=r"canvas of 100000 x 200000 pixels would take [\d,.]+ GB of memory"):
            call(shape=(100_000, 200_000))
    sampler = model._sampler((SIZE, 20 * SIZE), False, None)
    n_windows = len(sampler.corners())
    weights = 4 * n_windows * SIZE * SIZE * 120  # of the windows of one step
    assert 2 * weights < sampler.n_bytes(3, 120, n_stacks=1) < 5 * weights
    assert sampler.n_bytes(3, 120) > sampler.n_bytes(3, 120, n_stacks=1) + 3 * (n_windows - 1) * weights / n_windows
    monkeypatch.setattr(devices, "machine_memory", lambda: 2 * weights)
    with pytest.raises(InputError, match="ask for a smaller 'shape'"):
        model.sample(1, shape=(SIZE, 20 * SIZE))
    assert model.sample(1).shape == (1, SIZE, SIZE, 3)


def test_a_morph_ends_in_its_keys(model, images):
    frames = model.morph(5, images=images[:3])
    assert frames.shape == (5, SIZE, SIZE, 3)
    assert np.array_equal(frames[[0, 2, 4]], images[:3])
    assert not np.array_equal(frames[1], frames[0])
    with pytest.raises(InputError, match="key images"):
        model.morph(3)


def test_edits_after_another_fit_use_its_images(images):
    model = quick().fit(images[:14])
    model.vary(images[:1])
    model.fit(images[14:])
    np.testing.assert_array_equal(model.vary(images[:1]), quick().fit(images[14:]).vary(images[:1]))
    fewer = model.set_params(n_neighbors=3).inpaint(images[:1], np.eye(SIZE, dtype=bool))
    expected = quick(n_neighbors=3).fit(images[14:]).inpaint(images[:1], np.eye(SIZE, dtype=bool))
    np.testing.assert_array_equal(fewer, expected)


# -- kinds of images -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_every_kind(channels, dtype, rng):
    known = rng.random((8, 9, 12, channels)) * (1 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max)
    known = known.astype(dtype)
    made = quick(n_steps=3).fit(known).sample(2)
    assert made.shape == (2, 9, 12, channels)
    assert made.dtype == (np.float32 if np.dtype(dtype).kind == "f" else dtype)
    assert known.min() - 1e-4 <= made.min() <= made.max() <= known.max() + 1e-4
    assert made.std() > 0.05 * known.std()


def test_gray_without_a_channel_axis(images):
    assert quick().fit(images[..., 0]).sample(1).shape == (1, SIZE, SIZE, 1)


def test_transparent_pixels_stay_transparent(images):
    known = np.concatenate([images, np.full((*images.shape[:3], 1), 255, np.uint8)], 3)
    known[:, :5] = 0
    made = quick().fit(known).sample(3)
    assert made[:, :3, :, 3].max() < 30
    assert made[:, 9:, :, 3].min() > 225


@pytest.mark.parametrize("novelty", [0.0, 1.0])
def test_two_images_and_identical_images(novelty, images):
    two = quick(novelty=novelty).fit(images[:2]).sample(2)
    assert two.std() > 5
    same = np.repeat(images[:1], 5, axis=0)
    made = quick(novelty=novelty, mirror=False).fit(same).sample(2)
    assert made.shape == (2, SIZE, SIZE, 3)
    if novelty == 0:
        assert np.abs(made.astype(float) - same[0]).mean() < 30


@pytest.mark.parametrize("novelty", [0.2, 0.9])
def test_missing_pixels_are_not_used(novelty):
    """Holes in bright images are not darkened by the pixels below the mask."""
    known = np.full((10, SIZE, SIZE), 200, np.uint8)
    mask = np.zeros(known.shape, bool)
    for i in range(10):
        mask[i, i : i + 4, 2:9] = True
        known[i][mask[i]] = 0
    model = quick(novelty=novelty).fit(known, mask=mask)
    assert model.missing_ is not None
    assert (np.abs(model.sample(3).astype(int) - 200) < 3).all()
    with_nan = np.where(mask, np.nan, 0.8).astype(np.float32)
    with_nan[0, 15, 15] = 0
    made = quick(novelty=novelty).fit(with_nan).sample(2)
    assert np.isfinite(made).all()
    assert np.median(made) == pytest.approx(0.8, abs=0.01)


# -- calibration, files, wrong input -------------------------------------------------------------------------------


def test_calibration_chooses_a_novelty(rng):
    model = quick(n_steps=3).fit(smooth(rng, 90, SIZE, SIZE))
    assert model.audit_ == []
    model.calibrate(n_samples=20)
    assert 0.3 <= model.novelty_ <= 0.9
    assert all({"novelty", "near_copies", "near_copies_by_chance"} <= set(one) for one in model.audit_)
    assert model.audit_


def test_a_saved_model_makes_the_same_images(model, tmp_path):
    model.save(tmp_path / "model")
    again = ia.load(tmp_path / "model")
    assert np.array_equal(again.sample(2, random_state=3), model.sample(2, random_state=3))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"novelty": 2}, "novelty"),
        ({"novelty": float("nan")}, "novelty"),
        ({"n_samples": -1}, "n_samples"),
        ({"weights": np.ones(3)}, "'weights' must be 24"),
        ({"weights": np.zeros(24)}, "not all 0"),
        ({"weights": np.full(24, -1.0)}, "non-negative"),
        ({"shape": (0, 5)}, "'shape' must be"),
        ({"shape": (20,)}, "'shape' must be"),
        ({"shape": 20}, "'shape' must be"),
        ({"shape": (20.5, 20)}, "'shape' must be"),
        ({"y": 1}, "fitted without 'y'"),
        ({"y": [[0.0, 1.0]]}, "fitted without 'y'"),
        ({"random_state": -1}, "random_state"),
    ],
)
def test_wrong_arguments_of_sample(arguments, words, model):
    with pytest.raises(ImatlasError, match=words):
        model.sample(**arguments)


def test_wrong_images(model, images):
    with pytest.raises(InputError, match="at least 2 images"):
        quick().fit(images[:1])
    with pytest.raises(InputError, match="8 x 8"):
        quick().fit(images[:, :7])
    with pytest.raises(ImatlasError, match="novelty"):
        quick(novelty=2).fit(images)
    with pytest.raises(InputError, match="like those of fit"):
        model.vary(images[:, :9])
    with pytest.raises(InputError, match="must be bool"):
        model.inpaint(images[:1], np.zeros((1, 3, 3), bool))
    holes = np.ma.MaskedArray(images[:2], images[:2] > 200)
    for edit in (model.vary, lambda some: model.blend(some, some), lambda some: model.morph(2, images=some)):
        with pytest.raises(InputError, match="must be complete"):
            edit(holes)
