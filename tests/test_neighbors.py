"""Nearest-neighbor search against a slow reference: exact winners, chunk sizes, far from the origin, duplicates."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from imatlas.neighbors import (
    all_distances,
    as_tensor,
    group_sums,
    k_nearest,
    nearest,
    nearest_index,
    nearest_index_by_projection,
    nearest_two,
    paired_distances,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def points(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return rng.normal(size=(500, 19)).astype(np.float32), rng.normal(size=(37, 19)).astype(np.float32)


def slow(X: np.ndarray, centers: np.ndarray) -> np.ndarray:
    return ((X[:, None].astype(np.float64) - centers) ** 2).sum(2)


@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_nearest_equals_the_slow_reference_also_far_from_the_origin(points, offset):
    X, centers = (p + np.float32(offset) for p in points)
    indices, squared = nearest(as_tensor(X), as_tensor(centers))
    expected = slow(X, centers)
    assert np.array_equal(indices.numpy(), expected.argmin(1))
    np.testing.assert_allclose(squared.numpy(), expected.min(1), rtol=1e-5)


def test_no_chunk_or_batch_size_changes_an_answer(points):
    X, centers = map(as_tensor, points)
    whole = nearest(X, centers)
    for memory in (1, 30_000, 100_000):
        chunked = nearest(X, centers, memory=memory)
        assert torch.equal(chunked[0], whole[0])
        assert torch.equal(chunked[1], whole[1])
    distances = all_distances(X, centers)
    for n in (1, 3, 64, 65):
        assert torch.equal(nearest(X[:n], centers)[1], whole[1][:n])
        assert torch.equal(all_distances(X[:n], centers), distances[:n])


def test_equal_rows_have_distance_zero(points):
    centers = as_tensor(points[1])
    twice = torch.cat([centers, centers])
    indices, squared = nearest(centers, twice)
    assert torch.equal(indices % len(centers), torch.arange(len(centers)))
    assert not squared.any()


def test_all_distances_are_close(points):
    X, centers = points
    np.testing.assert_allclose(
        all_distances(as_tensor(X), as_tensor(centers)).numpy(), np.sqrt(slow(X, centers)), rtol=1e-4
    )


def test_integer_rows_are_searched_without_a_float_copy(rng):
    X = rng.integers(0, 256, (200, 12)).astype(np.uint8)
    centers = rng.uniform(0, 255, (9, 12)).astype(np.float32)
    assert np.array_equal(nearest_index(torch.from_numpy(X), as_tensor(centers)).numpy(), slow(X, centers).argmin(1))


@pytest.mark.parametrize("memory", [1, 20_000, 2**25])
def test_k_nearest_equals_sorting_all_distances(points, memory):
    X, queries = points
    indices, squared = k_nearest(as_tensor(X), as_tensor(queries), 7, memory=memory)
    order = slow(queries, X).argsort(axis=1, kind="stable")[:, :7]
    assert np.array_equal(indices.numpy(), order)
    np.testing.assert_allclose(squared.numpy(), np.take_along_axis(slow(queries, X), order, 1), rtol=1e-5)


def test_k_nearest_over_blocks_of_the_rows(rng):
    X = rng.normal(size=(40_000, 5)).astype(np.float32)
    indices, _ = k_nearest(as_tensor(X), as_tensor(X[:20]), 3)
    assert np.array_equal(indices.numpy(), slow(X[:20], X).argsort(axis=1, kind="stable")[:, :3])


def test_k_nearest_leaves_out_the_query_itself_but_not_its_duplicates(points):
    X = np.concatenate([points[0], points[0][:1]])
    own = torch.tensor([0, 5, -1])
    indices, squared = k_nearest(as_tensor(X), as_tensor(X[[0, 5, 7]]), 2, exclude_self=own)
    assert indices[0, 0] == 500
    assert squared[0, 0] == 0
    assert 5 not in indices[1]
    assert indices[2, 0] == 7


def test_k_nearest_gives_at_most_every_row(points):
    X = as_tensor(points[0][:6])
    indices, _ = k_nearest(X, X, 5, exclude_self=torch.arange(6))
    for i, row in enumerate(indices.tolist()):
        assert sorted(row) == [j for j in range(6) if j != i]
    with pytest.raises(ValueError, match="between 1 and the 5 rows"):
        k_nearest(X, X, 6, exclude_self=torch.arange(6))


def test_group_sums_weighted_and_chunked(points, rng):
    X = points[0]
    groups, weights = rng.integers(0, 4, len(X)), rng.random(len(X)).astype(np.float32)
    for memory in (1, 5000, 2**25):
        sums, totals = group_sums(as_tensor(X), torch.from_numpy(groups), 5, as_tensor(weights), memory=memory)
        for g in range(5):
            chosen = groups == g
            np.testing.assert_allclose(sums[g].numpy(), (X[chosen] * weights[chosen, None]).sum(0), atol=1e-4)
            assert totals[g] == pytest.approx(weights[chosen].sum(), abs=1e-4)


def test_paired_distances(points):
    X, centers = points
    chosen = torch.arange(len(X)) % len(centers)
    expected = slow(X, centers)[np.arange(len(X)), chosen.numpy()]
    np.testing.assert_allclose(
        paired_distances(as_tensor(X), as_tensor(centers), chosen, memory=999).numpy(), expected, rtol=1e-5
    )


def test_a_memory_map_opened_for_reading_is_taken_without_a_copy_or_a_warning(tmp_path, points):
    np.save(tmp_path / "x.npy", points[0])
    X = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert as_tensor(X).data_ptr() == X.ctypes.data


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_the_same_on_a_gpu(points):
    X, centers = map(as_tensor, points)
    found = nearest(X.cuda(), centers.cuda())
    assert torch.equal(found[0].cpu(), nearest(X, centers)[0])
    groups = found[0]
    first, again = (group_sums(X.cuda(), groups, len(centers))[0] for _ in range(2))
    assert torch.equal(first, again)


def test_a_search_by_projection_is_exact(rng):
    # rows with two strong directions and many weak ones, so that projections alone are often wrong
    X = (rng.normal(size=(3000, 50)) * np.r_[3, 2, np.full(48, 0.3)]).astype(np.float32)
    centers = X[:200] + rng.normal(size=(200, 50)).astype(np.float32) * 0.1
    for n_axes in (2, 10):
        axes = torch.eye(50)[:n_axes]

        def project(rows, axes=axes):
            flat = rows @ axes.T
            return torch.cat([flat, (rows - flat @ axes).norm(dim=1, keepdim=True)], dim=1)

        rows, codes = as_tensor(X), as_tensor(centers)
        projections = project(rows), project(codes)
        found = nearest_index_by_projection(rows, codes, *projections)
        assert np.array_equal(found.numpy(), slow(X, centers).argmin(1))
        assert not torch.equal(nearest_index(*projections), found)


def test_the_smallest_of_many_centers_is_found_by_groups(rng):
    X, centers = rng.normal(size=(700, 8)).astype(np.float32), rng.normal(size=(333, 8)).astype(np.float32)
    assert np.array_equal(nearest_index(as_tensor(X), as_tensor(centers)).numpy(), slow(X, centers).argmin(1))
    two = nearest_two(as_tensor(X), as_tensor(centers)).numpy()
    assert np.array_equal(two, slow(X, centers).argsort(1)[:, :2])
