"""What a file is, told by its first bytes; the name decides only where a format has no mark of its own."""

from __future__ import annotations

import re

from imatlas.errors import DecodeError

_NAMES = """
    jpg jpeg jpe jfif png apng gif tif tiff webp bmp dib ppm pgm pbm pnm pfm jp2 j2k jpf jpx ico icns psd dds qoi tga
    pcx sgi avif heic heif hif
"""
IMAGE_SUFFIXES = frozenset(f".{name}" for name in _NAMES.split())
_RAW = (".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2", ".pef", ".srw")
_NOT_READ = {
    **dict.fromkeys(_RAW, "camera raw files are"),
    **dict.fromkeys((".svg", ".svgz", ".eps", ".ai"), "vector drawings are"),
    ".pdf": "PDF is",
    ".jxl": "JPEG XL is",
    ".exr": "OpenEXR is",
    ".hdr": "Radiance HDR is",
    ".xcf": "GIMP's XCF is",
    ".dcm": "DICOM is",
    ".fits": "FITS is",
    ".nii": "NIfTI is",
    ".czi": "CZI is",
    ".nd2": "ND2 is",
    ".lif": "LIF is",
}
_MAGIC = [
    (rb"\xff\xd8\xff", "JPEG"),
    (rb"\x89PNG\r\n\x1a\n", "PNG"),
    (rb"GIF8[79]a", "GIF"),
    (rb"II[*+]\x00|MM\x00[*+]", "TIFF"),
    (rb"RIFF....WEBP", "WEBP"),
    # The four reserved bytes may hold anything; the size of the header that follows may not.
    (rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\x00{3}", "BMP"),
    (rb"P[1-6]\s+[\d#]|P[fF]\s+\d", "PPM"),
    (rb"\x00\x00\x00\x0cjP  \r\n|\xff\x4f\xff\x51", "JPEG2000"),
    (rb"....ftyp(?:avi[fs]|(?:mif1|msf1|miaf).*avi[fs])", "AVIF"),  # a general brand, and what it is compatible with
    (rb"....ftyp(?:hei[cxms]|hev[cxms]|mif1|msf1|miaf)", "HEIF"),
    (rb"\x00\x00\x01\x00[\x01-\xff]\x00", "ICO"),
    (rb"icns", "ICNS"),
    (rb"8BPS\x00\x01", "PSD"),
    (rb"DDS \x7c\x00\x00\x00", "DDS"),
    (rb"qoif", "QOI"),
    (rb"\x93NUMPY[\x01-\x03]\x00", "NPY"),
    (rb"\x01\xda[\x00\x01][\x01\x02]\x00", "SGI"),
]
_KNOWN = [  # what is no picture that is read, whatever its name
    (rb"version https://(?:git-lfs|hawser)\.github\.com/spec/",
     "a pointer of Git LFS, not the picture itself; run 'git lfs pull'"),
    (rb"(?:\.\./)*\.git/annex/objects/|/annex/objects/", "a pointer of git-annex; run 'git annex get'"),
    (rb"II\*\x00....CR\x02|FUJIFILMCCD-RAW|IIU\x00|IIRO|....ftypcrx ", f"{_NOT_READ['.nef']} not read"),
    (rb"\xff\x0a|\x00\x00\x00\x0cJXL \r\n", f"{_NOT_READ['.jxl']} not read"),
    (rb"\x76\x2f\x31\x01", f"{_NOT_READ['.exr']} not read"),
    (rb"#\?(?:RADIANCE|RGBE)", f"{_NOT_READ['.hdr']} not read"),
    (rb"gimp xcf ", f"{_NOT_READ['.xcf']} not read"),
    (rb".{128}DICM", f"{_NOT_READ['.dcm']} not read"),
    (rb"SIMPLE  =", f"{_NOT_READ['.fits']} not read"),
    (rb"%PDF-", f"{_NOT_READ['.pdf']} not read"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", f"{_NOT_READ['.eps']} not read"),
    (rb"8BPS\x00\x02", "a Photoshop file of the large kind (PSB) is not read"),
    (rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--[^>]*>\s*)?(?:<!DOCTYPE svg[^>]*>\s*)?<svg\b",
     f"{_NOT_READ['.svg']} not read"),
    (rb"....ftyp(?:isom|iso[2-6]|mp4[12]|M4V |qt  |avc1)|\x1aE\xdf\xa3|RIFF....AVI ", "a film, not a picture"),
    (rb"PK\x03\x04|Rar!|7z\xbc\xaf\x27\x1c|\x1f\x8b", "an archive, not a picture"),
]  # fmt: skip
_SNIFF = [(re.compile(pattern, re.DOTALL), name) for pattern, name in _MAGIC]
_RECOGNIZED = [(re.compile(pattern, re.DOTALL | re.IGNORECASE), what) for pattern, what in _KNOWN]
_BY_SUFFIX = {".tga": "TGA", ".pcx": "PCX"}


def sniff(head: bytes) -> str | None:
    """The format that the first bytes of a file announce ("JPEG"), or None where they are no picture's."""
    for pattern, name in _SNIFF:
        if pattern.match(head):
            return name
    return None


def recognized(head: bytes) -> str:
    """What the first bytes of a file are that is known, but no picture that is read, and what to do; else ""."""
    for pattern, what in _RECOGNIZED:
        if pattern.match(head):
            return f"{what}; export it as PNG, JPEG or TIFF" if what.endswith("not read") else what
    return ""


def suffix_of(key: str) -> str:
    """The ending of a file's name, in small letters with its dot, or ""."""
    name = key.rpartition("/")[2].lower()
    return "." + name.rpartition(".")[2] if "." in name else ""


def has_image_name(key: str) -> bool:
    """Whether a file's name says that it is a picture; the "._" files that macOS leaves in archives are none."""
    suffix = suffix_of(key)
    return not key.rpartition("/")[2].startswith("._") and (suffix in IMAGE_SUFFIXES or suffix in _NOT_READ)


def format_of(data: bytes, key: str) -> str:
    """The format to read a file as.

    Raises
    ------
    DecodeError
        Where it is no picture that is read, saying what it is instead.
    """
    suffix = suffix_of(key)
    if not data:
        raise DecodeError("an empty file")
    head = data[:1024]
    known = recognized(head)
    if known:
        raise DecodeError(known)
    found = sniff(head[:64])
    if found == "TIFF" and suffix in _RAW and suffix != ".dng":  # most are TIFF by their first bytes; a DNG says more
        raise DecodeError(f"{_NOT_READ[suffix]} not read; export it as PNG, JPEG or TIFF")
    if found is not None:
        return found
    if suffix in _NOT_READ:
        raise DecodeError(f"{_NOT_READ[suffix]} not read; export it as PNG, JPEG or TIFF")
    if suffix in _BY_SUFFIX:
        return _BY_SUFFIX[suffix]
    if not data.strip(b"\x00"):
        raise DecodeError("holds only zeros")
    if data[:256].lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise DecodeError("a web page or XML text, not a picture")
    raise DecodeError("not a picture in any format that is read")


def needs_extra(what: str, extra: str) -> DecodeError:
    """The reason why a file is not read where an extra of imatlas is not installed."""
    return DecodeError(f"{what} needs an extra part: pip install 'imatlas[{extra}]'")


def plainly_branded(data: bytes, found: str) -> bytes:
    """A file whose main brand Pillow knows: it looks at no other."""
    if found == "AVIF" and data[8:12] not in (b"avif", b"avis", b"mif1", b"msf1"):
        return data[:8] + b"avif" + data[12:]
    return data


def bits_of(data: bytes, found: str) -> int:
    """Bits a sample, where the header says so at a fixed place; else 8."""
    if found == "PNG" and len(data) > 24:
        return data[24]
    if found == "JPEG2000":
        start = data.find(b"\xff\x4f\xff\x51")
        if 0 <= start < len(data) - 42:
            return (data[start + 42] & 0x7F) + 1
    if found == "PPM" and data[1:2] in b"2356":
        numbers = re.findall(rb"\d+", re.sub(rb"#[^\n]*", b"", data[2:256]))
        if len(numbers) > 2 and int(numbers[2]) > 255:
            return 16
    return 8
