"""An atlas of videos: settings, held-out files, and frames shown again at their full size."""

from __future__ import annotations

import json
import shutil
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

import imatlas as ia
from imatlas.atlas.stages import held_out_rows
from imatlas.errors import ArtifactError, DecodeError
from imatlas.images.encode import encode
from imatlas.images.keys import video_frame
from imatlas.studio.pictures import as_webp
from imatlas.system.inventory import seal
from tests.images.video_files import scene, shots_of, video_of

pytest.importorskip("av")
pytestmark = pytest.mark.usefixtures("one_thread")
OPTIONS = {"budget": "4s", "encoder": "own", "image_size": 16, "fit": "stretch", "progress": False}


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A folder of eight clips of two shots each, and a photograph, and its atlas of two frames per second."""
    folder = tmp_path_factory.mktemp("source") / "clips"
    folder.mkdir()
    for number in range(8):
        (folder / f"{number}.mp4").write_bytes(video_of(shots_of((2 * number, 2 * number + 1), 25)))
    (folder / "photo.png").write_bytes(encode(scene(99)))
    place = tmp_path_factory.mktemp("atlas") / "clips.atlas"
    return folder, place, ia.learn(folder, place, video="0.48s", **OPTIONS)


def test_frames_are_rows_and_files_are_held_out_as_a_whole(learned):
    _, _, atlas = learned
    assert len(atlas) == 8 * 5 + 1
    assert atlas.store.manifest.settings["video"] == "0.48s"
    rows = atlas.table().to_pylist()
    held_out = {row["key"].partition("#")[0]: [] for row in rows}
    for row in rows:
        held_out[row["key"].partition("#")[0]].append(row["held_out"])
    assert all(len(set(each)) == 1 for each in held_out.values())
    assert any(each[0] for each in held_out.values())
    assert not all(each[0] for each in held_out.values())


def test_frames_are_shown_at_their_full_size(learned):
    folder, _, atlas = learned
    originals = atlas.store.originals
    hashes = dict(zip(atlas.store.rows["key"].tolist(), atlas.store.rows["sha256"].tolist(), strict=True))
    for key in ("3.mp4#t=0.48", "3.mp4#t=1.44", "0.mp4#t=0"):
        shown = originals.content(key, hashes[key])
        number, time = int(key[0]), video_frame(key)[1]
        assert shown.shape == (90, 160, 3)
        assert np.abs(shown.astype(float) - scene(2 * number + (time > 1000))).mean() < 12
        assert (originals.pixels(key, hashes[key]) == shown).all()
        assert Image.open(BytesIO(as_webp(shown, 4096))).size == (160, 90)
    with pytest.raises(DecodeError, match="has changed"):
        originals.content("3.mp4#t=0.48", hashes["4.mp4#t=0.48"])
    with pytest.raises(DecodeError, match=r"has no frame at 0\.47 s"):
        originals.content("3.mp4#t=0.47", hashes["3.mp4#t=0.48"])
    for key in ("../clips/3.mp4#t=0.48", "5.txt#t=1"):
        with pytest.raises(DecodeError):
            originals.content(key, hashes["3.mp4#t=0.48"])
    found = atlas.search("3.mp4#t=0.48", k=3, region=(0, 0, 80, 90)).to_pylist()
    assert len(found) == 3
    (folder / "3.mp4").rename(folder / "away")
    try:
        with pytest.raises(DecodeError):
            originals.content("3.mp4#t=0.48", hashes["3.mp4#t=0.48"])
    finally:
        (folder / "away").rename(folder / "3.mp4")


def test_clusters_are_copied_as_files(learned, tmp_path):
    _, _, atlas = learned
    atlas.export(tmp_path / "folders", to="folders", copy=True)
    files = sorted(path.name for path in (tmp_path / "folders").rglob("*.png"))
    assert len(files) == 41
    assert "0.mp4#t=0.48.png" in files
    (frame,) = (tmp_path / "folders").rglob("0.mp4#t=0.48.png")
    with Image.open(frame) as shown:
        assert np.abs(np.asarray(shown).astype(float) - scene(0)).mean() < 12


def test_the_setting_is_part_of_the_atlas(learned, tmp_path):
    folder, place, _ = learned
    copy = tmp_path / "copy.atlas"
    shutil.copytree(place, copy)
    assert len(ia.learn(folder, copy, video="480ms", **OPTIONS)) == 41
    with pytest.raises(ArtifactError, match=r"video was '0\.48s' and is now 'cuts'"):
        ia.learn(folder, copy, **OPTIONS)


def test_an_atlas_that_is_older_than_videos_continues(learned, tmp_path):
    folder, place, _ = learned
    copy = tmp_path / "copy.atlas"
    shutil.copytree(place, copy)
    about = json.loads((copy / "atlas.json").read_text())
    del about["settings"]["video"]
    about.pop("digest")
    (copy / "atlas.json").write_text(json.dumps({**about, "digest": seal(about)}))
    assert len(ia.load(copy)) == 41
    assert len(ia.learn(folder, copy, video="0.48s", **OPTIONS)) == 41


def test_content_of_many_images_is_held_out_as_a_whole_or_in_a_single_image():
    none = np.full(12, -1)
    few = held_out_rows(list("aaabbbcccddd"), none, 1e-9, 0)
    assert few.sum() == 3
    assert len({letter for letter, held in zip("aaabbbcccddd", few, strict=True) if held}) == 1
    assert held_out_rows(["a"] * 11 + ["b"], none, 1e-9, 0).sum() == 1
    assert held_out_rows(["a"] * 12, none, 0.1, 0).sum() == 1
