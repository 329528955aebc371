"""Names in archives: keys are safe relative names, and no picture is lost because of its name."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import pytest
from PIL import Image

from imatlas import Images
from imatlas.images.keys import file_name_of, is_key, member_key

NAMES = [
    "a.png",
    "../../a.png",
    "/etc/a.png",
    "//server/share/a.png",
    "b/../../c.png",
    "./d.png",
    "C:\\x\\e.png",
    "C:f.png",
    "..\\..\\g.png",
    "..",
    "new\nline.png",
    "a\\..\\..\\b.png",
]


def picture(i: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((20, 20, 3), 10 * i, np.uint8)).save(out, "PNG")
    return out.getvalue()


def write(path: Path, names: list[str]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for i, name in enumerate(names):
                archive.writestr(zipfile.ZipInfo(name), picture(i))
        return path
    with tarfile.open(path, "w") as archive:
        for i, name in enumerate(names):
            member = tarfile.TarInfo(name)
            member.size = len(picture(i))
            archive.addfile(member, io.BytesIO(picture(i)))
    return path


@pytest.mark.parametrize("ending", [".zip", ".tar"])
def test_every_member_is_read_under_a_safe_key(tmp_path, ending) -> None:
    images = Images(write(tmp_path / f"set{ending}", NAMES), progress=False)
    assert not images.skipped
    assert len(set(images.keys)) == len(images) == len(NAMES)
    for key in images.keys:
        name = file_name_of(key)
        assert is_key(key)
        assert name
        assert not {"", ".", ".."} & set(name.split("/"))
        assert not PureWindowsPath(name).drive
        assert str(PurePosixPath(name)) == name
    shades = {key: int(pixels[0, 0, 0]) // 10 for key, pixels in zip(images.keys, images.pixels, strict=True)}
    assert shades["etc/a.png"] == NAMES.index("/etc/a.png")
    assert shades["C_/x/e.png"] == NAMES.index("C:\\x\\e.png")
    assert {shades[key] for key in ("a.png", "a.png (2)")} == {0, 1}


def test_links_in_a_tar_are_read_or_skipped(tmp_path) -> None:
    path = write(tmp_path / "set.tar", ["dir/a.png", "b.png"])
    with tarfile.open(path, "a") as archive:
        for name, kind, target in (
            ("hard.png", tarfile.LNKTYPE, "./dir/a.png"),
            ("harder.png", tarfile.LNKTYPE, "hard.png"),
            ("lost.png", tarfile.LNKTYPE, "/etc/passwd"),
            ("soft.png", tarfile.SYMTYPE, "dir/a.png"),
            ("../out.png", tarfile.SYMTYPE, "/etc/passwd"),
            ("pipe.png", tarfile.FIFOTYPE, ""),
            ("folder", tarfile.DIRTYPE, ""),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member)
    images = Images(path, progress=False)
    assert images.keys == ["b.png", "dir/a.png", "hard.png", "harder.png"]
    assert images.pixels[:, 0, 0, 0].tolist() == [10, 0, 0, 0]
    assert dict(images.skipped) == {
        "lost.png": "a hard link to a file that is not in the archive",
        "soft.png": "a link in an archive, which is not followed",
        "out.png": "a link in an archive, which is not followed",
        "pipe.png": "a pipe or a device, not a file",
    }


def test_links_in_a_zip_are_skipped(tmp_path) -> None:
    path = write(tmp_path / "set.zip", ["a.png"])
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("link.png")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    images = Images(path, progress=False)
    assert images.keys == ["a.png"]
    assert images.skipped == [("link.png", "a link in an archive, which is not followed")]


def test_a_key_of_a_member_is_stable() -> None:
    for name in NAMES:
        assert member_key(file_name_of(member_key(name))) == member_key(name)


def test_a_hard_link_may_come_before_its_file_and_name_it_in_another_way(tmp_path: Path) -> None:
    packed = io.BytesIO()
    Image.new("L", (8, 8), 80).save(packed, "PNG")
    content = packed.getvalue()
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, target in {"first.png": "second.png", "second.png": "./real.png", "third.png": "/real.png"}.items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.LNKTYPE, target
            archive.addfile(link)
        real = tarfile.TarInfo("real.png")
        real.size = len(content)
        archive.addfile(real, io.BytesIO(content))
        for name, target in {"a.png": "b.png", "b.png": "a.png"}.items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.LNKTYPE, target
            archive.addfile(link)
    images = Images(tmp_path / "a.tar")
    assert images.keys == ["first.png", "real.png", "second.png", "third.png"]
    assert np.ptp(images.pixels, axis=0).max() == 0
    assert [key for key, _ in images.skipped] == ["a.png", "b.png"]
