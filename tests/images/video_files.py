"""Small videos for tests, made with PyAV."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from fractions import Fraction
from io import BytesIO
from typing import Any

import numpy as np

FPS = 25


def scene(seed: int, height: int = 90, width: int = 160) -> np.ndarray:
    """A smooth random picture (height, width, 3) uint8."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 7, 3)).astype(np.float32)
    rows, columns = np.linspace(0, 3, height), np.linspace(0, 6, width)
    top, left = np.minimum(rows.astype(int), 2), np.minimum(columns.astype(int), 5)
    y, x = (rows - top)[:, None, None], (columns - left)[None, :, None]
    upper = coarse[top][:, left] * (1 - x) + coarse[top][:, left + 1] * x
    lower = coarse[top + 1][:, left] * (1 - x) + coarse[top + 1][:, left + 1] * x
    return (upper * (1 - y) + lower * y).astype(np.uint8)


def video_of(
    frames: Iterable[np.ndarray],
    *,
    format: str = "mp4",
    codec: str = "mpeg4",
    pix_fmt: str = "yuv420p",
    times: Sequence[int] | None = None,
    rotation: int = 0,
    aspect: Fraction | None = None,
    options: dict[str, str] | None = None,
) -> bytes:
    """The bytes of a video of RGB frames (H, W, 3) uint8, `FPS` per second or at `times` in milliseconds."""
    import av

    out = BytesIO()
    with warnings.catch_warnings(), av.open(out, "w", format=format) as container:
        stream: Any = None
        for i, frame in enumerate(frames):
            if stream is None:
                stream = container.add_stream(codec, rate=FPS, options=options or {})
                stream.height, stream.width, stream.pix_fmt = *frame.shape[:2], pix_fmt
                stream.codec_context.gop_size = 12
                if times is not None:
                    stream.codec_context.time_base = Fraction(1, 1000)
                if aspect is not None:
                    stream.codec_context.sample_aspect_ratio = aspect
                if rotation:
                    stream.set_display_rotation(rotation)
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            if times is not None:
                picture.pts, picture.time_base = times[i], Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return out.getvalue()


def sound_of(seconds: float) -> bytes:
    """The bytes of an MP4 file that holds silence and no video."""
    import av

    out = BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        for i in range(round(seconds * 8)):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1000), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 8000, i * 1000
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return out.getvalue()


def shots_of(seeds: Sequence[int], n_frames: int, **size: int) -> list[np.ndarray]:
    """Shots of some scenes, each of `n_frames` equal frames."""
    return [frame for seed in seeds for frame in [scene(seed, **size)] * n_frames]
