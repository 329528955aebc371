"""Each check of the contract of image models can fail; tests/models/test_contract.py runs it over all models."""

import numpy as np
import pytest
import torch

from imatlas import models, testing
from imatlas.models.autoencoder import Autoencoder
from imatlas.models.base import estimator
from imatlas.testing import check_image_estimator, synthetic_images

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = {"latent_dim": 3, "size": "small", "max_steps": 6, "batch_size": 16, "progress": False}
"""Parameters that make a model fit within a second; each model gets those that it has."""


def tiny(cls, **changes):
    names = cls().get_params()
    return cls(**{name: value for name, value in {**TINY, **changes}.items() if name in names})


@pytest.mark.parametrize("likelihood", ["laplace", "bernoulli"])
def test_other_choices_keep_the_contract(likelihood):
    check_image_estimator(tiny(models.model_class("vae"), likelihood=likelihood))


def test_synthetic_images_are_what_they_say():
    for dtype in ("uint8", "uint16", "float32", "float64"):
        images = synthetic_images(5, size=(9, 14), channels=3, dtype=dtype)
        assert images.shape == (5, 9, 14, 3)
        assert images.dtype == dtype
        top = np.iinfo(dtype).max if dtype.startswith("u") else 1.0
        assert 0.5 * top < images.max() <= top
        assert images.min() >= 0
    assert np.array_equal(synthetic_images(4), synthetic_images(4))
    assert not np.array_equal(synthetic_images(4), synthetic_images(4, random_state=1))


@estimator
class Talkative(Autoencoder):
    """Stores more than its parameters."""

    def __post_init__(self):
        self.more = 1


@estimator
class Careless(Autoencoder):
    """Checks nothing at `fit`."""

    def _check_parameters(self):
        pass


@estimator
class Forgetful(Autoencoder):
    """Returns None from `fit`."""

    def fit(self, images, y=None, *, mask=None, **given):
        super().fit(images, mask=mask, **given)


@estimator
class Meddler(Autoencoder):
    """Draws from the global generator."""

    def _finish(self, pixels):
        super()._finish(pixels)
        torch.rand(1)


@estimator
class Sociable(Autoencoder):
    """Subtracts the mean of the batch from the codes."""

    def transform(self, images, *, mask=None):
        codes = super().transform(images, mask=mask)
        return codes - codes.mean(0)


@estimator
class Narrow(Autoencoder):
    """Returns 8-bit images whatever it was fitted to."""

    def inverse_transform(self, Z):
        return super().inverse_transform(Z).astype(np.uint8)


@estimator
class Secretive(Autoencoder):
    """Learns an attribute that is not saved."""

    def fit(self, images, y=None, *, mask=None, **given):
        super().fit(images, mask=mask, **given)
        self._offset = 1.0
        return self

    def transform(self, images, *, mask=None):
        return super().transform(images, mask=mask) + np.float32(getattr(self, "_offset", 0.0))


@estimator
class Lenient(Autoencoder):
    """Takes codes of any length."""

    def _check_codes(self, z, latent_dim):
        z = np.asarray(z, np.float32)
        return np.pad(z, ((0, 0), (0, latent_dim - z.shape[1])))


@estimator
class Peeking(Autoencoder):
    """Ignores the mask in `fit`."""

    def fit(self, images, y=None, *, mask=None, **given):
        return super().fit(images, **given)


@estimator
class Idle(Autoencoder):
    """Has an unused weight."""

    def _build(self, spec):
        module = super()._build(spec)
        module.idle = torch.nn.Parameter(torch.zeros(2))
        return module


@pytest.mark.parametrize(
    ("cls", "check"),
    [
        (Talkative, testing.check_constructor_only_stores),
        (Careless, testing.check_parameters_are_checked),
        (Forgetful, testing.check_fit),
        (Meddler, testing.check_random_state),
        (Sociable, testing.check_batch_independence),
        (Narrow, testing.check_kinds_of_images),
        (Secretive, testing.check_save_and_load),
        (Lenient, testing.check_wrong_input),
        (Peeking, testing.check_missing_pixels),
        (Idle, testing.check_gradients),
    ],
)
def test_each_check_finds_its_fault(cls, check):
    with pytest.raises(AssertionError):
        check(tiny(cls))
    check(tiny(Autoencoder))


def test_a_failure_names_the_check():
    with pytest.raises(AssertionError, match="Talkative fails check_constructor_only_stores: the constructor must set"):
        check_image_estimator(tiny(Talkative))
