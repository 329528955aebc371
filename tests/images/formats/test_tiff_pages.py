"""TIFF: which pages are pictures, and that each is read by its own tags."""

from __future__ import annotations

import itertools
import struct
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from imatlas.errors import DecodeError
from imatlas.images.decode import read_frames, read_picture, size_of
from imatlas.images.formats.color import of_inks
from tests.images.formats.profiles import table_profile
from tests.images.formats.test_color import PROFILES
from tests.images.formats.test_tiff import pages
from tests.images.formats.test_tiff_colors import RGB8, plain
from tests.images.test_decode import tiff

DEEP = RGB8.astype(np.uint16) * 257
RGB: dict[str, object] = {"photometric": "rgb"}
BIG = RGB8.repeat(4, axis=0).repeat(4, axis=1)


def frames_of(data: bytes) -> list[np.ndarray]:
    return [picture.pixels() for picture in read_frames(data, frames="all")]


KINDS: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
    "8 bits": (RGB8, RGB),
    "16 bits": (DEEP, RGB),
    "16 bits in lzw": (DEEP, {**RGB, "compression": "lzw"}),
    "planes": (np.moveaxis(RGB8, 2, 0).copy(), {**RGB, "planarconfig": "separate"}),
    "float": ((RGB8 / 255).astype(np.float32), RGB),
    "5 bands": (np.dstack([RGB8, RGB8[..., :2]]), {"photometric": "minisblack", "extrasamples": ["unspecified"] * 4}),
    "jpeg 2000": (RGB8, {**RGB, "compression": "jpeg2000", "compressionargs": {"level": 0, "reversible": True}}),
    "p3": (DEEP, {**RGB, "iccprofile": PROFILES["p3"]}),
    "p3 of 8 bits": (RGB8, {**RGB, "iccprofile": PROFILES["p3"]}),
    "on its side": (DEEP, {**RGB, "extratags": [(274, 3, 1, 6, True)]}),
    "inverted": (RGB8[..., 0], {"photometric": "miniswhite"}),
    "ycbcr": (RGB8, {"photometric": "ycbcr", "subsampling": (1, 1)}),
}


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(KINDS, 2)))
def test_each_page_is_read_as_if_it_were_alone(first: str, second: str) -> None:
    alone = [frames_of(pages(KINDS[name]))[0] for name in (first, second)]
    for got, expected in zip(frames_of(pages(KINDS[first], KINDS[second])), alone, strict=True):
        np.testing.assert_array_equal(got, expected)
        assert got.dtype == expected.dtype


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_the_profile_of_inks_holds_for_each_page(dtype: type, planar: str) -> None:
    corners = np.array([[100 * (1 - 0.3 * (i >> 3 & 1)) * (1 - 0.8 * (i & 1)), 40 * (i & 2), 0] for i in range(16)])
    profile = table_profile(b"CMYK", corners)
    inks = np.dstack([RGB8, RGB8[..., 0] // 2]).astype(dtype) * dtype(257 if dtype == np.uint16 else 1)
    stored = np.moveaxis(inks, 2, 0).copy() if planar == "separate" else inks
    options = {"photometric": "separated", "planarconfig": planar, "iccprofile": profile}
    first, second = read_frames(pages((stored, options), (stored, options)), frames="all")
    np.testing.assert_array_equal(first.pixels(), second.pixels())
    assert np.abs(first.pixels() - of_inks(inks).astype(float)).max() > 20
    assert [note for note in first.notes if "8 bits" in note] == first.notes[: int(dtype == np.uint16)]


def _chain(order: str, tag: int, kind: int, values: tuple[int, int]) -> bytes:
    """A small and a large picture in two pages, each with one subfile tag, in two bytes or four."""
    small, head = RGB8, b"II*\0" if order == "<" else b"MM\0*"
    body = small.tobytes() + BIG.tobytes()
    out, start = b"", 8 + len(body)
    for i, (image, offset) in enumerate(((small, 8), (BIG, 8 + small.nbytes))):
        entries = [(tag, kind, values[i]), (256, 4, image.shape[1]), (257, 4, image.shape[0]), (258, 3, 8)]
        entries += [(259, 3, 1), (262, 3, 2), (273, 4, offset), (277, 3, 3), (278, 4, image.shape[0])]
        entries += [(279, 4, image.nbytes)]
        size = 2 + 12 * len(entries) + 4
        out += struct.pack(order + "H", len(entries))
        for name, width, value in entries:
            out += struct.pack(order + "HHI", name, width, 1)
            out += struct.pack(order + ("HH" if width == 3 else "I"), *([value, 0] if width == 3 else [value]))
        out += struct.pack(order + "I", start + size if i == 0 else 0)
        start += size
    return head + struct.pack(order + "I", 8 + len(body)) + body + out


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("tag", "kind", "values"), [(254, 4, (1, 0)), (254, 3, (1, 0)), (255, 3, (2, 1))])
def test_reduced_copies_are_detected_by_either_tag(order: str, tag: int, kind: int, values: tuple[int, int]) -> None:
    data = _chain(order, tag, kind, values)
    np.testing.assert_array_equal(read_picture(data).pixels(), BIG)
    assert size_of(data) == BIG.shape[:2]


def _below(image: np.ndarray, big: bool = False, order: str = "<", **options: Any) -> bytes:
    """A reduced copy with the full-size picture in a subdirectory."""
    out = BytesIO()
    with tifffile.TiffWriter(out, bigtiff=big, byteorder=order) as writer:
        writer.write(RGB8, photometric="rgb", subfiletype=1, subifds=1, metadata=None)
        writer.write(image, metadata=None, **options)
    return out.getvalue()


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("deep", [False, True])
def test_a_full_size_picture_in_a_subdirectory_is_used(deep: bool, big: bool, order: str) -> None:
    image = BIG.astype(np.uint16) * 257 if deep else BIG
    data = _below(image, big, order, photometric="rgb")
    np.testing.assert_array_equal(read_picture(data).pixels(), image)
    assert size_of(data) == BIG.shape[:2]


@pytest.mark.parametrize("name", ["a.dng", "b.tif", ""])
def test_the_content_of_a_dng_overrides_its_name(name: str) -> None:
    pattern = [(33421, "H", 2, (2, 2), True), (33422, "B", 4, (0, 1, 1, 2), True)]
    raw = _below(BIG[..., 0].astype(np.uint16), photometric="cfa", extratags=pattern)
    with pytest.raises(DecodeError, match="raw"):
        read_picture(raw, name=name)
    np.testing.assert_array_equal(read_picture(tiff(RGB8, photometric="rgb"), name=name).pixels(), RGB8)


@pytest.mark.parametrize("packing", [None, "lzw", "zlib", "jpeg"])
@pytest.mark.parametrize("kind", ["1 bit", "gray", "rgb", "inks", "opacity", "palette"])
def test_big_endian_bigtiff(kind: str, packing: str | None) -> None:
    gray = RGB8[..., 0]
    samples: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
        "1 bit": (gray > 100, {}),
        "gray": (gray, {}),
        "rgb": (RGB8, RGB),
        "inks": (np.dstack([RGB8, gray]), {"photometric": "separated"}),
        "opacity": (np.dstack([RGB8, gray]), {**RGB, "extrasamples": ["unassalpha"]}),
        "palette": (gray, {"photometric": "palette", "colormap": np.tile(np.arange(256) * 257, (3, 1))}),
    }
    if packing == "jpeg" and kind not in ("gray", "rgb"):
        return
    array, options = samples[kind]
    one, other = (
        read_picture(tiff(array, bigtiff=True, byteorder=order, compression=packing, **options)) for order in "<>"
    )
    np.testing.assert_array_equal(one.pixels(), other.pixels())
    assert one.kind == other.kind


def _one_directory(data: bytes) -> bytes:
    """A file whose first directory is its last, as ImageJ writes stacks of more than 4 GB."""
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack_from(order + "I", data, 4)
    (entries,) = struct.unpack_from(order + "H", data, start)
    end = start + 2 + 12 * entries
    return data[:end] + bytes(4) + data[end + 4 :]


STACK = np.arange(3 * 8 * 12, dtype=np.uint16).reshape(3, 8, 12)


@pytest.mark.parametrize("axes", ["ZYX", "TYX", "CYX"])
def test_imagej_stacks_with_one_directory(axes: str) -> None:
    data = _one_directory(tiff(STACK, imagej=True, metadata={"axes": axes}))
    got = frames_of(data)
    expected = [np.moveaxis(STACK, 0, 2)] if axes == "CYX" else list(STACK[..., None])
    np.testing.assert_array_equal(np.stack(got), np.stack(expected))
    note = read_picture(data).notes
    assert note == ([] if axes == "CYX" else ["first of 3 frames"])


def test_tifffile_stacks_with_one_directory() -> None:
    data = tiff(STACK, truncate=True, photometric="minisblack")
    np.testing.assert_array_equal(np.stack(frames_of(data))[..., 0], STACK)
    lie = data.replace(b'"shape": [3, ', b'"shape": [9, ')
    np.testing.assert_array_equal(frames_of(lie)[0][..., 0], STACK[0])  # not there: what is, is read


def test_a_second_ome_series_is_noted() -> None:
    out = BytesIO()
    with tifffile.TiffWriter(out, ome=True) as writer:
        for part in (STACK, STACK[:, :4]):
            writer.write(part, metadata={"axes": "CYX"}, photometric="minisblack")
    picture = read_picture(out.getvalue())
    np.testing.assert_array_equal(picture.pixels(), np.moveaxis(STACK, 0, 2))
    assert picture.notes == ["first of 2 image series"]


@pytest.mark.parametrize(("bits", "dtype", "full"), [(4, np.uint8, 255), (12, np.uint16, 65535)])
def test_channels_stored_as_pages_are_scaled(bits: int, dtype: type, full: int) -> None:
    values = (STACK % 2**bits).astype(dtype)
    data = tiff(values, ome=True, metadata={"axes": "CYX"}, photometric="minisblack", bitspersample=bits)
    expected = np.rint(np.moveaxis(values, 0, 2) * (full / (2**bits - 1)))
    np.testing.assert_array_equal(read_picture(data).pixels(), expected)


def test_channels_stored_as_pages_may_be_inverted() -> None:
    data = tiff(STACK, ome=True, metadata={"axes": "CYX"}, photometric="miniswhite")
    np.testing.assert_array_equal(read_picture(data).pixels(), 65535 - np.moveaxis(STACK, 0, 2))


def test_without_the_extra_all_bits_are_read_and_a_codec_is_named_with_its_page(tmp_path: Path) -> None:
    """In a process that cannot import it."""
    values = np.arange(96).reshape(8, 12, 1)
    webp = {**RGB, "compression": "webp", "compressionargs": {"lossless": True}}
    files = {
        "20 bits": plain(values, 1, 20, np.packbits(_bits(values, 20), axis=1).tobytes()),
        "ome": tiff(STACK % 4096, ome=True, metadata={"axes": "CYX"}, photometric="minisblack", bitspersample=12),
        "float": plain(values, 1, 24, bytes(8 * 12 * 3), t339=[3]),
        "webp": pages((RGB8, RGB), (RGB8, webp)),
    }
    script = """
import sys
sys.modules["imagecodecs"] = None
from imatlas.errors import DecodeError
from imatlas.images.decode import read_frames
for path in sys.argv[1:]:
    try:
        print("read", [picture.pixels().shape for picture in read_frames(open(path, "rb").read(), frames="all")])
    except DecodeError as error:
        print(error)
"""
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    paths = [str(tmp_path / name) for name in files]
    done = subprocess.run([sys.executable, "-c", script, *paths], capture_output=True, text=True, check=True)
    output = dict(zip(files, done.stdout.splitlines(), strict=True))
    assert output["20 bits"] == "read [(8, 12, 1)]"
    assert output["ome"] == "read [(8, 12, 3)]"
    assert "24 bits per sample needs an optional dependency: pip install 'imatlas[codecs]'" in output["float"]
    assert output["webp"].startswith("page 2: a TIFF in WEBP")


def _bits(values: np.ndarray, bits: int) -> np.ndarray:
    return (values[..., 0, None] >> np.arange(bits - 1, -1, -1) & 1).reshape(len(values), -1).astype(np.uint8)
