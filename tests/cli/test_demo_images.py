"""The demo images: real, all different, reproducible, with the problem files that their names announce."""

from __future__ import annotations

import hashlib
import io
import json
import socket

import numpy as np
import pytest
from PIL import Image, ImageOps

from imatlas.cli import main
from imatlas.cli.demo_images import PATCHES_PER_PHOTO, demo_files, write_demo_images
from imatlas.errors import ArtifactError


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return demo_files(0)


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB"), dtype=float)


def test_patches_are_real_and_all_different(files: dict[str, bytes]) -> None:
    patches = {name: content for name, content in files.items() if not name.startswith("problem-")}
    assert len(patches) == 12 * PATCHES_PER_PHOTO == 912
    assert len({hashlib.sha256(content).digest() for content in patches.values()}) == len(patches)
    for content in patches.values():
        image = Image.open(io.BytesIO(content))
        assert image.mode == "RGB"
        assert image.size in {(96, 96), (112, 112), (128, 128)}
    spread = [pixels(content).std() for content in list(patches.values())[::7]]
    assert min(spread) > 5  # no empty patch


def test_patches_of_one_photograph_are_alike(files: dict[str, bytes]) -> None:
    """Mean color alone identifies the photograph of a patch far above chance (1 in 12)."""
    names = [name for name in files if not name.startswith("problem-")][::4]
    colors = np.array([pixels(files[name]).mean((0, 1)) for name in names])
    distances = ((colors[:, None] - colors[None]) ** 2).sum(-1)
    np.fill_diagonal(distances, np.inf)
    nearest = [names[i].split("-")[0] for i in distances.argmin(1)]
    agree = np.mean([name.split("-")[0] == other for name, other in zip(names, nearest)])
    assert agree > 0.7


def test_problem_files_are_what_they_say(files: dict[str, bytes]) -> None:
    assert files["problem-empty.jpg"] == b""
    with pytest.raises(OSError, match="cannot identify"):
        Image.open(io.BytesIO(files["problem-text.jpg"]))
    with pytest.raises(OSError, match="truncated"):
        Image.open(io.BytesIO(files["problem-truncated.jpg"])).load()
    assert Image.open(io.BytesIO(files["problem-16-bit.png"])).mode == "I;16"
    assert np.asarray(Image.open(io.BytesIO(files["problem-16-bit.png"]))).max() > 255
    assert Image.open(io.BytesIO(files["problem-gray.png"])).mode == "L"
    assert files["problem-copy-1.jpg"] == files["astronaut-0003.jpg"]
    assert files["problem-copy-2.png"] == files["coffee-0012.png"]
    upright = pixels(files["cat-0001.jpg"])
    rotated = files["problem-rotated.jpg"]
    assert Image.open(io.BytesIO(rotated)).getexif()[0x0112] == 6
    assert np.abs(pixels(rotated) - upright).mean() < 4
    for again, first in (
        ("problem-saved-again-1.jpg", "cat-0001.jpg"),
        ("problem-saved-again-2.jpg", "rocket-0002.jpg"),
    ):
        assert files[again] != files[first]
        assert np.abs(pixels(files[again]) - pixels(files[first])).mean() < 6


def test_the_same_seed_gives_the_same_bytes_without_a_network(
    monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes]
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the demo used the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert demo_files(0) == files


def test_writes_a_folder_once_and_overwrites_nothing(tmp_path, files: dict[str, bytes]) -> None:
    folder = write_demo_images(tmp_path / "pictures")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    before = (folder / "cat-0000.jpg").stat().st_mtime_ns
    assert write_demo_images(folder) == folder
    assert (folder / "cat-0000.jpg").stat().st_mtime_ns == before
    with pytest.raises(ArtifactError, match="other files"):
        write_demo_images(folder, random_state=1)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]


def test_overwriting_replaces_only_pictures_that_the_list_names(tmp_path, files: dict[str, bytes]) -> None:
    photos, listed = tmp_path / "photos", tmp_path / "demo.json"
    photos.mkdir()
    (photos / "coffee-0001.jpg").write_bytes(b"my own coffee")
    for _ in range(2):
        with pytest.raises(ArtifactError, match="contains other files"):
            write_demo_images(photos, listed=listed)
        listed.write_text(json.dumps({"files": [["coffee-0001.jpg", "0" * 64], ["../x", "0" * 64]]}))
    assert [path.read_bytes() for path in photos.iterdir()] == [b"my own coffee"]
    (photos / "coffee-0001.jpg").unlink()
    write_demo_images(photos, listed=listed)
    write_demo_images(photos, random_state=1, listed=listed)  # another seed replaces all of them
    assert {path.name for path in photos.iterdir()} == files.keys()
    (photos / "cat-0001.jpg").write_bytes(b"my own cat")
    with pytest.raises(ArtifactError, match=r"contains 'cat-0001\.jpg', which imatlas did not write"):
        write_demo_images(photos, listed=listed)
    assert (photos / "cat-0001.jpg").read_bytes() == b"my own cat"


def test_photos_of_the_user_beside_the_demo_are_kept(tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").write_bytes(b"mine")
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "-o", ".", "--overwrite"]) == 1
    assert "contains other files" in capsys.readouterr().err
    assert (tmp_path / "photos" / "holiday.jpg").read_bytes() == b"mine"
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    (tmp_path / "photos").symlink_to(tmp_path / "elsewhere")
    assert main(["demo", "-o", ".", "--overwrite"]) == 1
    assert "is a link" in capsys.readouterr().err


def test_an_atlas_that_the_demo_did_not_make_is_kept(tmp_path, capsys) -> None:
    mine = tmp_path / "mine.atlas"
    mine.mkdir()
    (mine / "atlas.json").write_text("{}")
    (tmp_path / "demo").mkdir()
    for message in ("is a link", "was not made by the demo"):
        if message == "is a link":
            (tmp_path / "demo" / "photos.atlas").symlink_to(mine)
        else:
            (tmp_path / "demo" / "photos.atlas").unlink()
            (tmp_path / "demo" / "photos.atlas").mkdir()
        assert main(["demo", "-o", str(tmp_path / "demo"), "--overwrite"]) == 1
        assert message in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "demo").iterdir()] == ["photos.atlas"]
    (tmp_path / "file").write_text("mine")
    assert main(["demo", "-o", str(tmp_path / "file"), "--overwrite"]) == 1
    assert "is not a folder" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"
