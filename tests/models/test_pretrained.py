"""PretrainedEncoder: the contract, every kind of image, and discriminative features."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.neighbors import KNeighborsClassifier

from imatlas.errors import InputError, MissingExtraError, ParameterError
from imatlas.images.dataset import Images
from imatlas.models import artifact, pretrained
from imatlas.models.parts import published_weights, sharded_embedding
from imatlas.models.parts.feature_cache import FeatureCache, content_of
from imatlas.models.parts.layer_features import WIDTHS, zoomed
from imatlas.models.pretrained import CHUNK, PretrainedEncoder, fit_together
from imatlas.system.inventory import seal
from imatlas.testing import check_image_estimator, synthetic_images
from tests.conftest import need_data

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def encoder() -> PretrainedEncoder:
    return PretrainedEncoder(image_size=64).fit(synthetic_images(4, size=24, channels=3))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"n_components": 3},
        {"layers": "many", "views": 3, "n_components": 3, "whiten": 0.5},
        {"layers": "both", "views": 2},
    ],
)
def test_keeps_the_contract(options: dict) -> None:
    check_image_estimator(PretrainedEncoder(image_size=32, **options))


def test_shape_range_and_length(encoder: PretrainedEncoder) -> None:
    images = synthetic_images(CHUNK + 3, size=24, channels=3)
    features = encoder.transform(images)
    assert features.shape == (CHUNK + 3, 1280)
    assert features.dtype == np.float32
    assert features.min() >= 0
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-5)
    plain = clone(encoder).set_params(normalize=False).fit(images).transform(images)
    lengths = np.linalg.norm(plain, axis=1, keepdims=True)
    assert lengths.std() > 0
    np.testing.assert_allclose(plain / lengths, features, atol=1e-6)


def test_many_layers_are_standardized_with_equal_weight() -> None:
    images = synthetic_images(40, size=24, channels=3)
    plain = PretrainedEncoder(image_size=64, layers="many", normalize=False).fit_transform(images)
    assert plain.shape == (40, sum(WIDTHS))
    np.testing.assert_allclose(plain.mean(0), 0, atol=1e-4)
    assert np.median(plain.std(0)) == pytest.approx(1, abs=1e-3)  # the deviation of some is 0
    even = PretrainedEncoder(image_size=64, layers="many").fit_transform(images)
    for layer in np.split(even, np.cumsum(WIDTHS)[:-1], axis=1):
        np.testing.assert_allclose(np.linalg.norm(layer, axis=1), 1, rtol=1e-4)


def test_both_is_the_last_layer_of_all_views_and_many_layers_of_the_whole_image() -> None:
    images = Images(synthetic_images(40, size=24, channels=3))
    parts = [
        PretrainedEncoder(image_size=64, views=2).fit_transform(images),
        PretrainedEncoder(image_size=64, views=2, layers="both").fit_transform(images),
    ]
    both, last = parts[1][:, :1280], parts[0] - parts[0].mean(0)
    np.testing.assert_allclose(both / np.linalg.norm(both), last / np.linalg.norm(last), atol=1e-5)
    many = parts[1][:, 1280:]
    for layer in np.split(many, np.cumsum(WIDTHS)[:-1], axis=1):
        np.testing.assert_allclose(np.linalg.norm(layer, axis=1), 1, rtol=1e-4)
    assert (both**2).sum() == pytest.approx((many**2).sum(), rel=1e-3)  # equal weight
    alone = PretrainedEncoder(image_size=64, layers="both").fit_transform(images)[:, 1280:]
    whole = PretrainedEncoder(image_size=64, layers="many").fit_transform(images)
    np.testing.assert_allclose(alone, whole, atol=1e-5)


def test_a_crop_covers_the_center_only(encoder: PretrainedEncoder) -> None:
    images = synthetic_images(3, size=96, channels=3)
    blank = images.copy()
    blank[:, :20], blank[:, -20:], blank[:, :, :20], blank[:, :, -20:] = 0, 0, 0, 0
    whole, near = (
        np.linalg.norm(model.transform(images) - model.transform(blank), axis=1)
        for model in (encoder, PretrainedEncoder(image_size=64, views=2).fit(images))
    )
    assert (near < 0.75 * whole).all()
    x = torch.arange(64.0).reshape(1, 1, 8, 8)
    assert torch.equal(zoomed(x, 0.5, 4), x[:, :, 2:6, 2:6])


def test_rotation_invariance() -> None:
    images = synthetic_images(3, size=64, channels=3)
    features = PretrainedEncoder(image_size=64, rotation_invariant=True).fit_transform(images)
    quarter = PretrainedEncoder(image_size=64, rotation_invariant=True).fit_transform(np.rot90(images, axes=(1, 2)))
    upright = PretrainedEncoder(image_size=64).fit(images)
    np.testing.assert_allclose(features, quarter, atol=1e-5)
    moved = np.linalg.norm(upright.transform(images) - upright.transform(np.rot90(images, axes=(1, 2))), axis=1)
    assert moved.min() > 0.05


@pytest.mark.parametrize("whiten", [0.0, 0.5, 1.0])
def test_whitening_equalizes_the_deviations_of_components(whiten: float) -> None:
    images = synthetic_images(60, size=24, channels=3)
    spread = PretrainedEncoder(image_size=32, n_components=5, whiten=whiten).fit_transform(images).std(0)
    bare = PretrainedEncoder(image_size=32, n_components=5).fit_transform(images).std(0)
    np.testing.assert_allclose(spread, bare[0] ** whiten * bare ** (1 - whiten), rtol=1e-3)


@pytest.mark.parametrize("options", [{}, {"layers": "many"}])
@pytest.mark.parametrize("n_images", [5, 40])
def test_new_images_are_as_far_out_as_a_small_training_set(n_images: int, options: dict) -> None:
    """Centered rows have rank n - 1: one more whitened component would be amplified rounding error."""
    images = synthetic_images(2 * n_images, size=24, channels=3)
    encoder = PretrainedEncoder(image_size=64, n_components=128, whiten=0.5, **options)
    known, new = encoder.fit_transform(images[::2]), encoder.transform(images[1::2])
    assert known.shape == (n_images, n_images - 1)
    assert known.std(0).min() > 1e-3 * known.std(0).max()
    assert np.linalg.norm(new, axis=1).mean() < 1.5 * np.linalg.norm(known, axis=1).mean()


def test_duplicates_do_not_raise_the_rank() -> None:
    """Forty rows of five images span four dimensions."""
    images = synthetic_images(5, size=24, channels=3)
    encoder = PretrainedEncoder(image_size=64, n_components=20, whiten=0.5).fit(np.repeat(images, 8, axis=0))
    assert encoder.transform(images).shape == (5, 4)
    assert PretrainedEncoder(image_size=64, n_components=20).fit_transform(images[:1]).shape == (1, 1)


def test_a_parameter_that_a_saved_model_lacks_has_its_default(tmp_path: Path, encoder: PretrainedEncoder) -> None:
    images = synthetic_images(2, size=24, channels=3)
    encoder.save(tmp_path / "encoder")
    path = tmp_path / "encoder" / "model.json"
    values = json.loads(path.read_text())
    for name in ("layers", "views", "whiten"):
        del values["parameters"][name]
    values["seal"] = seal({k: v for k, v in values.items() if k != "seal"})
    path.write_text(json.dumps(values))
    assert np.array_equal(artifact.load(tmp_path / "encoder").transform(images), encoder.transform(images))


def test_no_other_image_in_a_batch_changes_a_feature(encoder: PretrainedEncoder) -> None:
    images = synthetic_images(2 * CHUNK + 1, size=24, channels=3)
    together = encoder.transform(images)
    for i in (0, CHUNK - 1, CHUNK, 2 * CHUNK):
        assert np.array_equal(encoder.transform(images[i : i + 1])[0], together[i])


def test_principal_components_are_those_of_the_features(encoder: PretrainedEncoder) -> None:
    images = synthetic_images(CHUNK + 5, size=24, channels=3)
    features = encoder.transform(images)
    model = clone(encoder).set_params(n_components=4)
    short = model.fit_transform(images)
    centered = features - features.mean(axis=0)
    _, singular, axes = np.linalg.svd(centered.astype(np.float64), full_matrices=False)
    np.testing.assert_allclose(np.abs(short), np.abs(centered @ axes[:4].T), atol=1e-3)
    assert model.explained_variance_ratio_ == pytest.approx((singular[:4] ** 2).sum() / (singular**2).sum(), rel=1e-3)
    assert np.array_equal(model.transform(images), short)
    assert np.array_equal(clone(model).fit(images).transform(images[2:3])[0], short[2])


def test_gray_is_gray_in_color() -> None:
    gray = synthetic_images(5, size=20)
    color = np.repeat(gray, 3, axis=-1)
    fit = PretrainedEncoder(image_size=32).fit_transform
    assert np.array_equal(fit(gray), fit(color))
    assert np.array_equal(fit(gray), fit(torch.from_numpy(gray[..., 0])))


def test_transparency_is_composited_on_white() -> None:
    color = synthetic_images(3, size=20, channels=3)
    clear = np.zeros((3, 20, 20, 1), np.uint8)
    fit = PretrainedEncoder(image_size=32).fit_transform
    assert np.array_equal(fit(np.concatenate([color, clear + 255], axis=-1)), fit(color))
    assert np.array_equal(fit(np.concatenate([color, clear], axis=-1)), fit(np.full_like(color, 255)))


def test_deep_images_are_mapped_through_the_fitted_range() -> None:
    deep = synthetic_images(6, size=20, dtype="uint16")
    encoder = PretrainedEncoder(image_size=32).fit(deep)
    assert np.array_equal(encoder.transform(deep[:1])[0], encoder.transform(deep)[0])
    brighter = np.clip(deep[:1].astype(np.int64) * 2, 0, 65535).astype(np.uint16)
    assert not np.array_equal(encoder.transform(brighter), encoder.transform(deep[:1]))


def test_long_images_are_cropped(encoder: PretrainedEncoder) -> None:
    square = synthetic_images(2, size=64, channels=3)
    sides = np.zeros((2, 64, 20, 3), np.uint8)
    assert np.array_equal(encoder.transform(np.concatenate([sides, square, sides], axis=2)), encoder.transform(square))


def test_files_are_decoded_from_their_originals(encoder: PretrainedEncoder, tmp_path: Path) -> None:
    pictures = [skimage.data.chelsea(), skimage.data.coffee(), skimage.data.rocket()]
    for i, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    features = encoder.transform(Images(tmp_path, image_size=16))  # not from the cache of 16 px
    for i, pixels in enumerate(pictures):
        assert features[i] @ encoder.transform(pixels[None])[0] > 0.999
        assert features[i] @ encoder.transform(pixels[None, ::16, ::16])[0] < 0.9
    opened = encoder.transform(tmp_path)  # read once, at the input size
    assert (features * opened).sum(1).min() > 0.9999


def test_features_are_cached_by_content(encoder: PretrainedEncoder, tmp_path: Path) -> None:
    folder, cache = tmp_path / "images", FeatureCache(tmp_path / "cache")
    folder.mkdir()
    for i, pixels in enumerate(synthetic_images(5, size=40, channels=3)):
        Image.fromarray(pixels).save(folder / f"{i}.png")
    images = Images(folder, image_size=16)
    fresh = encoder.transform(images)
    calls: list[tuple[int, int]] = []

    def transform(model: PretrainedEncoder, of: Images) -> tuple[np.ndarray, int]:
        calls.clear()
        seen = model.transform(of, cache=cache, on_progress=lambda *at: calls.append(at))
        return seen, calls[-1][1] if calls else 0

    assert transform(encoder, images)[1] == 5
    seen, n_new = transform(encoder, images)
    assert n_new == 0
    np.testing.assert_array_equal(seen, fresh)
    (folder / "0.png").rename(folder / "moved.png")
    Image.fromarray(synthetic_images(1, size=40, channels=3, random_state=9)[0]).save(folder / "new.png")
    grown = Images(folder, image_size=16)
    seen, n_new = transform(encoder, grown)
    assert n_new == 1
    np.testing.assert_array_equal(seen[grown.keys.index("moved.png")], fresh[0])
    short = clone(encoder).set_params(n_components=2)
    assert np.array_equal(short.fit_transform(grown, cache=cache), short.fit_transform(grown))
    other = PretrainedEncoder(image_size=64, rotation_invariant=True).fit(grown)
    assert transform(other, grown)[1] == 6
    damaged = sorted((tmp_path / "cache").glob("*.npy"))
    for file in damaged:
        content = bytearray(file.read_bytes())
        content[-3] ^= 64  # the exponent of a number
        file.write_bytes(content)
    assert transform(encoder, grown)[1] == 6
    (tmp_path / "cache" / "mine-000009.npy").write_text("a user's")
    tight = FeatureCache(tmp_path / "cache", max_bytes=1)
    tight.add("encoder", [content_of("hash", 0)], np.zeros((1, 4), np.float32))
    # Files with another hash may be anybody's: they are no longer listed, and stay.
    left = {*(path.name for path in damaged), "features.json", "mine-000009.npy"}
    assert {path.name for path in tight.folder.iterdir()} == left


def test_fitting_together_equals_fitting_alone() -> None:
    images = Images(synthetic_images(20, size=32, channels=3))
    options: list[dict] = [
        {"layers": "both"},
        {"layers": "many", "n_components": 4},
        {"layers": "many", "rotation_invariant": True},
        {},
    ]
    together = [PretrainedEncoder(image_size=32, **option) for option in options]
    for model, features in zip(together, fit_together(together, images), strict=True):
        np.testing.assert_array_equal(features, clone(model).fit_transform(images))
        np.testing.assert_array_equal(features, model.transform(images))


def test_progress_is_reported(encoder: PretrainedEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []
    monkeypatch.setattr(sharded_embedding, "AT_ONCE", CHUNK)
    n = 2 * CHUNK + 1
    encoder.transform(synthetic_images(n, size=24, channels=3), on_progress=lambda *at: calls.append(at))
    assert calls == [(CHUNK, n), (2 * CHUNK, n), (n, n)]


def test_a_saved_encoder_needs_no_package(
    encoder: PretrainedEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = synthetic_images(3, size=24, channels=3)
    expected = encoder.transform(images)
    encoder.save(tmp_path / "encoder")
    monkeypatch.setitem(published_weights.WEIGHTS, "efficientnet-lite0", ("no_such_package", "x.pth"))
    loaded = artifact.load(tmp_path / "encoder")
    assert np.array_equal(loaded.transform(images), expected)
    assert loaded.learned_with_ == "ImageNet's labels"
    with pytest.raises(MissingExtraError, match="pip install no-such-package"):
        PretrainedEncoder().fit(images)


def test_another_depth_is_refused(encoder: PretrainedEncoder) -> None:
    with pytest.raises(InputError, match="was fitted on uint8 images"):
        encoder.transform(synthetic_images(2, channels=3, dtype="uint16"))


@pytest.mark.parametrize(
    "wrong", [{"backbone": "resnet"}, {"image_size": 31}, {"normalize": 1}, {"device": "no such device"}]
)
def test_wrong_parameters_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        PretrainedEncoder(**wrong).fit(synthetic_images(2))


def test_every_description_mentions_the_labels() -> None:
    assert "ImageNet's labels" in (PretrainedEncoder.__doc__ or "").splitlines()[0]
    assert "labels" in (pretrained.__doc__ or "")


def test_neighbors_in_eurosat_share_a_land_use(tmp_path: Path) -> None:
    """Five-neighbor accuracy for ten classes: 0.83 on these 88 images; on pixels 0.30."""
    with tarfile.open(need_data("eurosat/eurosat_rgb64.tar")) as tar:
        members = sorted((m for m in tar.getmembers() if m.name.endswith(".png")), key=lambda m: m.name)
        chosen = [m for m in members if "/train/" in m.name][::7] + [m for m in members if "/test/" in m.name][::4]
        pixels = np.stack([np.asarray(Image.open(tar.extractfile(m)).convert("RGB")) for m in chosen])  # type: ignore[arg-type]
    labels = np.array([m.name.split("/")[-2] for m in chosen])
    test = np.array(["/test/" in m.name for m in chosen])
    features = PretrainedEncoder(image_size=128).fit_transform(pixels)

    def accuracy(x: np.ndarray) -> float:
        return float(KNeighborsClassifier(5).fit(x[~test], labels[~test]).score(x[test], labels[test]))

    assert accuracy(features) > 0.7
    assert accuracy(features) > accuracy(pixels.reshape(len(pixels), -1).astype(np.float32)) + 0.2
