"""Search: several examples, distances relative to the set, and an index against a full search."""

from __future__ import annotations

import lance
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from sklearn.datasets import make_blobs

from imatlas.atlas.store import Indexed
from imatlas.atlas.table import SCHEMA, ImagesTable, files_on_disk
from imatlas.images.encode import encode
from imatlas.tasks.search import InMemory, Spread, index_centers, search, search_like, spread, without_self, write_sheet
from tests.atlas.test_table import rows

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def blobs() -> tuple[np.ndarray, np.ndarray]:
    X, y = make_blobs(4000, 24, centers=40, cluster_std=2.0, random_state=0)
    return X.astype(np.float32), y


def test_distances_are_compared_with_those_of_the_set() -> None:
    measures = Spread(pairs=np.array([2.0, 4, 6, 8]), neighbors=np.array([1.0, 2]))
    asked = np.array([0.0, 1.0, 1.5, 4.0, 9.0])
    assert measures.closer_than_pairs(asked).tolist() == [1, 1, 1, 0.75, 0]
    assert measures.closer_than_neighbors(asked).tolist() == [1, 1, 0.5, 0, 0]


def test_a_typical_neighbor_and_a_typical_pair_are_at_one_half(blobs) -> None:
    X, _ = blobs
    measures = spread(InMemory(X))
    nearest = without_self(*InMemory(X).nearest(X, 2))[1]
    assert measures.closer_than_neighbors(np.median(nearest)) == pytest.approx(0.5, abs=0.07)
    rng = np.random.default_rng(9)
    far = np.linalg.norm(X[rng.permutation(4000)] - X, axis=1)
    assert measures.closer_than_pairs(np.median(far)) == pytest.approx(0.5, abs=0.03)
    assert (spread(InMemory(X), random_state=1).pairs != measures.pairs).any()
    assert len(spread(InMemory(X[:1])).pairs) == 0
    twins = spread(InMemory(np.repeat(X[:20], 2, axis=0)))
    assert (twins.neighbors == 0).all()


def test_several_examples_rank_by_the_harmonic_mean_of_distances(blobs) -> None:
    X, y = blobs
    examples = np.stack([X[y == 3].mean(axis=0), X[y == 8].mean(axis=0)])
    found = search_like(X, examples, examples[:0], k=60)
    slow = 2 / (1 / np.linalg.norm(X[:, None] - examples, axis=2)).sum(axis=1)
    np.testing.assert_array_equal(found.indices[0], np.argsort(slow, kind="stable")[:60])
    np.testing.assert_allclose(found.distances[0], np.sort(slow)[:60], rtol=1e-4)
    assert set(y[found.indices[0]]) == {3, 8}
    against = search_like(X, examples[:1], examples[1:], k=60)
    apart = np.linalg.norm(X[:, None] - examples, axis=2)
    np.testing.assert_array_equal(against.indices[0], np.argsort(apart[:, 0] - apart[:, 1] / 4)[:60])
    one = search_like(X, examples[:1], examples[:0], k=7)
    np.testing.assert_array_equal(one.indices, search(X, examples[:1], k=7).indices)


def test_counter_examples_lower_the_rank_of_their_kind() -> None:
    X, y = make_blobs(900, 6, centers=[[0.0] * 6, [2.0] + [0.0] * 5], cluster_std=1.0, random_state=1)
    X = X.astype(np.float32)
    between = np.array([[1.0, 0, 0, 0, 0, 0]], np.float32)
    plain = search_like(X, between, between[:0], k=50)
    away = search_like(X, between, np.array([[2.0, 0, 0, 0, 0, 0]], np.float32), k=50)
    assert (y[away.indices[0]] == 0).mean() > (y[plain.indices[0]] == 0).mean() + 0.1


def test_no_row_is_its_own_neighbor_even_among_duplicates() -> None:
    X = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)
    indices, distances = without_self(*InMemory(X).nearest(X, 3))
    assert indices.shape == (12, 2)
    assert (indices != np.arange(12)[:, None]).all()
    assert (distances == 0).all()


def test_the_index_finds_what_a_full_search_finds(blobs, tmp_path) -> None:
    X, _ = blobs
    table = ImagesTable.write(tmp_path / "t.lance", [rows(0, len(X))]).set(embedding=X)
    assert not table.has_index("embedding")
    table = table.index("embedding", index_centers(X))
    assert table.has_index("embedding")
    table = table.set(cell=np.arange(len(X), dtype=np.int32))  # other columns keep the index
    table.clean(files_on_disk(table.path))
    assert ImagesTable(table.path, table.version).has_index("embedding")
    queries = X[:100] + np.float32(0.3)
    exact, found = InMemory(X).nearest(queries, 10), Indexed(table).nearest(queries, 10)
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact[0], found[0], strict=True)])
    assert recall >= 0.98
    np.testing.assert_allclose(found[1], exact[1], rtol=1e-2)
    np.testing.assert_array_equal(Indexed(table).at(np.array([7, 3])), X[[7, 3]])
    np.testing.assert_array_equal(
        Indexed(table).nearest(queries[:2], 2000)[0], InMemory(X).nearest(queries[:2], 2000)[0]
    )
    assert not table.set(embedding=X + 1).has_index("embedding")
    assert not ImagesTable.write(table.path, [rows(0, 10)]).has_index("embedding")


def test_rows_in_several_files_keep_their_numbers(blobs, tmp_path) -> None:
    X, _ = blobs
    keys = rows(0, len(X))
    flat = pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), X.shape[1])
    table = pa.Table.from_batches([keys], SCHEMA).append_column("embedding", flat)
    lance.write_dataset(table, str(tmp_path / "t.lance"), max_rows_per_file=1300)
    indexed = ImagesTable(tmp_path / "t.lance").index("embedding", index_centers(X))
    for row in (0, 1299, 1300, 2600, 3999):
        found, distances = indexed.nearest("embedding", X[row], 1)
        assert (found.tolist(), distances.tolist()) == ([row], [0.0])


def test_a_contact_sheet_frames_the_queries(tmp_path) -> None:
    gray = encode(np.full((40, 40, 1), 200, np.uint8), "png")
    clear = encode(np.zeros((30, 60, 4), np.uint8), "png")
    path = write_sheet([gray], [gray, clear, gray], tmp_path / "found.png")
    with Image.open(path) as sheet:
        assert sheet.size == (2 * 130 + 2, 2 * 130 + 2)
        assert sheet.getpixel((3, 3)) == (0, 0, 0)  # the frame
        assert sheet.getpixel((60, 60)) == (200, 200, 200)
        assert sheet.getpixel((60, 190)) == (255, 255, 255)  # transparency is composited on white
