"""The loop: budget and replay, resume after a kill, rollback from NaN, out of memory, Ctrl-C."""

import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import torch

from imatlas import seeding
from imatlas.errors import ArtifactError, ParameterError, TrainingError
from imatlas.models.autoencoder import Autoencoder
from imatlas.models.base import estimator
from imatlas.testing import synthetic_images
from imatlas.training import checkpoints, loop, schedule, steps
from imatlas.training.batches import batch_rows, make_batch
from imatlas.training.progress import JsonLines

pytestmark = pytest.mark.usefixtures("one_thread")

MARK = 30.0
"""Value of a pixel, in images from -1 to 1, that makes `Fragile` fail."""


@estimator
class Fragile(Autoencoder):
    """An autoencoder whose loss is NaN for a batch with a marked image."""

    def _losses(self, module, batch, generator):
        for name, loss, logs in super()._losses(module, batch, generator):
            marked = (batch.x > 10).any()
            yield name, torch.where(marked, torch.nan, 1.0) * loss, logs


@estimator
class AlwaysNaN(Autoencoder):
    """An autoencoder whose loss is never finite."""

    def _losses(self, module, batch, generator):
        for name, loss, logs in super()._losses(module, batch, generator):
            yield name, loss * torch.nan, logs


@estimator
class Hungry(Autoencoder):
    """An autoencoder that asks for a petabyte where a batch has more than 10 images."""

    def _losses(self, module, batch, generator):
        if len(batch.x) > 10:
            torch.empty(2**50)
        return super()._losses(module, batch, generator)


def tiny(cls=Autoencoder, **changes):
    given = {"latent_dim": 3, "size": "small", "max_steps": 40, "batch_size": 16, "progress": False, "random_state": 1}
    return cls(**{**given, **changes})


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.module_.parameters()])


@pytest.fixture
def images():
    return synthetic_images(48, size=8, random_state=1)


@pytest.fixture
def short_snapshots(monkeypatch):
    """Snapshots every ten steps, each also written to disk."""
    monkeypatch.setattr(loop, "SNAPSHOT", 10)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)


def test_the_first_steps_are_those_of_a_plain_loop(images):
    """Batches, rates, clipping and Adam by hand give the same weights as the loop."""
    model = tiny(max_steps=4, penalty=0.0, augment=False, precision="fp32").fit(images)
    with seeding.seeded_init(1):
        module = model._build(model.spec_)
    module = module.to(memory_format=torch.channels_last)
    adam = torch.optim.AdamW(module.parameters(), lr=1.0, betas=(0.9, 0.99), fused=True)
    kept = np.sort(seeding.rng(1, "held out").permutation(48)[4:])
    for step in range(4):
        x = make_batch(images[kept[batch_rows(44, 1, 16 * step, 16)]], model.spec_).x
        loss = (module.decoder(module.encoder(x)) - x).square().mean()
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), steps.CLIP)
        adam.param_groups[0]["lr"] = model.learning_rate * schedule.learning_rate(step, 3, 4)
        adam.step()
    by_hand = torch.cat([p.detach().flatten() for p in module.parameters()])
    # the average of so short a run has a half-life of 0.08 steps
    assert torch.allclose(weights(model), by_hand, atol=1e-6)


def test_the_average_follows_the_live_weights():
    live = torch.nn.Linear(1, 1, bias=False)
    weights = checkpoints.Weights(live, {})
    with torch.no_grad():
        live.weight.fill_(1.0)
        weights.ema.weight.fill_(0.0)
    weights.update_ema(step=400)  # a half-life of 8 steps, and 8 steps between two updates
    assert weights.ema.weight.item() == pytest.approx(0.5)


def test_history_and_events_agree(images, tmp_path):
    events = []
    path = tmp_path / "metrics.jsonl"
    writer = JsonLines(path)
    model = tiny().fit(images, callback=lambda event: (events.append(event), writer(event)))
    losses = [event for event in events if event["event"] == "loss"]
    assert [event["step"] for event in losses] == model.history_["step"] == list(range(2, 41, 2))
    assert [event["held_out"] for event in losses] == model.history_["held_out"]
    assert set(model.history_) == {"step", "images_seen", "seconds", "train", "recon", "z_squared", "held_out"}
    assert events[0]["event"] == "start"
    assert events[-1]["event"] == "end"
    assert events[-1]["verdict"] == model.verdict_
    assert model.history_["images_seen"][-1] == 40 * 16
    assert len(path.read_text().splitlines()) == len(events)


def test_validation_images_replace_the_held_out_ones(images):
    starts = []
    model = tiny(max_steps=2)
    model.fit(images, validation=images[:7], callback=starts.append)
    assert starts[0]["n_images"] == 48
    assert starts[0]["n_held_out"] == 7
    model.fit(images, callback=starts.append)
    assert next(e for e in starts[1:] if e["event"] == "start")["n_held_out"] == 4


def test_a_budget_is_kept_and_its_replay_is_bit_equal(images):
    began = time.monotonic()
    model = tiny(max_steps=None, budget=1.5).fit(images)
    assert time.monotonic() - began < 6
    kinds = [entry["decision"] for entry in model.decisions_]
    assert kinds == ["warm_up", "schedule"]
    late = model.decisions_[1]
    assert late["decay_start"] == late["step"] < late["max_steps"] == model.n_steps_
    assert 0.75 * 1.5 < model.seconds_ < 2 * 1.5
    again = tiny(max_steps=None, budget=1.5).fit(images, replay=model.decisions_)
    assert torch.equal(weights(again), weights(model))
    assert again.decisions_ == model.decisions_


def test_a_budget_too_short_for_the_batch_halves_it():
    images = synthetic_images(200, size=64, channels=3)
    model = tiny(size="large", max_steps=None, budget="1s", batch_size=128).fit(images)
    assert model.decisions_[0]["decision"] == "warm_up"
    assert model.decisions_[0]["batch_size"] < 128


def test_killed_and_resumed_is_bit_equal_to_uninterrupted(images, tmp_path, short_snapshots):
    folder = tmp_path / "checkpoint"
    script = f"""
        import os, signal
        import torch
        torch.set_num_threads(1)
        from imatlas.training import loop as training
        from imatlas.models.autoencoder import Autoencoder
        from imatlas.testing import synthetic_images
        training.SNAPSHOT, training.CHECKPOINT_SECONDS = 10, 0.0
        def die(event):
            if event["event"] == "loss" and event["step"] == 26:
                os.kill(os.getpid(), signal.SIGKILL)
        model = Autoencoder(latent_dim=3, size="small", max_steps=40, batch_size=16, progress=False, random_state=1)
        model.fit(synthetic_images(48, size=8, random_state=1), checkpoint={str(folder)!r}, callback=die)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    events = []
    resumed = tiny().fit(images, checkpoint=folder, callback=events.append)
    assert next(event for event in events if event["event"] == "resume")["step"] == 20
    whole = tiny().fit(images)
    assert torch.equal(weights(resumed), weights(whole))
    assert resumed.history_["held_out"] == whole.history_["held_out"]
    assert np.array_equal(resumed.sample(3), whole.sample(3))


def test_a_finished_run_is_not_trained_again(images, tmp_path):
    first = tiny().fit(images, checkpoint=tmp_path / "c")
    events = []
    second = tiny().fit(images, checkpoint=tmp_path / "c", callback=events.append)
    assert torch.equal(weights(first), weights(second))
    assert [e["event"] for e in events if e["event"] == "loss"] == []


def test_a_checkpoint_of_other_settings_or_images_is_refused(images, tmp_path):
    tiny(max_steps=2).fit(images, checkpoint=tmp_path)
    with pytest.raises(ArtifactError, match=r"latent_dim was 3 and is now 5.*another folder to start over"):
        tiny(max_steps=2, latent_dim=5).fit(images, checkpoint=tmp_path)
    with pytest.raises(ArtifactError, match="images was"):
        tiny(max_steps=2).fit(255 - images, checkpoint=tmp_path)
    tiny(max_steps=2, progress=False).fit(images, checkpoint=tmp_path)  # display does not matter


def test_a_foreign_file_is_not_replaced(images, tmp_path):
    (tmp_path / checkpoints.NAME).write_bytes(b"no such thing")
    with pytest.raises(ArtifactError, match=r"not a checkpoint.*move it away"):
        tiny().fit(images, checkpoint=tmp_path)
    assert (tmp_path / checkpoints.NAME).read_bytes() == b"no such thing"


@pytest.mark.parametrize("kind", ["flip a weight", "flip a number", "cut"])
def test_a_damaged_checkpoint_is_reported_and_the_run_starts_over(images, tmp_path, kind):
    whole = tiny(max_steps=3).fit(images)
    tiny(max_steps=3).fit(images, checkpoint=tmp_path)
    path = tmp_path / checkpoints.NAME
    content = bytearray(path.read_bytes())
    if kind == "flip a weight":
        content[-5] ^= 1
    elif kind == "flip a number":
        content[content.index(b"seconds") + 12] ^= 1
    path.write_bytes(content[:-7] if kind == "cut" else content)
    events = []
    again = tiny(max_steps=3).fit(images, checkpoint=tmp_path, callback=events.append)
    assert "damaged" in next(e for e in events if e["event"] == "problem")["message"]
    assert not [e for e in events if e["event"] == "resume"]
    assert np.array_equal(again.transform(images), whole.transform(images))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"seed": -1}, "not of this network"),
        ({"seed": "0"}, "not of this network"),
        ({"state": {"batch_size": 10**9}}, "a batch of 1000000000 images"),
        ({"state": {"batch_size": 1, "step": -5}}, "step -5"),
        ({"state": {"batch_size": 1, "history": 3}}, "not of this network"),
        ({"state": {"batch_size": 1, "decisions": [{}]}}, "not of this network"),
        ({"identity": 3}, "not of this network"),
    ],
)
def test_a_forged_checkpoint_is_one_line(images, tmp_path, values, message):
    tiny(max_steps=3).fit(images, checkpoint=tmp_path)
    tensors, whole = checkpoints.read(tmp_path)
    checkpoints.write(tmp_path, tensors, whole | values)
    with pytest.raises(ArtifactError, match=message):
        tiny(max_steps=3).fit(images, checkpoint=tmp_path)
    checkpoints.write(tmp_path, {name: tensor.reshape(-1) for name, tensor in tensors.items()}, whole)
    with pytest.raises(ArtifactError, match="not of this network"):
        tiny(max_steps=3).fit(images, checkpoint=tmp_path)


@pytest.mark.parametrize(
    "kind",
    ["other images", "other settings", "shapes", "values", "NaN", "cut", "not ours", "a folder"],
)
def test_a_disposable_checkpoint_that_does_not_fit_restarts_the_run(images, tmp_path, kind):
    place = checkpoints.Checkpoint(tmp_path / "c", disposable=True)
    settings = {"max_steps": 12, "precision": "fp32"}
    whole = tiny(**settings).fit(images)
    part = place.folder
    tiny(**settings).fit(255 - images if kind == "other images" else images, checkpoint=place)
    tensors, values = checkpoints.read(part)
    path = part / checkpoints.NAME
    path.unlink()
    state = values["state"]
    forged = {
        "other images": (tensors, values),
        "other settings": (tensors, values | {"identity": {**values["identity"], "latent_dim": 7}}),
        "shapes": ({name: tensor.reshape(-1) for name, tensor in tensors.items()}, values),
        "values": (tensors, values | {"seed": 5, "state": {**state, "batch_size": 10**9}}),
        "NaN": ({name: tensor * float("nan") for name, tensor in tensors.items()}, values),
    }
    if kind in forged:
        checkpoints.write(part, *forged[kind])
    elif kind == "a folder":
        path.mkdir()
    else:
        path.write_text("mine" if kind == "not ours" else "")
    events = []
    again = tiny(**settings).fit(images, checkpoint=place, callback=events.append)
    assert "training starts over" in next(e["message"] for e in events if e["event"] == "problem")
    assert torch.equal(weights(again), weights(whole))
    assert checkpoints.read(part) is not None
    if kind == "not ours":
        assert [p.read_text() for p in part.glob("*.before-*")] == ["mine"]


def test_a_disposable_checkpoint_resumes_under_another_budget(images, tmp_path, short_snapshots):
    place = checkpoints.Checkpoint(tmp_path, disposable=True)

    def stop(event):
        if event["event"] == "checkpoint":
            raise ConnectionError

    with pytest.raises(ConnectionError):
        tiny(max_steps=None, budget=9.3).fit(images, checkpoint=place, callback=stop)
    events = []
    model = tiny(max_steps=None, budget=0.6).fit(images, checkpoint=place, callback=events.append)
    assert [e["step"] for e in events if e["event"] == "resume"] == [10]
    assert model.n_steps_ > 10
    with pytest.raises(ArtifactError, match=r"budget was 0\.6 and is now 0\.7"):
        tiny(max_steps=None, budget=0.7).fit(images, checkpoint=tmp_path)


def test_a_checkpoint_that_cannot_be_written_does_not_stop_the_run(images, tmp_path):
    events = []
    (tmp_path / "file").write_text("in the way")
    model = tiny(max_steps=3)
    with pytest.raises((NotADirectoryError, FileExistsError)):
        (tmp_path / "file" / "c").mkdir()
    model.fit(images, checkpoint=tmp_path / "file" / "c", callback=events.append)
    assert "could not be written" in next(e for e in events if e["event"] == "problem")["message"]
    assert model.n_steps_ == 3


def test_without_a_seed_a_resumed_run_keeps_its_own(images, tmp_path, short_snapshots):
    def stop(event):
        if event["event"] == "loss" and event["step"] == 24:
            raise ConnectionError

    with pytest.raises(ConnectionError):
        tiny(random_state=None).fit(images, checkpoint=tmp_path, callback=stop)
    resumed = tiny(random_state=None).fit(images, checkpoint=tmp_path)
    assert torch.equal(weights(resumed), weights(tiny(random_state=None).fit(images, checkpoint=tmp_path)))
    assert resumed.n_steps_ == 40
    whole = tiny(random_state=resumed.seed_).fit(images)
    assert torch.equal(weights(resumed), weights(whole))


def marked(images):
    """The images as floats, with one extreme pixel in a training image."""
    floats = images.astype(np.float32) / 255 * 2 - 1
    floats[seeding.rng(1, "held out").permutation(48)[-1], 4, 4] = MARK
    return floats


def test_a_nan_rolls_back_to_the_last_snapshot(images, capsys):
    """One image in 44 gives NaN: each time the last snapshot is restored and the rate halved."""
    floats = marked(images)
    model = tiny(Fragile, max_steps=8, batch_size=8, progress=True).fit(floats)
    rollbacks = [entry for entry in model.decisions_ if entry["decision"] == "rollback"]
    assert [entry["rate"] for entry in rollbacks] == [0.5 ** (i + 1) for i in range(len(rollbacks))]
    assert rollbacks
    assert torch.isfinite(weights(model)).all()
    assert "not finite at step" in capsys.readouterr().err
    assert model.n_steps_ == 8
    replayed = tiny(Fragile, max_steps=8, batch_size=8).fit(floats, replay=model.decisions_)
    assert torch.equal(weights(replayed), weights(model))


def test_a_lowered_rate_recovers(images, monkeypatch):
    monkeypatch.setattr(loop, "SNAPSHOT", 2)
    monkeypatch.setattr(loop, "CLEAN", 1)
    model = tiny(Fragile, max_steps=60, batch_size=4).fit(marked(images))
    rates = [entry["rate"] for entry in model.decisions_]
    assert len(rates) >= 4
    assert set(rates) == {0.5}


def test_persistent_nan_is_an_error_with_advice(images):
    model = tiny(AlwaysNaN, learning_rate=1e-3)
    with pytest.raises(TrainingError, match=r"not finite 7 times in a row.*learning_rate below 2e-05"):
        model.fit(images)
    assert not model.__sklearn_is_fitted__()


def test_too_little_memory_halves_the_batch(images):
    model = tiny(Hungry, max_steps=5, batch_size=40).fit(images)
    halved = [entry for entry in model.decisions_ if entry["decision"] == "out_of_memory"]
    assert [(entry["step"], entry["batch_size"]) for entry in halved] == [(0, 20), (0, 10)]
    assert model.n_steps_ == 5
    assert model.history_["images_seen"][-1] == 50
    replayed = tiny(Hungry, max_steps=5, batch_size=40).fit(images, replay=model.decisions_)
    assert torch.equal(weights(replayed), weights(model))


def test_ctrl_c_keeps_what_was_learned(images):
    def interrupt(event):
        if event["event"] == "loss" and event["step"] == 10:
            signal.raise_signal(signal.SIGINT)

    model = tiny().fit(images, callback=interrupt)
    assert model.interrupted_
    assert model.n_steps_ == 10
    assert model.transform(images).shape == (48, 3)
    replayed = tiny().fit(images, replay=model.decisions_)
    assert torch.equal(weights(replayed), weights(model))


def test_ctrl_c_with_a_checkpoint_saves_and_the_same_call_resumes(images, tmp_path):
    def interrupt(event):
        if event["event"] == "loss" and event["step"] == 10:
            signal.raise_signal(signal.SIGINT)

    model = tiny()
    with pytest.raises(KeyboardInterrupt):
        model.fit(images, checkpoint=tmp_path, callback=interrupt)
    assert not model.__sklearn_is_fitted__()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    events = []
    model.fit(images, checkpoint=tmp_path, callback=events.append)
    assert next(event for event in events if event["event"] == "resume")["step"] == 10
    assert not model.interrupted_
    assert torch.equal(weights(model), weights(tiny().fit(images)))


@pytest.mark.parametrize("budget", ["soon", 0, -3])
def test_an_invalid_budget_is_refused_before_training(images, budget):
    model = tiny(budget=budget)
    with pytest.raises(ParameterError, match="budget"):
        model.fit(images)


def test_bf16_learns_too(images):
    model = tiny(precision="bf16", max_steps=5).fit(images)
    assert torch.isfinite(weights(model)).all()
    assert weights(model).dtype == torch.float32
    assert not torch.equal(weights(model), weights(tiny(precision="fp32", max_steps=5).fit(images)))
