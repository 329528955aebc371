"""Files like their originals: depth, alpha, colors and metadata survive."""

from io import BytesIO

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from imatlas.images.decode import read_picture
from imatlas.images.encode_like import Metadata, _png, encode_like, suffix_like
from imatlas.images.formats.tiff import encode_tiff

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def picture(dtype=np.uint8, channels=3):
    rows, columns = np.mgrid[:20, :31]
    values = np.stack([rows * 5 + c * 40 + columns for c in range(channels)], -1).astype(float)
    if dtype == np.uint16:
        return (values * 199 + rows[..., None] * 7).astype(np.uint16)
    return values.astype(dtype)


def saved(format, pixels, **options):
    out = BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(out, format, **options)
    return out.getvalue()


def exif(orientation):
    about = Image.Exif()
    about[0x0112], about[0x010F] = orientation, "Maker"
    about[0x8769] = {0xA002: 31, 0xA003: 20, 0x9003: "2020:01:01 00:00:00"}
    return about


def again(data, **options):
    """The file rewritten without a change, and both as read."""
    before = read_picture(data, background=None, own_colors=True)
    made = encode_like(before.pixels(), before, data, **options)
    return made, before, read_picture(made.content, background=None, own_colors=True)


DEEP = [(dtype, channels) for dtype in (np.uint8, np.uint16) for channels in (1, 2, 3, 4)]


@pytest.mark.parametrize(("dtype", "channels"), DEEP)
def test_png_keeps_every_value_of_every_kind(dtype, channels):
    pixels = picture(dtype, channels)
    made, before, after = again(b"".join(_png(pixels, b"", Metadata())))
    assert made.format == "PNG"
    assert before.kind == after.kind
    assert after.kind.alpha == (channels in (2, 4))
    np.testing.assert_array_equal(after.pixels(), pixels)


def test_our_png_is_what_pillow_reads():
    pixels = picture(np.uint8, 3)
    with Image.open(BytesIO(b"".join(_png(pixels, PROFILE, Metadata())))) as image:
        assert image.info["icc_profile"] == PROFILE
        np.testing.assert_array_equal(np.asarray(image), pixels)


def test_a_png_of_several_bands_and_one_pixel_wide():
    for shape in ((3000, 1000, 3), (1, 1, 1), (5000, 1, 4)):
        pixels = np.random.default_rng(0).integers(0, 65536, shape, np.uint16)
        found = read_picture(b"".join(_png(pixels, b"", Metadata())), background=None, own_colors=True).pixels()
        np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize(
    ("dtype", "channels", "alpha"),
    [(np.uint8, 3, False), (np.uint8, 4, True), (np.uint16, 3, False), (np.uint16, 4, True), (np.float32, 7, False)],
)
def test_tiff_keeps_every_value_and_its_tags(dtype, channels, alpha):
    pixels = picture(dtype, channels)
    tags = [(270, 2, 0, "a cell"), (274, 3, 1, 6), (282, 5, 1, (300, 1)), (283, 5, 1, (300, 1)), (296, 3, 1, 2)]
    tags += [(33550, 12, 3, (2.0, 2.0, 0.0))]
    profile = PROFILE if channels == 3 else b""
    made, before, after = again(encode_tiff(pixels, alpha=alpha, profile=profile, tags=tags))
    assert (before.kind, before.profile) == (after.kind, after.profile) == (before.kind, profile)
    np.testing.assert_array_equal(after.pixels(), np.rot90(pixels, -1))
    with tifffile.TiffFile(BytesIO(made.content)) as file:
        found = {tag.code: tag.value for tag in file.pages[0].tags}
    assert (found[270], found[282], found[296], found[33550]) == ("a cell", (300, 1), 2, (2.0, 2.0, 0.0))
    assert 274 not in found


def test_a_larger_tiff_has_no_place_on_earth():
    pixels = picture()
    data = encode_tiff(pixels, tags=[(33550, 12, 3, (2.0, 2.0, 0.0))])
    made = encode_like(pixels.repeat(2, 0).repeat(2, 1), read_picture(data), data)
    with tifffile.TiffFile(BytesIO(made.content)) as file:
        assert 33550 not in file.pages[0].tags


@pytest.mark.parametrize(("format", "error"), [("JPEG", 6), ("PNG", 0), ("WEBP", 25)])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_exif_is_kept_and_the_picture_is_upright(format, error, orientation):
    made, before, after = again(saved(format, picture(), exif=exif(orientation), icc_profile=PROFILE))
    assert made.format == format
    assert before.orientation == orientation
    assert after.orientation == 1
    assert np.abs(after.pixels().astype(int) - before.pixels()).max() <= error
    with Image.open(BytesIO(made.content)) as image:
        about = image.getexif()
        assert image.info["icc_profile"] == PROFILE
    inner = about.get_ifd(0x8769)
    assert (about[0x0112], about[0x010F], inner[0x9003]) == (1, "Maker", "2020:01:01 00:00:00")
    assert (inner[0xA002], inner[0xA003]) == after.pixels().shape[1::-1]


def test_the_orientation_in_xmp_is_reset_too():
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" a="b"/></x:xmpmeta>'
    for format in ("JPEG", "WEBP"):
        made, _, _ = again(saved(format, picture(), xmp=xmp))
        assert b'tiff:Orientation="1" a="b"' in made.content


def test_jpeg_is_written_no_coarser_than_before_and_than_quality_95():
    def tables(data):
        with Image.open(BytesIO(data)) as image:
            return [np.array(table) for table in image.quantization.values()]

    best = tables(saved("JPEG", picture(), quality=95))
    for quality in (50, 90, 99):
        data = saved("JPEG", picture(), quality=quality)
        made, _, _ = again(data)
        for new, old, good in zip(tables(made.content), tables(data), best, strict=True):
            assert (new <= old).all()
            assert (new <= good).all()


def test_lossless_webp_stays_lossless():
    made, before, after = again(saved("WEBP", picture(np.uint8, 4), lossless=True))
    assert made.format == "WEBP"
    np.testing.assert_array_equal(before.pixels(), after.pixels())


@pytest.mark.parametrize("format", ["BMP", "GIF", "PPM"])
def test_other_formats_become_png_and_say_so(format):
    made, before, after = again(saved(format, picture()))
    assert (made.format, made.notes) == ("PNG", (f"{format} written as PNG",))
    np.testing.assert_array_equal(before.pixels(), after.pixels())


def test_what_a_format_cannot_hold_is_written_as_another():
    data = saved("PNG", picture(np.uint8, 4))
    assert again(data, format="JPEG")[0].format == "PNG"
    floats = BytesIO()
    np.save(floats, picture(np.float32, 7))
    assert again(floats.getvalue())[0].format == "NPY"
    assert again(floats.getvalue(), format="PNG")[0].format == "TIFF"


def test_damaged_metadata_are_left_out():
    data = saved("JPEG", picture(), exif=exif(6))
    place = data.index(b"Exif\0\0") + 10
    broken = data[:place] + b"\xff\xff\xff\x7f" + data[place + 4 :]
    before = read_picture(broken)
    made = encode_like(before.pixels(), before, broken)
    assert read_picture(made.content).pixels().shape == before.pixels().shape


def test_suffixes():
    assert suffix_like("a/b.JPEG", "JPEG") == ".JPEG"
    assert suffix_like("a.bmp", "PNG") == ".png"
    assert suffix_like("b", "TIFF") == ".tif"
