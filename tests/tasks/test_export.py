"""Exported arrays and tables are readable by other programs and replace no files of others."""

from __future__ import annotations

import os

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from imatlas.errors import ArtifactError, InputError
from imatlas.tasks.export import write_embedding_atlas, write_numpy

KEYS = ["a/cat.jpg", "b/cat.jpg", "b/CAT.JPG", "dog", "e/dog", "f/cat (2).jpg"]
LABELS = np.array([0, 0, 0, 1, 1, 0])


def test_arrays_are_read_back_without_pickle(tmp_path, rng) -> None:
    embedding = rng.normal(size=(4, 3)).astype(np.float32)
    keys = ["a.jpg", "ü.png", "c", "d"]
    write_numpy(embedding, keys, tmp_path / "e.npz")
    with np.load(tmp_path / "e.npz") as found:
        np.testing.assert_array_equal(found["embedding"], embedding)
        assert found["keys"].tolist() == keys
    done = write_numpy(embedding, keys, tmp_path / "e.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "e.npy"), embedding)
    assert np.load(tmp_path / "e.keys.npy").tolist() == keys
    assert len(done.data["files"]) == 2
    with pytest.raises(ArtifactError, match="already exists"):
        write_numpy(embedding, keys, tmp_path / "e.npz")
    with pytest.raises(InputError, match=r"\.npz or \.npy file"):
        write_numpy(embedding, keys, tmp_path / "e.txt")


def test_the_parquet_file_has_what_embedding_atlas_reads(tmp_path) -> None:
    n = 2500
    rows = pa.table({"key": [f"{i}.jpg" for i in range(n)], "x": np.arange(n, dtype=np.float32), "y": np.ones(n)})
    near = (np.arange(n)[:, None] + [1, 2]) % n, np.tile(np.array([0.5, 1.5], np.float32), (n, 1))
    path = tmp_path / "atlas.parquet"
    done = write_embedding_atlas(rows, near, lambda some: [f"{i}".encode() for i in some], path)
    assert "--x x --y y" in done.data["command"]
    found = parquet.read_table(path).to_pylist()
    assert len(found) == n
    assert found[2499]["neighbors"] == {"ids": [0, 1], "distances": [0.5, 1.5]}
    assert found[1030]["image"] == {"bytes": b"1030", "path": "1030.jpg"}
    with pytest.raises(InputError, match=r"a \.parquet file"):
        write_embedding_atlas(rows, near, lambda some: [], tmp_path / "atlas.csv")


def test_the_keys_beside_an_array_replace_no_file_of_others(tmp_path) -> None:
    mine = tmp_path / "e.keys.npy"
    np.save(mine, np.zeros(3))
    with pytest.raises(ArtifactError, match="was not written by an export"):
        write_numpy(np.zeros((2, 3), np.float32), ["a", "b"], tmp_path / "e.npy", overwrite=True)
    assert len(np.load(mine)) == 3
    mine.unlink()
    for _ in range(2):
        write_numpy(np.zeros((2, 3), np.float32), ["a", "b"], tmp_path / "e.npy", overwrite=True)


def test_a_users_file_of_keys_beside_an_array_stays(tmp_path) -> None:
    mine, array = tmp_path / "e.keys.npy", np.zeros((2, 3), np.float32)
    np.save(mine, np.array(["north", "south"]))
    before = mine.read_bytes()
    with pytest.raises(ArtifactError, match="was not written by an export"):
        write_numpy(array, ["a", "b"], tmp_path / "e.npy", overwrite=True)
    assert mine.read_bytes() == before
    assert not (tmp_path / "e.npy").exists()
    mine.unlink()
    write_numpy(array, ["a", "ü"], tmp_path / "e.npy")
    assert np.load(mine).tolist() == np.load(mine, mmap_mode="r").tolist() == ["a", "ü"]
    with pytest.raises(ArtifactError, match="already exists"):
        write_numpy(array, ["a", "b"], tmp_path / "x" / ".." / "e.npy")
    assert sorted(os.listdir(tmp_path)) == ["e.keys.npy", "e.npy"]
