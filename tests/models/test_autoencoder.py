import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn

from imatlas.errors import InputError
from imatlas.images.dataset import Images
from imatlas.images.pixel_rows import PixelRows
from imatlas.images.spec import ImageSpec
from imatlas.models.autoencoder import Autoencoder
from imatlas.models.base import estimator
from imatlas.testing import synthetic_images

pytestmark = pytest.mark.usefixtures("one_thread")


@estimator
class LinearAutoencoder(Autoencoder):
    """The same, with one linear layer on each side."""

    def _build(self, spec: ImageSpec) -> nn.Module:
        module = nn.Module()
        n_pixels = spec.height * spec.width * spec.channels
        module.encoder = nn.Sequential(nn.Flatten(), nn.Linear(n_pixels, self.latent_dim))
        image = (spec.channels, spec.height, spec.width)
        module.decoder = nn.Sequential(nn.Linear(self.latent_dim, n_pixels), nn.Unflatten(1, image))
        return module


def test_a_linear_autoencoder_finds_the_space_of_pca():
    """Baldi, Hornik 1989: the best linear autoencoder reconstructs as well as PCA."""
    images = synthetic_images(300, size=8, dtype="float32", random_state=0)
    model = LinearAutoencoder(
        latent_dim=3, penalty=0.0, max_steps=1500, learning_rate=5e-3, progress=False, augment=False
    )
    model.fit(images, validation=images)
    rows = images.reshape(300, -1) * 2 - 1
    singular = np.linalg.svd(rows - rows.mean(0), compute_uv=False)
    best = (singular[3:] ** 2).sum() / rows.size
    error = -model.score_samples(images).mean()
    assert best <= error * 1.0001
    assert error < 1.03 * best


def test_it_reconstructs_fashion_better_than_pca(fashion):
    train, test = fashion[0][:2500], fashion[0][2500:3000]
    model = Autoencoder(latent_dim=16, size="small", max_steps=220, progress=False, learning_rate=4e-3).fit(train)
    rows, other = (part.reshape(len(part), -1) / 255.0 for part in (train, test))
    pca = PCA(16, svd_solver="covariance_eigh").fit(rows)
    rebuilt = pca.inverse_transform(pca.transform(other))
    error = np.mean((model.inverse_transform(model.transform(test))[..., 0] / 255.0 - test / 255.0) ** 2)
    assert error < np.mean((rebuilt - other) ** 2)
    assert model.verdict_ == "still improving"


def test_scores_are_the_negative_error(rng):
    images = synthetic_images(30, size=8, dtype="float32")
    model = Autoencoder(latent_dim=3, max_steps=30, size="small", progress=False, augment=False).fit(images)
    rebuilt = model.inverse_transform(model.transform(images))
    # the images are in [0, 1], the network's in [-1, 1]
    assert model.score_samples(images) == pytest.approx(-4 * ((rebuilt - images) ** 2).mean((1, 2, 3)), rel=1e-3)
    odd = rng.random(images.shape, dtype=np.float32)
    assert model.score_samples(odd).max() < model.score_samples(images).min()


def test_a_mask_leaves_masked_pixels_out_of_the_score(rng):
    images = synthetic_images(20, size=8)
    model = Autoencoder(latent_dim=3, max_steps=5, size="small", progress=False).fit(images)
    mask = rng.random((20, 8, 8)) < 0.3
    spoilt = np.where(mask[..., None], 255 - images, images)
    assert np.array_equal(model.score_samples(images, mask=mask), model.score_samples(spoilt, mask=mask))
    assert np.array_equal(model.transform(images, mask=mask), model.transform(spoilt, mask=mask))
    assert not np.array_equal(model.score_samples(images, mask=mask), model.score_samples(images))


def test_sixteen_bits_are_kept():
    images = synthetic_images(60, size=16, dtype="uint16")
    model = Autoencoder(latent_dim=8, max_steps=150, size="small", progress=False).fit(images)
    rebuilt = model.inverse_transform(model.transform(images))
    assert rebuilt.dtype == np.uint16
    assert len(np.unique(rebuilt)) > 1000
    assert np.abs(rebuilt.astype(float) - images).mean() < 0.08 * 65535


def test_training_on_some_of_a_large_set_never_copies_all_of_these(monkeypatch):
    images = Images(synthetic_images(80, size=16, random_state=0))
    rows = np.flatnonzero(np.arange(80) % 7)
    settings = {"latent_dim": 4, "max_steps": 6, "batch_size": 16, "progress": False}
    expected = Autoencoder(**settings).fit(images.pixels[rows]).sharpen(images.pixels[rows], max_steps=2)
    most = []
    read = PixelRows.__getitem__
    monkeypatch.setattr(
        PixelRows, "__getitem__", lambda self, which: most.append(len(read(self, which))) or read(self, which)
    )
    model = Autoencoder(**settings).fit(images[rows]).sharpen(images[rows], max_steps=2)
    assert 0 < max(most) <= 64 < len(rows)
    assert model.fingerprint_ == expected.fingerprint_
    np.testing.assert_array_equal(model.transform(images[rows]), expected.transform(images.pixels[rows]))
    np.testing.assert_array_equal(model.sample(3, random_state=0), expected.sample(3, random_state=0))


def test_too_small_and_too_few_are_refused():
    model = Autoencoder(max_steps=1, progress=False)
    with pytest.raises(InputError, match=r"at least 8 x 8 pixels\. Got 7 x 20"):
        model.fit(synthetic_images(4, size=(7, 20)))
    with pytest.raises(InputError, match=r"at least 2 images\. Got 1"):
        model.fit(synthetic_images(1))


def test_another_depth_is_refused():
    model = Autoencoder(latent_dim=2, max_steps=1, size="small", progress=False).fit(synthetic_images(8))
    with pytest.raises(InputError, match=r"uint8\. Got .* uint16"):
        model.transform(synthetic_images(8, dtype="uint16"))


def test_large_images_go_through_in_small_chunks():
    model = Autoencoder(latent_dim=2, max_steps=1, size="small", batch_size=2, progress=False)
    model.fit(synthetic_images(3, size=128, channels=3))
    assert model._chunk_size() == 32
    assert model.sample(1).shape == (1, 128, 128, 3)


def test_weights_are_float32_and_trainable():
    model = Autoencoder(latent_dim=2, max_steps=1, size="small", progress=False).fit(synthetic_images(8))
    assert all(p.dtype == torch.float32 and p.requires_grad for p in model.module_.parameters())


def test_pictures_are_converted_to_the_fitted_shape():
    model = Autoencoder(latent_dim=2, max_steps=2, size="small", progress=False)
    model.fit(
        Images(synthetic_images(12, size=16, channels=3)), validation=Images(synthetic_images(4, size=16, channels=3))
    )
    assert model.transform(Images(synthetic_images(5, size=(40, 24), channels=1))).shape == (5, 2)
    with pytest.raises(InputError, match="Got"):
        model.fit(synthetic_images(12, size=16), validation=synthetic_images(4, size=20))
