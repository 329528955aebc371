import math
import os
import signal
import subprocess
import sys
import textwrap
import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

from imatlas import seeding
from imatlas.errors import InputError
from imatlas.models import gan
from imatlas.models.base import estimator
from imatlas.models.gan import GAN, diversity
from imatlas.nn import losses
from imatlas.nn.losses import energy_distance, gradient_penalty
from imatlas.testing import synthetic_images
from imatlas.training import loop
from imatlas.training.batches import Batch, make_batch

pytestmark = pytest.mark.usefixtures("one_thread")


def tiny(cls=GAN, **changes):
    given = {"latent_dim": 4, "size": "small", "max_steps": 20, "batch_size": 16, "progress": False, "random_state": 1}
    return cls(**{**given, **changes})


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.module_.parameters()])


@pytest.fixture(scope="module")
def images():
    return synthetic_images(48, size=8, random_state=1)


@pytest.fixture(scope="module")
def fitted(images):
    return tiny().fit(images)


def two_kinds(n=64, size=8):
    """Dark and bright images, noisy, with their labels 3 and 7."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 2 * 4 + 3
    level = np.where(labels == 3, 40, 210)[:, None, None, None]
    return np.clip(level + rng.normal(0, 12, (n, size, size, 1)), 0, 255).astype(np.uint8), labels


# -- the math -----------------------------------------------------------------------------------------------------


def test_losses_by_hand():
    real, fake = torch.tensor([2.0, -1.0]), torch.tensor([0.5, 0.0])

    def softplus(v):
        return math.log1p(math.exp(v))

    expected = {
        "relativistic": (softplus(-1.5) + softplus(1.0), softplus(1.5) + softplus(-1.0)),
        "minimax": (softplus(-2) + softplus(1) + softplus(0.5) + softplus(0), softplus(-0.5) + softplus(0)),
        "hinge": (0.0 + 2.0 + 1.5 + 1.0, -0.5),
    }
    for loss, (critic, maker) in expected.items():
        assert float(losses.discriminator_loss(loss, real, fake)) == pytest.approx(critic / 2, rel=1e-5)
        assert float(losses.generator_loss(loss, real, fake)) == pytest.approx(maker / 2, rel=1e-5)


def test_the_penalty_of_a_quadratic_critic():
    """The gradient of a x² + b x is 2 a x + b."""
    x = torch.randn(5, 2, 3, 4, generator=seeded())
    a = torch.tensor(0.7, requires_grad=True)
    penalty = gradient_penalty(lambda x, y: (a * x.square() + 3 * x).sum((1, 2, 3)), x, None)
    by_hand = (2 * 0.7 * x + 3).square().sum((1, 2, 3)).mean()
    assert float(penalty.detach()) == pytest.approx(float(by_hand), rel=1e-5)
    slope = float(((2 * 0.7 * x + 3) * 2 * 2 * x).sum((1, 2, 3)).mean())
    assert float(torch.autograd.grad(penalty, a)[0]) == pytest.approx(slope, rel=1e-4)


@pytest.mark.parametrize("loss", ["relativistic", "minimax", "hinge"])
def test_the_discriminator_loss_includes_the_gradient_penalties(images, fitted, loss):
    batch = make_batch(images[:16], fitted.spec_)

    def first(gamma):
        model = tiny(loss=loss, gamma=gamma)
        model.conditions_ = None
        _, value, logs = next(model._losses(fitted.module_, batch, seeded()))
        return float(value.detach()), {name: float(v.detach()) for name, v in logs.items()}

    (free, none), (paid, logs) = first(0.0), first(5.0)
    assert none == {}
    assert paid - free == pytest.approx(5.0 * 64 / 1024 / 2 * (logs["r1"] + logs["r2"]), rel=1e-3)


def test_each_step_trains_one_network(images, fitted):
    """The generator's loss has no gradient for the discriminator, and vice versa."""
    batch = make_batch(images[:16], fitted.spec_)
    module = fitted.module_
    names = []
    for name, loss, _ in fitted._losses(module, batch, seeded()):
        module.zero_grad()
        loss.backward()
        for network in ("discriminator", "generator"):
            gradients = [p.grad for p in getattr(module, network).parameters() if p.grad is not None]
            assert bool(gradients) == (network == name)
        names.append(name)
    assert names == ["discriminator", "generator"]
    assert all(p.requires_grad for p in module.parameters())


def test_energy_distance_by_hand():
    x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [3.0]])
    assert float(energy_distance(x, y)) == pytest.approx(2 * (0 + 3 + 1 + 2) / 4 - 1 - 3)
    far, near, other = (torch.randn(400, 6, generator=seeded(i)) for i in range(3))
    assert abs(float(energy_distance(near, other))) < 0.05
    assert float(energy_distance(near, far + 1)) > 0.5


def test_diversity_of_known_sets():
    real = torch.from_numpy(two_kinds(64, 16)[0]).permute(0, 3, 1, 2).float() / 127.5 - 1
    assert float(diversity(real.flip(0), real)) == pytest.approx(1.0)
    assert float(diversity(real[:1].expand(64, -1, -1, -1), real)) == 0.0
    assert float(diversity(real[::2].repeat(2, 1, 1, 1), real)) < 0.2, "one kind of two"
    assert float(diversity(real[:4].repeat(16, 1, 1, 1), real)) < 0.1, "few images again and again"
    assert float(diversity(real, real[:1].expand(64, -1, -1, -1))) == 1.0, "nothing to vary from"
    assert float(diversity(real[:1], real[:1])) == 1.0, "nothing to compare"


# -- learning -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["relativistic", "minimax", "hinge"])
def test_every_loss_learns(images, loss):
    """Samples become close to held-out images, and as diverse."""
    model = tiny(loss=loss, max_steps=120).fit(images)
    losses = model.history_["held_out"]
    assert losses[-1] < 0.5 * losses[0]
    assert model.diversity_ > 0.5
    assert set(model.history_) == {
        "step", "images_seen", "seconds", "train", "r1", "r2", "generator", "diversity", "held_out",
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["labels", "vectors"])
def test_samples_follow_their_conditions(kind):
    """Dark images for the label of dark ones, and both without a label."""
    pixels, labels = two_kinds()
    y = labels if kind == "labels" else np.stack([labels == 3, labels == 7], axis=1).astype(float)
    model = tiny(max_steps=100).fit(pixels, y)
    dark, bright = (model.sample(12, y=y[i], random_state=5).mean((1, 2, 3)) for i in (0, 1))
    assert dark.max() < 125 < bright.min()
    mixed = model.sample(12, y=y[:12], random_state=5).mean((1, 2, 3))
    assert np.array_equal(mixed > 125, labels[:12] == 7)
    free = model.sample(40, random_state=5)
    assert 8 < (free.mean((1, 2, 3)) > 125).sum() < 32
    assert np.array_equal(model.sample(7, random_state=5), free[:7])
    assert np.array_equal(model.sample(3, y=y[:3], random_state=5), model.sample(9, y=y[:9], random_state=5)[:3])


def test_unknown_conditions_are_refused(fitted):
    with pytest.raises(InputError, match="fitted without conditions"):
        fitted.sample(2, y=1)
    pixels, labels = two_kinds()
    model = tiny(max_steps=2).fit(pixels, labels)
    with pytest.raises(InputError, match=r"3 to 7.*Got .*5"):
        model.sample(2, y=5)


def test_a_conditional_model_is_saved(tmp_path):
    from imatlas import load

    pixels, labels = two_kinds()
    model = tiny(max_steps=3).fit(pixels, labels)
    again = load(model.save(tmp_path / "gan"))
    assert np.array_equal(again.sample(5, random_state=2), model.sample(5, random_state=2))
    assert np.array_equal(again.sample(5, y=7), model.sample(5, y=7))
    assert again.diversity_ == model.diversity_


@pytest.mark.parametrize("augment", [0.0, 0.9])
def test_missing_pixels_are_gray_to_the_discriminator(images, fitted, augment):
    """In real and fake images alike: a mask in one of them would separate them."""
    x = make_batch(images[:16], fitted.spec_).x
    known = torch.rand(x.shape, generator=seeded(3)) < 0.6
    inputs = []
    hook = fitted.module_.discriminator.register_forward_hook(lambda _, given, __: inputs.append(given[0]))
    next(tiny(augment=augment)._losses(fitted.module_, Batch(torch.where(known, x, 0.0), known, n_images=48), seeded()))
    hook.remove()
    real, fake = inputs[:2]
    assert torch.equal(real == 0, fake == 0)
    assert float((real == 0).float().mean()) > 0.35
    if not augment:
        assert torch.equal(real != 0, known)


def test_few_images_are_augmented_more():
    model = tiny()
    shares = [model._augment_probability(n) for n in (100, 5_000, 60_000)]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] == 0.0
    assert tiny(augment=0.3)._augment_probability(60_000) == 0.3


# -- what goes wrong ----------------------------------------------------------------------------------------------


@estimator
class Deaf(GAN):
    """A GAN whose generator ignores its noise."""

    def _build(self, spec):
        module = super()._build(spec)
        module.generator.register_forward_pre_hook(lambda _, given: (torch.zeros_like(given[0]), *given[1:]))
        return module


def test_mode_collapse_gives_a_warning(monkeypatch):
    """Two kinds of images, and a generator of a single image."""
    monkeypatch.setattr(gan, "MIN_STEPS", 100)
    pixels, _ = two_kinds()
    with pytest.warns(ConvergenceWarning, match=r"vary only 0\.00 times as much.*learning_rate below.*gamma above"):
        model = tiny(Deaf, max_steps=100).fit(pixels)
    assert model.diversity_ < 0.01
    assert model.history_["diversity"][-1] < 0.01
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fine = tiny(max_steps=100).fit(pixels)  # the same images, a working generator
        tiny(Deaf, max_steps=20).fit(pixels)  # too short to tell
    assert fine.diversity_ > gan.LOW_DIVERSITY


def test_a_learning_rate_that_is_too_high_gives_a_warning(monkeypatch):
    """The real networks, driven to collapse."""
    monkeypatch.setattr(gan, "MIN_STEPS", 60)
    pixels, _ = two_kinds()
    with pytest.warns(ConvergenceWarning, match="Mode collapse"):
        tiny(max_steps=60, learning_rate=3.0).fit(pixels)


@estimator
class Fragile(GAN):
    """A GAN whose loss of the named network is NaN at the third step."""

    network: str = "generator"

    def _losses(self, module, batch, generator):
        for name, loss, logs in super()._losses(module, batch, generator):
            planted = name == self.network and generator.initial_seed() == seeding.seed_of(1, "step", 3)
            yield name, loss * torch.nan if planted else loss, logs


@pytest.mark.parametrize("network", ["discriminator", "generator"])
def test_a_nan_rolls_back_to_the_last_snapshot(images, network):
    model = tiny(Fragile, max_steps=8, network=network).fit(images)
    assert [(entry["step"], entry["decision"]) for entry in model.decisions_] == [(3, "rollback")]
    assert torch.isfinite(weights(model)).all()
    assert model.n_steps_ == 8
    replayed = tiny(Fragile, max_steps=8, network=network).fit(images, replay=model.decisions_)
    assert torch.equal(weights(replayed), weights(model))


def test_killed_and_resumed_is_bit_equal_to_uninterrupted(images, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SNAPSHOT", 5)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    folder = tmp_path / "checkpoint"
    script = f"""
        import os, signal
        import torch
        torch.set_num_threads(1)
        from imatlas.training import loop as training
        from imatlas.models.gan import GAN
        from imatlas.testing import synthetic_images
        training.SNAPSHOT, training.CHECKPOINT_SECONDS = 5, 0.0
        def die(event):
            if event["event"] == "loss" and event["step"] == 13:
                os.kill(os.getpid(), signal.SIGKILL)
        model = GAN(latent_dim=4, size="small", max_steps=20, batch_size=16, progress=False, random_state=1)
        model.fit(synthetic_images(48, size=8, random_state=1), checkpoint={str(folder)!r}, callback=die)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], check=False, timeout=120, env=dict(os.environ)
    )
    assert done.returncode == -signal.SIGKILL
    events = []
    resumed = tiny().fit(images, checkpoint=folder, callback=events.append)
    assert next(event for event in events if event["event"] == "resume")["step"] == 10
    whole = tiny().fit(images)
    assert torch.equal(weights(resumed), weights(whole))
    assert resumed.history_["held_out"] == whole.history_["held_out"]
    assert np.array_equal(resumed.sample(3), whole.sample(3))


@estimator
class Hungry(GAN):
    """A GAN that asks for a petabyte where a batch has more than 10 images."""

    def _losses(self, module, batch, generator):
        for i, step in enumerate(super()._losses(module, batch, generator)):
            if i == 1 and len(batch.x) > 10:
                torch.empty(2**50)
            yield step


def test_too_little_memory_in_the_middle_of_a_step_halves_the_batch(images):
    """Memory runs out after the discriminator step: both networks are restored, and the batch is halved."""
    model = tiny(Hungry, batch_size=16, max_steps=6).fit(images)
    assert [(e["step"], e["decision"], e["batch_size"]) for e in model.decisions_] == [(0, "out_of_memory", 8)]
    assert model.n_steps_ == 6
    plain = tiny(batch_size=8, max_steps=6).fit(images)
    assert torch.equal(weights(model), weights(plain))


def test_a_full_disk_does_not_stop_the_training(images, tmp_path):
    """With files limited to 20 kB, checkpoints cannot be written; that is reported and training continues."""
    np.save(tmp_path / "images.npy", images)
    script = """
import resource, signal, sys
import numpy as np
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
from imatlas import GAN
from imatlas.training import loop as training
training.SNAPSHOT, training.CHECKPOINT_SECONDS = 2, 0.0
said = []
model = GAN(latent_dim=4, max_steps=5, batch_size=16, progress=False).fit(
    np.load(sys.argv[1]), checkpoint=sys.argv[2], callback=said.append)
problems = [e["message"] for e in said if e["event"] == "problem"]
assert model.n_steps_ == 5 and problems, problems
print(problems[0])
"""
    command = [sys.executable, "-c", script, str(tmp_path / "images.npy"), str(tmp_path / "state")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "could not be written" in done.stdout
    assert "training continues" in done.stdout
