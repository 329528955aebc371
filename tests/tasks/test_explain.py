"""Explanations: heat where a score comes from, borders and rivals as distances have them."""

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


def drawn(place: np.ndarray) -> np.ndarray:
    """Places (n, 3) as pictures: a square of noise in the upper left for the first number, elsewhere for the others."""
    pictures = np.full((len(place), SIDE, SIDE, 3), 128.0)
    noise = np.random.default_rng(0).choice([-1.0, 1.0], (4, 4, 1))
    for corner, value in zip(((0, 0), (0, 10), (10, 0)), place.T, strict=True):
        rows, columns = (slice(start, start + 4) for start in corner)
        pictures[:, rows, columns] += 10 * value[:, None, None, None] * noise
    return np.clip(np.rint(pictures), 0, 255).astype(np.uint8)


def seen(pictures: np.ndarray) -> np.ndarray:
    """The places that `drawn` drew."""
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
        model, embedding, keys, lambda r: list(pictures[r]), lambda r: pictures[r], seen, ImageSpec(SIDE, SIDE, 3)
    )


def test_heat_lies_where_the_score_comes_from() -> None:
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


def test_a_cluster_is_explained_by_its_members_border_and_nearest_cluster(space: Space) -> None:
    labels = space.clusterer.predict(space.embedding)
    assert np.array_equal(labels, np.repeat([0, 1, 2], (30, 25, 20)))
    told = explain_cluster(space, 0)
    assert (told.data["size"], told.data["nearest_cluster"]) == (30, 1)
    members = {f"{i}.png" for i in range(30)}
    assert set(told.data["typical"]) <= members
    assert {row["key"] for row in told.data["border"]} <= members
    sure = [row["confidence"] for row in told.data["border"]]
    assert sure == sorted(sure)
    side = [row["side"] for row in told.data["way"]]
    assert side == sorted(side, reverse=True)
    assert [row["cluster"] for row in told.data["way"]] == [0 if s > 0 else 1 for s in side]
    assert "100%" in told.sentences[1]
    assert [type(p) for p in told.panels] == [ImageGrid, ImageGrid, ImagePairs, ImageGrid]
    assert not any(isinstance(p, ImagePairs) for p in explain_cluster(space, 0, heat=False).panels)


def test_what_makes_an_image_one_of_its_cluster_is_hot(space: Space) -> None:
    row = int(np.abs(space.embedding - CENTERS[1]).sum(1).argmin())
    told = explain_image(space, row, cell=(2, 3))
    assert (told.data["cluster"], told.data["second_best"], told.data["cell"]) == (1, 0, [2, 3])
    assert told.data["distance"] < told.data["distance_to_second_best"]
    assert told.data["key"] not in [near["key"] for near in told.data["nearest"]]
    assert {near["cluster"] for near in told.data["nearest"]} == {1}
    [pairs] = [p for p in told.panels if isinstance(p, ImagePairs)]
    hot = np.asarray(pairs.rows[0][1]).astype(int)
    red = hot[..., 0] - hot[..., 2]
    assert red[:4, :4].mean() > 40  # cluster 1 differs from cluster 0 by its upper left corner alone
    assert red[:4, :4].mean() > 4 * abs(red[10:, :4].mean())


def test_the_second_best_is_the_nearest_other_center() -> None:
    along = np.array([[0.0, 1.0], [5.0, 0.0]], np.float32)
    assert second_best(along, CENTERS[:, :2], np.array([0, 1])).tolist() == [1, 0]


def test_what_is_not_there_is_told(space: Space) -> None:
    with pytest.raises(InputError, match="clusters 0 to 2"):
        explain_cluster(space, 3)
    one = ImageClusterer(n_clusters=1).fit(space.embedding)
    alone = Space(one, space.embedding, space.keys, space.show, space.look, space.embed, space.spec)
    with pytest.raises(InputError, match="one cluster only"):
        explain_image(alone, 0)
