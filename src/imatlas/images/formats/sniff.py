"""Detection of file formats by their first bytes; names decide only for formats without a signature."""

from __future__ import annotations

import contextlib
import re
import zlib

from imatlas.errors import DecodeError
from imatlas.images.formats.iso_boxes import heif_bits

_NAMES = """
    jpg jpeg jpe jfif png apng gif tif tiff webp bmp dib ppm pgm pbm pnm pfm jp2 j2k jpf jpx ico icns psd dds qoi tga
    pcx sgi avif heic heif hif pam jls
"""
_VIDEO_NAMES = """
    mp4 m4v mov qt 3gp 3g2 mkv webm avi flv f4v wmv asf ogv mpg mpeg m2v vob mts m2ts
"""
IMAGE_SUFFIXES = frozenset(f".{name}" for name in _NAMES.split())
VIDEO_SUFFIXES = frozenset(f".{name}" for name in _VIDEO_NAMES.split())
_RAW = (".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2", ".pef", ".srw", ".x3f")
_NOT_READ = {
    **dict.fromkeys(_RAW, "camera raw files are"),
    **dict.fromkeys((".svg", ".svgz", ".eps", ".ai", ".wmf", ".emf"), "vector drawings are"),
    **dict.fromkeys((".jxr", ".wdp", ".hdp"), "JPEG XR is"),
    **dict.fromkeys((".mng", ".jng"), "MNG is"),
    **dict.fromkeys((".dpx", ".cin"), "DPX is"),
    **dict.fromkeys((".xpm", ".xbm"), "XPM and XBM are"),
    ".cur": "a Windows cursor is",
    ".nrrd": "NRRD is",
    ".mrc": "MRC is",
    ".psb": "a Photoshop file of the large kind (PSB) is",
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
    (rb"P[1-6]\s*[\d#]|P7\s|P[fF]\s+\d", "PPM"),
    (rb"\x00\x00\x00\x0cjP  \r\n|\xff\x4f\xff\x51", "JPEG2000"),
    (rb"\x00\x00\x01\x00[\x01-\xff]\x00", "ICO"),
    (rb"icns", "ICNS"),
    (rb"8BPS\x00\x01", "PSD"),
    (rb"DDS \x7c\x00\x00\x00", "DDS"),
    (rb"qoif", "QOI"),
    (rb"\x93NUMPY[\x01-\x03]\x00", "NPY"),
    (rb"\x01\xda[\x00\x01][\x01\x02]\x00", "SGI"),
]
_KNOWN = [  # recognized but not read, whatever the name
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
    (rb"8BPS\x00\x02", f"{_NOT_READ['.psb']} not read"),
    (rb"\xd7\xcd\xc6\x9a|\x01\x00\x00\x00.{36,44} EMF", f"{_NOT_READ['.wmf']} not read"),
    (rb"FOVb|\x00MRM", f"{_NOT_READ['.x3f']} not read"),
    (rb"II\xbc[\x00\x01]", f"{_NOT_READ['.jxr']} not read"),
    (rb"\x00\x00\x02\x00[\x01-\x40]\x00.{3}\x00", f"{_NOT_READ['.cur']} not read"),
    (rb"\x8aMNG|\x8bJNG", f"{_NOT_READ['.mng']} not read"),
    (rb"SDPX|XPDS|\x80\x2a\x5f\xd7", f"{_NOT_READ['.dpx']} not read"),
    (rb"/\* XPM \*/|#define \w+_width ", f"{_NOT_READ['.xpm']} not read"),
    (rb".{344}n[+i]1\x00|(?:\x1c\x02\x00\x00|\x00\x00\x02\x1c)n[+i]2\x00", f"{_NOT_READ['.nii']} not read"),
    (rb"ZISRAWFILE", f"{_NOT_READ['.czi']} not read"),
    (rb"\xda\xce\xbe\x0a", f"{_NOT_READ['.nd2']} not read"),
    (rb"\x70\x00\x00\x00", f"{_NOT_READ['.lif']} not read"),
    (rb"NRRD000", f"{_NOT_READ['.nrrd']} not read"),
    (rb".{208}MAP[ \x00]", f"{_NOT_READ['.mrc']} not read"),
    (rb"\x89HDF\r\n", "HDF5 is not read; save its pictures as .npy, TIFF or PNG"),
    # Without the 128 bytes before it, DICOM begins with an element of its first groups.
    (rb"\x08\x00[\x00\x01\x05\x08\x16\x18]\x00(?:..\x00\x00|[A-Z]{2})|\x02\x00\x00\x00UL",
     f"{_NOT_READ['.dcm']} not read"),
    (rb"\x59\xa6\x6a\x95", "Sun raster is not read"),
    (rb"BPG\xfb", "BPG is not read"),
    (rb"FLIF[1-9A-Z]", "FLIF is not read"),
    (rb"\xabKTX |\x13\xab\xa1\x5c", "textures (KTX, ASTC) are not read"),
    (rb"AT&TFORM", "DjVu is not read"),
    (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an OLE file (OIB, FlashPix, old Office) is not read"),
    (rb"BA.{12}(?:BM|CI|CP|IC|PT)", "an array of bitmaps of OS/2 is not read"),
    (rb"PK\x03\x04|Rar!|7z\xbc\xaf\x27\x1c|\x1f\x8b|BZh[1-9]1AY|\xfd7zXZ|\x28\xb5\x2f\xfd|.{257}ustar",
     "an archive, not a picture"),
]  # fmt: skip
_VIDEOS = [  # first bytes, and the demuxer of FFmpeg that reads the rest
    (rb"....ftyp(?:iso[m2-9]|mp4[12v]|M4V |M4VP|MSNV|f4v |F4V |qt  |avc1|hvc1|av01|3g|dash|mmp4|XAVC|NDS)"
     rb"|....(?:moov|mdat|wide)", "mp4"),
    (rb"\x1aE\xdf\xa3", "matroska"),
    (rb"RIFF....AVI ", "avi"),
    (rb"FLV\x01", "flv"),
    (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
    (rb"OggS\x00.{22,80}?(?:\x80theora|fishead)", "ogg"),
    (rb"\x00\x00\x01[\xba\xb3]", "mpeg"),
    (rb"G.{187}G|.{4}G.{191}G", "mpegts"),
]  # fmt: skip
_HEAD = 4096
_SNIFF = [(re.compile(pattern, re.DOTALL), name) for pattern, name in _MAGIC]
_RECOGNIZED = [(re.compile(pattern, re.DOTALL | re.IGNORECASE), what) for pattern, what in _KNOWN]
_VIDEO = [(re.compile(pattern, re.DOTALL), name) for pattern, name in _VIDEOS]
_BY_SUFFIX = {".tga": "TGA", ".pcx": "PCX"}


def sniff(head: bytes) -> str | None:
    """The format that the first bytes of a file indicate ("JPEG"), or None if they are not those of a picture."""
    if head[4:8] == b"ftyp":
        return _by_brands(head)
    for pattern, name in _SNIFF:
        if pattern.match(head):
            return name
    return None


def sniff_video(head: bytes) -> str | None:
    """The demuxer of FFmpeg for the video that a file is by its first bytes ("mp4"), or None if it is none."""
    if head[4:8] == b"ftyp" and _by_brands(head):
        return None
    return next((name for pattern, name in _VIDEO if pattern.match(head)), None)


def _by_brands(head: bytes) -> str | None:
    """AVIF or HEIF, by the first brand of an ISO file, main or compatible, that names one of them.

    Others (mif1, miaf, MA1B) are generic and mean HEIF by default.
    """
    end = min(len(head), int.from_bytes(head[:4], "big"))
    brands = [head[8:12], *(head[place : place + 4] for place in range(16, end, 4))]
    for brand in brands:
        if brand in (b"avif", b"avis"):
            return "AVIF"
        if brand[:3] in (b"hei", b"hev"):
            return "HEIF"
    return "HEIF" if any(brand in (b"mif1", b"msf1", b"miaf") for brand in brands) else None


def _is_svg(head: bytes) -> bool:
    """Whether a text is SVG: <svg> after any declarations and comments."""
    wide = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}.get(head[:2])
    text = (head[2:] if wide else head.removeprefix(b"\xef\xbb\xbf")).decode(wide or "latin-1", "ignore").lstrip()
    for _ in range(100):
        end = {"<?": "?>", "<!": ">"}.get(text[:2])
        if end is None:
            break
        if text.startswith("<!--"):
            end = "-->"
        elif text[:2] == "<!" and "[" in text.partition(">")[0]:
            end = "]>" if "]>" in text else "] >"
        text = text.partition(end)[2].lstrip()
    return re.match(r"<(?:\w+:)?svg\b", text, re.IGNORECASE) is not None


def recognized(head: bytes) -> str:
    """What a file is that is recognized but not read, and what to do; else ""."""
    if head[:2] == b"\x1f\x8b":  # a compressed drawing or volume (.svgz, .nii.gz)
        with contextlib.suppress(zlib.error):
            inner = recognized(zlib.decompressobj(31).decompress(head, _HEAD))
            if "not read" in inner:
                return inner
    if _is_svg(head):
        return f"{_NOT_READ['.svg']} not read; export it as PNG, JPEG or TIFF"
    for pattern, what in _RECOGNIZED:
        if pattern.match(head):
            return f"{what}; export it as PNG, JPEG or TIFF" if what.endswith("not read") else what
    return ""


def suffix_of(key: str) -> str:
    """The suffix of a file name in lower case with its dot, or ""."""
    name = key.rpartition("/")[2].lower()
    return "." + name.rpartition(".")[2] if "." in name else ""


def has_image_name(key: str) -> bool:
    """Whether a file name is that of a picture; the "._" files that macOS leaves in archives are not."""
    suffix = suffix_of(key)
    return not key.rpartition("/")[2].startswith("._") and (suffix in IMAGE_SUFFIXES or suffix in _NOT_READ)


def has_video_name(key: str) -> bool:
    """Whether a file name is that of a video."""
    return not key.rpartition("/")[2].startswith("._") and suffix_of(key) in VIDEO_SUFFIXES


def format_of(data: bytes, key: str) -> str:
    """The format to read a file as.

    Raises
    ------
    DecodeError
        If it is not a supported picture, saying what it is instead.
    """
    suffix = suffix_of(key)
    if not data:
        raise DecodeError("an empty file")
    head = data[:_HEAD]
    known = recognized(head)
    if known:
        raise DecodeError(known)
    found = sniff(head)
    if found is None and sniff_video(head):
        raise DecodeError("a video, not a picture")
    if found == "TIFF" and suffix in _RAW and suffix != ".dng":  # most begin like a TIFF; a DNG can be read as one
        raise DecodeError(f"{_NOT_READ[suffix]} not read; export it as PNG, JPEG or TIFF")
    if found is not None:
        return found
    if data.endswith(b"TRUEVISION-XFILE.\x00"):
        return "TGA"
    if suffix in _NOT_READ:
        raise DecodeError(f"{_NOT_READ[suffix]} not read; export it as PNG, JPEG or TIFF")
    if suffix in VIDEO_SUFFIXES:
        raise DecodeError("not a video that can be read; is the file complete?")
    if suffix in _BY_SUFFIX:
        return _BY_SUFFIX[suffix]
    if not data.strip(b"\x00"):
        raise DecodeError("contains only zeros")
    if data[:256].lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise DecodeError("a web page or XML text, not a picture")
    raise DecodeError("not a picture in a supported format")


def needs_extra(what: str, extra: str) -> DecodeError:
    """The error for a file whose decoder is in an extra that is not installed."""
    return DecodeError(f"{what} needs an optional dependency: pip install 'imatlas[{extra}]'")


def not_read(what: str) -> DecodeError:
    """The error for a file of a known but unsupported kind."""
    return DecodeError(f"{what} is not read; export it as PNG, JPEG or TIFF")


def plainly_branded(data: bytes, found: str) -> bytes:
    """A file with a main brand that Pillow knows, as it ignores compatible brands."""
    if found == "AVIF" and data[8:12] not in (b"avif", b"avis", b"mif1", b"msf1"):
        return data[:8] + b"avif" + data[12:]
    return data


def bits_of(data: bytes, found: str) -> int:
    """Bits per sample if the header gives them at a fixed place; else 8."""
    if found == "PNG" and len(data) > 24:
        return data[24]
    if found == "AVIF":
        return heif_bits(data)
    if found == "SGI":
        return 8 * max(1, data[3])
    if found == "DDS" and len(data) > 108 and data[80] & 0x40:  # colors given by masks
        return max(int.from_bytes(data[place : place + 4], "little").bit_count() for place in (92, 96, 100))
    if found == "PPM" and data[1:2] in b"2356":
        numbers = re.findall(rb"\d+", re.sub(rb"#[^\n]*", b"", data[2:256]))
        if len(numbers) > 2 and int(numbers[2]) > 255:
            return 16
    return 8
