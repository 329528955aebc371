"""The images table: rows stay in order through every change, and only what was named counts."""

from __future__ import annotations

import contextlib
import hashlib

import lance
import numpy as np
import pyarrow as pa
import pytest

from imatlas.atlas.table import SCHEMA, ImagesTable, files_on_disk
from imatlas.atlas.table_manifest import parse_manifest, version_file
from imatlas.errors import ArtifactError
from imatlas.system.inventory import Inventory


def rows(start: int, n: int) -> pa.RecordBatch:
    keys = [f"{i:05d}.jpg" for i in range(start, start + n)]
    return pa.record_batch(
        {
            "key": keys,
            "width": pa.array(range(start, start + n), pa.int32()),
            "height": pa.array([1] * n, pa.int32()),
            "sha256": [hashlib.sha256(k.encode()).hexdigest() for k in keys],
            "held_out": [i % 10 == 0 for i in range(start, start + n)],
            "duplicate_of": [None] * n,
            "flags": [""] * n,
        },
        schema=SCHEMA,
    )


def thumbnails():
    yield [f"{i:05d}.jpg".encode() for i in range(1900)]
    yield [f"{i:05d}.jpg".encode() for i in range(1900, 2100)]


def test_columns_replace_and_join_in_row_order(tmp_path, rng):
    table = ImagesTable.write(tmp_path / "images.lance", (rows(i, 700) for i in range(0, 2100, 700)), thumbnails())
    first, second = rng.random((2, 2100, 5)).astype(np.float32)
    table = table.set(embedding=first, cell=np.arange(2100, dtype=np.int32))
    table = table.set(embedding=second)
    np.testing.assert_array_equal(table.vectors("embedding"), second)
    some = np.flatnonzero(rng.random(2100) < 0.3)
    for picked in (some, some[:0], np.array([2099])):
        np.testing.assert_array_equal(table.vectors("embedding", picked), second[picked])
    read = table.read(["width", "cell"])
    assert read["width"].to_pylist() == read["cell"].to_pylist() == list(range(2100))
    assert table.take([7, 3], ["thumbnail"])["thumbnail"].to_pylist() == [b"00007.jpg", b"00003.jpg"]


def test_a_version_that_was_not_named_does_not_count(tmp_path):
    named = ImagesTable.write(tmp_path / "t.lance", [rows(0, 50)]).set(cell=np.zeros(50, np.int32))
    named.set(cell=np.ones(50, np.int32), cluster=np.ones(50, np.int32))  # a writer that was killed before its commit
    again = ImagesTable(tmp_path / "t.lance", named.version)
    assert "cluster" not in again.columns
    went_on = again.set(x=np.full(50, 2.0, np.float32))
    assert went_on.read(["cell"])["cell"].to_pylist() == [0] * 50
    went_on.clean(files_on_disk(went_on.path))
    assert ImagesTable(tmp_path / "t.lance", went_on.version).columns == went_on.columns
    with pytest.raises(ArtifactError, match="cannot be read"):
        ImagesTable(tmp_path / "t.lance", named.version)


def test_a_table_grows_without_writing_old_rows_again(tmp_path, rng, monkeypatch):
    monkeypatch.setattr("imatlas.atlas.table.FRAGMENT", 100)
    table = ImagesTable.write(tmp_path / "t.lance", [rows(0, 450)], [[b"%d" % i for i in range(450)]])
    embedding = rng.random((450, 5)).astype(np.float32)
    table = table.set(embedding=embedding, cell=np.arange(450, dtype=np.int32))
    table = table.set(duplicate_of=pa.array(["00001.jpg"] * 450)).index("embedding", embedding[:4])
    stay = np.ones(450, bool)
    stay[123] = False
    fragments = table.named.whole(stay, at_least=100)
    assert fragments.tolist() == [True, False, True, True, False]
    assert table.named.whole(stay).tolist() == [True, False, True, True, True]
    assert np.flatnonzero(table.named.rows_of(fragments)).tolist() == [*range(100), *range(200, 400)]
    new = rng.random((150, 5)).astype(np.float32)
    before = {
        name: (table.path / name).stat().st_mtime_ns for _, files in table.named.fragments for name in files.values()
    }
    grown = table.grown(
        fragments, lambda: [rows(1000, 120), rows(1120, 30)], lambda: [[b"n%d" % i for i in range(150)]], new
    )
    assert grown.read(["width"])["width"].to_pylist() == [*range(100), *range(200, 400), *range(1000, 1150)]
    assert grown.take([449, 0, 299], ["thumbnail"])["thumbnail"].to_pylist() == [b"n149", b"0", b"399"]
    np.testing.assert_array_equal(
        grown.vectors("embedding"), np.concatenate([embedding[:100], embedding[200:400], new])
    )
    assert grown.read(["duplicate_of"])["duplicate_of"].to_pylist() == ["00001.jpg"] * 300 + [None] * 150
    assert "cell" not in grown.columns
    assert not grown.has_index("embedding")
    assert [n for n, _ in grown.named.fragments] == [100, 100, 100, 100, 50]
    kept = {name for _, files in grown.named.fragments[:3] for name in files.values()}
    assert {name: (table.path / name).stat().st_mtime_ns for name in kept} == {name: before[name] for name in kept}
    assert all(
        len({files[name] for name in ("key", "thumbnail", "embedding")}) == 3 for _, files in grown.named.fragments
    )
    ready = grown.set(cell=np.arange(450, dtype=np.int32)).index("embedding", new[:4])
    np.testing.assert_array_equal(ready.nearest("embedding", new[7], 1)[0], [307])
    again = ImagesTable(table.path, table.version)  # as if the writer had been killed before its commit
    fewer = again.grown(again.named.whole(stay), list, list, np.empty((0, 5)))
    assert fewer.read(["width"])["width"].to_pylist() == [*range(100), *range(200, 450)]


def test_a_failing_source_of_rows_raises_its_own_error_and_leaves_the_old_table(tmp_path):
    table = ImagesTable.write(tmp_path / "t.lance", [rows(0, 10)])

    def broken():
        yield rows(0, 5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ImagesTable.write(tmp_path / "t.lance", broken())
    assert len(ImagesTable(tmp_path / "t.lance", table.version)) == 10


def test_a_column_of_another_length_is_refused(tmp_path):
    table = ImagesTable.write(tmp_path / "t.lance", [rows(0, 10)])
    with pytest.raises(ArtifactError, match="9 values, but the table has 10 rows"):
        table.set(cell=np.zeros(9, np.int32))


def crafted(folder, kind: str) -> None:
    """A dataset of Lance's own making that leads elsewhere or holds what no atlas does."""
    path, data = str(folder / "t.lance"), pa.Table.from_batches([rows(0, 30)])
    outside = folder / "outside"
    outside.mkdir()
    base = lance.DatasetBasePath(str(outside), name="out")
    if kind == "files in another folder":
        lance.write_dataset(data, path, initial_bases=[base], target_bases=["out"])
        assert any(outside.iterdir())
        return
    if kind == "a clone of another table":
        origin = lance.write_dataset(data, str(outside / "origin.lance"))
        origin.shallow_clone(path, origin.version)
        return
    if kind == "pictures by reference":
        blob = pa.field("thumbnail", pa.large_binary(), metadata={"lance-encoding:blob": "true"})
        data = pa.table({"thumbnail": pa.array([b"x"], pa.large_binary())}, schema=pa.schema([blob]))
    if kind == "a column of another type":
        data = data.set_column(0, "key", pa.array([{"a": 1}] * 30))
    written = lance.write_dataset(data, path, enable_stable_row_ids=kind == "row ids")
    if kind.startswith(("s3:", "gs:", "file:")):
        written.add_bases([lance.DatasetBasePath(kind, name="far")])
    elif kind == "deleted rows":
        written.delete("width = 3")
    elif kind == "an index on text":
        written.create_scalar_index("key", "BTREE")
    elif kind in ("../../outside/", "/etc/passwd", "s3.lance/../"):
        name = next((folder / "t.lance" / "data").iterdir()).name.encode()
        for manifest in (folder / "t.lance" / "_versions").glob("*.manifest"):
            content = manifest.read_bytes()
            assert name in content
            manifest.write_bytes(content.replace(name, (kind.encode() + name)[: len(name)]))


@pytest.mark.parametrize(
    "kind",
    [
        "files in another folder",
        "a clone of another table",
        "s3://nobody/there",
        "gs://nobody/there",
        "file:///etc",
        "deleted rows",
        "row ids",
        "an index on text",
        "../../outside/",
        "/etc/passwd",
        "s3.lance/../",
        "pictures by reference",
        "a column of another type",
    ],
)
def test_a_table_that_leads_elsewhere_is_refused_before_lance_opens_it(tmp_path, kind, monkeypatch):
    crafted(tmp_path, kind)
    opened = []
    original = lance.dataset
    monkeypatch.setattr(lance, "dataset", lambda *a, **k: opened.append(a) or original(*a, **k))
    with pytest.raises(ArtifactError, match=r"t\.lance'.*(cannot be read|an atlas does not have|lacks columns)"):
        ImagesTable(tmp_path / "t.lance")
    assert bool(opened) == (kind in ("pictures by reference", "a column of another type"))  # only types are seen later


def test_every_manifest_that_is_cut_or_has_a_byte_changed_is_read_or_refused(tmp_path, rng):
    ImagesTable.write(tmp_path / "t.lance", [rows(0, 30)])
    content = next((tmp_path / "t.lance" / "_versions").glob("*.manifest")).read_bytes()
    assert parse_manifest(content).fragments[0][0] == 30
    for _ in range(3000):
        other = bytearray(content[: rng.integers(len(content) + 1)] if rng.random() < 0.2 else content)
        for at in rng.integers(0, max(1, len(other)), rng.integers(1, 4)):
            if other:
                other[at] = rng.integers(256)
        with contextlib.suppress(ValueError):
            parse_manifest(bytes(other))


@pytest.fixture
def listed(tmp_path, rng):
    """A table of three runs of rows with thumbnails, vectors and an index, and the inventory of its folder."""
    inventory = Inventory(tmp_path)
    X = rng.random((600, 8)).astype(np.float32)
    thumbs = ([f"{i}".encode() for i in range(start, start + 150)] for start in range(0, 600, 150))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("imatlas.atlas.table.FRAGMENT", 200)
        table = ImagesTable.write(tmp_path / "t.lance", (rows(i, 300) for i in (0, 300)), thumbs, inventory)
        table = table.set(embedding=X).index("embedding", X[:8])
    return table, X


def test_an_inventory_names_exactly_the_files_of_the_version(listed):
    table, X = listed
    assert set(table.inventory.files) == {f"t.lance/{name}" for name in table.files()}
    assert len([n for n in table.files() if n.startswith("data/")]) == 9  # 3 runs of rows x (rows, thumbnails, vectors)
    assert {n.rpartition("/")[2] for n in table.files() if n.startswith("_indices/")} == {"index.idx", "auxiliary.idx"}
    ours = files_on_disk(table.path)
    table.clean(ours)
    assert files_on_disk(table.path) == table.files()
    again = ImagesTable(table.path, table.version, Inventory(table.path.parent, table.inventory.files))
    np.testing.assert_array_equal(again.vectors("embedding"), X)
    assert again.nearest("embedding", X[77], 3)[0][0] == 77
    assert again.take([599, 1], ["thumbnail"])["thumbnail"].to_pylist() == [b"599", b"1"]


def test_one_changed_byte_stops_what_reads_its_file_and_nothing_else(listed):
    table, X = listed
    uses = {
        "thumbnail": lambda t: t.take([450], ["thumbnail"]),
        "embedding": lambda t: t.vectors("embedding"),
        "key": lambda t: t.read(["key", "width"]),
        "index": lambda t: t.nearest("embedding", X[0], 2),
    }
    touched = {"thumbnail": {"thumbnail"}, "embedding": {"embedding", "index"}, "key": {"key"}, "index": {"index"}}
    for part in uses:
        name = table._index_files()[0] if part == "index" else table.named.fragments[2][1][part]
        path = table.path / name
        content = path.read_bytes()
        changed = bytearray(content)
        changed[len(changed) // 2] ^= 16
        path.write_bytes(changed)
        failed = {}
        for use, call in uses.items():
            fresh = ImagesTable(table.path, table.version, Inventory(table.path.parent, table.inventory.files))
            try:
                call(fresh)
            except ArtifactError as error:
                failed[use] = str(error)
        assert set(failed) == touched[part]
        assert all(name in told for told in failed.values())
        fresh = ImagesTable(table.path, table.version, Inventory(table.path.parent, table.inventory.files))
        assert fresh.take([10], ["thumbnail"])["thumbnail"].to_pylist() == [b"10"]  # of another run of rows
        path.write_bytes(content)


def test_a_changed_manifest_is_not_even_opened(listed, monkeypatch):
    table, _ = listed
    path = table.path / version_file(table.version)
    content = bytearray(path.read_bytes())
    content[40] ^= 1
    path.write_bytes(content)
    monkeypatch.setattr(lance, "dataset", lambda *a, **k: pytest.fail("Lance saw damaged bytes"))
    with pytest.raises(ArtifactError, match="checksum differs"):
        ImagesTable(table.path, table.version, table.inventory)


def test_cleaning_leaves_what_is_not_ours(listed):
    table, _ = listed
    mine = ["mine.txt", "data/mine.lance", "data/notes.txt", "_versions/old/keep.txt", "_indices/mine/keep.idx"]
    before = files_on_disk(table.path)
    for name in mine:
        (table.path / name).parent.mkdir(exist_ok=True)
        (table.path / name).write_text("a user's")
    table.clean([*before, *files_on_disk(table.path)])
    assert all((table.path / name).read_text() == "a user's" for name in mine)
