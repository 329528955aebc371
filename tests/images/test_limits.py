"""No file exceeds the budget: bombs are read within it or skipped with a reason, in threads too."""

from __future__ import annotations

import gzip
import re
import struct
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from imatlas import Images
from imatlas.errors import DecodeError, InputError, ParameterError, SourceError
from imatlas.images import decode, memory_budget
from imatlas.images.decode import check_thumbnail, read_picture, size_of
from imatlas.images.formats import headers
from imatlas.images.formats.row_bands import block_means
from imatlas.images.picture import Aim, Picture
from tests.images import bombs
from tests.images.corrupt import more_originals

MEASURED = """
import resource, sys
import imatlas
try:
    images = imatlas.Images(sys.argv[1], workers=3, thumbnail_size=64, image_size=32)
    for key in images.keys: print('used', key)
    for key, reason in images.skipped: print('skipped', key, reason)
except imatlas.errors.ImatlasError as error:
    print('error', error)
usage = resource.getrusage(resource.RUSAGE_SELF)
try:  # what rusage says begins with the memory of the process that started this one
    peak = int(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0])
except OSError:
    peak = usage.ru_maxrss
print('cost', peak // 1024, usage.ru_utime + usage.ru_stime)
"""


def measured(path: Path) -> tuple[list[str], int, float]:
    """The result of reading a source in a process of its own, its peak memory in MB and its CPU seconds."""
    done = subprocess.run([sys.executable, "-c", MEASURED, str(path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    *lines, cost = done.stdout.splitlines()
    return lines, int(cost.split()[1]), float(cost.split()[2])


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """A budget of 64 MiB."""
    monkeypatch.setenv(memory_budget.VARIABLE, "64M")


def test_bombs_among_pictures_are_read_within_the_budget_or_skipped_by_several_threads(tmp_path: Path) -> None:
    for name, (content, _) in bombs.PICTURES.items():
        (tmp_path / name).write_bytes(content())
        assert (tmp_path / name).stat().st_size < 5_000_000
    lines, megabytes, seconds = measured(tmp_path)
    for name, (_, reason) in bombs.PICTURES.items():
        (line,) = [line for line in lines if line.split()[1] == name]
        assert line.startswith("used" if reason is None else "skipped"), line
        assert reason is None or re.search(reason, line), line
    assert megabytes < 700
    assert seconds < 80  # 46 beside other work


@pytest.mark.parametrize("kind", ["zip", "zip-bz2", "tar-many", "tar-folders", "tar-links", "tar-header", "null"])
def test_sources_that_unpack_to_gigabytes(kind: str, tmp_path: Path) -> None:
    write = {
        "zip": lambda p: bombs.write_zip(p, zipfile.ZIP_DEFLATED),
        "zip-bz2": lambda p: bombs.write_zip(p, zipfile.ZIP_BZIP2),
        "tar-many": lambda p: bombs.write_tar(p, n_members=150_000),
        "tar-folders": lambda p: bombs.write_tar(p, n_members=150_000, kind=tarfile.DIRTYPE),
        "tar-links": lambda p: bombs.write_tar(p, n_members=150_000, kind=tarfile.SYMTYPE),
        "tar-header": lambda p: bombs.write_tar(p, n_header=2**26),
        "null": lambda p: bombs.write_parquet(p, nulls=5_000_000),
    }[kind]
    path = tmp_path / {"zip": "a.zip", "tar": "a.tar.gz"}.get(kind[:3], "a.parquet")
    write(path)
    lines, megabytes, seconds = measured(path)
    expected = {
        "zip": "more than the limit",
        "zip-bz2": "checksum",
        "tar-many": "too little for images",
        "tar-folders": "too little for images",
        "tar-links": "too little for images",
        "tar-header": "headers",
        "null": "too little for images",
    }[kind]
    assert any(expected in line for line in lines), lines[-3:]
    assert megabytes < 450
    assert seconds < 30


@pytest.mark.parametrize(
    ("name", "n_megabytes", "reason"),
    [
        ("a.zip", 100, "would take"),
        ("a.parquet", 50, "would take"),
        ("a.tar.bz2", 100, "would take"),
        ("a.webp", 100, "would take"),
        ("b.zip", 400, "unpacks from"),
        ("b.parquet", 400, "unpacks from"),
        ("b.tar.bz2", 400, "unpacks from"),
        ("b.webp", 900, "holes"),
    ],
)
def test_trailing_zeros_do_not_raise_the_limit(name: str, n_megabytes: int, reason: str, tmp_path: Path) -> None:
    bombs.write_padded(tmp_path / name, n_megabytes)
    lines, megabytes, seconds = measured(tmp_path / name)
    assert reason in lines[0]
    assert "IMATLAS_DECODE_MEMORY" in lines[0]
    assert megabytes < 600
    assert seconds < 15


@pytest.mark.parametrize("kind", ["one", "many", "dictionary"])
def test_a_false_parquet_footer_does_not_raise_the_limit(kind: str, tmp_path: Path) -> None:
    picture = bombs.saved(Image.new("RGB", (30, 30), (9, 9, 9)), "PNG")
    content = picture + bytes({"one": 600, "many": 10, "dictionary": 40}[kind] * 2**20)
    options = {"use_dictionary": kind == "dictionary", "dictionary_pagesize_limit": 2**30}
    bombs.write_lies(tmp_path / "a.parquet", [content] * {"one": 1, "many": 60, "dictionary": 64}[kind], **options)
    lines, megabytes, seconds = measured(tmp_path / "a.parquet")
    assert any("archive unpacks to" if kind == "dictionary" else "unpacks from" in line for line in lines)
    assert megabytes < 600
    assert seconds < 15


@pytest.mark.parametrize("everywhere", [False, True])
def test_the_headers_of_a_tar_are_bounded_in_total(everywhere: bool, tmp_path: Path) -> None:
    words = b"".join(b"14 k%07d=v\n" % k for k in range(20_000)) if everywhere else b"6 a=b\n" * 80_000
    head = tarfile.TarInfo("x")
    head.type, head.size = b"g" if everywhere else b"x", len(words)
    long = head.tobuf(tarfile.USTAR_FORMAT) + words + bytes(-len(words) % 512)
    member = tarfile.TarInfo("a.png").tobuf(tarfile.USTAR_FORMAT)
    with gzip.open(tmp_path / "a.tar.gz", "wb") as file:
        file.write(member + (long + member * 50_000 if everywhere else (long + member) * 400))
    assert (tmp_path / "a.tar.gz").stat().st_size < 1_000_000
    lines, megabytes, seconds = measured(tmp_path / "a.tar.gz")
    assert "a.png: an empty file" in lines[0]
    assert megabytes < 300
    assert seconds < 20


def test_many_small_members_are_read_up_to_the_limit(tmp_path: Path) -> None:
    bombs.write_many_packed(tmp_path / "a.zip", 2000)
    bombs.write_links(tmp_path / "b.tar.gz", 5000)
    for name, used in (("a.zip", 1), ("b.tar.gz", 400)):
        assert (tmp_path / name).stat().st_size < 1_000_000
        lines, megabytes, seconds = measured(tmp_path / name)
        assert sum(line.startswith("used") for line in lines) >= used
        assert "up to here the archive unpacks" in lines[-1]
        assert megabytes < 600
        assert seconds < 20


def test_identical_files_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []
    original = decode.read_frames

    def counted(data: bytes, **options: Any) -> Iterator[Picture]:
        decoded.append(options["name"])
        return original(data, **options)

    monkeypatch.setattr(decode, "read_frames", counted)
    frames = [Image.new("RGB", (20, 30), (70 * k, 9, 9)) for k in range(3)]
    contents = {
        "gif": bombs.saved(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "png": bombs.saved(frames[0], "PNG"),
        "bad.png": bombs.saved(frames[0], "PNG")[:50],
        "tga": bombs.saved(frames[0], "TGA"),
        "dat": bombs.saved(frames[0], "TGA"),
    }
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, content in contents.items():
            for k in range(40):
                archive.writestr(f"{name}/{k:02d}.{name[-3:]}", content)
    images = Images(tmp_path / "a.zip", image_size=16, workers=1, frames="all", thumbnail_size=16)
    assert len(images.keys) == 40 * 5
    assert images.keys[80:83] == ["gif/26.gif#3", "gif/27.gif#1", "gif/27.gif#2"]
    assert sorted(key.rpartition("/")[0] for key, _ in images.skipped) == [""] + ["bad.png"] * 40
    assert len({reason for key, reason in images.skipped if key.startswith("bad")}) == 1
    np.testing.assert_array_equal(images.pixels[0:3], images.pixels[117:120])
    assert len(set(images.records["key"])) == 200
    assert len(decoded) == 4
    bombs.write_parquet(tmp_path / "a.parquet", copies=20_000)
    lines, megabytes, seconds = measured(tmp_path / "a.parquet")
    assert sum(line.startswith("used") for line in lines) > 4000
    assert "up to here the archive unpacks" in lines[-1]
    assert megabytes < 600
    assert seconds < 20


@pytest.mark.parametrize("kind", bombs.NPZ)
def test_compressed_arrays_stay_within_the_limit(kind: str, tmp_path: Path) -> None:
    bombs.write_npz(tmp_path / "a.npz", kind)
    assert (tmp_path / "a.npz").stat().st_size < 1_000_000
    lines, megabytes, seconds = measured(tmp_path / "a.npz")
    assert any(bombs.NPZ[kind][-1] in line for line in lines), lines[-3:]
    assert megabytes < 1000
    assert seconds < 30


@pytest.mark.parametrize(
    ("shape", "reason"),
    [("(" * 5000, "header"), ("-" * 5000 + "1", "header"), ("(9**99,)", "header"), ("(9,9,9)", "ends")],
)
@pytest.mark.parametrize("packed", [False, True])
def test_an_array_with_a_false_header_is_refused(shape: str, reason: str, packed: bool, tmp_path: Path) -> None:
    words = f"{{'descr': '<u2', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    content = b"\x93NUMPY\1\0" + len(words).to_bytes(2, "little") + words + b"pixels"
    path = tmp_path / ("a.npz" if packed else "a.npy")
    if packed:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("images.npy", content)
    else:
        path.write_bytes(content)
    with pytest.raises(SourceError, match=reason):
        Images(path)


def test_a_repetitive_parquet_file_is_read_a_few_rows_at_a_time(tmp_path: Path) -> None:
    import pyarrow as pa

    from imatlas.images.sources.opening import open_source

    bombs.write_parquet(tmp_path / "a.parquet", copies=3000)
    assert (tmp_path / "a.parquet").stat().st_size < 200_000
    source = open_source(str(tmp_path / "a.parquet"))
    before = pa.default_memory_pool().max_memory()
    first, last = source.read(0), source.read(2999)
    assert first == last
    assert len(first) * 3000 > 2**28
    assert pa.default_memory_pool().max_memory() - before < 2**26


def test_a_column_that_unpacks_to_far_more_than_its_file_is_refused_per_row(little: None, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    values = [bytes(2**25), bytes(2**25)]
    pq.write_table(pa.table({"image": values}), tmp_path / "a.parquet", compression="zstd", use_dictionary=False)
    images = Images(tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"000000: unpacks from .* to 64 MB.*; 000001: unpacks from"):
        len(images)


def test_threads_share_one_budget(little: None) -> None:
    most, lock = [0], threading.Lock()
    pause = threading.Event()

    def work() -> None:
        with memory_budget.sharing():
            memory_budget.need(40 * 2**20, 0, "a picture")
            with lock:
                most[0] = max(most[0], memory_budget.POOL.used)
            pause.wait(0.02)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert most[0] == 40 * 2**20
    assert memory_budget.POOL.used == 0


def test_interleaved_reading_in_one_thread_does_not_deadlock(little: None) -> None:
    data = bombs.saved(Image.new("RGB", (2500, 2500)), "PNG")
    first, second = (decode.read_frames(data) for _ in range(2))
    assert next(first).width == next(second).width == 2500
    first.close()
    second.close()
    assert memory_budget.POOL.used == 0


def test_the_limit_can_be_raised_and_is_validated(monkeypatch: pytest.MonkeyPatch) -> None:
    data = bombs.saved(Image.new("RGB", (3000, 3000)), "WEBP")
    monkeypatch.setenv(memory_budget.VARIABLE, "64M")
    with pytest.raises(DecodeError, match=r"3000 x 3000.*limit of 64 MB; set IMATLAS_DECODE_MEMORY"):
        read_picture(data)
    monkeypatch.setenv(memory_budget.VARIABLE, "1.5 GB")
    assert read_picture(data).width == 3000
    monkeypatch.setenv(memory_budget.VARIABLE, "plenty")
    with pytest.raises(ParameterError, match=r"IMATLAS_DECODE_MEMORY must be a size.*800M.*'plenty'"):
        Images(np.zeros((2, 4, 4), np.uint8))


def test_a_jpeg2000_with_millions_of_blocks_is_refused() -> None:
    with pytest.raises(DecodeError, match="8000 x 8000 pixels would take"):
        read_picture(bombs.jpeg2000(8000))


def test_a_large_jpeg2000_is_decoded_at_reduced_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    from skimage import data as pictures

    data = bombs.saved(Image.fromarray(pictures.astronaut()), "JPEG2000")
    whole = read_picture(data).fitted(32, 32, "crop", (0, 0, 0)).astype(int)
    monkeypatch.setattr("imatlas.images.limits.LARGE", 1000)
    small = read_picture(data, aim=Aim(32, 32, "crop"))
    assert (small.scale, small.width, small.height) == (4, 512, 512)
    assert small.pixels().shape == (128, 128, 3)
    assert small.gray().shape == (64, 64)
    assert np.abs(small.fitted(32, 32, "crop", (0, 0, 0)) - whole).mean() < 8


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize(("compression", "tile"), [(None, None), ("zlib", None), ("zlib", (64, 48)), ("lzma", None)])
def test_a_large_tiff_is_reduced_while_it_is_read(
    dtype: type, compression: str | None, tile: tuple | None, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    array = (rng.random((610, 430, 5)) * 200).astype(dtype)
    out = BytesIO()
    options = {"photometric": "minisblack", "planarconfig": "contig", "compression": compression, "tile": tile}
    tifffile.imwrite(out, array, **options)
    whole = read_picture(out.getvalue(), aim=Aim(16, 16, "crop"))
    np.testing.assert_array_equal(whole.pixels(), array)
    monkeypatch.setattr("imatlas.images.limits.LARGE", 1000)
    small = read_picture(out.getvalue(), aim=Aim(16, 16, "crop"))
    assert (small.width, small.height) == (430, 610)
    assert small.scale > 4
    step = small.scale
    expected = array[: step * 3, : step * 2].reshape(3, step, 2, step, 5).mean((1, 3))
    np.testing.assert_allclose(small.pixels()[:3, :2], expected, atol=0.51 if dtype is not np.float32 else 1e-3)
    difference = small.fitted(16, 16, "crop", (0, 0, 0)).astype(float) - whole.fitted(16, 16, "crop", (0, 0, 0))
    assert np.abs(difference).mean() < 4


@pytest.mark.parametrize("number", range(7))
def test_a_large_png_by_bands_is_the_same_picture(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = [content for ending, content in more_originals() if ending == "png"][number]
    whole = read_picture(data).pixels()
    monkeypatch.setattr("imatlas.images.limits.LARGE", 100)
    monkeypatch.setattr("imatlas.images.formats.png._BAND", 300)  # a few rows a band
    picture = read_picture(data)
    np.testing.assert_array_equal(picture.pixels(), whole)
    assert picture.kind.channels == whole.shape[2]


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P"])
def test_photographs_as_png_by_bands(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from skimage import data as pictures

    image = Image.fromarray(pictures.astronaut()).convert("RGB" if mode == "P" else mode)
    image = image.quantize(64) if mode == "P" else image
    exif = Image.Exif()
    exif[0x0112] = 6
    data = bombs.saved(image, "PNG", exif=exif)  # real rows use all filters
    whole = read_picture(data)
    monkeypatch.setattr("imatlas.images.limits.LARGE", 100)
    monkeypatch.setattr("imatlas.images.formats.png._BAND", 20_000)
    banded = read_picture(data)
    np.testing.assert_array_equal(banded.pixels(), whole.pixels())
    assert banded.orientation == 6
    small = read_picture(data, aim=Aim(24, 24, "crop"))
    assert small.scale > 2
    difference = small.fitted(24, 24, "crop", (0, 0, 0)).astype(int) - whole.fitted(24, 24, "crop", (0, 0, 0))
    assert np.abs(difference).mean() < 4


def test_a_damaged_chunk_of_a_large_png_is_reported(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    data = bytearray(bombs.saved(Image.fromarray(rng.integers(0, 256, (90, 90, 3), np.uint8)), "PNG"))
    monkeypatch.setattr("imatlas.images.limits.LARGE", 100)
    with pytest.raises(DecodeError, match="truncated PNG"):
        read_picture(bytes(data[:5000]))
    data[5000] ^= 1
    with pytest.raises(DecodeError, match="checksum"):
        read_picture(bytes(data))


def test_transparent_pixels_do_not_contribute_to_means() -> None:
    array = np.zeros((4, 4, 4), np.uint8)
    array[:2, :2] = (200, 100, 50, 255)
    assert block_means(array, 4, alpha=True).tolist() == [[[200, 100, 50, 64]]]


def test_text_and_unusual_depths_of_netpbm(rng: np.random.Generator) -> None:
    rgb = rng.integers(0, 256, (7, 5, 3))
    words = "\n".join(" ".join(map(str, row)) for row in rgb.reshape(7, -1).tolist()).encode()
    got = read_picture(b"P3 # a comment\n5 7 # 9\n255\n# more 1 2\n" + words).pixels()
    np.testing.assert_array_equal(got, rgb)
    packed = read_picture(b"P1\n3 2\n010\n1 0 1").pixels()[..., 0]
    assert packed.tolist() == [[255, 0, 255], [0, 255, 0]]
    deep = read_picture(b"P2 2 1 1000 0 1000").pixels()
    assert (deep.dtype, deep.ravel().tolist()) == (np.uint16, [0, 65535])
    assert read_picture(b"P5 2 1 100\n\x00\x64").pixels().ravel().tolist() == [0, 255]
    for bad in (b"P2 2 1 255 1", b"P2 2 1 255 1 300", b"P2 2 1 255 1 x", b"P1 1 1 7", b"P2 2 1 255 1 99999999999"):
        with pytest.raises(DecodeError, match="PPM file"):
            read_picture(bad)


def test_only_small_pictures_are_thumbnails() -> None:
    small = bombs.saved(Image.new("RGB", (128, 96)), "JPEG")
    assert check_thumbnail(small) is small
    for data, reason in (
        (bombs.png(8000, 8000, 16, 6), "8000 x 8000"),
        (bombs.saved(Image.new("L", (600, 2)), "PNG"), "600 x 2"),
        (bombs.tiff_strip(1), "TIFF"),
        (small + bytes(2**21), "a thumbnail of 2 MB"),
    ):
        with pytest.raises(DecodeError, match=reason):
            check_thumbnail(data)


def test_the_channels_of_a_thumbnail_are_bounded() -> None:
    from imatlas.images.encode import encode
    from imatlas.images.spec import ImageSpec
    from imatlas.images.thumbnails import thumbnail_pixels

    large = BytesIO()
    tifffile.imwrite(
        large, np.zeros((600, 600, 7), np.uint8), compression="zlib", photometric="minisblack", planarconfig="contig"
    )
    pages = BytesIO()
    with tifffile.TiffWriter(pages) as file:
        for page in np.zeros((9, 8, 8), np.uint16):
            file.write(page, metadata=None, contiguous=False)
    shown = np.zeros((8, 8, 3), np.uint8)
    for stack, reason in (
        (bombs.shared_strips(8, 12, bombs.zeros(1), 500), "share their bytes"),
        (bombs.many_strips(8, 16, b"x", 5000), "1 x 5000"),
        (large.getvalue(), "600 x 600"),
        (pages.getvalue(), "9 frames"),
        (bombs.png(8, 8, 8, 2), "no small TIFF"),
    ):
        with pytest.raises(DecodeError, match=reason):
            thumbnail_pixels(encode(shown, "png", chunks={b"imSk": stack}), ImageSpec(16, 16, 7))


def test_blank_tiles_may_share_bytes(rng: np.random.Generator) -> None:
    out = BytesIO()
    array = np.zeros((640, 640), np.uint16)
    array[:160, :160] = rng.integers(0, 60000, (160, 160))
    tifffile.imwrite(out, array, tile=(16, 16), compression="zlib", metadata=None)
    data = bytearray(out.getvalue())
    page = tifffile.TiffFile(BytesIO(bytes(data))).pages.first
    for k, place in enumerate(page.dataoffsets):
        top, left = k // 40 * 16, k % 40 * 16
        if place > page.dataoffsets[11] and not array[top : top + 16, left : left + 16].any():
            struct.pack_into("<I", data, page.tags[324].valueoffset + 4 * k, page.dataoffsets[11])
    np.testing.assert_array_equal(read_picture(bytes(data)).pixels()[..., 0], array)


@pytest.mark.parametrize("element", ['<TiffData IFD="0" PlaneCount="2"/>', "<TiffData/>"])
def test_repeated_planes_in_ome_are_frames(element: str) -> None:
    start, _, end = bombs.ome(2).decode("latin-1").partition("<TiffData")
    words = start[start.index("<?xml") :] + element * 5 + end[end.index("/>") + 2 :].partition("</OME>")[0] + "</OME>"
    words = words.replace('SizeC="1" SizeT="2"', 'SizeC="2" SizeT="1"')
    assert "first of" not in " ".join(read_picture(bombs.ome(0, words)).notes)
    many = words.replace(element, element * 500)
    assert read_picture(bombs.ome(0, many)).notes == ["first of 2 frames"]


def test_frames_of_any_size_are_counted_as_work() -> None:
    out = BytesIO()
    with tifffile.TiffWriter(out) as file:
        for side in (8, *[3000] * 40):
            file.write(np.zeros((side, side), np.uint16), compression="zlib", metadata=None)
    with pytest.raises(DecodeError, match="frames of up to 3000 x 3000 pixels are too much work"):
        for _ in decode.read_frames(out.getvalue(), frames="all"):
            pass


@pytest.mark.parametrize("compression", [5, 32773, 50000])
def test_strips_that_libtiff_unpacks_together(compression: int, rng: np.random.Generator) -> None:
    array = rng.integers(0, 60000, (1037, 3), np.uint16)
    for rows in (1, 3, 1037):
        packed = [_packed_by_pillow(array[top : top + rows], compression) for top in range(0, len(array), rows)]
        tags = {256: (4, [3]), 257: (4, [1037]), 259: (3, [compression]), 278: (4, [rows])}
        picture = read_picture(bombs.tiff(tags, packed))
        np.testing.assert_array_equal(picture.pixels()[..., 0], array)


def _packed_by_pillow(rows: np.ndarray, compression: int) -> bytes:
    """16-bit rows as libtiff compresses them."""
    name = {5: "tiff_lzw", 32773: "packbits", 50000: "zstd"}[compression]
    image = Image.fromarray(np.ascontiguousarray(rows).view(np.uint8))
    data = bombs.saved(image, "TIFF", compression=name, tiffinfo={278: len(rows)})
    page = tifffile.TiffFile(BytesIO(data)).pages.first
    assert len(page.dataoffsets) == 1
    return data[page.dataoffsets[0] : page.dataoffsets[0] + page.databytecounts[0]]


def test_sizes_are_read_without_decoding() -> None:
    assert size_of(bombs.png(8000, 7000, 16, 6)) == (7000, 8000)
    assert size_of(bombs.tiff_strip()) == (64, 64)


def test_progressive_jpegs_are_within_the_scan_limit() -> None:
    data = bombs.saved(Image.effect_noise((300, 200), 90), "JPEG", progressive=True)
    assert 1 < headers.check_scans(data, 300, 200) < 20
    assert headers.jpeg_frame(data)[:5] == (1.0, True, 300, 200, 8)
    plain = bombs.saved(Image.new("RGB", (300, 200)), "JPEG", subsampling=2)
    assert headers.jpeg_frame(plain)[:5] == (1.5, False, 300, 200, 8)


def test_overlapping_zip_members_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    picture = bombs.saved(Image.effect_noise((40, 40), 90).convert("RGB"), "PNG")
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("a.png", "b.png"):
            archive.writestr(name, picture)
    data = bytearray(path.read_bytes())
    second = data.rfind(b"PK\1\2")
    data[second + 42 : second + 46] = bytes(4)  # begins where the first one does
    path.write_bytes(data)
    images = Images(path)
    assert len(images.keys) + len(images.skipped) == 2
    assert "overlaps another" in images.skipped[0][1]


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_DEFLATED])
def test_zip_compression_methods(method: int, tmp_path: Path, rng: np.random.Generator) -> None:
    arrays = rng.integers(0, 256, (3, 30, 20, 3), np.uint8)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        for i, array in enumerate(arrays):
            archive.writestr(f"{i}.png", bombs.saved(Image.fromarray(array), "PNG"))
    images = Images(tmp_path / "a.zip")
    for i, array in enumerate(arrays):
        np.testing.assert_array_equal(images[i], array)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("size", [10, 3000])
def test_compressed_arrays_are_memory_mapped(
    order: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = np.asarray(np.arange(size * 16 * 24, dtype=np.uint16).reshape(size, 16, 24), order=order)
    monkeypatch.setenv(memory_budget.VARIABLE, "16M")
    np.savez_compressed(tmp_path / "a.npz", labels=np.arange(size), images=array)
    images = Images(tmp_path / "a.npz")
    np.testing.assert_array_equal(images.pixels[..., 0], array)
    np.savez_compressed(tmp_path / "b.npz", images=np.zeros((40, 1024, 1024), np.uint8))
    with pytest.raises(SourceError, match="unpacks from"):
        Images(tmp_path / "b.npz")


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_rows_of_parquet_in_any_order(order: slice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from imatlas.images.sources.opening import open_source

    values = [f"value {i}".encode() * 50 for i in range(700)]
    pq.write_table(pa.table({"image": values}), tmp_path / "a.parquet", row_group_size=300)
    monkeypatch.setattr("imatlas.images.sources.parquet._AT_HAND", 100)
    source = open_source(str(tmp_path / "a.parquet"))
    for i in range(700)[order]:
        assert source.read(i) == values[i]
