"""Videos among the images of a set: keys, records, the cache, archives, and what is told of damaged files."""

from __future__ import annotations

import sys
import zipfile

import numpy as np
import pytest

from imatlas.errors import ParameterError
from imatlas.images.dataset import Images
from imatlas.images.encode import encode
from imatlas.images.keys import is_key, video_frame, video_frame_key
from imatlas.tasks.check import check
from imatlas.tasks.duplicates.gallery import Gallery
from imatlas.tasks.duplicates.groups import find_duplicates
from tests.images.video_files import scene, shots_of, video_of

pytest.importorskip("av")


@pytest.fixture(scope="module")
def clip():
    """Four shots of a second each."""
    return video_of(shots_of(range(4), 25))


@pytest.fixture
def folder(tmp_path, clip):
    folder = tmp_path / "set"
    (folder / "in").mkdir(parents=True)
    (folder / "in" / "clip.mp4").write_bytes(clip)
    (folder / "photo.png").write_bytes(encode(scene(9)))
    return folder


def test_one_frame_of_each_shot_by_default(folder):
    images = Images(folder, image_size=(18, 32), fit="stretch", thumbnail_size=64)
    frames = [key for key in images.keys if key != "photo.png"]
    assert len(frames) == 4
    assert all(video_frame(key)[0] == "in/clip.mp4" for key in frames)
    assert [video_frame(key)[1] // 1000 for key in frames] == [0, 1, 2, 3]
    for row, key in enumerate(frames):
        record = images.records[row]
        assert (record.width, record.height, record.format, record.n_frames) == (160, 90, "MP4", 4)
        assert record.frame == video_frame(key)[1]
        small = scene(row).reshape(18, 5, 32, 5, 3).mean(axis=(1, 3))
        assert np.abs(images.pixels[row] - small).mean() < 12
        assert np.abs(images[row].astype(float) - scene(row)).mean() < 12
    assert len(set(images.records["sha256"])) == 2
    assert len(set(images.thumbnails)) == 5
    assert images.skipped == []


def test_frames_by_time_and_at_other_sizes(folder):
    images = Images(folder, image_size=16, video="400ms")
    assert images.video == "0.4s"
    assert images.keys == [f"in/clip.mp4#t={n * 0.4:g}" for n in range(10)] + ["photo.png"]
    larger = images.at_size(48)
    assert larger.keys == images.keys
    direct = np.concatenate(list(images.batches(4, image_size=48)))
    assert np.abs(direct.astype(int) - larger.pixels).max() <= 6  # another filter, the same frames
    with pytest.raises(ParameterError, match="'video' parameter of Images"):
        Images(folder, video="often")


def test_a_video_alone_and_one_in_an_archive(folder, tmp_path, clip):
    alone = Images(folder / "in" / "clip.mp4", image_size=16, video=1)
    assert alone.keys == ["clip.mp4#t=0", "clip.mp4#t=1", "clip.mp4#t=2", "clip.mp4#t=3"]
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("in/clip.mp4", clip)
        archive.writestr("photo.png", encode(scene(9)))
    packed = Images(path, image_size=16, video=1)
    assert packed.keys == [f"in/{key}" for key in alone.keys] + ["photo.png"]
    assert (packed.pixels[:4] == alone.pixels).all()
    assert (packed[2] == alone[2]).all()


def test_an_unchanged_video_is_not_decoded_again(folder, tmp_path, monkeypatch):
    first = Images(folder, image_size=16, cache_dir=tmp_path / "cache")
    assert len(first) == 5
    (folder / "more.png").write_bytes(encode(scene(10)))
    monkeypatch.setattr("imatlas.images.intake._rows_of_video", None)
    again = Images(folder, image_size=16, cache_dir=tmp_path / "cache")
    assert len(again) == 6
    assert again.skipped == []
    assert (again.pixels[:4] == first.pixels[:4]).all()


def test_what_is_missing_is_told_every_time(folder, tmp_path):
    whole = video_of([scene(i) for i in range(100)], format="matroska")
    (folder / "half.mkv").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mov").write_bytes(b"no video at all")
    for _ in range(2):
        images = Images(folder, image_size=16, video="200ms", cache_dir=tmp_path / "cache")
        reasons = dict(images.skipped)
        assert any(key.startswith("half.mkv#t=") for key in images.keys)
        assert "used in part" in reasons["half.mkv"]
        assert "truncated video: it ends after" in reasons["half.mkv"]
        assert reasons["empty.mp4"] == "an empty file"
        assert "not a video" in reasons["text.mov"]
        (folder / "one more.png").write_bytes(encode(scene(11)))


def test_without_pyav_the_reason_names_the_extra(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    images = Images(folder, image_size=16)
    assert images.keys == ["photo.png"]
    assert images.skipped == [("in/clip.mp4", "a video needs an optional dependency: pip install 'imatlas[video]'")]


def test_pictures_only_commands_still_say_what_a_video_is(folder):
    from imatlas.errors import DecodeError
    from imatlas.images.decode import read_picture

    with pytest.raises(DecodeError, match="a video, not a picture"):
        read_picture((folder / "in" / "clip.mp4").read_bytes(), name="clip.mp4")


def test_frames_of_one_shot_are_near_duplicates_and_no_plan_moves_them(folder, tmp_path):
    lossless = video_of(shots_of(range(4), 25), format="matroska", codec="ffv1", pix_fmt="yuv444p")
    (folder / "in" / "clip.mp4").write_bytes(lossless)
    images = Images(folder, image_size=64, fit="stretch", video="250ms", thumbnail_size=64)
    result = check(images)
    assert result.metrics["n_exact_duplicates"] == 0
    assert result.metrics["n_near_duplicates"] == 12  # 16 frames of 4 shots
    (folder / "copy.png").write_bytes((folder / "photo.png").read_bytes())
    found = find_duplicates(Gallery.of(folder, video="250ms"))
    assert found.result.metrics["n_duplicates"] == 13
    found.plan(tmp_path / "plan.csv")
    moved = [line.split(",")[:2] for line in (tmp_path / "plan.csv").read_text().splitlines()[1:]]
    assert sorted(moved) == [["copy.png", "move"], ["photo.png", "keep"]] or sorted(moved) == [
        ["copy.png", "keep"],
        ["photo.png", "move"],
    ]


def test_frame_keys():
    keys = [video_frame_key("a b/x.mp4", time, 3) for time in (0, 40, 9999, 10000, 123456)]
    assert keys == sorted(keys)
    assert [video_frame(key) for key in keys] == [("a b/x.mp4", time) for time in (0, 40, 9999, 10000, 123456)]
    assert all(is_key(key) for key in keys)
    assert [video_frame(key) for key in ("x.mp4", "x.mp4#2", "x.mp4#t=", "x.mp4#t=1e3", "#t=1")] == [None] * 5
