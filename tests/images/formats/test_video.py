"""Frames of video files: containers, orientation, aspect, depth, times, and files that are damaged or hostile."""

from __future__ import annotations

import struct
from fractions import Fraction
from io import BytesIO

import numpy as np
import pytest

from imatlas.errors import DecodeError
from imatlas.images import limits
from imatlas.images.cuts import Steps
from imatlas.images.formats import video
from imatlas.images.formats.sniff import sniff, sniff_video
from imatlas.images.formats.video import read_video
from tests.images.video_files import FPS, scene, shots_of, sound_of, video_of

pytest.importorskip("av")

CONTAINERS = [
    ("mp4", "mpeg4"),
    ("mov", "mpeg4"),
    ("matroska", "mpeg4"),
    ("webm", "libvpx-vp9"),
    ("avi", "mpeg4"),
    ("flv", "flv"),
    ("asf", "wmv2"),
    ("mpegts", "mpeg2video"),
    ("mpeg", "mpeg1video"),
]


def times_in(data):
    with read_video(BytesIO(data)) as reader:
        return [time for time, _ in reader.frames()]


def kept(data, step=0.4):
    with read_video(BytesIO(data)) as reader:
        return list(reader.kept(Steps(step)))


def difference(picture, expected):
    return np.abs(picture.pixels().astype(float) - expected).mean()


@pytest.mark.parametrize(("format", "codec"), CONTAINERS)
def test_each_container_gives_its_frames_in_time_and_again_by_their_times(format, codec):
    scenes = [scene(seed) for seed in range(5)]
    data = video_of(shots_of(range(5), 10), format=format, codec=codec)
    assert sniff_video(data[:256]) is not None
    assert sniff(data[:256]) is None
    found = kept(data)
    assert [each.time for each in found] == [0, 400, 800, 1200, 1600]
    with read_video(BytesIO(data)) as reader:
        assert (reader.width, reader.height, reader.rate) == (160, 90, FPS)
        for number in (4, 1, 2, 3, 0):  # in any order
            again = reader.at(400 * number)
            assert (again.pixels() == found[number].picture.pixels()).all()
            assert difference(again, scenes[number]) < 12
        with pytest.raises(DecodeError, match=r"has no frame at 0\.401 s"):
            reader.at(401)


def test_a_long_video_is_read_by_seeking():
    """Larger than FFmpeg's buffer, with frames of noise."""
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (90, 160, 3), np.uint8) for _ in range(400)]
    data = video_of(frames, format="matroska")
    assert len(data) > 4 * video._BUFFER
    assert times_in(data) == [40 * i for i in range(400)]
    found = kept(data, 3.0)
    with read_video(BytesIO(data)) as reader:
        for time, picture in reversed(found):
            assert (reader.at(time).pixels() == picture.pixels()).all()


@pytest.mark.parametrize(("rotation", "turns"), [(90, 1), (-90, 3), (180, 2)])
def test_turned_videos_are_upright(rotation, turns):
    data = video_of(shots_of([1], 5), rotation=rotation)
    (found,) = kept(data)
    expected = np.rot90(scene(1), turns)  # the matrix says how far to turn counterclockwise
    assert (found.picture.height, found.picture.width) == expected.shape[:2]
    assert difference(found.picture, expected) < 12


def test_odd_pixels_become_square():
    (found,) = kept(video_of(shots_of([1], 5), aspect=Fraction(4, 3)))
    assert (found.picture.width, found.picture.height) == (213, 90)
    assert found.picture.pixels().shape == (90, 213, 3)


@pytest.mark.parametrize(
    ("pix_fmt", "codec", "dtype", "channels"),
    [
        ("yuv420p10le", "libx265", "uint8", 3),
        ("yuv444p", "ffv1", "uint8", 3),
        ("yuva420p", "ffv1", "uint8", 4),
        ("gray", "ffv1", "uint8", 1),
        ("gray16le", "ffv1", "uint16", 1),
    ],
)
def test_depths_and_channels(pix_fmt, codec, dtype, channels):
    data = video_of(
        shots_of([1], 5), format="matroska", codec=codec, pix_fmt=pix_fmt, options={"x265-params": "log-level=none"}
    )
    picture = kept(data)[0].picture
    pixels = picture.pixels()
    assert (pixels.dtype, pixels.shape[2]) == (dtype, channels)
    assert picture.kind.alpha == (channels == 4)
    shown = pixels[..., :3].astype(float) / (257 if dtype == "uint16" else 1)
    expected = scene(1) if channels > 1 else (scene(1) @ [0.299, 0.587, 0.114])[..., None]
    assert np.abs(shown - expected).mean() < 14  # gray is of limited range


def test_variable_frame_rates_keep_their_times():
    times = [0, 40, 100, 1000, 1010, 5000, 5040]
    data = video_of([scene(i) for i in range(7)], format="matroska", times=times)
    assert times_in(data) == times
    assert [each.time for each in kept(data, 1.0)] == [0, 1000, 5000]


def test_a_truncated_video_gives_what_it_holds_and_says_so():
    data = video_of([scene(i) for i in range(100)], format="matroska")
    with read_video(BytesIO(data[: len(data) // 2])) as reader:
        frames = reader.kept(Steps(0.4))
        found = [next(frames), next(frames)]
        with pytest.raises(DecodeError, match=r"truncated video: it ends after 1\.\d of 4\.0 seconds"):
            found += list(frames)
    assert len(found) >= 2


def test_a_video_without_its_index_is_refused():
    data = video_of(shots_of([1], 20))
    with pytest.raises(DecodeError, match="a damaged or truncated MP4 video"):
        read_video(BytesIO(data[: len(data) // 2]))


def test_sound_is_no_video():
    data = sound_of(0.5)
    with pytest.raises(DecodeError, match="MP4 file that holds no video"):
        read_video(BytesIO(data))


def test_sizes_are_limited_before_anything_is_decoded(monkeypatch):
    data = video_of(shots_of([1], 5))
    monkeypatch.setattr(limits, "MAX_PIXELS", 160 * 90 - 1)
    with pytest.raises(DecodeError, match="160 x 90 pixels are more than the limit"):
        read_video(BytesIO(data))


def test_a_header_that_declares_a_huge_picture():
    data = video_of(shots_of([1], 5), codec="mjpeg", format="avi", pix_fmt="yuvj420p")
    place = data.index(b"strf") + 8
    assert struct.unpack("<ii", data[place + 4 : place + 12]) == (160, 90)
    huge = data[: place + 4] + struct.pack("<ii", 60_000, 60_000) + data[place + 12 :]
    try:
        with read_video(BytesIO(huge)) as reader:  # FFmpeg believes the pictures themselves
            assert (reader.width, reader.height) == (160, 90)
    except DecodeError as error:
        assert "more than the limit" in str(error)  # noqa: PT017


def test_only_so_many_frames_are_used(monkeypatch):
    monkeypatch.setattr(limits, "MAX_FRAMES", 3)
    with read_video(BytesIO(video_of(shots_of([1], 50)))) as reader:
        found = reader.kept(Steps(0.1))
        assert len([next(found) for _ in range(3)]) == 3
        with pytest.raises(DecodeError, match="only the first 3 frames are used"):
            next(found)


def test_a_playlist_under_another_name_opens_nothing(tmp_path):
    """FFmpeg would read other files for some formats; only the demuxer that the content calls for is used."""
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(video_of(shots_of([1], 5)))
    for text in (f"#EXTM3U\n#EXTINF:1,\n{secret}\n", f"ffconcat version 1.0\nfile {secret}\n"):
        with pytest.raises(DecodeError, match="not a video"):
            read_video(BytesIO(text.encode()))
        with pytest.raises(DecodeError, match="damaged"):
            read_video(BytesIO(b"\0\0\0\x18ftypisom" + text.encode()))


@pytest.mark.parametrize(("format", "codec"), [("mp4", "mpeg4"), ("matroska", "mpeg4"), ("avi", "mpeg4")])
def test_damaged_bytes_never_raise_anything_else(format, codec):
    data = video_of([scene(i % 7) for i in range(30)], format=format, codec=codec)
    rng = np.random.default_rng(0)
    for _ in range(40):
        broken = np.frombuffer(data, np.uint8).copy()
        places = rng.integers(0, len(broken), int(rng.integers(1, 30)))
        broken[places] = rng.integers(0, 256, len(places))
        try:
            with read_video(BytesIO(broken.tobytes())) as reader:
                n = len([each for each in reader.kept(Steps(0.2)) if each.picture.pixels().size])
                assert n <= 1000
        except DecodeError:
            pass
