"""Images of a network while it is trained: of every kind of images, ever more rarely, and without a trace."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from imatlas.models.autoencoder import Autoencoder
from imatlas.models.self_supervised import SelfSupervisedEncoder
from imatlas.models.vae import VAE
from imatlas.training.batches import Data
from imatlas.training.checkpoints import State
from imatlas.training.preview import Preview

pytestmark = pytest.mark.usefixtures("one_thread")

OPTIONS: dict[str, Any] = {"max_steps": 30, "batch_size": 16, "progress": False, "random_state": 1}


class Seen(list):
    """What was shown."""

    def __call__(self, images: np.ndarray, about: dict[str, Any]) -> None:
        self.append((images, about))


def of_kind(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    smooth = rng.random((40, *shape)).cumsum(1).cumsum(2)
    scaled = smooth / smooth.max()
    return (scaled * np.iinfo(dtype).max).astype(dtype) if dtype.startswith("u") else scaled.astype(dtype)


@pytest.mark.parametrize("model", [Autoencoder, VAE])
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((16, 12), "uint8"), ((8, 8, 4), "uint8"), ((16, 16, 7), "uint16"), ((9, 16, 2), "float32")],
)
def test_images_of_every_kind_are_shown_as_they_are(model: Any, shape: tuple[int, ...], dtype: str) -> None:
    seen = Seen()
    fitted = model(latent_dim=3, size="small", **OPTIONS).fit(of_kind(shape, dtype), preview=seen)
    images, about = seen[0]
    assert images.shape == (8, fitted.spec_.height, fitted.spec_.width, fitted.spec_.channels)
    assert images.dtype == dtype
    assert np.isfinite(images.astype(float)).all()
    assert about["model"] == model.__name__
    assert 1 <= about["step"] <= 30


def test_missing_pixels_and_few_images() -> None:
    images = of_kind((12, 12), "float32")[:3]
    images[:, :4] = np.nan
    seen = Seen()
    Autoencoder(latent_dim=2, size="small", **OPTIONS).fit(images, preview=seen)
    assert np.isfinite(seen[0][0]).all()


def test_the_weights_are_the_same_with_and_without() -> None:
    images = of_kind((12, 12), "uint8")
    plain, shown = (
        Autoencoder(latent_dim=3, size="small", **OPTIONS).fit(images, preview=preview) for preview in (None, Seen())
    )
    for one, other in zip(plain.module_.parameters(), shown.module_.parameters(), strict=True):
        assert torch.equal(one, other)
    assert plain.history_["held_out"] == shown.history_["held_out"]


def test_sharpening_shows_images_too_and_an_encoder_has_none() -> None:
    images, seen = of_kind((16, 16), "uint8"), Seen()
    model = Autoencoder(latent_dim=3, size="small", **OPTIONS).fit(images)
    model.sharpen(images, max_steps=10, preview=seen)
    assert {about["model"] for _, about in seen} == {"Sharpener"}
    none = Seen()
    SelfSupervisedEncoder(**(OPTIONS | {"max_steps": 3})).fit(of_kind((16, 16, 3), "uint8"), preview=none)
    assert not none


def test_images_are_shown_ever_more_rarely() -> None:
    class Ready:
        def _preview(self, module: Any, data: Any, device: Any) -> np.ndarray:
            return np.zeros((1, 8, 8, 1), np.uint8)

    seen, nothing = Seen(), np.zeros((2, 8, 8, 1), np.uint8)
    preview, state = Preview(seen), State(batch_size=1)
    for second in np.arange(0, 3600, 0.5):
        state.seconds = float(second)
        preview.look(Ready(), torch.nn.Identity(), Data(nothing, None, nothing), torch.device("cpu"), state)  # type: ignore[arg-type]
    times = [about["seconds"] for _, about in seen]
    assert times[:3] == [0.0, 1.0, 2.0]
    assert len(times) < 40
    assert times[-1] > 2000
