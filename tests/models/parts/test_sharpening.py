"""Sharpening: fine-tuning of a decoder on textures."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError

import imatlas
from imatlas import VAE, Autoencoder
from imatlas.testing import synthetic_images

pytestmark = pytest.mark.usefixtures("one_thread")

QUIET = {"progress": False, "precision": "fp32", "random_state": 0}


def tiny(cls=Autoencoder, **changes):
    return cls(**{"latent_dim": 3, "size": "small", "max_steps": 30, **QUIET, **changes})


def state(part):
    return torch.cat([p.detach().flatten() for p in part.parameters()])


@pytest.fixture(scope="module")
def images():
    return synthetic_images(80, size=16, random_state=0)


@pytest.fixture(scope="module")
def grainy():
    """Flat images with grain that three numbers cannot encode, so the squared error removes it."""
    rng = np.random.default_rng(0)
    level = rng.uniform(80, 170, (300, 1, 1, 1))
    return np.clip(level + rng.normal(0, 40, (300, 16, 16, 1)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("cls", [Autoencoder, VAE])
def test_only_the_decoder_is_trained(images, cls):
    plain, sharp = tiny(cls).fit(images), tiny(cls).fit(images).sharpen(images)
    assert plain.sharpening_ is None
    assert sharp.sharpening_["step"][-1] == 10
    np.testing.assert_array_equal(plain.transform(images), sharp.transform(images))
    assert torch.equal(state(plain.module_.encoder), state(sharp.module_.encoder))
    assert not torch.equal(state(plain.module_.decoder), state(sharp.module_.decoder))
    assert plain.history_["train"] == sharp.history_["train"]


def test_grain_is_restored(grainy):
    """Reconstructions regain the grain that the squared error removed."""
    given = {"max_steps": 450, "augment": False, "batch_size": 32}
    plain, sharp = tiny(**given).fit(grainy), tiny(**given).fit(grainy).sharpen(grainy, weight=0.3)
    real, smooth, rough = (
        np.diff(x.astype(float), axis=2).std()
        for x in (grainy, *(m.inverse_transform(m.transform(grainy)) for m in (plain, sharp)))
    )
    assert smooth < 0.35 * real
    assert rough > 1.5 * smooth
    assert sharp.sharpening_["held_out"][-1] < sharp.sharpening_["held_out"][0]


def test_a_budget_is_kept_and_its_replay_is_bit_equal(images):
    model = tiny().fit(images)
    before = model.seconds_
    model.sharpen(images, budget=2)
    assert 1 < model.seconds_ - before < 3
    assert {entry.get("of") for entry in model.decisions_} == {"sharpening"}
    again = tiny().fit(images, replay=model.decisions_).sharpen(images, budget=2, replay=model.decisions_)
    assert torch.equal(state(model.module_), state(again.module_))


def test_decisions_are_those_of_the_last_sharpening(images):
    model = tiny().fit(images).sharpen(images, budget=0.5)
    first = model.decisions_
    model.sharpen(images, budget=0.5)
    assert len(model.decisions_) == len(first)


def test_it_needs_a_fitted_model_and_images_like_those_of_the_fit(images):
    with pytest.raises(NotFittedError):
        tiny().sharpen(images)
    model = tiny().fit(images)
    with pytest.raises(ValueError, match="shape"):
        model.sharpen(images[:, :8])
    with pytest.raises(ValueError, match="'weight' parameter of sharpen"):
        model.sharpen(images, weight=-1)
    with pytest.raises(ValueError, match="budget"):
        model.sharpen(images, budget="soon")


def test_the_sharpened_model_is_saved_with_its_history(images, tmp_path):
    model = tiny().fit(images).sharpen(images)
    model.save(tmp_path / "model")
    again = imatlas.load(tmp_path / "model")
    assert again.sharpening_ == model.sharpening_
    np.testing.assert_array_equal(again.sample(2), model.sample(2))


def test_killed_and_resumed_is_bit_equal_to_uninterrupted(images, tmp_path):
    """The process is killed at step 7; the same call gives the weights of an uninterrupted run."""
    np.save(tmp_path / "images.npy", images)
    script = """
import os, sys
import numpy as np, torch
from imatlas import Autoencoder
from imatlas.models.parts.sharpening import Sharpener
from imatlas.training import loop
torch.set_num_threads(1)
loop.SNAPSHOT, loop.CHECKPOINT_SECONDS = 5, 0.0
steps = 0
held = Sharpener._losses
def losses(self, module, batch, generator):
    global steps
    steps += 1
    if steps == 8:
        os._exit(9)
    return held(self, module, batch, generator)
Sharpener._losses = losses
images = np.load(sys.argv[1])
model = Autoencoder(latent_dim=3, size="small", max_steps=30, progress=False, precision="fp32", random_state=0)
model.fit(images).sharpen(images, checkpoint=sys.argv[2])
"""
    command = [sys.executable, "-c", script, tmp_path / "images.npy", tmp_path / "state"]
    assert subprocess.run(list(map(str, command)), check=False).returncode == 9
    events = []
    model = tiny().fit(images).sharpen(images, checkpoint=tmp_path / "state", callback=events.append)
    assert [e["step"] for e in events if e["event"] == "resume"] == [5]
    assert torch.equal(state(model.module_), state(tiny().fit(images).sharpen(images).module_))


def test_missing_pixels_are_left_out_of_the_loss(images):
    """Values under the mask have no effect."""
    mask = np.zeros(images.shape[:3], bool)
    mask[:, 4:8] = True
    other = np.where(mask[..., None], 255 - images, images)
    one, two = (tiny().fit(x, mask=mask).sharpen(x, mask=mask) for x in (images, other))
    assert torch.equal(state(one.module_), state(two.module_))
