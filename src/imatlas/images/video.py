"""Encoding of frames as a GIF, WebP or MP4 video."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from imatlas.arguments import check_path
from imatlas.errors import InputError, MissingExtraError
from imatlas.system.atomic_io import output_path, write_file

SUFFIXES = (".gif", ".webp", ".mp4")


def write_video(path: str | Path, frames: np.ndarray, *, fps: float = 20.0, text: str = "") -> Path:
    """Write frames as a video, atomically; the suffix of the name selects the format.

    Parameters
    ----------
    path : path
        .gif (256 colors), .webp, or .mp4 (H.264, composited on white), which needs `imatlas[video]`.
    frames : array (n, H, W, C) uint8
        1 to 4 channels; the last of 2 or 4 is alpha.
    fps : float
        Frames per second.
    text : str
        Embedded text, such as the recipe: the comment of a GIF or MP4, the EXIF description of a WebP.

    Raises
    ------
    InputError
        If the suffix is another one, or the frames have another shape or dtype.
    MissingExtraError
        If the suffix is .mp4 and PyAV is not installed.
    """
    path = output_path(check_path(path, "path", "write_video"))
    check_video_ending(path)
    if frames.ndim != 4 or frames.dtype != np.uint8 or frames.shape[3] not in (1, 2, 3, 4) or not len(frames):
        raise InputError(f"Frames must be uint8 of shape (n, H, W, 1 to 4). Got {frames.dtype} {frames.shape}.")
    if frames.shape[3] == 2:  # no video format has gray with alpha
        frames = frames[..., [0, 0, 0, 1]]
    if path.suffix.lower() == ".mp4":
        write_file(path, _mp4(frames, fps, text))
        return path
    pictures = [Image.fromarray(frame[..., 0] if frame.shape[2] == 1 else frame) for frame in frames]
    out = BytesIO()
    shared = {"save_all": True, "append_images": pictures[1:], "duration": round(1000 / fps), "loop": 0}
    if path.suffix.lower() == ".gif":
        pictures[0].save(out, "GIF", comment=text.encode(), disposal=2, **shared)
    else:
        exif = Image.Exif()
        exif[0x010E] = text  # ImageDescription
        pictures[0].save(out, "WEBP", quality=85, method=4, exif=exif, **shared)
    write_file(path, out.getvalue())
    return path


def check_video_ending(path: str | Path) -> None:
    """Refuse a name without the suffix of a video format, or of a format that cannot be written here.

    Raises
    ------
    InputError, MissingExtraError
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"'{Path(path).name}' has no suffix of a video format; end it in .gif, .webp or .mp4.")
    if suffix == ".mp4":
        _av()


def _av() -> object:
    try:
        import av
    except ImportError:
        raise MissingExtraError(
            "An .mp4 file needs PyAV, which is not installed; run: pip install 'imatlas[video]', or end the name in "
            ".gif or .webp."
        ) from None
    return av


def _mp4(frames: np.ndarray, fps: float, text: str) -> bytes:
    """H.264 in an MP4, sides made even by repeating the last row and column; small frames are enlarged 2 to 8 times.

    Players blur a video of 64 px, so its pixels are repeated up to about 512.
    """
    from fractions import Fraction

    av = _av()
    if frames.shape[3] == 4:
        alpha = frames[..., 3:].astype(np.float32) / 255
        frames = np.rint(frames[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    frames = np.broadcast_to(frames, (*frames.shape[:3], 3))
    factor = max(1, min(8, 512 // max(frames.shape[1:3])))
    out = BytesIO()
    with av.open(out, "w", format="mp4") as container:  # type: ignore[attr-defined]
        container.metadata["comment"] = text
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        height, width = (side * factor + (side * factor) % 2 for side in frames.shape[1:3])
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.options = {"crf": "18"}
        for frame in frames:
            large = np.repeat(np.repeat(frame, factor, axis=0), factor, axis=1)
            large = np.pad(large, ((0, height - large.shape[0]), (0, width - large.shape[1]), (0, 0)), mode="edge")
            for packet in stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(large), format="rgb24")):  # type: ignore[attr-defined]
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return out.getvalue()
