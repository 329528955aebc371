"""Small files that request gigabytes or minutes from a decoder."""

from __future__ import annotations

import bz2
import gzip
import struct
import tarfile
import zipfile
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image


def zeros(n_megabytes: int) -> bytes:
    """A deflate stream of zeros: one block, over and over."""
    packer = zlib.compressobj(9)
    head = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return head + block * (n_megabytes - 1)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, color: int, *, interlaced: bool = False, more: bytes = b"") -> bytes:
    """A black PNG of any size."""
    bits = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color] * depth
    body = zeros((-(-width * bits // 8) + 1) * height // 2**20 + 2)
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + more + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def saved(image: Image.Image, format: str, **options: object) -> bytes:
    """A picture as Pillow writes it."""
    out = BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def tiff_strip(n_megabytes: int = 1024) -> bytes:
    """A TIFF of 64 x 64 pixels whose only strip unpacks to a gigabyte."""
    out = BytesIO()
    tifffile.imwrite(out, np.zeros((64, 64), np.uint16), compression="zlib", metadata=None)
    data = bytearray(out.getvalue())
    tags = tifffile.TiffFile(BytesIO(bytes(data))).pages.first.tags
    strip = zeros(n_megabytes)
    for code, value in ((273, len(data)), (279, len(strip))):
        struct.pack_into("<I", data, tags[code].valueoffset, value)
    return bytes(data) + strip


def tiff(tags: dict[int, tuple[int, list[int]]], strips: list[bytes], offsets: list[int] | None = None) -> bytes:
    """A 16-bit TIFF with any tags {code: (type, values)}; its strips follow each other, or lie at given offsets."""
    body = b"".join(strips)
    places = np.cumsum([8, *map(len, strips)])[:-1].tolist() if offsets is None else offsets
    body += b"\0" * (len(body) % 2)
    known = {258: (3, [16]), 262: (3, [1]), 277: (3, [1]), 278: (4, [1]), 279: (4, [len(s) for s in strips])}
    known |= {273: (4, places), **tags}
    base, entries, tail = 8 + len(body) + 2 + 12 * len(known) + 4, b"", b""
    for code, (kind, values) in sorted(known.items()):
        content = struct.pack(f"<{len(values)}{'H' if kind == 3 else 'I'}", *values)
        place = content.ljust(4, b"\0") if len(content) <= 4 else struct.pack("<I", base + len(tail))
        tail += content + b"\0" * (len(content) % 2) if len(content) > 4 else b""
        entries += struct.pack("<HHI", code, kind, len(values)) + place
    head = b"II*\0" + struct.pack("<I", 8 + len(body))
    return head + body + struct.pack("<H", len(known)) + entries + bytes(4) + tail


def shared_strips(compression: int, bits: int, packed: bytes, n: int, **more: int) -> bytes:
    """A TIFF of `n` one-pixel rows whose strips all share the same bytes."""
    tags = {256: (4, [1]), 257: (4, [n]), 258: (3, [bits]), 259: (3, [compression])}
    tags |= {int(code[1:]): (3, [value]) for code, value in more.items()}
    return tiff(tags | {279: (4, [len(packed)] * n)}, [packed], [8] * n)


def many_strips(compression: int, bits: int, packed: bytes, n: int) -> bytes:
    """The same, but with separate bytes for each strip."""
    return tiff({256: (4, [1]), 257: (4, [n]), 258: (3, [bits]), 259: (3, [compression])}, [packed] * n)


def packed_lerc(method: int) -> bytes:
    """A TIFF in LERC of 64 x 64 pixels that is compressed again, to a gigabyte."""
    if method == 1:
        strip = zeros(512)
    else:
        import pyarrow as pa

        strip = pa.compress(bytes(2**29), codec="zstd", asbytes=True)
    tags = {256: (4, [64]), 257: (4, [64]), 258: (3, [32]), 259: (3, [34887]), 278: (4, [64]), 339: (3, [3])}
    return tiff(tags | {50674: (4, [4, method])}, [strip])


def ome(planes: int, words: str = "") -> bytes:
    """An OME-TIFF of two pages that declares many, or anything else."""
    words = words or (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        f'<Pixels DimensionOrder="XYCZT" ID="Pixels:0" SizeC="1" SizeT="{planes}" SizeX="8" SizeY="8" SizeZ="1" '
        f'Type="uint16"><TiffData IFD="0" PlaneCount="{planes}"/></Pixels></Image></OME>'
    )
    out = BytesIO()
    options = {"photometric": "minisblack", "description": words, "metadata": None}
    tifffile.imwrite(out, np.zeros((2, 8, 8), np.uint16), **options)
    return out.getvalue()


def scans(n: int, side: int = 4000) -> bytes:
    """A progressive JPEG whose last scan is repeated `n` times."""
    data = saved(Image.new("L", (side, side), 100), "JPEG", progressive=True, quality=10)
    start, end = data.rfind(b"\xff\xda"), data.rfind(b"\xff\xd9")
    return data[:end] + data[start:end] * n + data[end:]


def webp(width: int, height: int) -> bytes:
    """A WebP with a large size in its header."""
    data = bytearray(saved(Image.new("RGBA", (16, 16), (3, 4, 5, 6)), "WEBP", lossless=True))
    place = data.find(b"VP8L") + 9
    (bits,) = struct.unpack_from("<I", data, place)
    struct.pack_into("<I", data, place, bits & ~0xFFFFFFF | (width - 1) | (height - 1) << 14)
    return bytes(data)


def jpeg2000(side: int) -> bytes:
    """A JPEG 2000 with a large size in its header and blocks of 4 x 4."""
    data = bytearray(saved(Image.new("L", (64, 64), 7), "JPEG2000", no_jp2=True, codeblock_size=(4, 4)))
    struct.pack_into(">II", data, 8, side, side)
    struct.pack_into(">II", data, 24, side, side)
    return bytes(data)


def icon(inner: bytes) -> bytes:
    """An ICO that declares 32 x 32 for any content."""
    return b"\0\0\1\0\1\0" + bytes([32, 32, 0, 0, 1, 0, 32, 0]) + struct.pack("<II", len(inner), 22) + inner


def shared_tags(n_pages: int, n_tags: int) -> bytes:
    """A TIFF whose pages all have the same long list of tags."""
    step = 12 * n_tags // n_pages // 2 * 2
    data = bytearray(b"II*\0" + struct.pack("<I", 8) + bytes(24 * n_tags + 2**17))
    for page in range(n_pages):
        place = 8 + page * step
        struct.pack_into("<H", data, place, n_tags)
        after = place + 2 + 12 * n_tags
        struct.pack_into("<I", data, after, place + step if page < n_pages - 1 else 0)
    return bytes(data)


PICTURES = {  # name: (content, the reason it is skipped for, or None where it is read)
    "deep.png": (lambda: png(6000, 6000, 16, 6), None),
    "interlaced.png": (lambda: png(8000, 8000, 16, 6, interlaced=True), "IMATLAS_DECODE_MEMORY"),
    "strip.tif": (tiff_strip, "unpacks to more than its pixels"),
    "frames.ome.tif": (lambda: ome(100_000_000), None),
    "scans.jpg": (lambda: scans(800), "scans"),
    "canvas.webp": (lambda: webp(16383, 8000), "IMATLAS_DECODE_MEMORY"),
    "blocks.j2k": (lambda: jpeg2000(8000), "IMATLAS_DECODE_MEMORY"),
    "icon.ico": (lambda: icon(png(9000, 9000, 8, 2)), "too large for an icon"),
    "tags.tif": (lambda: shared_tags(5000, 5000), "overlap"),
    "tall.png": (lambda: png(1, 500_000, 8, 2), None),
    "taller.png": (lambda: png(1, 600_000, 8, 2), "a side is more than the limit"),
    "text.ppm": (lambda: b"P3 700 700 255\n" + b"12 3 255 " * 490_000, None),
    "shared.tif": (lambda: shared_strips(8, 16, zlib.compress(bytes(2)) + bytes(400_000), 60_000), "share their bytes"),
    "shared_reversed.tif": (lambda: shared_strips(1, 16, bytes(400_000), 60_000, t266=2), None),
    "shared_packed.tif": (lambda: shared_strips(8, 12, zeros(1), 100_000), "share their bytes"),
    "shared_odd.tif": (lambda: shared_strips(8, 24, zeros(1), 60_000), "share their bytes"),
    "shared_plain.tif": (lambda: shared_strips(8, 8, zlib.compress(bytes(1)) + bytes(400_000), 60_000), "share"),
    "strips_lzw.tif": (lambda: many_strips(5, 16, b"\x80\0\0\0\x40\x10", 60_000), None),
    "lerc_deflate.tif": (lambda: packed_lerc(1), "more than its pixels|optional dependency"),
    "lerc_zstd.tif": (lambda: packed_lerc(2), "more than its pixels|optional dependency"),
    "blanks.ppm": (lambda: b"P3 1" + b" " * 60 + b"x" * 10, "header"),
    "lines.ppm": (lambda: b"P6\n4" + b"\n" * 200 + b"#", "header"),
    "distance.pbm": (lambda: b"P4\n4" + b" " * 4_000_000 + b"4\n1234", "header"),
    "comments.ppm": (lambda: b"P3 1 #\n" + b"#\r" * 400_000 + b"1 255 " + b"#\n" * 400_000 + b"1 2 3", None),
    "endless.ppm": (lambda: b"P3 1 1 255 " + b"1" * 4_000_000, "too many digits"),
    "pixels.ome.tif": (lambda: ome(0, "<Pixels " * 500_000 + "</OME>"), None),
    "sizes.ome.tif": (lambda: ome(0, "<Pixels " + 'SizeC="9999999999999999" ' * 150_000 + "></OME>"), None),
}


def write_zip(path: Path, method: int) -> None:
    """An archive with a valid picture and a member of a gigabyte of zeros, with any checksum."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", saved(Image.new("RGB", (30, 30), (9, 9, 9)), "PNG"))
        archive.writestr("b.png", bz2.compress(bytes(2**26)) if method == zipfile.ZIP_BZIP2 else zeros(1024))
    data = bytearray(path.read_bytes())
    for mark, at in ((b"PK\1\2", 10), (b"PK\3\4", 8)):
        place = data.rfind(mark)
        struct.pack_into("<H", data, place + at, method)
        size = 1000 if method == zipfile.ZIP_BZIP2 else 2**30 - 1  # bzip2: a lie, so that only unpacking can tell
        struct.pack_into("<I", data, place + at + 14, size)
    path.write_bytes(data)


NPZ = {  # name: (type, declared MB, actual MB, compression, reason)
    "says": ("|u1", 3500, 0, zipfile.ZIP_DEFLATED, "IMATLAS_DECODE_MEMORY"),
    "bzip2": ("|u1", 5, 700, zipfile.ZIP_BZIP2, "used 000004"),
    "lzma": ("|u1", 5, 300, zipfile.ZIP_LZMA, "used 000004"),
    "numbers": ("|i1", 400, 0, zipfile.ZIP_DEFLATED, "change of dtype"),
    "truths": ("|b1", 400, 0, zipfile.ZIP_DEFLATED, "change of dtype"),
    "halves": ("<f2", 400, 0, zipfile.ZIP_DEFLATED, "change of dtype"),
    "whole": ("|u1", 500, 500, zipfile.ZIP_DEFLATED, "used 000499"),
    "header": ("", 700, 700, zipfile.ZIP_DEFLATED, "a header of 700 MB"),
}


def write_npz(path: Path, kind: str) -> None:
    """A .npz file of one kind of `NPZ`; without a dtype, it is all header."""
    dtype, declared, there, method, _ = NPZ[kind]
    head = BytesIO()
    if dtype:
        options = {"descr": dtype, "fortran_order": False, "shape": (declared, 1024, 1024 // np.dtype(dtype).itemsize)}
        np.lib.format.write_array_header_1_0(head, options)
    else:
        head.write(b"\x93NUMPY\2\0" + struct.pack("<I", declared * 2**20))
    with zipfile.ZipFile(path, "w", method) as archive, archive.open("images.npy", "w", force_zip64=True) as member:
        member.write(head.getvalue() + bytes(1000))
        for _ in range(there):
            member.write(bytes(2**20))


def write_padded(path: Path, n_megabytes: int) -> None:
    """A container of a picture that declares a large size, followed by zeros to make its file large."""
    picture = webp(16383, 8000)
    content = picture + bytes(n_megabytes * 2**20)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.webp", content)
    elif path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"image": [content]}), path, compression="zstd", write_statistics=False)
    elif path.suffix == ".bz2":
        with tarfile.open(path, "w:bz2") as archive:
            member = tarfile.TarInfo("a.webp")
            member.size = len(content)
            archive.addfile(member, BytesIO(content))
    else:  # a hole
        path.write_bytes(picture)
        with path.open("r+b") as file:
            file.truncate(len(content))


def write_lies(path: Path, values: list[bytes], **options: object) -> None:
    """A Parquet file whose footer declares that each column unpacks to 2,000 bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"image": values}), path, compression="zstd", write_statistics=False, **options)
    about = pq.read_metadata(path).row_group(0).column(0)
    data = path.read_bytes()
    length = int.from_bytes(data[-8:-4], "little")
    body, footer = data[: -8 - length], data[-8 - length : -8]
    stated = _groups_of_seven(
        2 * about.total_uncompressed_size, 0
    )  # Thrift's zigzag numbers are twice the positive ones
    lie = _groups_of_seven(2 * 2000, len(stated))
    assert footer.count(stated) >= 1
    path.write_bytes(body + footer.replace(stated, lie) + data[-8:])


def _groups_of_seven(number: int, length: int) -> bytes:
    out = bytearray()
    while number or len(out) < max(1, length):
        out.append(number & 127 | 128)
        number >>= 7
    out[-1] &= 127
    return bytes(out)


def write_many_packed(path: Path, n: int) -> None:
    """A ZIP file of `n` members of 100 MB of zeros each, in a few bytes of bzip2."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a.png", saved(Image.new("RGB", (30, 30), (9, 9, 9)), "PNG"))
        archive.writestr("bbbbb.png", bytes(100 * 2**20))
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        second = archive.infolist()[1]
        start = archive.start_dir
    member, entry = data[second.header_offset : start], data[start:].split(b"PK\1\2")[2].partition(b"PK\5\6")[0]
    entries = [b"PK\1\2" + data[start:].split(b"PK\1\2")[1]]
    for k in range(n):
        place = second.header_offset + k * len(member)
        entries.append(
            b"PK\1\2"
            + entry[:38]
            + struct.pack("<I", place)
            + entry[42:].replace(b"bbbbb.png", f"{k:05d}.png".encode())
        )
    body, directory = data[: second.header_offset] + member * n, b"".join(entries)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, n + 1, n + 1, len(directory), len(body), 0)
    path.write_bytes(body + directory + end)


def write_links(path: Path, n: int) -> None:
    """A compressed TAR of one picture of a megabyte and `n` hard links to it."""
    picture = saved(Image.new("RGB", (30, 30), (9, 9, 9)), "PNG") + bytes(2**20)
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("a.png")
        member.size = len(picture)
        archive.addfile(member, BytesIO(picture))
        for k in range(n):
            link = tarfile.TarInfo(f"b{k}.png")
            link.type, link.linkname = tarfile.LNKTYPE, "a.png"
            archive.addfile(link)


def write_tar(path: Path, n_members: int = 0, n_header: int = 0, kind: bytes = tarfile.REGTYPE) -> None:
    """A compressed TAR of many empty members, folders or links, or of one with a long header."""
    with gzip.open(path, "wb", 6) as file:
        if n_header:
            member = tarfile.TarInfo("x")
            member.type, member.size = b"x", n_header
            file.write(member.tobuf() + b"9" * n_header)
        member = tarfile.TarInfo("a.png")
        member.type, member.linkname = kind, "" if kind == tarfile.REGTYPE else "b.png"
        file.write(member.tobuf(tarfile.USTAR_FORMAT) * n_members)


def write_parquet(path: Path, *, nulls: int = 0, copies: int = 0) -> None:
    """A Parquet file of many empty rows, or of one picture repeated many times."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if nulls:
        column = pa.nulls(nulls, pa.binary())
    else:
        noise = np.random.default_rng(0).integers(0, 256, (180, 180, 3), np.uint8)
        column = pa.array([saved(Image.fromarray(noise), "PNG")] * copies)
    pq.write_table(pa.table({"image": column}), path)
