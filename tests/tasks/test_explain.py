"""Explanations: heat maps, border images and rivals with known answers."""

from __future__ import annotations

import numpy as np
import pytest

from imatlas.errors import InputError
from imatlas.images.spec import ImageSpec
from imatlas.models.image_clusterer import ImageClusterer
from imatlas.result import ImageGrid, ImagePairs
from imatlas.tasks.explain import Space, explain_cluster, explain_image, heat_map, overlaid, second_best

SIDE = 14
CENTERS = np.array([[0.0, 0, 0], [6, 0, 0], [0, 9, 0]], np.float32)


def drawn(features: np.ndarray) -> np.ndarray:
    """Features (n, 3) as images: a square of noise in the upper left for the first, elsewhere for the others."""
    pictures = np.full((len(features), SIDE, SIDE, 3), 128.0)
    noise = np.random.default_rng(0).choice([-1.0, 1.0], (4, 4, 1))
    for corner, value in zip(((0, 0), (0, 10), (10, 0)), features.T, strict=True):
        rows, columns = (slice(start, start + 4) for start in corner)
        pictures[:, rows, columns] += 10 * value[:, None, None, None] * noise
    return np.clip(np.rint(pictures), 0, 255).astype(np.uint8)


def embedded(pictures: np.ndarray) -> np.ndarray:
    """The inverse of `drawn`."""
    noise = np.random.default_rng(0).choice([-1.0, 1.0], (4, 4, 1))
    corners = ((0, 0), (0, 10), (10, 0))
    values = [((pictures[:, r : r + 4, c : c + 4] - 128.0) * noise).mean((1, 2, 3)) / 10 for r, c in corners]
    return np.stack(values, axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def space() -> Space:
    rng = np.random.default_rng(1)
    embedding = np.concatenate(
        [c + rng.normal(0, 0.5, (n, 3)) for c, n in zip(CENTERS, (30, 25, 20), strict=True)]
    ).astype(np.float32)
    model = ImageClusterer(n_clusters=3).fit(embedding)
    pictures = drawn(embedding)
    keys = [f"{i}.png" for i in range(len(embedding))]
    return Space(
        model, embedding, keys, lambda r: list(pictures[r]), lambda r: pictures[r], embedded, ImageSpec(SIDE, SIDE, 3)
    )


def test_heat_is_where_the_score_comes_from() -> None:
    image = np.zeros((28, 35, 1), np.uint8)
    image[8:12, 20:25] = 255  # the cell in row 2, column 4
    heat = heat_map(image, lambda some: some[..., 0].max((1, 2)).astype(float))
    assert np.unravel_index(heat.argmax(), heat.shape) == (2, 4)
    assert heat[5:].max() == heat[:, :2].max() == 0
    assert np.allclose(heat_map(image, lambda some: np.full(len(some), 3.0)), 0)
    away = heat_map(image, lambda some: -some[..., 0].max((1, 2)).astype(float))
    np.testing.assert_allclose(away, -heat)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_heat_of_deep_pictures_with_missing_pixels(dtype: str) -> None:
    image = np.full((20, 20, 2), 1000, dtype)
    image[:4, :4] = 60_000
    if dtype == "float32":
        image[10, 10] = np.nan
    heat = heat_map(image, lambda some: np.nanmax(some.astype(float), axis=(1, 2, 3)), n_cells=5)
    assert np.unravel_index(heat.argmax(), heat.shape) == (0, 0)


def test_red_is_for_and_blue_is_against() -> None:
    gray = np.full((20, 20, 3), 100, np.uint8)
    heat = np.zeros((2, 2))
    heat[0, 0], heat[1, 1] = 1, -0.5
    out = overlaid(gray, heat).astype(int)
    assert out[2, 2, 0] > out[2, 2, 2] + 80
    assert out[17, 17, 2] > out[17, 17, 0] + 40
    assert np.array_equal(overlaid(gray, np.zeros((2, 2))), gray)


def test_explain_a_cluster(space: Space) -> None:
    labels = space.clusterer.predict(space.embedding)
    assert np.array_equal(labels, np.repeat([0, 1, 2], (30, 25, 20)))
    result = explain_cluster(space, 0)
    assert (result.data["size"], result.data["nearest_cluster"]) == (30, 1)
    members = {f"{i}.png" for i in range(30)}
    assert set(result.data["typical"]) <= members
    assert {row["key"] for row in result.data["border"]} <= members
    sure = [row["confidence"] for row in result.data["border"]]
    assert sure == sorted(sure)
    side = [row["side"] for row in result.data["path"]]
    assert side == sorted(side, reverse=True)
    assert [row["cluster"] for row in result.data["path"]] == [0 if s > 0 else 1 for s in side]
    assert "100%" in result.sentences[1]
    assert [type(p) for p in result.panels] == [ImageGrid, ImageGrid, ImagePairs, ImageGrid]
    assert not any(isinstance(p, ImagePairs) for p in explain_cluster(space, 0, heat=False).panels)


def test_the_evidence_for_a_cluster_is_hot(space: Space) -> None:
    row = int(np.abs(space.embedding - CENTERS[1]).sum(1).argmin())
    result = explain_image(space, row, cell=(2, 3))
    assert (result.data["cluster"], result.data["second_best"], result.data["cell"]) == (1, 0, [2, 3])
    assert result.data["distance"] < result.data["distance_to_second_best"]
    assert result.data["key"] not in [near["key"] for near in result.data["nearest"]]
    assert {near["cluster"] for near in result.data["nearest"]} == {1}
    [pairs] = [p for p in result.panels if isinstance(p, ImagePairs)]
    hot = np.asarray(pairs.rows[0][1]).astype(int)
    red = hot[..., 0] - hot[..., 2]
    assert red[:4, :4].mean() > 40  # cluster 1 differs from cluster 0 in the upper left corner only
    assert red[:4, :4].mean() > 4 * abs(red[10:, :4].mean())


def test_the_second_best_is_the_nearest_other_center() -> None:
    along = np.array([[0.0, 1.0], [5.0, 0.0]], np.float32)
    assert second_best(along, CENTERS[:, :2], np.array([0, 1])).tolist() == [1, 0]


def test_missing_clusters_are_errors(space: Space) -> None:
    with pytest.raises(InputError, match="clusters 0 to 2"):
        explain_cluster(space, 3)
    one = ImageClusterer(n_clusters=1).fit(space.embedding)
    alone = Space(one, space.embedding, space.keys, space.show, space.pixels, space.embed, space.spec)
    with pytest.raises(InputError, match="a single cluster"):
        explain_image(alone, 0)
