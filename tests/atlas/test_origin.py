"""Where an atlas comes from: one place, however its files were named, so that it is found, followed and updated."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import imatlas as ia
from imatlas.atlas.manifest import Manifest
from imatlas.atlas.originals import Originals
from imatlas.cli import main
from imatlas.errors import ArtifactError
from imatlas.images.sources.origin import same_place

pytestmark = pytest.mark.usefixtures("one_thread")


def write(folder: Path, names: range) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i in names:
        pixels = np.random.default_rng(i).integers(0, 255, (12, 12, 3), "uint8").repeat(4, 0).repeat(4, 1)
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "ph", range(5))
    return tmp_path


def learn(*words: str) -> int:
    return main(["learn", *words, "-o", "a.atlas", "--budget", "0.4s"])


def named(folder: str, way: str) -> list[str]:
    """A folder of pictures as a user may name it."""
    files = sorted(os.listdir(folder))
    return {
        "folder": [folder],
        "pattern": [f"{folder}/*.png"],
        "deep": [f"{folder}/**/*.png"],
        "files": [f"{folder}/{name}" for name in files],
        "several": [f"{folder}/0[0-2].png", f"{folder}/0[3-9].png"],
    }[way]


WAYS = ("folder", "pattern", "deep", "files", "several")


@pytest.mark.parametrize("way", WAYS)
def test_a_source_that_grew_moved_and_grew_again_stays_one(here, capsys, way) -> None:
    assert learn(*named("ph", way)) == 0
    encoder = Manifest.read("a.atlas").models["encoder"]
    write(here / "ph", range(5, 7))
    assert learn(*named("ph", way)) == 0, capsys.readouterr().err
    assert len(ia.load("a.atlas")) == 7
    (here / "ph").rename(here / "moved")
    write(here / "moved", range(7, 8))
    assert learn(*named("moved", way)) == 1
    assert f"source was '{here}/ph' and is now '{here}/moved'" in capsys.readouterr().err
    assert learn(*named("moved", way), "--moved-from", "ph") == 0, capsys.readouterr().err
    atlas = ia.load(here / "a.atlas")
    assert (len(atlas), atlas.store.manifest.source) == (8, str(here / "moved"))
    assert atlas.store.manifest.models["encoder"] == encoder
    os.chdir("/")  # found from anywhere
    for key in atlas.keys:
        assert atlas.store.originals.path(key) == here / "moved" / key


@pytest.mark.parametrize("way", WAYS)
def test_originals_of_every_source_are_linked_copied_and_cut(here, way) -> None:
    assert learn(*named("ph", way)) == 0
    atlas = ia.load("a.atlas")
    for copy in (False, True):
        assert main(["export", "a.atlas", "--to", "folders", "-o", f"x{copy}", *(["--copy"] if copy else [])]) == 0
        assert len([*(here / f"x{copy}").rglob("*.png")]) == 5
    assert atlas.search("00.png", 2, region=(0, 0, 40, 40)).num_rows == 2  # warns where it were cut from a thumbnail


def test_another_spelling_of_the_folder_is_the_same_source(here, monkeypatch, capsys) -> None:
    monkeypatch.setenv("HOME", str(here))
    (here / "link").symlink_to("ph")
    assert learn("ph") == 0
    for spelling in (f"../{here.name}/ph", "link", "./ph/", "~/ph", "~/ph/*.png", "link/../ph"):
        assert learn(spelling) == 0, capsys.readouterr().err
        assert "have moved" not in capsys.readouterr().out
    shutil.rmtree("a.atlas")
    ia.learn("~/ph", "a.atlas", budget=0.4, progress=False)
    assert ia.load("a.atlas").store.manifest.source == str(here / "ph")
    assert learn(str(here / "ph")) == 0
    write(here / "other", range(10, 15))
    assert learn("other") == 1


def test_rows_in_memory_may_become_more(here) -> None:
    array = np.random.default_rng(0).integers(0, 255, (12, 16, 16), "uint8")
    ia.learn(array[:9], "a.atlas", budget=0.4, progress=False)
    assert len(ia.learn(array, "a.atlas", budget=0.4, progress=False)) == 12
    with pytest.raises(ArtifactError, match="an array of 16 x 16 x 1' and is now 'an array of 8 x 8 x 1"):
        ia.learn(array[:, :8, :8], "a.atlas", budget=0.4, progress=False)


def test_one_place_under_two_names(here) -> None:
    (here / "link").symlink_to("ph")
    assert same_place(str(here / "link"), str(here / "ph"))
    assert not same_place(str(here / "more"), str(here / "ph"))
    assert not same_place("a list", str(here / "ph"))
    assert Originals(str(here / "link")).path("01.png") == here / "link" / "01.png"


@pytest.mark.parametrize("sources", [["own/*"], ["own/00.png", "own/01.png", "own/02.png", "own/a.atlas"], ["own"]])
def test_what_was_made_in_the_folder_of_images_is_no_input(here, capsys, sources) -> None:
    own = write(here / "own", range(4))
    assert main(["learn", "own", "-o", "own/a.atlas", "--budget", "0.4s"]) == 0
    assert main(["export", "own/a.atlas", "--to", "folders", "-o", "own/linked"]) == 0
    assert main(["export", "own/a.atlas", "--to", "folders", "-o", "own/copied", "--copy"]) == 0
    assert main(["sample", "own/a.atlas", "-n", "3", "-o", "own/new"]) == 0
    images = ia.Images(sources[0]) if len(sources) == 1 else None
    if images is None:
        from imatlas.cli.shared import one_source

        images = ia.Images(one_source(sources))
    assert len(images) == (3 if len(sources) > 1 else 4)
    assert "own/a.atlas/" in [f"own/{key}" if not key.startswith("own") else key for key, _ in images.skipped]
    shell = sorted(str(path.relative_to(here)) for path in own.iterdir())  # what a shell makes of own/*
    for again in (sources, shell):
        assert main(["learn", *again, "-o", "own/a.atlas", "--budget", "0.4s"]) == 0, capsys.readouterr().err
        assert "have moved" not in capsys.readouterr().out
    assert len(ia.load("own/a.atlas")) == 4
    assert len(ia.Images("own/copied")) == 4  # named itself, it is a source


def test_what_is_said_of_few_images_and_of_an_update(here, capsys) -> None:
    assert learn("ph") == 0
    assert "at most: encoder 0." in capsys.readouterr().out  # 0 s were said of all parts of a short budget
    (here / "ph" / "04.png").unlink()
    assert learn("ph") == 0
    assert main(["info", "a.atlas"]) == 0
    told = capsys.readouterr().out
    assert "0 of 4 images embedded in" in told
    assert "all keep their features" in told
    assert "The layout is kept" in told
    assert "report.html." not in told
    assert "0 files skipped" in told


def test_equal_images_say_why_they_are_one_cluster(here, capsys) -> None:
    for i in range(1, 5):
        shutil.copy("ph/00.png", f"ph/0{i}.png")
    assert main(["learn", "ph", "-o", "a.atlas", "--budget", "0.4s", "--clusters", "3"]) == 0
    assert "All images are equal, so they form one cluster" in capsys.readouterr().out
    for more in ([], ["--clusters", "30"]):
        assert main(["clusters", "a.atlas", *more]) == 0
        assert "All images are equal, so they form one cluster" in capsys.readouterr().out


def test_a_link_to_a_file_that_is_read_already_is_told(here) -> None:
    (here / "ph" / "sub").mkdir()
    (here / "ph" / "sub" / "x.png").symlink_to(here / "ph" / "01.png")
    (here / "ph" / "y.png").symlink_to("02.png")
    for source in ("ph", "ph/**/*.png"):
        images = ia.Images(source)
        assert len(images) == 5
        assert dict(images.skipped) == {
            "sub/x.png": "a link to '01.png', which is included already",
            "y.png": "a link to '02.png', which is included already",
        }
    assert len(ia.Images(["ph/02.png", "ph/y.png"])) == 2  # files that were named are all meant
