"""The studio of a folder that has no atlas: it is checked, learned, stopped, gone on with, and becomes the studio."""

from __future__ import annotations

import json
import shutil
import time
import urllib.request
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import imatlas as ia
from imatlas.atlas.manifest import Manifest
from imatlas.cli import main
from imatlas.errors import ArtifactError
from imatlas.studio.learning import Learning
from tests.studio.conftest import Studio


def until(studio: Studio, wanted: Callable[[dict[str, Any]], bool], seconds: float = 300) -> dict[str, Any]:
    """The first event that is as wanted."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        event = first_event(studio)
        if wanted(event):
            return event
        time.sleep(0.3)
    raise AssertionError(event)


def first_event(studio: Studio) -> dict[str, Any]:
    with urllib.request.urlopen(studio.address + "/api/folder/events", timeout=60) as answer:
        found: dict[str, Any] = json.loads(answer.readline().removeprefix(b"data: "))
        return found


def test_a_folder_is_checked_learned_stopped_and_becomes_the_studio(opening: Studio) -> None:
    assert b"A folder without an atlas" in opening.ask("/")[1]
    event = until(opening, lambda event: event["check"] is not None)
    assert event["check"][0].startswith("60 images")
    assert event["state"] == "new"
    assert opening.ask("/api/learn", {"budget": "1; rm -rf /"})[0] == 422
    assert opening.json("/api/learn", {"budget": "30s", "encoder": "own"})["state"] == "learning"
    assert opening.ask("/api/learn", {})[0] == 400
    until(opening, lambda event: any(line.startswith("1/8") for line in event["lines"]))
    event = until(opening, lambda event: event["networks"] and len(event["networks"][0]["step"]) > 2)
    assert [stage["state"] for stage in event["stages"][:3]] == ["done", "running", "waiting"]
    assert event["stages"][1]["allowed"] == pytest.approx(0.74 * 30, abs=3)
    assert event["networks"][0]["model"] == "Autoencoder"
    number = event["networks"][0]["samples"][0]["number"]
    with Image.open(BytesIO(opening.ask(f"/api/folder/samples/{number}")[1])) as made:
        assert made.width > 4 * made.height
    assert opening.ask("/api/folder/samples/99")[0] == 404
    assert opening.ask("/api/folder/samples/..%2f..%2fatlas.json")[0] in (404, 422)
    assert opening.ask("/api/folder/map")[0] == 404
    opening.json("/api/stop", {})
    event = until(opening, lambda event: event["state"] != "learning")
    assert event["state"] == "stopped"
    assert event["settings"] == {"budget": 30.0, "encoder": "own"}
    opening.json("/api/learn", {})  # goes on with the settings that it was begun with
    before = event["networks"][0]["step"]
    event = until(opening, lambda event: event["map"] is not None)
    assert event["networks"][0]["step"][: len(before)] == before  # from its checkpoint
    assert opening.ask("/api/folder/map")[2]["content-type"] == "image/webp"
    end = time.monotonic() + 300
    while opening.ask("/api/atlas")[0] != 200 and time.monotonic() < end:
        time.sleep(0.5)
    assert opening.json("/api/atlas")["n_images"] == 60
    assert b"Map" in opening.ask("/")[1]


def test_what_fails_is_told_by_its_last_lines(opening: Studio) -> None:
    opening.folder.mkdir()
    (opening.folder / "mine.txt").write_text("mine")
    opening.json("/api/learn", {})
    event = until(opening, lambda event: event["state"] != "learning")
    assert event["state"] == "failed"
    assert any("mine.txt" in line or "not empty" in line or "exists" in line for line in event["lines"])
    assert (opening.folder / "mine.txt").read_text() == "mine"


def test_what_the_check_has_decoded_is_not_decoded_again(folder: Path, tmp_path: Path) -> None:
    learning = Learning(str(folder), tmp_path / "new.atlas")
    learning.look()
    assert not learning.atlas.exists()
    learning._hand_over()
    (cache,) = (learning.atlas / "cache").iterdir()
    built = (cache / "pixels.npy").stat().st_mtime_ns
    ia.learn(folder, learning.atlas, budget="1s", encoder="own", progress=False)
    assert (cache / "pixels.npy").stat().st_mtime_ns == built
    assert Manifest.read(learning.atlas).finished


@pytest.mark.parametrize("name", ["mine.txt", "cache/mine.txt", "cache/0123456789abcdef0123/mine.txt"])
def test_a_folder_with_anything_but_a_cache_is_no_atlas(folder: Path, tmp_path: Path, name: str) -> None:
    atlas = tmp_path / "new.atlas"
    (atlas / name).parent.mkdir(parents=True)
    (atlas / name).write_text("mine")
    with pytest.raises(ArtifactError, match="is not an atlas"):
        ia.learn(folder, atlas, budget="1s", progress=False)
    assert [path for path in atlas.rglob("*") if path.is_file()] == [atlas / name]


def test_files_that_are_not_used_are_named(open_folder: Callable[..., Studio], folder: Path, tmp_path: Path) -> None:
    images = Path(shutil.copytree(folder, tmp_path / "broken"))
    (images / "<b>.jpg").write_bytes(b"no image")
    (images / "empty.png").write_bytes(b"")
    event = until(open_folder(images), lambda event: event["check"] is not None)
    assert event["n_skipped"] == 2
    assert event["skipped"][0] == ["<b>.jpg", "not a picture in a supported format"]


def test_an_unfinished_atlas_is_gone_on_with_as_it_was_begun(
    open_folder: Callable[..., Studio], folder: Path, tmp_path: Path
) -> None:
    class Enough(Exception):
        pass

    def stop(event: dict[str, Any]) -> None:
        if (event.get("stage"), event.get("state")) == ("map", "started"):
            raise Enough

    with pytest.raises(Enough):
        ia.learn(
            folder, tmp_path / "new.atlas", encoder="own", budget="2s", clusters=3, image_size=16, callback=stop,
            random_state=5, progress=False,
        )  # fmt: skip
    opening = open_folder()
    event = until(opening, lambda event: event["check"] is not None)
    assert event["state"] == "stopped"
    assert [stage["state"] for stage in event["stages"]] == ["done", "done", *["waiting"] * 6]
    assert event["networks"][0]["step"]
    opening.json("/api/learn", {"budget": "5m"})
    end = time.monotonic() + 300
    while opening.ask("/api/atlas")[0] != 200 and time.monotonic() < end:
        time.sleep(0.5)
    assert len(opening.json("/api/atlas")["clusters"]) == 3
    assert Manifest.read(opening.folder).settings["random_state"] == 5


def test_neither_an_atlas_nor_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["studio", str(tmp_path / "nothing"), "--no-browser", "--port", "0"]) == 1
    assert "no atlas" in capsys.readouterr().err


def test_the_place_of_the_atlas_is_told_and_can_be_chosen(
    open_folder: Callable[..., Studio], folder: Path, tmp_path: Path
) -> None:
    images = Path(shutil.copytree(folder, tmp_path / "mine"))
    studio = open_folder(images, may_choose=True)
    event = until(studio, lambda event: event["check"] is not None)
    assert (event["atlas"], event["may_choose"]) == (str(studio.folder), True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for place, word in (
        (str(tmp_path / "full"), "not an empty folder"),
        (str(images / "00.png"), "not an empty folder"),
        ("link", "not an empty folder"),
        ("none/new.atlas", "There is no folder"),
        ("mine/new.atlas", "among the images"),
        ("bad\0name", "There is no folder"),
    ):
        status, content, _ = studio.ask("/api/learn", {"atlas": place})
        assert (status, word in json.loads(content)["error"]) == (400, True), content
    assert not (tmp_path / "elsewhere").exists()
    (tmp_path / "other.atlas").mkdir()  # empty
    begun = studio.json("/api/learn", {"atlas": "other.atlas", "budget": "2s", "encoder": "own", "fit": "pad"})
    assert begun["atlas"] == str(tmp_path / "other.atlas")
    end = time.monotonic() + 300
    while studio.ask("/api/atlas")[0] != 200 and time.monotonic() < end:
        time.sleep(0.5)
    assert studio.json("/api/atlas")["name"] == "other"
    assert Manifest.read(tmp_path / "other.atlas").settings["fit"] == "pad"
    assert not studio.folder.exists()


def test_others_than_the_owner_choose_no_place(open_folder: Callable[..., Studio], tmp_path: Path) -> None:
    studio = open_folder()
    assert not first_event(studio)["may_choose"]
    status, content, _ = studio.ask("/api/learn", {"atlas": str(tmp_path / "x.atlas")})
    assert (status, "-o ATLAS" in json.loads(content)["error"]) == (400, True)
    read_only = open_folder(may_choose=True, read_only=True)
    assert not first_event(read_only)["may_choose"]
    assert read_only.ask("/api/learn", {})[0] == 403
    assert not studio.folder.exists()


def test_the_page_offers_what_the_check_names(open_folder: Callable[..., Studio], tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"one": [1], "two": [2]}), tmp_path / "two.parquet")
    event = until(open_folder(tmp_path / "two.parquet"), lambda event: event["check"] is not None)
    assert event["asks_field"]
    wide = Path(tmp_path, "wide")
    wide.mkdir()
    for i in range(6):
        Image.new("RGB", (200, 40), (40 * i, 9, 9)).save(wide / f"{i}.png")
    shutil.copy(wide / "0.png", wide / "copy.png")
    wide_event = until(open_folder(wide), lambda event: event["check"] is not None)
    sentences = " ".join(wide_event["check"])
    assert "Fit: pad" in sentences
    assert "edited copies" in sentences
    assert "--" not in sentences + " ".join(event["check"])
