"""Paths between points, and videos as files."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from imatlas.errors import InputError
from imatlas.images.video import write_video
from imatlas.models.parts.conditional import interpolate


def test_the_path_passes_through_every_key_and_starts_slowly(rng):
    keys = rng.normal(size=(3, 5)).astype(np.float32)
    for spherical in (False, True):
        path = interpolate(keys, 21, spherical=spherical)
        np.testing.assert_allclose(path[[0, 10, 20]], keys, atol=1e-5)
        steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
        assert steps[0] < steps[4] / 2


def test_noise_keeps_its_norm_along_the_path(rng):
    keys = rng.normal(size=(2, 64))
    lengths = np.linalg.norm(interpolate(keys, 11, spherical=True), axis=1)
    assert lengths.min() > 0.95 * min(np.linalg.norm(keys, axis=1))
    assert np.linalg.norm(interpolate(keys, 11), axis=1).min() < 0.85 * lengths.min()
    same = interpolate(np.repeat(keys[:1], 2, axis=0), 5, spherical=True)
    np.testing.assert_allclose(same, np.repeat(keys[:1], 5, axis=0), atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("ending", ["gif", "webp", "mp4"])
def test_a_video_holds_every_frame_and_its_recipe(tmp_path, channels, ending):
    frames = np.zeros((6, 17, 20, channels), np.uint8)
    frames[np.arange(6), :, 3 * np.arange(6)] = 255
    frames[..., 3:] = 255
    path = write_video(tmp_path / f"video.{ending}", frames, fps=10, text="seed 3")
    if ending == "mp4":
        av = pytest.importorskip("av")
        with av.open(str(path)) as video:
            assert sum(1 for _ in video.decode(video=0)) == 6
            assert video.metadata["comment"] == "seed 3"
        return
    with Image.open(path) as video:
        assert video.n_frames == 6
        assert video.size == (20, 17)
        comment = video.info["comment"].decode() if ending == "gif" else video.getexif()[0x010E]
        assert comment == "seed 3"


def test_invalid_videos_are_refused(tmp_path):
    frames = np.zeros((3, 8, 8, 3), np.uint8)
    with pytest.raises(InputError, match=r"end it in \.gif, \.webp or \.mp4"):
        write_video(tmp_path / "video.avi", frames)
    with pytest.raises(InputError, match="must be uint8"):
        write_video(tmp_path / "video.gif", frames.astype(float))
