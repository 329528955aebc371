"""Frames of video files, through PyAV (FFmpeg), an extra.

A file is given to FFmpeg as an open stream with the one demuxer that its first bytes call for, so that no file can name
others to be opened. Frames are decoded one by one; only those that are used are converted to RGB.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from fractions import Fraction
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from imatlas.errors import DecodeError
from imatlas.images import limits, memory_budget
from imatlas.images.cuts import SMALL, Sampler
from imatlas.images.formats.sniff import needs_extra, sniff_video
from imatlas.images.picture import Picture, as_stored, check_pixels
from imatlas.images.sources.base import HEAD, reason_of
from imatlas.system.threads import usable_cores

if TYPE_CHECKING:
    import av

NAMES = {"mp4": "MP4", "matroska": "Matroska", "avi": "AVI", "flv": "FLV", "asf": "ASF", "ogg": "Ogg", "mpeg": "MPEG",
         "mpegts": "MPEG-TS"}  # fmt: skip
"""The format of a frame in records, by demuxer."""

THREADS = 4
"""Most threads that decode one video."""

FRAMES_HELD = 24
"""Decoded frames that a decoder holds at most: those that others refer to, and one per thread."""

AHEAD = 3000
"""Milliseconds up to which a later frame is reached by decoding; one further on by seeking."""

SETTLED = (500, 10_000)
"""Milliseconds before a frame that are sought: the frames around a key frame refer to both sides of it, and in files
without an index a place is found by trial."""

HD = 720
"""Height in pixels from which colors that a file does not specify are those of HDTV (ITU-R BT.709)."""

HDR = (16, 18)
"""FFmpeg's numbers of the transfer functions PQ and HLG."""

ASPECT = (Fraction(1, 4), Fraction(4))
"""Aspect ratios of pixels that are believed."""

TURNED = {0: 1, 90: 8, 180: 3, -180: 3, -90: 6, 270: 6, -270: 8}
"""EXIF's orientation for an angle, counterclockwise, of FFmpeg's display matrix."""

_UNSPECIFIED = 2
_BUFFER = 2**18


class Kept(NamedTuple):
    """A frame that is used: its time in milliseconds, and its picture."""

    time: int
    picture: Picture


class VideoReader:
    """One video file, opened.

    Parameters
    ----------
    file : binary file
        Seekable. It stays open when the reader is closed.
    name : str
        Demuxer, as `sniff_video` returns it.

    Attributes
    ----------
    width, height : int
        Size of its frames as the header declares it, with square pixels, not turned yet.
    rate : float
        Frames per second, on average.
    duration : float or None
        Seconds, as the header declares them.
    n_damaged : int
        Packets so far that could not be decoded.

    Raises
    ------
    DecodeError
        If PyAV is not installed, or the header is damaged, declares no video, or one that is too large.
    """

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._file, self._name = file, name
        self.n_damaged = 0
        self._frames: Iterator[tuple[int, av.VideoFrame]] | None = None
        self._at = -1
        self._size = file.seek(0, 2)
        self._open()

    def _open(self) -> None:
        """Begin at the start."""
        av = _av()
        self._file.seek(0)
        self._is_read = False
        try:
            self._container = av.open(self._file, format=self._name, buffer_size=_BUFFER, metadata_errors="replace")
        except Exception as error:
            raise DecodeError(f"a damaged or truncated {NAMES[self._name]} video ({_reason(error)})") from None
        try:
            self._stream = self._checked_stream()
        except BaseException:
            self.close()
            raise

    def _checked_stream(self) -> av.VideoStream:
        """The stream of moving pictures, with the limits of its decoder set."""
        streams = [s for s in self._container.streams.video if not s.disposition & s.disposition.attached_pic]
        if not streams:
            raise DecodeError(f"a {NAMES[self._name]} file that holds no video")
        stream = streams[0]
        context = stream.codec_context
        if context is None:
            raise DecodeError("a video whose codec FFmpeg does not know; convert it to H.264")
        if not context.width or not context.height:
            raise DecodeError(f"a damaged {NAMES[self._name]} video: it does not say how large its frames are")
        check_pixels(context.width, context.height)
        self.width, self.height = _square(context.width, context.height, stream.sample_aspect_ratio)
        n_bytes = 2 * context.width * context.height * FRAMES_HELD + 8 * self.width * self.height
        memory_budget.need(n_bytes, self._size, f"a video of {context.width} x {context.height} pixels")
        context.options = {"max_pixels": str(limits.MAX_PIXELS)}
        context.thread_type = "AUTO"
        context.thread_count = min(THREADS, usable_cores())
        rate = float(stream.average_rate or 0)
        self.rate = rate if 0.01 <= rate <= 1000 else 25.0
        length = stream.duration * stream.time_base if stream.duration and stream.time_base else None
        whole = self._container.duration
        self.duration = float(length) if length else whole / 1e6 if whole and whole > 0 else None
        self._start = stream.start_time or 0
        return stream

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the decoder."""
        with contextlib.suppress(Exception):
            self._container.close()

    @property
    def n_digits(self) -> int:
        """Digits of the whole seconds of its duration."""
        return len(str(int(self.duration))) if self.duration and self.duration < 1e8 else 1

    def frames(self) -> Iterator[tuple[int, av.VideoFrame]]:
        """All frames from the start: their times in milliseconds, which increase, and the decoded frames."""
        last, count = -1, 0
        if self._is_read:
            self.close()
            self._open()
        for frame in self._decoded():
            time = self._time(frame)
            if not last < time < 2**31:  # a file without times, or with wrong ones
                time = max(last + 1, round(1000 * count / self.rate))
            last, count = time, count + 1
            yield time, frame
            if count == limits.MAX_VIDEO_FRAMES:
                return

    def kept(self, sampler: Sampler) -> Iterator[Kept]:
        """The frames that a sampler takes, at most `limits.MAX_FRAMES`; then a DecodeError if others are missing."""
        n_kept, last = 0, None
        for time, frame in self.frames():
            last = time, frame
            if sampler.add(time / 1000, lambda: small_frame(frame)):  # noqa: B023 - called at once
                if n_kept == limits.MAX_FRAMES:
                    raise DecodeError(f"only the first {n_kept:,} frames are used")
                n_kept += 1
                yield Kept(time, self.picture(frame))
        if last is not None and sampler.finish():
            yield Kept(last[0], self.picture(last[1]))
        self._check_complete(None if last is None else last[0] / 1000)

    def _check_complete(self, end: float | None) -> None:
        """Raise a DecodeError if frames could not be decoded, or the file ends before its declared duration."""
        if end is None:
            raise DecodeError(f"a damaged {NAMES[self._name]} video: none of its frames can be decoded")
        if self.duration is not None and end + 1 / self.rate < 0.95 * self.duration - 1:
            raise DecodeError(f"a truncated video: it ends after {end:.1f} of {self.duration:.1f} seconds")
        if self.n_damaged:
            raise DecodeError(f"a damaged video: {self.n_damaged:,} of its parts cannot be decoded and were left out")

    def at(self, time: int) -> Picture:
        """The frame at a time in milliseconds, as `frames` gives it; fast for frames in order.

        Raises
        ------
        DecodeError
            If there is none.
        """
        tries = [self._from(time - settled) for settled in SETTLED if settled < time]
        if self._frames is not None and 0 < time - self._at <= AHEAD:
            tries.insert(0, self._frames)
        for frames in [*tries, self.frames()]:
            self._frames = frames
            for found, frame in frames:
                self._at = found
                if found == time:
                    return self.picture(frame)
                if found > time:
                    break
        raise DecodeError(f"has no frame at {time / 1000:g} s any more")

    def _from(self, time: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """The frames from the last key frame before a time."""
        self._seek(time)
        for frame in self._decoded():
            yield self._time(frame), frame

    def _seek(self, time: int) -> None:
        """Go to the last key frame before a time, if that is possible."""
        base = self._stream.time_base
        with contextlib.suppress(Exception):  # a file without an index
            offset = self._start + (math.floor(time / 1000 / base) if base else 0)
            self._container.seek(offset, stream=self._stream, backward=True, any_frame=False)

    def _decoded(self) -> Iterator[av.VideoFrame]:
        """Decoded frames from here on; packets that cannot be decoded are counted."""
        self._is_read = True
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
                frames = packet.decode() if packet is not None else None
            except Exception as error:
                if not _is_damage(error) or self.n_damaged >= limits.MAX_FRAMES:
                    raise DecodeError(f"a damaged {NAMES[self._name]} video ({_reason(error)})") from None
                self.n_damaged += 1
                continue
            if frames is None:
                return
            for frame in frames:
                if frame.is_corrupt:
                    self.n_damaged += 1
                else:
                    yield frame

    def _time(self, frame: av.VideoFrame) -> int:
        """Milliseconds from the start of the video; -1 if the file does not say."""
        stamp = frame.pts if frame.pts is not None else frame.dts
        base = frame.time_base or self._stream.time_base
        return -1 if stamp is None or not base else round(1000 * (stamp - self._start) * base)

    def picture(self, frame: av.VideoFrame) -> Picture:
        """A decoded frame as a picture: gray, RGB or RGBA of 8 bits, or gray of 16, with square pixels."""
        check_pixels(frame.width, frame.height)
        width, height = _square(frame.width, frame.height, self._stream.sample_aspect_ratio)
        layout = _layout(frame)
        colors = "ITU709" if frame.colorspace == _UNSPECIFIED and frame.height >= HD else None
        array = frame.reformat(
            width, height, layout, src_colorspace=colors, interpolation="BICUBIC", threads=1
        ).to_ndarray()
        picture = Picture(as_stored(np.atleast_3d(array)), NAMES[self._name], frame.format.name)
        picture.orientation = TURNED.get(frame.rotation, 1)
        if frame.interlaced_frame:
            picture.notes.append("interlaced frames of a video")
        if frame.color_trc in HDR:
            picture.notes.append("a video of high dynamic range, whose colors are not converted")
        return picture


def read_video(file: IO[bytes]) -> VideoReader:
    """The reader of an open file; raises DecodeError if it is no video."""
    file.seek(0)
    name = sniff_video(file.read(HEAD))
    if name is None:
        raise DecodeError("not a video any more")
    return VideoReader(file, name)


def _av() -> Any:
    try:
        import av
    except ImportError:
        raise needs_extra("a video", "video") from None
    return av


def _reason(error: BaseException) -> str:
    """FFmpeg's reason, without the name of the file, which is a stream here."""
    return str(getattr(error, "strerror", None) or reason_of(error)).partition(": '")[0].lower()


def _is_damage(error: BaseException) -> bool:
    """Whether an error concerns one packet only, so that later ones may still be decoded."""
    import av

    return isinstance(error, av.InvalidDataError | av.PatchWelcomeError)


def _square(width: int, height: int, aspect: Fraction | None) -> tuple[int, int]:
    """The size of a picture once its pixels are square; the height stays."""
    if aspect and ASPECT[0] <= aspect <= ASPECT[1] and aspect != 1:
        width = max(1, round(width * aspect))
    check_pixels(width, height)
    return width, height


def _layout(frame: av.VideoFrame) -> str:
    """FFmpeg's name of the layout that a frame is converted to."""
    parts = frame.format.components
    if len(parts) == 1 and not frame.format.has_palette and not frame.format.is_bayer:
        return "gray16le" if parts[0].bits > 8 else "gray"
    return "rgba" if any(part.is_alpha for part in parts) else "rgb24"


def small_frame(frame: av.VideoFrame) -> np.ndarray:
    """A frame at the size at which frames are compared."""
    height, width = SMALL
    return frame.reformat(width, height, "rgb24", interpolation="AREA", threads=1).to_ndarray()
