"""Every command of the program: help, example, wrong usage, and a run as text and as JSON."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.main
from PIL import Image

import imatlas as ia
from imatlas.cli import demo_images, main, program
from imatlas.models import MODELS, model_class

pytestmark = pytest.mark.usefixtures("one_thread")

COMMANDS: dict[str, Any] = typer.main.get_command(program.app).commands  # type: ignore[attr-defined]

RUNS = {
    "check": "{photos}",
    "learn": "{photos} -o {out}/new.atlas --budget 0.5s",
    "info": "{atlas}",
    "report": "{atlas} -o {out}/report.html",
    "map": "{atlas} -o {out}/map.png --width 300",
    "table": "{atlas} -o {out}/table.csv",
    "demo": "-o {out}/demo --budget 1s",
    "clusters": "{atlas} -o {out}/clusters.csv",
    "classify": "{atlas} --labels {labels} -o {out}/labels.csv",
    "explain": "{atlas} --image {key} -o {out}/explain.html",
    "search": "{atlas} {key} -k 3 -o {out}/found.csv",
    "outliers": "{atlas} --false-positive-rate 10% -o {out}/outliers.csv",
    "duplicates": "{photos} -o {out}/plan.csv",
    "sample": "{atlas} -n 2 -o {out}/new.png",
    "morph": "{atlas} {key} {other} --frames 3 -o {out}/morph.gif",
    "panorama": "{composed} {key} {other} -o {out}/panorama.png",
    "denoise": "{photos} -o {out}/clean --budget 1s --preview --error-map",
    "compress": "{photos} -o {out}/photos.imc --psnr 30 --report {out}/photos.html",
    "decompress": "{compressed} -o {out}/decompressed",
    "upscale": "{photos} -o {out}/large --budget 1s",
    "enhance": "{photos} -o {out}/better",
    "inpaint": "{composed} {key} --mask {mask} -o {out}/whole.png",
    "extend": "{composed} {key} --shape 28x48 -o {out}/wide.png",
    "blend": "{composed} {key} {other} --axis vertical -o {out}/both.png",
    "sliders": "{atlas} -n 2 --steps 3 -o {out}/sliders.png",
    "segment": "{photos} --segments 3 -o {out}/segments",
    "score": "{atlas}",
    "export": "{atlas} --to numpy -o {out}/embedding.npz",
    "fit": "kmeans {photos} --n-clusters 2 -o {out}/model",
}
"""The arguments of one run of each command but those `ELSEWHERE`."""

ELSEWHERE = {"serve", "studio", "words"}
"""Commands that run until they are interrupted, or need an atlas of photographs: see tests/studio and test_words."""

FITTED = [name for name in MODELS if model_class(name).labels != "required"]


@pytest.fixture(scope="module")
def words(atlas: Path, composed: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What stands for the names in `RUNS`, except the output folder."""
    keys = ia.load(atlas).keys
    labels = tmp_path_factory.mktemp("labels") / "labels.csv"
    labels.write_text("key,label\n" + "".join(f"{key},{key.partition('-')[0]}\n" for key in keys[:24]))
    mask = labels.with_name("mask.png")
    Image.fromarray(np.pad(np.full((8, 8), 255, np.uint8), 10)).save(mask)
    named = {"atlas": atlas, "photos": atlas.parent / "photos", "labels": labels, "key": keys[0], "other": keys[1]}
    compressed = labels.with_name("photos.imc")
    assert main(["compress", str(named["photos"]), "-o", str(compressed)]) == 0
    named |= {"composed": composed, "mask": mask, "compressed": compressed}
    return {name: str(value) for name, value in named.items()}


def options(command: Any) -> set[str]:
    """The options of a command; click adds --help when it parses."""
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}


def test_every_command_has_a_run() -> None:
    assert set(RUNS) | ELSEWHERE == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_an_example_of_options_that_exist(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    assert f"Example: imatlas {name} " in capsys.readouterr().out
    commands = COMMANDS[name].epilog.split("imatlas ")[1:]
    assert commands
    for command in commands:
        used, *arguments = shlex.split(command.removesuffix("then: ").removesuffix("or: "))
        assert used == name
        if name != "fit":  # the options of `fit MODEL` are those of the model, tested below
            assert {word for word in arguments if word.startswith("-")} <= options(COMMANDS[name])


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unknown_option_is_wrong_usage(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--no-such-option"]) == 2
    error = capsys.readouterr().err
    assert "Try 'imatlas" in error
    assert "--no-such-option" in error


@pytest.mark.parametrize(
    "name", [name for name, command in COMMANDS.items() if any(p.required for p in command.params)]
)
def test_missing_arguments_are_wrong_usage(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name]) == 2
    assert "Missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "as_json"),
    [
        (name, as_json)
        for name in RUNS
        for as_json in (False, True)
        if not as_json or "--json" in options(COMMANDS[name])
    ],
)
def test_every_command_runs(
    name: str,
    as_json: bool,
    words: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(demo_images, "PATCHES_PER_PHOTO", 13)  # the fewest that the problem files are made of
    arguments = [word.format(**words, out=tmp_path) for word in RUNS[name].split()]
    assert main([name, *arguments, *(["--json"] if as_json else [])]) == 0
    printed = capsys.readouterr()
    assert printed.out
    assert "Error" not in printed.err
    if as_json:
        assert json.loads(printed.out)
    if "-o" in arguments:
        assert Path(arguments[arguments.index("-o") + 1]).exists()


def test_a_plan_of_duplicates_is_applied_and_undone(
    words: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = shutil.copytree(words["photos"], tmp_path / "photos")
    copy = photos / "z.png"
    shutil.copy(photos / words["key"], copy)
    plan = str(tmp_path / "plan.csv")
    for arguments, remains in (
        ([str(photos), "-o", plan], True),
        (["--apply", plan], False),
        ([str(photos), "--undo"], True),
    ):
        assert main(["duplicates", *arguments, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)
        assert copy.exists() is remains


@pytest.mark.parametrize("model", FITTED)
def test_fit_shows_the_parameters_of_each_model(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", model, "--help"]) == 0
    assert f"Example: imatlas fit {model} photos/ -o runs/{model}" in capsys.readouterr().out
    assert main(["fit", model]) == 2
    assert "Missing argument" in capsys.readouterr().err
