"""The pixel cache: atomic, reused, extended, and with clear errors."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest

from imatlas import Images
from imatlas.errors import ArtifactError, InputError, ParameterError
from imatlas.images import intake
from imatlas.images.cache_folder import BUILDING
from imatlas.images.cache_parts import PartWriter
from imatlas.images.cache_writer import CacheWriter
from imatlas.images.encode import write_picture
from imatlas.images.records import Records


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    root = tmp_path / "pictures"
    root.mkdir()
    for i in range(40):
        write_picture(root / f"{i:02d}.png", rng.integers(0, 256, (24, 30, 3), np.uint8))
    (root / "bad.jpg").write_bytes(b"\xff\xd8\xff")
    return root


def test_an_existing_cache_is_reused(folder: Path, tmp_path: Path, decoded: list[str]) -> None:
    first = Images(folder, image_size=16, cache_dir=tmp_path / "cache", thumbnail_size=20)
    pixels, keys, thumbnails = np.array(first.pixels), first.keys, list(first.thumbnails)
    assert len(decoded) == 41
    again = Images(folder, image_size=16, cache_dir=tmp_path / "cache", thumbnail_size=20)
    np.testing.assert_array_equal(again.pixels, pixels)
    assert (again.keys, again.skipped, list(again.thumbnails)) == (keys, first.skipped, thumbnails)
    assert again.fingerprint == first.fingerprint
    assert len(decoded) == 41
    assert isinstance(again.pixels, np.memmap)
    assert not again.pixels.flags.writeable
    names = sorted(p.name for p in next((tmp_path / "cache").iterdir()).iterdir())
    assert names == ["cache.json", "pixels.npy", "records.parquet", "thumbnails.bin"]


def test_no_thumbnail_costs_a_pass_over_all_rows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many rows, a column is copied whenever it is asked for."""
    images = Images(folder, image_size=16, thumbnail_size=20)
    images.keys  # noqa: B018
    asked: list[object] = []
    original = Records.__getitem__
    monkeypatch.setattr(Records, "__getitem__", lambda self, index: asked.append(index) or original(self, index))
    assert len(list(images.thumbnails)) == 40
    assert len(asked) <= 1


@pytest.mark.parametrize("change", [{"image_size": 12}, {"fit": "pad"}, {"background": (0, 0, 0)}, {"frames": "all"}])
def test_each_plan_has_its_own_cache(folder: Path, tmp_path: Path, decoded: list[str], change: dict) -> None:
    options = {"image_size": 16, "cache_dir": tmp_path / "cache"}
    len(Images(folder, **options))
    len(Images(folder, **{**options, **change}))
    assert len(decoded) == 82


def test_the_result_does_not_depend_on_the_number_of_threads(folder: Path) -> None:
    one, four = (Images(folder, image_size=16, workers=n) for n in (1, 4))
    np.testing.assert_array_equal(one.pixels, four.pixels)
    assert one.records.table.equals(four.records.table)


def test_only_new_files_are_decoded(folder: Path, tmp_path: Path, decoded: list[str], rng) -> None:
    options = {"image_size": 16, "cache_dir": tmp_path / "cache", "thumbnail_size": 20}
    first = Images(folder, **options)
    old = dict(zip(first.keys, np.array(first.pixels), strict=True))
    decoded.clear()
    write_picture(folder / "05.png", rng.integers(0, 256, (24, 30, 3), np.uint8))  # changed
    write_picture(folder / "005.png", rng.integers(0, 256, (24, 30, 3), np.uint8))  # new
    (folder / "07.png").unlink()
    grown = Images(folder, **options)
    assert "07.png" not in grown.keys
    assert sorted(decoded) == ["005.png", "05.png", "bad.jpg"]
    fresh = Images(folder, image_size=16, thumbnail_size=20)
    np.testing.assert_array_equal(grown.pixels, fresh.pixels)
    assert list(grown.thumbnails) == list(fresh.thumbnails)
    assert [tuple(r) for r in grown.records] == [tuple(r) for r in fresh.records]
    assert not np.array_equal(old["05.png"], grown.pixels[grown.keys.index("05.png")])
    assert len(list((tmp_path / "cache").iterdir())) == 1  # the outgrown cache is gone


def test_thumbnails_stay_when_a_later_cache_takes_the_place_of_theirs(folder: Path, tmp_path: Path, rng) -> None:
    options = {"image_size": 16, "cache_dir": tmp_path / "cache", "thumbnail_size": 20}
    first = Images(folder, **options)
    last = first.keys.index("39.png")
    write_picture(folder / "new.png", rng.integers(0, 256, (24, 30, 3), np.uint8))
    grown = Images(folder, **options)
    assert grown.thumbnails[grown.keys.index("39.png")] == first.thumbnails[last]


def test_converted_rows_are_not_reused(tmp_path: Path, rng: np.random.Generator) -> None:
    root = tmp_path / "pictures"
    root.mkdir()
    clear = rng.integers(0, 256, (16, 16, 4), np.uint8)
    write_picture(root / "a.png", clear)
    write_picture(root / "b.png", rng.integers(0, 256, (16, 16, 3), np.uint8))
    assert Images(root, cache_dir=tmp_path / "cache", image_size=16).spec.channels == 3
    (root / "b.png").unlink()
    write_picture(root / "c.png", clear)
    again = Images(root, cache_dir=tmp_path / "cache", image_size=16)
    np.testing.assert_array_equal(again.pixels, [clear, clear])


@pytest.mark.parametrize("damage", ["cut", "gone", "words", "newer"])
def test_a_damaged_cache_is_rebuilt(folder: Path, tmp_path: Path, damage: str) -> None:
    options = {"image_size": 16, "cache_dir": tmp_path / "cache"}
    pixels = np.array(Images(folder, **options).pixels)
    inside = next((tmp_path / "cache").iterdir())
    if damage == "cut":
        os.truncate(inside / "pixels.npy", 1000)
    elif damage == "gone":
        (inside / "thumbnails.bin").unlink()
    elif damage == "words":
        (inside / "cache.json").write_text("{")
    else:
        text = (inside / "cache.json").read_text()
        (inside / "cache.json").write_text(text.replace('"format": 1', '"format": 99', 1))
    np.testing.assert_array_equal(Images(folder, **options).pixels, pixels)


def test_a_temporary_cache_is_deleted_with_its_images(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    images = Images(folder, image_size=16)
    view = images[3:5]
    len(images)
    assert len(list((tmp_path / "temporary").iterdir())) == 1
    del images
    gc.collect()
    assert view.pixels.shape == (2, 16, 16, 3)
    del view
    gc.collect()
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_file_in_the_place_of_the_cache_is_an_error(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(ArtifactError, match=r"cache.*a file is in the way"):
        len(Images(folder, cache_dir=tmp_path / "cache"))
    with pytest.raises(ArtifactError, match="a file is in the way"):
        len(Images(folder, cache_dir=tmp_path / "cache" / "deeper"))
    assert (tmp_path / "cache").read_text() == "in the way"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="this user may write everywhere")
def test_a_read_only_folder_is_an_error(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o555)
    with pytest.raises(ArtifactError, match="may write"):
        len(Images(folder, cache_dir=tmp_path / "cache"))


@pytest.mark.skipif(sys.platform == "win32", reason="no file-size limits here")
@pytest.mark.parametrize("limit", [2_000, 20_000])
@pytest.mark.parametrize("kept", [True, False])
def test_a_full_disk_is_reported_and_leaves_whole_parts(folder: Path, tmp_path: Path, limit: int, kept: bool) -> None:
    (tmp_path / "temporary").mkdir()
    script = textwrap.dedent(
        f"""
        import resource, sys, tempfile
        import pyarrow.parquet, imatlas
        tempfile.tempdir = sys.argv[2]
        images = imatlas.Images(sys.argv[1], image_size=16, cache_dir=sys.argv[2] + "/cache" if {kept} else None)
        resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
        try:
            len(images)
        except imatlas.errors.ArtifactError as error:
            print(error)
        """
    )
    where = tmp_path / "temporary"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(folder), str(where)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert str(where) in done.stdout
    assert "free some space or choose another cache_dir" in done.stdout
    left = {path.parent for path in where.rglob("*") if path.is_file()}
    assert all(kept and (part / "part.json").is_file() for part in left)


def test_concurrent_builds_of_the_same_cache(folder: Path, tmp_path: Path) -> None:
    sets = [Images(folder, image_size=16, cache_dir=tmp_path / "cache", workers=1) for _ in range(4)]
    threads = [threading.Thread(target=len, args=(images,)) for images in sets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for images in sets:
        np.testing.assert_array_equal(images.pixels, sets[0].pixels)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_only_leftovers_of_killed_builds_are_swept(folder: Path, tmp_path: Path) -> None:
    for name, age, files in (
        ("1-old", 90_000, ("pixels.npy", "rows-3-uint8.npy")),
        ("1-new", 10, ("pixels.npy",)),
        ("2-mixed", 90_000, ("pixels.npy", "mine.txt")),
        ("holiday", 90_000, ()),
    ):
        left = tmp_path / "cache" / f".new-{name}"
        left.mkdir(parents=True)
        for file in files:
            (left / file).write_text(file)
        if files:
            (left / "building.txt").write_text("pixels.npy\nrows-3-uint8.npy\n../../../pictures/00.png\n")
        else:
            (left / "pixels.npy").write_text("a user's")
        stamp = left.stat().st_mtime - age
        os.utime(left, (stamp, stamp))
    len(Images(folder, image_size=16, cache_dir=tmp_path / "cache"))
    left = sorted(p.relative_to(tmp_path / "cache").as_posix() for p in (tmp_path / "cache").glob(".new*/*"))
    assert left == [
        ".new-1-new/building.txt",
        ".new-1-new/pixels.npy",
        ".new-2-mixed/mine.txt",
        ".new-holiday/pixels.npy",
    ]
    assert (folder / "00.png").exists()


def test_a_build_lists_files_before_writing_them(folder: Path, tmp_path: Path, monkeypatch) -> None:
    listed: list[tuple[set[str], set[str]]] = []

    def spied(method, folder_of):
        def spy(writer, *given):
            found = method(writer, *given)
            folder = folder_of(writer)
            names = (folder / BUILDING).read_text().splitlines()
            listed.append(({*names, BUILDING}, {p.name for p in folder.iterdir()}))
            return found

        return spy

    monkeypatch.setattr(PartWriter, "add", spied(PartWriter.add, lambda writer: writer.folder))
    monkeypatch.setattr(CacheWriter, "_copy", spied(CacheWriter._copy, lambda writer: writer._folder))
    len(Images(folder, image_size=16, cache_dir=tmp_path / "cache"))
    assert len(listed) == 41
    assert all(there <= names for names, there in listed)


@pytest.mark.parametrize("name", ["pixels.npy", "records.parquet", "thumbnails.bin", "cache.json"])
@pytest.mark.parametrize("damage", ["flip", "longer", "fifo", "link", "folder"])
def test_any_damage_of_a_cache_file_is_detected(
    folder: Path, tmp_path: Path, decoded: list[str], capsys, name: str, damage: str
) -> None:
    options = {"image_size": 16, "cache_dir": tmp_path / "cache", "thumbnail_size": 20}
    first = Images(folder, **options)
    pixels, thumbnails = np.array(first.pixels), list(first.thumbnails)
    inside = next((tmp_path / "cache").iterdir())
    (inside / "mine.txt").write_text("a user's")
    content = bytearray((inside / name).read_bytes())
    if damage in ("flip", "longer"):
        content[len(content) * 2 // 3] ^= 1
        (inside / name).write_bytes(content + (b"x" if damage == "longer" else b""))
    else:
        (inside / name).rename(tmp_path / "moved")
        {"fifo": os.mkfifo, "folder": os.mkdir, "link": lambda p: p.symlink_to(tmp_path / "moved")}[damage](
            inside / name
        )
    decoded.clear()
    again = Images(folder, progress=True, **options)
    if damage in ("fifo", "folder"):
        with pytest.raises(ArtifactError, match=f"{name}.* is in the way"):
            len(again)
        (inside / name).rename(tmp_path / "away")
    np.testing.assert_array_equal(again.pixels, pixels)
    assert list(again.thumbnails) == thumbnails
    assert len(decoded) == 41
    assert "cannot be used" in capsys.readouterr().err
    assert (inside / "mine.txt").read_text() == "a user's"
    assert sorted(p.name for p in inside.iterdir()) == [
        "cache.json", "mine.txt", "pixels.npy", "records.parquet", "thumbnails.bin",
    ]  # fmt: skip


def test_progress_is_plain_lines_without_a_terminal(folder: Path, capsys, monkeypatch) -> None:
    times = iter(range(0, 100_000, 6))
    monkeypatch.setattr(intake.time, "monotonic", lambda: float(next(times)))
    len(Images(folder, image_size=16, progress=True, workers=1))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Reading images: ")
    assert lines[0].endswith(" of 41")


def test_sweeping_deletes_no_user_files(folder: Path, tmp_path: Path) -> None:
    for name, listed in (
        (".new-house", "roof.jpg"),
        (".new-2024-house", "roof.jpg\npixels.npy"),
        (".new-", "cache.json"),
    ):
        (tmp_path / "cache" / name).mkdir(parents=True)
        (tmp_path / "cache" / name / "building.txt").write_text(listed)
        (tmp_path / "cache" / name / listed.split()[0]).write_text("mine")
        os.utime(tmp_path / "cache" / name, (1, 1))
    len(Images(folder, image_size=16, cache_dir=tmp_path / "cache"))
    left = {p.name for p in (tmp_path / "cache").glob(".new*/*")}
    assert left >= {"roof.jpg", "cache.json"}
    assert (tmp_path / "cache" / ".new-house" / "building.txt").exists()


def test_control_sequences_in_names_are_escaped(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "\x1b[31mcache"
    len(Images(folder, cache_dir=place))
    pixels = next(place.glob("*/pixels.npy"))
    pixels.write_bytes(pixels.read_bytes()[:-5])
    capsys.readouterr()
    len(Images(folder, cache_dir=place, progress=True))
    printed = capsys.readouterr().err
    assert "\x1b" not in printed
    assert "\\x1b[31mcache" in printed


def test_a_process_with_a_reused_cache_exits_cleanly(folder: Path, tmp_path: Path) -> None:
    """Arrow threads that were still reading aborted the process at exit."""
    script = "import sys, imatlas; print(len(imatlas.Images(sys.argv[1], image_size=16, cache_dir=sys.argv[2])))"
    command = [sys.executable, "-c", script, str(folder), str(tmp_path / "cache")]
    for _ in range(8):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, "40\n"), done.stderr


def test_a_cache_that_would_be_too_large_is_not_built(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "cache"
    n_bytes = Images(folder, image_size=16, cache_dir=place).n_cached_bytes
    assert n_bytes == sum(file.stat().st_size for file in place.glob("*/*") if file.name != "cache.json")
    assert Images(folder, image_size=16, cache_dir=tmp_path / "fits", cache_size=40 * 16 * 16 * 3 + 1000).pixels.shape
    with pytest.raises(
        InputError, match=r"The pixel cache of 41 images of 64 x 64 pixels takes about .* KB, more than"
    ):
        len(Images(folder, image_size=64, cache_dir=tmp_path / "small", cache_size="100K"))
    assert list((tmp_path / "small").iterdir()) == []  # nothing is left behind
    for wrong in ("much", 0, -5, 2.5):
        with pytest.raises(ParameterError, match="'cache_size'"):
            Images(folder, cache_size=wrong)  # type: ignore[arg-type]
