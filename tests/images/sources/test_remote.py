"""Images at addresses: a store that speaks S3, a web server, and fsspec's own file system in memory."""

from __future__ import annotations

import importlib.util
import io
import os
import pickle
import tarfile
import threading
import time
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import imatlas as ia
from imatlas.cli import main
from imatlas.errors import InputError, MissingExtraError, SourceError
from imatlas.images.dataset import images_of
from imatlas.images.encode import encode
from imatlas.images.sources import patience
from imatlas.images.sources.addresses import checked_address, expanded
from imatlas.images.sources.opening import open_several, open_source
from imatlas.images.sources.shards import Shelf
from tests.images.test_cache_parts import killed
from tests.s3_server import SECRET, Server

pytestmark = pytest.mark.usefixtures("one_thread")

need_s3 = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("nanio", "s3fs"))), reason="nanio or s3fs is not installed"
)


def picture(level: int) -> bytes:
    """A picture whose brightness is its number."""
    rng = np.random.default_rng(level)
    pixels = rng.integers(0, 9, (16, 16, 3), dtype=np.uint8)
    pixels[0, 0] = level
    return encode(pixels, "png")


def levels_of(images: ia.Images) -> list[int]:
    return images.pixels[:, 0, 0, 0].tolist()


def tar_of(members: dict[str, bytes], mode: str = "w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), 1_700_000_000
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def parquet_of(levels: range) -> bytes:
    out = io.BytesIO()
    column = [{"bytes": picture(level), "path": None} for level in levels]
    pq.write_table(pa.table({"image": column, "other": [b"no picture"] * len(levels)}), out)
    return out.getvalue()


def webdataset(levels: range) -> bytes:
    members: dict[str, bytes] = {}
    for level in levels:
        members |= {f"{level:04d}.png": picture(level), f"{level:04d}.json": b"{}", f"{level:04d}.cls": b"1"}
    return tar_of(members)


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    """fsspec's file system in memory, empty."""
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    yield fs
    fs.store.clear()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("s3"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def bucket(running: Server, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """The folder of a new bucket; its address is `address_of(bucket)`."""
    for name, value in running.environment().items():
        monkeypatch.setenv(name, value)
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    folder = running.folder / f"bucket-{abs(hash(request.node.name)) % 10**8}"
    folder.mkdir()
    return folder


def address_of(bucket: Path) -> str:
    return f"s3://{bucket.name}"


def fill(bucket: Path, levels: range) -> Path:
    (bucket / "photos" / "a b").mkdir(parents=True, exist_ok=True)
    for level in levels:
        name = f"{level:03d}.png" if level % 2 else f"a b/{level:03d} ü.png"
        (bucket / "photos" / name).write_bytes(picture(level))
    return bucket


# Addresses


@pytest.mark.parametrize(
    "text",
    [
        "s3://user:hush@bucket/a",
        "s3://hush@bucket/a",
        "https://me:hush@host/a.png",
        "https://host/a.png?X-Amz-Signature=hush",
        "https://host/a.png#hush",
        "s3://bucket/a.png?X-Amz-Signature=hush",
        "abfs://container:hush@host/a",
    ],
)
def test_an_address_with_a_secret_is_refused_without_repeating_it(text: str, tmp_path: Path, capsys) -> None:
    with pytest.raises(InputError) as raised:
        ia.Images(text)
    assert "hush" not in str(raised.value)
    assert main(["learn", text, "-o", str(tmp_path / "a.atlas")]) == 1
    shown = capsys.readouterr()
    assert "hush" not in shown.err + shown.out
    assert not (tmp_path / "a.atlas").exists()


@pytest.mark.parametrize(
    "text", ["simplecache::s3://a/b", "s3://", "s3:///a", "s3://a/\nb", "nothing://a/b", "s3://a/x-{9..1}.tar"]
)
def test_an_address_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        ia.Images(text)


def test_addresses_have_one_form() -> None:
    assert checked_address("S3://b/a/") == "s3://b/a"
    assert checked_address("abfs://container@account.dfs.core.windows.net/a") == (
        "abfs://container@account.dfs.core.windows.net/a"
    )
    assert expanded("a{0..1}b{08..10}")[3:] == ["a1b08", "a1b09", "a1b10"]


def test_a_missing_driver_names_what_to_install() -> None:
    if importlib.util.find_spec("gcsfs"):
        pytest.skip("gcsfs is installed")
    with pytest.raises(MissingExtraError, match="pip install gcsfs"):
        ia.Images("gs://bucket/photos")


def test_a_name_with_colons_is_a_path(tmp_path: Path) -> None:
    (tmp_path / "scan::1.png").write_bytes(picture(3))
    assert levels_of(ia.Images(str(tmp_path / "scan::1.png"))) == [3]


def test_a_file_address_is_a_path(tmp_path: Path) -> None:
    (tmp_path / "a b.png").write_bytes(picture(7))
    images = ia.Images(f"file://{tmp_path}/a%20b.png")
    assert levels_of(images) == [7]
    assert images.origin.place == str(tmp_path / "a b.png")


# Sources in memory: the same ways for every store


def test_objects_below_a_prefix(memory) -> None:
    for level in range(6):
        memory.pipe(f"/set/sub/{level}.png" if level % 2 else f"/set/{level}.png", picture(level))
    memory.pipe("/set/notes.txt", b"about")
    memory.pipe("/other/9.png", picture(9))
    images = ia.Images("memory://set/")
    assert sorted(zip(images.keys, levels_of(images), strict=True)) == [
        *((f"{level}.png", level) for level in (0, 2, 4)),
        *((f"sub/{level}.png", level) for level in (1, 3, 5)),
    ]
    assert images.skipped == [("(1 other file)", "no images: 1 .txt")]
    assert images.origin.place == "memory://set"
    assert levels_of(pickle.loads(pickle.dumps(images))) == levels_of(images)
    assert levels_of(ia.Images("memory://set/*.png")) == [0, 2, 4]
    assert ia.Images("memory://set/*.png").origin.place == "memory://set"
    assert levels_of(ia.Images("memory://set/{2..4}.png".replace("..4", "..2"))) == [2]
    several = ia.Images(["memory://set/4.png", "memory://set/sub/1.png"])
    assert (several.keys, levels_of(several)) == (["4.png", "sub/1.png"], [4, 1])
    assert ia.Images("memory://set/4.png").keys == ["4.png"]
    with pytest.raises(SourceError, match="There is nothing at 'memory://nowhere'"):
        ia.Images("memory://nowhere")
    with pytest.raises(InputError, match="no columns"):
        ia.Images("memory://set", field="image")


def test_keys_of_objects_are_plain_relative_names(memory) -> None:
    memory.store["/set/../../etc/a.png"] = memory.open("/x", "wb")
    memory.store["/set/../../etc/a.png"].write(picture(1))
    source = open_source("memory://set")
    assert source.keys == ["etc/a.png"]


@pytest.mark.parametrize("name", ["set.zip", "set.tar", "set.tar.gz", "set.parquet"])
def test_one_container(memory, name: str) -> None:
    members = {f"{level}.png": picture(level) for level in range(3)}
    if name.endswith("zip"):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for key, content in members.items():
                archive.writestr(key, content)
        content = out.getvalue()
    elif name.endswith("parquet"):
        content = parquet_of(range(3))
    else:
        content = tar_of(members, "w:gz" if name.endswith("gz") else "w")
    memory.pipe(f"/b/{name}", content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the choice of a column
        images = ia.Images(f"memory://b/{name}")
    assert levels_of(images) == [0, 1, 2]
    assert images.keys[1] == ("000001" if name.endswith("parquet") else "1.png")
    assert images.origin.place == f"memory://b/{name}"
    stamps = open_source(f"memory://b/{name}", "image" if name.endswith("parquet") else None).stamps()
    assert stamps is not None
    assert len(stamps) == 3


def test_a_damaged_container_is_named_by_its_address(memory) -> None:
    memory.pipe("/b/set.parquet", b"PAR1 and no more")
    with pytest.raises(SourceError, match=r"memory://b/set\.parquet") as raised:
        ia.Images("memory://b/set.parquet")
    assert "imatlas-scratch" not in str(raised.value)


def test_a_damaged_compressed_shard_is_skipped(memory, tmp_path: Path) -> None:
    good = tar_of({"1.png": picture(1)}, "w:gz")
    for place in ("/b/a.tar.gz", "/b/b.tar.gz"):
        memory.pipe(place, good if place == "/b/a.tar.gz" else good[:10] + b"\xff" * 100 + good[110:])
    images = ia.Images("memory://b")
    assert levels_of(images) == [1]
    assert [key for key, _ in images.skipped] == ["b.tar.gz"]
    alone = tmp_path / "b.tar.gz"
    alone.write_bytes(memory.cat_file("/b/b.tar.gz"))
    with pytest.raises(SourceError, match="is the file complete"):
        ia.Images(alone)


@pytest.mark.parametrize("mtimes", [(0, 0), (1, 2)])
def test_an_archive_made_again_with_the_same_times_is_new(memory, tmp_path: Path, mtimes: tuple[int, int]) -> None:
    """Members of reproducible archives have one time, which does not tell images of one size apart."""

    def stamps_of(content: bytes, when: int) -> list[list[tuple[int, int]] | None]:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            for number, mtime in enumerate(mtimes):
                member = tarfile.TarInfo(f"{number}.bmp")
                member.size, member.mtime = len(content), mtime
                archive.addfile(member, io.BytesIO(content))
        path = tmp_path / "set.tar"
        path.write_bytes(out.getvalue())
        os.utime(path, (when, when))
        memory.pipe("/b/set.tar", out.getvalue())
        return [open_source(str(path)).stamps(), open_source("memory://b/set.tar").stamps()]

    first, same, other = stamps_of(b"BM one", 1), stamps_of(b"BM one", 1), stamps_of(b"BM two", 2)
    assert first[0] == same[0]
    for before, after in zip(first, other, strict=True):
        assert (before == after) == (mtimes[0] != mtimes[1])


def test_shards_are_one_source_and_few_are_open(memory, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Shelf, "SMALL", 0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for number in range(5):
        memory.pipe(f"/b/shard-{number:06d}.tar", webdataset(range(10 * number, 10 * number + 4)))
    images = ia.Images("memory://b")
    assert images.keys[:5] == [*(f"shard-000000/{level:04d}.png" for level in range(4)), "shard-000001/0010.png"]
    expected = [10 * number + level for number in range(5) for level in range(4)]
    assert levels_of(images) == expected
    assert images.skipped == [("(40 other files)", "no images: 20 .cls, 20 .json")]
    assert images.origin.place == "memory://b"
    del images
    source, most = open_source("memory://b/shard-{000000..000004}.tar"), 0
    for item in range(len(source.keys)):
        source.read(item)
        most = max(most, len(list(tmp_path.glob("imatlas-scratch-*/*"))))
    assert most == 2
    del source
    assert not list(tmp_path.glob("imatlas-scratch-*/*"))


def test_parquet_shards_and_a_column(memory) -> None:
    for number in range(3):
        memory.pipe(f"/b/data/train-{number}.parquet", parquet_of(range(4 * number, 4 * number + 4)))
    images = ia.Images("memory://b", field="image")
    assert levels_of(images) == list(range(12))
    assert images.keys[4] == "data/train-1/000000"
    assert open_source("memory://b", "image").stamps() == open_source("memory://b", "image").stamps()
    with pytest.raises(SourceError, match="column 'nothing'"):
        ia.Images("memory://b", field="nothing")


# Local shards and Lance


def test_a_folder_of_tars(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Shelf, "SMALL", 0)
    folder = tmp_path / "set"
    folder.mkdir()
    for number in range(4):
        (folder / f"shard-{number:06d}.tar").write_bytes(webdataset(range(10 * number, 10 * number + 3)))
    (folder / "shard-000009.tar").write_bytes(b"damaged")
    expected = [10 * number + level for number in range(4) for level in range(3)]
    names = [str(path) for path in sorted(folder.glob("shard-00000[0-3].tar"))]
    braces = str(folder / "shard-{000000..000003}.tar")
    for source in (str(folder), str(folder / "*.tar"), names, braces, open_several(names)):
        images = ia.Images(source)
        assert levels_of(images) == expected
        assert images.keys[3] == "shard-000001/0010.png"
        assert images.origin.place == str(folder)
    assert ia.Images(str(folder)).skipped[0][0] == "shard-000009.tar"
    atlas = ia.learn(str(folder), tmp_path / "a.atlas", budget=0.4, progress=False)
    assert atlas.store.originals.read("shard-000001/0010.png") == picture(10)
    with pytest.raises(InputError, match="no columns"):
        ia.Images(str(folder), field="image")


def test_a_lance_dataset(tmp_path: Path, monkeypatch) -> None:
    import lance

    path = str(tmp_path / "set.lance")

    def rows(levels: range) -> pa.Table:
        return pa.table({"image": pa.array([picture(level) for level in levels], pa.binary()), "n": list(levels)})

    lance.write_dataset(rows(range(40)), path)
    images = ia.Images(path)
    assert levels_of(images) == list(range(40))
    assert images.keys[3] == "000003"
    before = open_source(path).stamps()
    lance.write_dataset(rows(range(40, 45)), path, mode="append")
    after = open_source(path, "image").stamps()
    assert before is not None
    assert after is not None
    assert after[:40] == before
    assert len(set(after)) == 45
    assert levels_of(pickle.loads(pickle.dumps(ia.Images(path))))[-1] == 44
    with pytest.raises(SourceError, match="column 'n'"):
        ia.Images(path, field="n")
    atlas = ia.learn(path, tmp_path / "a.atlas", budget=0.4, progress=False)
    assert atlas.store.originals.read("000041") == picture(41)
    opened = pickle.dumps(open_source(path))
    lance.dataset(path).delete("n = 0")
    assert pickle.loads(opened).read(3) == picture(3)  # a worker reads the rows that were listed
    assert open_source(path).read(3) == picture(4)
    field = pa.field("image", pa.large_binary(), metadata={"lance-encoding:blob": "true"})
    blobs = pa.table([pa.array([picture(1), None, picture(3)], field.type)], schema=pa.schema([field]))
    for version in ("2.1", "2.2"):  # blobs have a type of their own since the latter
        place = tmp_path / f"blobs-{version}.lance"
        lance.write_dataset(blobs, str(place), data_storage_version=version)
        images = ia.Images(place)
        assert levels_of(images) == [1, 3]
        assert images.skipped == [("000001", "the row contains no image")]
    (tmp_path / "mine.png").write_bytes(picture(9))
    parts = pa.table({"image": lance.blob.blob_array([picture(1), f"file://{tmp_path}/mine.png"])})
    lance.write_dataset(parts, str(tmp_path / "leads.lance"), allow_external_blob_outside_bases=True)
    images = ia.Images(tmp_path / "leads.lance")
    assert levels_of(images) == [1]
    assert images.skipped == [("000001", "the row refers to a file in another place, which is not read")]
    lance.write_dataset(pa.table({"n": [1]}), str(tmp_path / "no.lance"))
    with pytest.raises(SourceError, match="No column"):
        ia.Images(tmp_path / "no.lance")


# S3


@need_s3
def test_an_atlas_from_a_bucket(bucket: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    address = f"{address_of(fill(bucket, range(12)))}/photos"
    (bucket / "photos" / "notes.txt").write_bytes(b"about")
    assert main(["check", address]) == 0
    folder = tmp_path / "b.atlas"
    assert main(["learn", address, "-o", str(folder), "--budget", "0.4"]) == 0
    assert f"imatlas learn {address} -o photos.atlas" in capsys.readouterr().out
    atlas = ia.load(folder)
    assert atlas.store.manifest.source == address
    assert len(atlas.keys) == 12
    assert atlas.store.originals.read("a b/004 ü.png") == picture(4)
    assert len(ia.Images(atlas.store.originals_of(np.arange(3))).pixels) == 3
    for path in (p for p in folder.rglob("*") if p.is_file()):
        assert SECRET.encode() not in path.read_bytes()

    (bucket / "photos" / "new.png").write_bytes(picture(40))
    assert len(ia.learn(address, folder, budget=0.4, progress=False).keys) == 13

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "of another user"))
    elsewhere = ia.load(folder)
    assert len(elsewhere.table()) == 13
    with pytest.raises(SourceError, match="export IMATLAS_ORIGINALS=s3://"):
        elsewhere.store.originals.read("new.png")
    monkeypatch.setenv("IMATLAS_ORIGINALS", address)
    assert ia.load(folder).store.originals.read("new.png") == picture(40)


@need_s3
def test_an_update_reads_only_what_is_new(bucket: Path, tmp_path: Path, monkeypatch) -> None:
    from imatlas.images.sources.remote import RemoteSource

    read_keys: list[str] = []
    read = RemoteSource.read
    monkeypatch.setattr(RemoteSource, "read", lambda self, i: (read_keys.append(self.keys[i]), read(self, i))[1])
    address, options = f"{address_of(fill(bucket, range(5)))}/photos", {"image_size": 8, "cache_dir": tmp_path}
    assert len(ia.Images(address, **options)) == len(read_keys) == 5
    fill(bucket, range(7))  # the same content at another time, and two more
    read_keys.clear()
    assert len(ia.Images(address, **options)) == 7
    assert sorted(read_keys) == ["005.png", "a b/006 ü.png"]
    read_keys.clear()
    assert len(ia.Images(address, **options)) == 7
    assert not read_keys


@need_s3
def test_a_killed_intake_reads_only_what_no_part_has(bucket: Path, tmp_path: Path, monkeypatch) -> None:
    from imatlas.images.sources.remote import RemoteSource

    address = f"{address_of(fill(bucket, range(60)))}/photos"
    parts = killed(address, tmp_path / "cache")
    read_keys: list[str] = []
    read = RemoteSource.read
    monkeypatch.setattr(RemoteSource, "read", lambda self, i: (read_keys.append(self.keys[i]), read(self, i))[1])
    options = {"image_size": 16, "thumbnail_size": 20}
    again = ia.Images(address, cache_dir=tmp_path / "cache", **options)
    assert len(again) == 60
    assert len(read_keys) == len(set(read_keys)) == 60 - 8 * len(parts)
    np.testing.assert_array_equal(again.pixels, ia.Images(address, **options).pixels)


@need_s3
def test_threads_read_shards_of_a_bucket(bucket: Path) -> None:
    for number in range(6):
        (bucket / f"shard-{number:06d}.tar").write_bytes(webdataset(range(30 * number, 30 * number + 30)))
    images = ia.Images(f"{address_of(bucket)}/shard-{{000000..000005}}.tar", workers=8)
    assert levels_of(images) == list(range(180))
    assert ia.Images(address_of(bucket)).keys == images.keys


@need_s3
def test_parquet_and_lance_in_a_bucket(bucket: Path, monkeypatch) -> None:
    import lance

    for number in range(2):
        (bucket / f"part-{number}.parquet").write_bytes(parquet_of(range(5 * number, 5 * number + 5)))
    assert levels_of(ia.Images(address_of(bucket), field="image")) == list(range(10))
    rows = pa.table({"image": pa.array([picture(level) for level in range(20)], pa.binary())})
    lance.write_dataset(rows, str(bucket / "set.lance"))
    images = ia.Images(f"{address_of(bucket)}/set.lance")
    assert levels_of(images) == list(range(20))
    assert images.origin.place == f"{address_of(bucket)}/set.lance"
    with pytest.raises(SourceError, match=r"no\.lance' cannot be opened as a Lance dataset .*not found"):
        ia.Images(f"{address_of(bucket)}/no.lance")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    with pytest.raises(SourceError, match="is refused"):
        ia.Images(f"{address_of(bucket)}/set.lance")


@need_s3
def test_a_server_that_is_away_is_waited_for_and_told_once(bucket: Path, running, monkeypatch, capsys) -> None:
    monkeypatch.setattr(patience, "PAUSES", (0.2,) * 100)
    fill(bucket, range(12))
    source = open_source(f"{address_of(bucket)}/photos")
    assert len(source.read(0)) > 0
    running.stop()
    threading.Timer(2.0, running.start).start()
    began = time.monotonic()
    images = ia.Images(source, workers=4)
    assert sorted(levels_of(images)) == list(range(12))
    assert time.monotonic() - began > 2
    told = capsys.readouterr().err
    assert told.count("does not answer") == 1
    assert told.count("answers again") == 1


@need_s3
def test_a_server_that_stays_away_ends_the_run(bucket: Path, running, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(patience, "PAUSES", (0.1, 0.1))
    fill(bucket, range(12))
    source = open_source(f"{address_of(bucket)}/photos")
    running.stop()
    try:
        with pytest.raises(SourceError, match="does not answer"):
            len(ia.Images(source, cache_dir=tmp_path / "cache", workers=4))
        assert not list((tmp_path / "cache").glob("*"))
    finally:
        running.start()
    assert len(ia.Images(source, cache_dir=tmp_path / "cache")) == 12


@need_s3
def test_what_changes_after_the_listing_is_skipped_with_its_reason(bucket: Path) -> None:
    fill(bucket, range(6))
    images = ia.Images(f"{address_of(bucket)}/photos")
    (bucket / "photos" / "001.png").unlink()
    (bucket / "photos" / "003.png").write_bytes(picture(3) + b"longer")
    assert len(images) == 4
    reasons = dict(images.skipped)
    assert "no longer there" in reasons["001.png"]
    assert "has changed" in reasons["003.png"]


@need_s3
def test_wrong_credentials_are_a_clear_error_and_not_repeated(bucket: Path, running, monkeypatch, capsys) -> None:
    fill(bucket, range(3))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    began = time.monotonic()
    with pytest.raises(SourceError, match="is refused") as raised:
        ia.Images(f"{address_of(bucket)}/photos")
    assert time.monotonic() - began < 20
    assert "wrong-secret" not in str(raised.value)
    assert "does not answer" not in capsys.readouterr().err


@need_s3
def test_access_lost_while_reading_ends_the_run(bucket: Path, monkeypatch) -> None:
    import s3fs

    fill(bucket, range(40))
    source = open_source(f"{address_of(bucket)}/photos")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    s3fs.S3FileSystem.clear_instance_cache()
    lost = pickle.loads(pickle.dumps(source))
    with pytest.raises(SourceError, match="is refused"):
        len(ia.Images(lost, image_size=8))


@pytest.mark.parametrize("n", [1, 3])
def test_a_shelf_keeps_small_containers_open(memory, tmp_path: Path, monkeypatch, n: int) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for number in range(n):
        memory.pipe(f"/b/{number}.tar", webdataset(range(number, number + 1)))
    source = open_source("memory://b")
    assert [len(source.read(item)) > 0 for item in range(len(source.keys))] == [True] * 3 * n
    assert len(list(tmp_path.glob("imatlas-scratch-*/*"))) == n


# The web


def test_reasons_have_no_signatures() -> None:
    error = OSError("403, message='Forbidden', url='https://cdn.host/a.png?X-Amz-Signature=hush&b=1'")
    assert "hush" not in patience.why(error)
    assert "https://cdn.host/a.png?..." in patience.why(error)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A web server on loopback, which knows no ranges."""
    import functools
    import http.server

    folder = tmp_path / "web"
    folder.mkdir()
    (folder / "a.png").write_bytes(picture(5))
    for number in range(3):
        (folder / f"shard-{number}.tar").write_bytes(webdataset(range(10 * number, 10 * number + 2)))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_files_of_a_web_server(web: str, monkeypatch) -> None:
    pytest.importorskip("aiohttp")
    assert levels_of(ia.Images(f"{web}/a.png")) == [5]
    assert levels_of(ia.Images([f"{web}/a.png", f"{web}/a.png"])) == [5]
    images = ia.Images(f"{web}/shard-{{0..2}}.tar")
    assert levels_of(images) == [0, 1, 10, 11, 20, 21]
    assert images.keys[2] == "shard-1/0010.png"
    with pytest.raises(SourceError, match="There is nothing at"):
        ia.Images(f"{web}/b.png")
    with pytest.raises(SourceError, match="There is nothing at"):
        images_of([f"{web}/b.png"])
    rows = images_of([f"{web}/a.png", f"{web}/a.png"])  # as a query to an atlas: a row for each item
    assert len(rows) == 2
    assert np.array_equal(rows[0], rows[1])
    monkeypatch.setattr(patience, "PAUSES", (0.1,))
    with pytest.raises(SourceError, match=r"does not answer.*refused|does not answer"):
        ia.Images("http://127.0.0.1:9/a.png")
