"""Sources of the commands: one or several, the first frame or all, and the suggested name of the atlas."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

import imatlas as ia
from imatlas.cli import main
from imatlas.cli.shared import suggested_name
from imatlas.errors import ArtifactError, InputError
from tests.images.video_files import shots_of, video_of

pytestmark = pytest.mark.usefixtures("one_thread")


def write(path: Path, seed: int, n_frames: int = 1) -> Path:
    """A file of patches of a photograph, an animation where there are several."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng, photo = np.random.default_rng(seed), data.coffee()
    frames = []
    for _ in range(n_frames):
        top, left = rng.integers(0, 300, 2)
        frames.append(Image.fromarray(photo[top : top + 90, left : left + 90]).resize((24, 24)))
    frames[0].save(path, **({"save_all": True, "append_images": frames[1:]} if n_frames > 1 else {}))
    return path


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder with photos/ (7 files, one of them no image) and more/ (3), where the commands run."""
    monkeypatch.chdir(tmp_path)
    for i in range(6):
        write(tmp_path / "photos" / f"{i}.png", i)
    (tmp_path / "photos" / "notes.txt").write_text("none")
    for i in range(2):
        write(tmp_path / "more" / f"{i}.png", 10 + i)
    shutil.copy(tmp_path / "photos" / "0.png", tmp_path / "more" / "copy.png")
    return tmp_path


def answer(capsys, *words: str) -> str:
    assert main(list(words)) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def test_several_files_are_one_source(here, capsys) -> None:
    files = [f"photos/{i}.png" for i in range(6)]  # what a shell makes of photos/*.png
    assert json.loads(answer(capsys, "check", *files, "--json"))["metrics"]["n_images"] == 6
    assert "imatlas learn -o photos.atlas" in answer(capsys, "check", *files)
    assert "imatlas learn photos/0.png photos/1.png -o photos.atlas" in answer(capsys, "check", *files[:2])
    answer(capsys, "learn", *files, "-o", "a.atlas", "--budget", "0.5s", "--json")
    assert ia.load("a.atlas").keys == [f"{i}.png" for i in range(6)]
    answer(capsys, "learn", *files, "-o", "a.atlas", "--budget", "0.5s", "--json")  # continues
    answer(capsys, "fit", "kmeans", *files, "-o", "model", "--n-clusters", "2")
    assert len(ia.load("model").labels_) == 6


def test_every_line_of_next_is_a_command_or_a_comment(here, capsys) -> None:
    """A comment after a pasted command must not become its argument."""
    files = [f"photos/{i}.png" for i in range(6)]
    Path("~").mkdir()
    shutil.copy("photos/0.png", "~/a.png")
    lines = []
    for words in (
        ["check", *files],
        ["check", "./~"],
        ["duplicates", "photos", "more"],
        ["duplicates", "more", "photos", "-o", "plan.csv"],
        ["duplicates", "--apply", "plan.csv"],
    ):
        lines += answer(capsys, *words).partition("Next:  ")[2].splitlines()
    commands = [shlex.split(line, comments=True) for line in lines]
    assert ["imatlas", "learn", "-o", "photos.atlas"] in commands
    assert ["imatlas", "learn", "./~", "-o", "./~.atlas"] in commands
    assert ["imatlas", "duplicates", str(here), "--undo"] in commands
    for command in commands:
        assert not command or command[0] == "imatlas", command


def test_several_folders_are_all_files_below_them(here, capsys) -> None:
    found = json.loads(answer(capsys, "check", "photos", "more", "--json"))
    assert found["metrics"]["n_images"] == 9
    out = answer(capsys, "duplicates", "photos", "more")
    assert "1 of 9 images" in out
    assert "imatlas duplicates photos more -o plan.csv" in out
    answer(capsys, "duplicates", "photos", "more", "-o", "plan.csv")
    assert "more/copy.png" in Path("plan.csv").read_text()
    assert json.loads(answer(capsys, "check", "photos", "more/1.png", "--json"))["metrics"]["n_images"] == 7


def test_what_cannot_be_one_of_several_sources_is_refused(here, capsys) -> None:
    shutil.make_archive("more", "zip", "more")
    assert main(["check", "photos", "more.zip"]) == 1
    assert "'more.zip' is an archive, a table or an array of images" in capsys.readouterr().err
    assert main(["check", "photos", "none"]) == 1
    assert "no file or folder 'none'" in capsys.readouterr().err
    assert main(["duplicates", "photos", "more", "--undo"]) == 2
    assert "give only that one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("sources", "name"),
    [
        (["photos"], "photos"),
        (["photos/"], "photos"),
        (["photos/*.jpg"], "photos"),
        (["a/photos/**/[ab]*.jpg"], "photos"),
        (["photos/a?.jpg"], "photos"),
        (["*.jpg"], "images"),
        (["set.tar.gz"], "set"),
        (["photos/a.jpg", "photos/b.jpg"], "photos"),
        (["photos", "more"], "images"),
        (["."], "images"),
    ],
)
def test_the_suggested_name_has_no_pattern_in_it(here, sources, name) -> None:
    assert suggested_name(sources) == Path(f"{name}.atlas")


def test_a_name_that_looks_like_a_pattern_is_kept(here) -> None:
    Path("set [1]").mkdir()
    assert suggested_name(["set [1]/"]) == Path("set [1].atlas")


def test_all_frames_are_learned_with_the_option(here, capsys) -> None:
    for i in range(3):
        write(here / "anim" / f"{i}.gif", i, 4)
    shutil.copy("anim/0.gif", "anim/copy.gif")
    first, every = (
        json.loads(answer(capsys, "check", "anim", "--frames", frames, "--json"))["metrics"]
        for frames in ("first", "all")
    )
    assert (first["n_images"], every["n_images"]) == (4, 16)
    assert every["n_exact_duplicates"] == 4
    assert "imatlas learn anim -o anim.atlas --frames all" in answer(capsys, "check", "anim", "--frames", "all")
    learn = ["learn", "anim", "-o", "a.atlas", "--budget", "0.5s", "--json"]
    answer(capsys, *learn, "--frames", "all")
    atlas = ia.load("a.atlas")
    assert atlas.store.manifest.settings["frames"] == "all"
    assert atlas.keys[:2] == ["0.gif#1", "0.gif#2"]
    assert main(learn) == 1
    assert "frames was 'all' and is now 'first'" in capsys.readouterr().err
    for source in ("anim", "a.atlas"):
        out = answer(capsys, "duplicates", source, "--frames", "all")
        assert "of 16 images are duplicates" in out
        assert "plan.csv" not in out
    assert main(["duplicates", "anim", "--frames", "all", "-o", "plan.csv"]) == 2
    assert main(["duplicates", "a.atlas", "-o", "plan.csv"]) == 1
    assert not Path("plan.csv").exists()
    answer(capsys, "fit", "kmeans", "anim", "-o", "model", "--n-clusters", "2", "--frames", "all")
    assert len(ia.load("model").labels_) == 16


def test_frames_of_images_that_are_given_are_recorded(here) -> None:
    write(here / "anim" / "a.gif", 0, 6)
    images = ia.Images("anim", frames="all")
    assert ia.learn(images, "a.atlas", budget=0.5, progress=False).store.manifest.settings["frames"] == "all"
    with pytest.raises(InputError, match="files of a folder"):
        ia.load("a.atlas").duplicates().plan("plan.csv")
    with pytest.raises(ArtifactError, match="frames was 'all'"):
        ia.learn("anim", "a.atlas", budget=0.5, progress=False)


def test_an_atlas_whose_settings_lack_frames_is_damaged(here) -> None:
    manifest = ia.learn("photos", "a.atlas", budget=0.5, progress=False).store.manifest
    del manifest.settings["frames"]
    manifest.commit(Path("a.atlas"))
    with pytest.raises(ArtifactError, match=r"is damaged \(settings.*frames: Field required\)"):
        ia.load("a.atlas")


def test_frames_of_videos(here, capsys):
    pytest.importorskip("av")
    (here / "clips").mkdir()
    (here / "clips" / "clip.mp4").write_bytes(video_of(shots_of(range(3), 25)))
    assert main(["check", "clips", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["n_images"] == 3
    assert main(["check", "clips/clip.mp4", "--video", "200ms"]) == 0
    out = capsys.readouterr().out
    assert "15 images of 160 x 90 pixels" in out
    assert "imatlas learn clips/clip.mp4 -o clip.atlas --video 200ms" in out
    assert main(["duplicates", "clips", "--video", "500ms", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["n_images"] == 6
    assert main(["learn", "clips", "-o", "x.atlas", "--video", "often"]) == 1
    assert "The 'video' parameter of learn must be 'cuts'" in capsys.readouterr().err
    assert not Path("x.atlas").exists()
