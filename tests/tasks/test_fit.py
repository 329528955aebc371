"""A model is fitted and saved in one call; other files beside or inside its folders stay."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from imatlas import Images
from imatlas.cli import main
from imatlas.errors import ArtifactError, UnsafePathError
from imatlas.models import MODELS, model_class
from imatlas.tasks.fit import fit_and_save
from imatlas.testing import synthetic_images
from imatlas.training.checkpoints import NAME


def fit(folder: Path, **options) -> None:
    images = Images(synthetic_images(16, size=8, random_state=0))
    model = model_class("autoencoder")(latent_dim=2, size="small", max_steps=2, progress=False)
    fit_and_save(model, images, folder, **options)


def test_a_users_file_in_the_folder_stops_it_before_training(tmp_path) -> None:
    fit(tmp_path / "ae")
    (tmp_path / "ae" / "notes.txt").write_text("mine")
    with pytest.raises(ArtifactError, match=r"contains 'notes\.txt', which imatlas did not write"):
        fit(tmp_path / "ae", overwrite=True)
    assert os.listdir(tmp_path) == ["ae"]
    (tmp_path / "ae" / "notes.txt").unlink()
    fit(tmp_path / "ae", overwrite=True)
    assert sorted(os.listdir(tmp_path / "ae")) == ["model.json", "weights.safetensors"]


def test_a_model_of_another_program_is_not_overwritten(tmp_path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "model.json").write_text(json.dumps({"format": "layers-model", "weightsManifest": []}))
    with pytest.raises(ArtifactError, match="holds no model of imatlas"):
        fit(folder, overwrite=True)
    assert "layers-model" in (folder / "model.json").read_text()


def test_only_the_checkpoint_is_removed_from_its_folder(tmp_path) -> None:
    mine = tmp_path / "ae.checkpoint"
    mine.mkdir()
    (mine / "diary.txt").write_text("mine")
    fit(tmp_path / "ae")
    assert os.listdir(mine) == ["diary.txt"]
    mine.rename(tmp_path / "elsewhere")
    mine.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafePathError, match="is a link"):
        fit(tmp_path / "other" / ".." / "ae", overwrite=True)
    assert not (tmp_path / "elsewhere" / NAME).exists()


@pytest.mark.parametrize("of", ["link", "pipe", "file"])
def test_other_things_with_the_name_of_the_folder_stay(tmp_path, of) -> None:
    name, mine = tmp_path / "ae", tmp_path / "mine"
    mine.mkdir()
    {"link": lambda: name.symlink_to(mine), "pipe": lambda: os.mkfifo(name), "file": name.touch}[of]()
    for overwrite in (False, True):
        with pytest.raises(ArtifactError):
            fit(name, overwrite=overwrite)
    assert os.path.lexists(name)
    assert not os.listdir(mine)


def test_the_command_line_refuses_the_folder_of_the_images(tmp_path, monkeypatch, capsys) -> None:
    from PIL import Image

    photos = tmp_path / "photos"
    photos.mkdir()
    for i, image in enumerate(synthetic_images(12, size=8, random_state=0)):
        Image.fromarray(image.squeeze()).save(photos / f"{i}.png")
    before = sorted(os.listdir(photos))
    monkeypatch.chdir(photos)
    for output in (".", str(photos), "../photos"):
        assert main(["fit", "kmeans", str(photos), "-o", output, "--n-clusters", "2", "--overwrite"]) == 1
        assert "holds no model" in capsys.readouterr().err
    assert sorted(os.listdir(photos)) == before


@pytest.mark.parametrize("name", [name for name in MODELS if model_class(name).labels == "required"])
def test_a_model_that_requires_labels_names_the_command_that_takes_them(name, capsys) -> None:
    assert main(["fit", name, "photos/", "-o", "model"]) == 2
    assert "imatlas classify ATLAS --labels labels.csv" in capsys.readouterr().err
    assert main(["fit", "--help"]) == 0
    assert name not in capsys.readouterr().out
