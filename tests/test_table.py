"""The images table: rows stay in order through every change, and only what was named counts."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pytest

from imatlas.errors import ArtifactError
from imatlas.table import SCHEMA, ImagesTable, files_on_disk


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
    with pytest.raises(ArtifactError, match="9 values and the table 10 rows"):
        table.set(cell=np.zeros(9, np.int32))
