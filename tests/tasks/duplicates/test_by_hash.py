"""Exact duplicates and near-duplicates by hash are found, in any order; different images are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from imatlas import Images
from imatlas.images.hashing import hamming
from imatlas.tasks.duplicates.by_hash import duplicate_of, duplicates, near_pairs


def test_duplicates_point_at_the_largest_or_first(mixed_folder: Path) -> None:
    images = Images(mixed_folder, image_size=64)
    assert images.keys == ["a.png", "b.png", "c.jpg", "d.jpg", "flat0.png", "flat1.png", "flat2.png"]
    assert duplicate_of(images).tolist() == [-1, 0, 0, -1, -1, -1, -1]
    assert duplicate_of(images[[2, 3, 0]]).tolist() == [2, -1, -1]


def test_the_result_lists_which_and_of_what_kind(mixed_folder: Path) -> None:
    result = duplicates(Images(mixed_folder))
    assert result.metrics == {"n_images": 7, "n_exact": 1, "n_near": 1}
    assert result.data["duplicates"] == [
        {"key": "b.png", "duplicate_of": "a.png", "kind": "exact"},
        {"key": "c.jpg", "duplicate_of": "a.png", "kind": "near"},
    ]
    assert len(result.panels[0].rows) == 2


@pytest.mark.parametrize("distance", [0, 1, 2, 3, 4, 8])
def test_near_pairs_are_those_of_the_slow_search(distance: int, rng: np.random.Generator) -> None:
    hashes = rng.integers(0, 2**63, 400, dtype=np.uint64)
    flips = np.bitwise_or.reduce(np.uint64(1) << rng.integers(0, 64, (5, 200)).astype(np.uint64), axis=0)
    hashes = np.unique(np.concatenate([hashes, hashes[:200] ^ flips, hashes[:50] ^ np.uint64(1 << 63)]))
    i, j = np.nonzero(np.triu(hamming(hashes[:, None], hashes) <= distance, 1))
    np.testing.assert_array_equal(near_pairs(hashes, distance), np.stack([i, j], axis=1))


def test_equal_arrays_are_duplicates_of_the_first(rng: np.random.Generator) -> None:
    array = rng.integers(0, 256, (30, 20, 20), np.uint8)
    array[[7, 9]] = array[3]
    expected = np.full(30, -1)
    expected[[7, 9]] = 3
    np.testing.assert_array_equal(duplicate_of(Images(array)), expected)
