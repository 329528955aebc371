"""Several processes under torchrun learn what one learns, stop and resume together, and only one of them writes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import imatlas
from imatlas.cli import main
from imatlas.errors import ParameterError
from imatlas.images.spec import ImageSpec
from imatlas.system import processes
from imatlas.training import checkpoints, devices
from imatlas.training.batches import Data
from imatlas.training.loop import Run
from tests.training import together

pytestmark = pytest.mark.usefixtures("one_thread")

SECONDS = 240
"""A run that takes longer is stuck."""


def torchrun(*command, cwd=None):
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *map(str, command)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
    )


def run_together(work, folder):
    process = torchrun("-m", "tests.training.together", work, folder, cwd=Path(__file__).parents[2])
    try:
        out, errors = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
    return process.returncode, out, errors


def saved(folder, name):
    return np.load(folder / f"{name}.npy"), json.loads((folder / f"{name}.json").read_text())


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, pixels in enumerate(together.images()):
        Image.fromarray(pixels.squeeze()).save(folder / f"{number:03}.png")
    return folder


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """The folder of two processes, and that of this one."""
    two, one = tmp_path_factory.mktemp("two"), tmp_path_factory.mktemp("one")
    code, _, errors = run_together("learn_all", two)
    assert code == 0, errors
    together.learn_all(one)
    return two, one


@pytest.mark.parametrize("name", list(together.models()))
def test_two_processes_have_the_same_weights_after_as_many_steps(learned, name):
    _, about = saved(learned[0], name)
    assert about["alike"][0] == about["alike"][1]
    assert about["alike"][0][1] == together.SHARED["max_steps"]
    assert {"step": 0, "decision": "processes", "processes": 2} in about["decisions"]


@pytest.mark.parametrize("name", ["autoencoder", "uneven"])
def test_two_processes_learn_what_one_learns(learned, name):
    (two, about_two), (one, about_one) = (saved(folder, name) for folder in learned)
    assert np.abs(two - one).max() < 1e-4
    for key in ("train", "held_out"):
        assert np.allclose(about_two["history"][key], about_one["history"][key], rtol=1e-4)


@pytest.mark.parametrize("name", ["noiseless_gan", "mirrored_views"])
def test_two_optimizers_and_losses_between_images_take_the_same_first_steps(learned, name):
    two, one = (saved(folder, name)[1]["history"] for folder in learned)
    assert np.allclose(two["train"][:5], one["train"][:5], rtol=1e-5)  # the two soon amplify differences of rounding
    assert np.allclose(two["train"], one["train"], rtol=0.02)


@pytest.mark.parametrize(("name", "tolerance"), [("vae", 0.05), ("flow", 0.2), ("gan", 0.5)])
def test_with_noise_the_losses_are_close(learned, name, tolerance):
    two, one = (saved(folder, name)[1]["history"] for folder in learned)
    assert np.mean(two["train"]) == pytest.approx(np.mean(one["train"]), rel=tolerance)
    assert two["train"] != one["train"]  # each process draws noise of its own


def test_troubles_of_one_process_are_those_of_all(tmp_path):
    (tmp_path / "unreadable").mkdir()
    (tmp_path / "unreadable" / "a.png").write_bytes(b"not a picture")
    code, out, errors = run_together("troubles", tmp_path)
    assert code == 0, errors

    weights, about = saved(tmp_path, "troubled")
    assert [d["decision"] for d in about["decisions"]] == ["processes", "out_of_memory", "rollback"]
    assert about["alike"][0] == about["alike"][1]
    assert np.isfinite(weights).all()

    stopped, about = saved(tmp_path, "struck")
    assert [d["decision"] for d in about["decisions"]] == ["processes", "snapshot"]
    plain = together.Autoencoder(latent_dim=4, augment=False, **together.options()).fit(together.images())
    assert np.abs(stopped - together.weights(plain)).max() < 1e-4

    for process in (0, 1):
        assert f"refused in {process}: Process 1 has other images or parameters than process 0 (images)" in out
    assert "failed in 0: InputError" in out
    assert "failed in 1: TrainingError: Process 0 of this run has failed: " in out
    for name in ("drawn", "budget"):
        _, about = saved(tmp_path, name)
        assert about["alike"][0] == about["alike"][1]
    assert [d["decision"] for d in about["decisions"]][-1] == "schedule"


def test_a_run_goes_on_in_another_number_of_processes_and_one_process_writes(tmp_path, photos):
    model = together.Struck(latent_dim=4, augment=False, **together.options(), signal=int(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        model.fit(imatlas.Images(photos), checkpoint=tmp_path / "of_one")
    rename_learner(tmp_path / "of_one")
    code, out, errors = run_together("writing", tmp_path)
    assert code == 0, errors

    plain = together.Autoencoder(latent_dim=4, augment=False, **together.options()).fit(imatlas.Images(photos))
    resumed, about = saved(tmp_path, "resumed")
    assert np.abs(resumed - together.weights(plain)).max() < 1e-4
    assert about["decisions"][-1] == {"step": 6, "decision": "processes", "processes": 2}

    events = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events].count("start") == 1
    message = next(e["message"] for e in events if e.get("decision") == "processes")
    assert message == "Training in 2 processes. The checkpoint was written in 1 process."
    assert np.array_equal(together.weights(imatlas.load(tmp_path / "model")), resumed)
    assert len(list((tmp_path / "cache").iterdir())) == 1

    assert "stopped in 0" in out
    assert "stopped in 1" in out
    alone = together.Struck(latent_dim=4, augment=False, **together.options(), signal=int(signal.SIGINT))
    alone.calls = 100
    alone.fit(imatlas.Images(photos), checkpoint=tmp_path / "of_two")
    assert alone.decisions_[-1] == {"step": 6, "decision": "processes", "processes": 1}
    assert np.abs(together.weights(alone) - together.weights(plain)).max() < 1e-4


def rename_learner(folder):
    """Make a checkpoint of `Struck` one of an `Autoencoder`, which it is but for the signal."""
    tensors, values = checkpoints.read(folder)
    del values["identity"]["signal"]
    values["identity"]["model"] = "Autoencoder"
    checkpoints.write(folder, tensors, values)


def test_when_a_process_dies_the_others_end(tmp_path):
    began = time.monotonic()
    code, _, errors = run_together("killed", tmp_path)
    assert code != 0
    assert time.monotonic() - began < SECONDS / 2
    assert "Process 0 has lost another process of this run" in errors


def test_the_command_line_trains_in_two_processes_and_stops_with_a_checkpoint(tmp_path, photos):
    command = ["-m", "imatlas", "fit", "autoencoder", photos, "-o", tmp_path / "model", "--latent-dim", "4"]
    command += ["--size", "small", "--batch-size", "16", "--max-steps"]
    process = torchrun(*command, "100000")
    try:
        for line in process.stderr:
            if "Training in 2 processes" in line:
                break
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
    assert errors.count("run the same command again to continue") == 1
    assert (tmp_path / "model.checkpoint" / "checkpoint.safetensors").is_file()

    (tmp_path / "model.checkpoint" / "checkpoint.safetensors").unlink()
    process = torchrun(*command, "30")
    out, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors
    assert out.count("Model: ") == 1
    assert "Training in 2 processes" in errors
    assert not (tmp_path / "model.checkpoint").exists()
    assert imatlas.load(tmp_path / "model").n_steps_ == 30


@pytest.fixture
def second_of_two(monkeypatch):
    """The environment of the second of two processes."""
    for name, value in zip(processes.VARIABLES, (1, 2, 1, 2, "127.0.0.1", 1), strict=True):
        monkeypatch.setenv(name, str(value))


def test_without_torchrun_there_is_one_process(monkeypatch):
    for name in processes.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RANK", "1")  # set by others, too
    assert (processes.count(), processes.rank(), processes.is_first()) == (1, 0, True)
    assert processes.summed([1.5, 2]) == [1.5, 2]


def test_a_batch_is_divided_without_overlap(second_of_two, monkeypatch):
    rows = np.arange(13)
    second = processes.part_of(rows)
    monkeypatch.setenv("RANK", "0")
    assert [*processes.part_of(rows), *second] == [*rows]
    assert abs(len(second) - 6.5) < 1


def test_each_process_has_a_device_of_its_own(second_of_two):
    assert devices.pick_device("cpu").type == "cpu"
    with pytest.raises(ParameterError, match="cuda:1"):
        devices.pick_device("cuda:1")


def test_what_is_not_the_training_of_a_network_is_refused(second_of_two, tmp_path, capsys):
    with pytest.raises(ParameterError, match="run it without torchrun"):
        imatlas.learn(together.images(), tmp_path / "set.atlas")
    assert not (tmp_path / "set.atlas").exists()
    assert main(["table", str(tmp_path)]) == 1
    assert "Error in process 1: 'imatlas table' runs in one process." in capsys.readouterr().err


def test_a_batch_needs_an_image_for_each_process(second_of_two):
    model = together.Autoencoder(**together.options(batch_size=1))
    pixels, spec = together.images(), ImageSpec(16, 16, 1)
    with pytest.raises(ParameterError, match="batch_size"):
        Run(model, model._build(spec), Data(pixels, spec, pixels[:0]), seed=0)
