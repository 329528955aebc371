"""A pixel cache is built in parts: a killed build goes on from those that are complete."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from imatlas import Images
from imatlas.errors import ArtifactError
from imatlas.images import cache_parts, intake
from imatlas.images.cache_writer import CacheWriter
from imatlas.images.encode import write_picture

SLOW = """
import sys, time
from imatlas import Images
from imatlas.images import cache_parts, intake

read_item = intake.read_item
intake.read_item = lambda *given: (time.sleep(0.02), read_item(*given))[1]
cache_parts.MAX_ROWS = 8
len(Images(sys.argv[1], image_size=16, cache_dir=sys.argv[2], thumbnail_size=20, workers=1))
"""


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    root = tmp_path / "pictures"
    root.mkdir()
    for i in range(100):
        write_picture(root / f"{i:02d}.png", rng.integers(0, 256, (24, 30, 3), np.uint8))
    return root


def killed(folder: Path | str, cache: Path, script: str = SLOW, n_parts: int = 3) -> list[Path]:
    """Begin a build in a process of its own and kill it after some parts; returns these."""
    process = subprocess.Popen([sys.executable, "-c", script, str(folder), str(cache)])
    try:
        while len(list(cache.glob(".part-*"))) < n_parts:
            assert process.poll() is None
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    return sorted(cache.glob(".part-*"))


def equal(one: Images, other: Images) -> None:
    np.testing.assert_array_equal(one.pixels, other.pixels)
    assert list(one.thumbnails) == list(other.thumbnails)
    assert [tuple(r) for r in one.records] == [tuple(r) for r in other.records]
    assert one.skipped == other.skipped


def test_a_killed_build_goes_on_from_its_parts(folder: Path, tmp_path: Path, decoded: list[str], rng) -> None:
    parts = killed(folder, tmp_path / "cache")
    assert 3 <= len(parts) < 12
    write_picture(folder / "05.png", rng.integers(0, 256, (24, 30, 3), np.uint8))  # changed
    (folder / "07.png").unlink()
    options = {"image_size": 16, "thumbnail_size": 20}
    again = Images(folder, cache_dir=tmp_path / "cache", **options)
    assert len(again) == 99
    assert len(decoded) == 100 - 8 * len(parts) + 1
    assert "05.png" in decoded
    assert "06.png" not in decoded
    equal(again, Images(folder, **options))
    left = [path.name for path in (tmp_path / "cache").iterdir() if not path.name.startswith(".new-")]
    assert len(left) == 1  # the cache; what the killed process was writing is swept a day later


@pytest.mark.parametrize("damage", ["flip", "gone", "words", "link"])
def test_a_damaged_part_is_decoded_again(folder: Path, tmp_path: Path, decoded: list[str], damage: str) -> None:
    part, *others = killed(folder, tmp_path / "cache")
    rows = next(part.glob("rows-*.npy"))
    if damage == "flip":
        content = bytearray(rows.read_bytes())
        content[500] ^= 1
        rows.write_bytes(content)
    elif damage == "gone":
        (part / "records.parquet").unlink()
    elif damage == "words":
        (part / "part.json").write_text('{"format": 1}')
    else:
        shutil.move(rows, tmp_path / "moved.npy")
        rows.symlink_to(tmp_path / "moved.npy")
    options = {"image_size": 16, "thumbnail_size": 20}
    again = Images(folder, cache_dir=tmp_path / "cache", **options)
    assert len(again) == 100
    assert len(decoded) == 100 - 8 * len(others)
    equal(again, Images(folder, **options))


def test_parts_of_other_settings_and_of_others_are_left_alone_for_a_day(folder: Path, tmp_path: Path, decoded) -> None:
    cache = tmp_path / "cache"
    parts = killed(folder, cache)
    (parts[0] / "mine.txt").write_text("a user's")
    (cache / ".part-mine").mkdir()
    len(Images(folder, image_size=12, cache_dir=cache))
    assert len(decoded) == 100
    assert sorted(cache.glob(".part-*")) == sorted([*parts, cache / ".part-mine"])
    for part in (*parts, cache / ".part-mine"):
        os.utime(part, (1, 1))
    len(Images(folder, image_size=13, cache_dir=cache))
    assert sorted(path.relative_to(cache).as_posix() for path in cache.glob(".part-*/*")) == [
        f"{parts[0].name}/mine.txt"
    ]
    assert (cache / ".part-mine").exists()


def test_parts_of_any_length_give_the_same_set(tmp_path: Path, rng: np.random.Generator, monkeypatch) -> None:
    """Gray, color, opacity and 16 bits, which are converted to one kind when all are known."""
    root = tmp_path / "pictures"
    root.mkdir()
    shapes = [((20, 20), np.uint8), ((20, 20, 3), np.uint8), ((20, 20, 4), np.uint8), ((20, 20), np.uint16)]
    for i in range(40):
        shape, dtype = shapes[rng.integers(len(shapes))]
        write_picture(root / f"{i:02d}.png", rng.integers(0, np.iinfo(dtype).max + 1, shape, dtype))
    (root / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    options = {"image_size": 16, "thumbnail_size": 20}
    at_once = Images(root, **options)
    assert len(at_once) == 40
    monkeypatch.setattr(cache_parts, "MAX_ROWS", 3)
    equal(Images(root, **options), at_once)
    monkeypatch.setattr(cache_parts, "MAX_BYTES", 1)
    equal(Images(root, **options), at_once)


def test_a_full_disk_in_the_end_loses_nothing(folder: Path, tmp_path: Path, decoded: list[str], monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    options = {"image_size": 16, "cache_dir": tmp_path / "cache", "thumbnail_size": 20}
    with monkeypatch.context() as disk:
        disk.setattr(CacheWriter, "write", full)
        with pytest.raises(ArtifactError, match="free some space"):
            len(Images(folder, **options))
    assert len(decoded) == 100
    decoded.clear()
    equal(Images(folder, **options), Images(folder, image_size=16, thumbnail_size=20, workers=1))
    assert len(decoded) == 100  # by the second of the two, which has no cache
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_build_stopped_by_ctrl_c_keeps_its_parts(folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(cache_parts, "MAX_ROWS", 8)
    cache = tmp_path / "cache"
    original, seen = intake.read_item, []

    def stopped(source, item, plan, known):
        seen.append(item)
        if len(seen) == 50:
            raise KeyboardInterrupt
        return original(source, item, plan, known)

    monkeypatch.setattr(intake, "read_item", stopped)
    with pytest.raises(KeyboardInterrupt):
        len(Images(folder, image_size=16, cache_dir=cache, workers=1))
    assert {path.name[:6] for path in cache.iterdir()} == {".part-"}
    n_parts = len(list(cache.iterdir()))
    seen.clear()
    seen += [0] * 50
    assert len(Images(folder, image_size=16, cache_dir=cache, workers=1)) == 100
    assert len(seen) - 50 == 100 - 8 * n_parts
