"""What an unfinished atlas holds so far, read from its log, its table and its previews."""

from __future__ import annotations

import json
import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

import imatlas as ia
from imatlas.atlas.manifest import Manifest
from imatlas.studio.so_far import Log, SoFar
from imatlas.testing import synthetic_images

BEGUN = {"event": "stage", "stage": "encoder", "state": "started", "time": 100.0, "allowed": 44.4}
START = {"event": "start", "model": "Autoencoder"}


def loss(step: int, **values: Any) -> dict[str, Any]:
    return {"event": "loss", "step": step, "seconds": step / 10, "train": 1 / step, "held_out": 2 / step, **values}


def samples(number: int, step: int | None, model: str = "Autoencoder") -> dict[str, Any]:
    known = {} if step is None else {"step": step, "seconds": step / 10}
    return {"event": "samples", "number": number, "shown": 8, "model": model, **known}


def write(path: Path, *events: Any, end: str = "\n") -> None:
    with path.open("a") as file:
        file.write("\n".join(each if isinstance(each, str) else json.dumps(each) for each in events) + end)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "metrics.jsonl")


def test_a_stopped_training_goes_on_from_its_checkpoint(log: Log) -> None:
    log.read()
    assert log.networks == []
    write(log.path, BEGUN, START, loss(10), samples(0, 10), loss(20), samples(1, 20), loss(30))
    log.read()
    assert log.running == ("encoder", 100.0, 44.4)
    assert [point.step for point in log.networks[0].losses] == [10, 20, 30]
    write(log.path, BEGUN, {"event": "resume", "step": 20}, START, loss(25))
    log.read()
    (network,) = log.networks
    assert [point.step for point in network.losses] == [10, 20, 25]
    assert [each.number for each in network.samples] == [0, 1]
    write(log.path, BEGUN, START, loss(4))  # without its checkpoint, it starts over
    log.read()
    (network,) = log.networks
    assert [point.step for point in network.losses] == [4]
    assert network.samples == []


def test_networks_of_several_stages_are_told_apart(log: Log) -> None:
    write(
        log.path,
        BEGUN,
        START,
        loss(1),
        {**START, "model": "Sharpener"},
        loss(1, held_out=None),
        samples(0, 1, "Sharpener"),
    )
    write(log.path, {**BEGUN, "state": "done"}, {**BEGUN, "stage": "generator"}, samples(1, None, "PatchDiffusion"))
    log.read()
    assert [(one.stage, one.model) for one in log.networks] == [
        ("encoder", "Autoencoder"), ("encoder", "Sharpener"), ("generator", "PatchDiffusion"),
    ]  # fmt: skip
    assert log.networks[1].event()["held_out"] == [None]
    assert log.networks[2].event()["samples"] == [{"number": 1, "shown": 8, "step": None, "seconds": None}]
    write(log.path, {**BEGUN, "stage": "generator"})  # again: what it has composed before is not its work
    log.read()
    assert [one.model for one in log.networks] == ["Autoencoder", "Sharpener"]


def test_lines_that_are_not_whole_or_not_ours_are_no_harm(log: Log) -> None:
    strange = ["{", "[1]", "7", "null", '{"event": "loss"}', '{"event": "loss", "step": "x", "seconds": NaN}', "\udcff"]
    write(log.path, BEGUN, START, *strange[:-1], {"event": "stage", "stage": "map", "state": "started"}, loss(5))
    write(log.path, '{"event": "loss", "step": 6, "seco', end="")
    log.read()
    assert [point.step for point in log.networks[0].losses] == [5]
    write(log.path, 'nds": 0.6}')
    log.read()
    assert [point.step for point in log.networks[0].losses] == [5, 6]
    log.path.unlink()
    write(log.path, BEGUN)
    log.read()
    assert log.networks == []


def test_long_curves_are_thinned_and_end_at_the_last_point(log: Log) -> None:
    write(log.path, BEGUN, START, *(loss(step) for step in range(1, 3000)))
    log.read()
    told = log.networks[0].event()
    assert len(told["step"]) < 800
    assert (told["step"][0], told["step"][-1]) == (1, 2999)
    assert len(told["seconds"]) == len(told["held_out"]) == len(told["step"])


def test_a_learned_atlas_shows_all_stages_a_map_and_samples(learned: Path) -> None:
    so_far = SoFar(learned)
    event = so_far.event(learning=False)
    assert [stage["name"] for stage in event["stages"]] == list(Manifest.read(learned).stages)
    assert {stage["state"] for stage in event["stages"]} == {"done"}
    assert event["stages"][0]["summary"].startswith("60 images")
    assert event["budget"] == 25
    picture = so_far.map_picture()
    assert picture is not None
    assert so_far.map_picture() is picture
    with Image.open(BytesIO(picture)) as image:
        pixels = np.asarray(image.convert("RGBA"))
    side = 96
    shown = pixels[side // 2 :: side, side // 2 :: side, 3] > 128
    assert shown.sum() == 60
    made = [each["number"] for network in event["networks"] for each in network["samples"]]
    assert made
    with Image.open(BytesIO(so_far.samples(made[-1]) or b"")) as image:
        assert image.format == "WEBP"
    assert so_far.samples(10**8) is None


def test_one_stage_after_the_other(folder: Path, tmp_path: Path) -> None:
    """While an atlas is learned, a reader sees its stages begin and end, and the map before the clusters."""
    atlas, seen = tmp_path / "new.atlas", []
    so_far = SoFar(atlas)
    assert {stage["state"] for stage in so_far.event(learning=True)["stages"]} == {"waiting"}

    def look(event: dict[str, Any]) -> None:
        told = so_far.event(learning=True)
        picture = so_far.map_picture()
        seen.append((tuple(stage["state"] for stage in told["stages"]), picture is not None, told["networks"]))

    ia.learn(folder, atlas, encoder="own", budget="6s", image_size=16, progress=False, callback=look)
    states = list(dict.fromkeys(state for state, _, _ in seen))
    assert states[0] == ("running", *["waiting"] * 7)
    assert ("done", "done", "running", *["waiting"] * 5) in states
    before_clusters = [has_map for state, has_map, _ in seen if state[3] == "running"]
    assert all(before_clusters)
    assert not any(has_map for state, has_map, _ in seen if state[2] in ("waiting", "running"))
    of_encoder = [networks for state, _, networks in seen if state[1] == "running" and networks]
    assert len(of_encoder[-1][0]["step"]) > 2
    assert of_encoder[-1][0]["model"] == "Autoencoder"
    assert of_encoder[-1][0]["samples"]


def test_three_images_of_seven_channels_have_a_map(tmp_path: Path, one_thread: None) -> None:
    for i, pixels in enumerate(synthetic_images(3, size=16, channels=7, dtype="uint16")):
        tifffile.imwrite(tmp_path / f"{i}.tif", pixels, photometric="minisblack", planarconfig="contig")
    ia.learn(tmp_path, tmp_path / "a.atlas", encoder="own", budget="1s", progress=False)
    with Image.open(BytesIO(SoFar(tmp_path / "a.atlas").map_picture() or b"")) as image:
        assert image.size in ((96, 288), (288, 96), (192, 192))


@pytest.mark.parametrize("harm", ["atlas.json", "table"])
def test_a_damaged_atlas_is_told_or_nothing(learned: Path, tmp_path: Path, harm: str) -> None:
    copy = Path(shutil.copytree(learned, tmp_path / "copy.atlas"))
    if harm == "atlas.json":
        (copy / "atlas.json").write_text("{}")
        assert SoFar(copy).event(learning=False)["map"] is None
        assert SoFar(copy).map_picture() is None
    else:
        for path in (copy / Manifest.read(copy).table["name"]).rglob("*.lance"):
            path.write_bytes(b"x")
        with pytest.raises(ia.errors.ImatlasError):
            SoFar(copy).map_picture()


def test_a_link_in_place_of_a_preview_is_not_followed(learned: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(learned, tmp_path / "copy.atlas"))
    (tmp_path / "secret").write_text("secret")
    (copy / "cache" / "previews" / "0077.webp").symlink_to(tmp_path / "secret")
    assert SoFar(copy).samples(77) is None
