"""Few images, and images that are all alike: a sensible atlas or one line, no warning, no NaN, no talk of 0 %."""

from __future__ import annotations

import html
import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import imatlas as ia
from imatlas.atlas.stages import held_out_rows
from imatlas.cli import main
from imatlas.errors import InputError, Notice
from imatlas.result import plain

pytestmark = pytest.mark.usefixtures("one_thread")


def noise(n: int, shape: tuple[int, ...] = (10, 10, 1)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, *shape)).astype(np.uint8)


SETS: dict[str, Callable[[], np.ndarray]] = {
    "24 of one": lambda: np.repeat(noise(1), 24, axis=0),
    "9 black": lambda: np.zeros((9, 10, 10, 1), np.uint8),
    "2": lambda: noise(2),
    "2 of one": lambda: np.repeat(noise(1), 2, axis=0),
    "5": lambda: noise(5, (10, 10, 3)),
    "8": lambda: noise(8),
    "9 of two": lambda: np.repeat(noise(2), [5, 4], axis=0),
    "8 twice": lambda: np.repeat(noise(8), 2, axis=0),
    "12 of one level, 16 bits": lambda: np.full((12, 10, 10, 1), 3000, np.uint16),
    "10 of nothing": lambda: np.full((10, 10, 10, 1), np.nan, np.float32),
}
SENSELESS = re.compile(r"\bnan\b|\binf\b|(?<![\d.])0%|of 0 to|\b1 (clusters of|images|others)\b", re.IGNORECASE)


def text_of(page: Path) -> str:
    """The words of a page, without its settings."""
    text = re.sub(r"<(script|style|svg).*?</\1>", " ", page.read_text(), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split()).partition("Settings setting value")[0]


def answer(capsys: Any, *words: Any) -> str:
    """What a command prints, or the one line in which it refuses."""
    code = main([str(word) for word in words])
    said = capsys.readouterr()
    assert "not foreseen" not in said.err
    assert not code or (said.err.startswith("Error: ") and said.err.count("\n") == 1)
    return said.out


@pytest.mark.parametrize("name", SETS)
def test_small_and_odd_sets_become_atlases(name, tmp_path, capsys):
    pixels = SETS[name]()
    folder = tmp_path / "a.atlas"
    atlas = ia.learn(pixels, folder, budget=0.5, progress=True)
    printed = capsys.readouterr().out
    rows = atlas.table().to_pydict()
    assert len(rows["key"]) == len(pixels)
    assert sum(rows["held_out"]) == 0 if len(pixels) < 8 else 1 <= sum(rows["held_out"]) < len(pixels)
    for column in ("x", "y", "umap_x", "umap_y", "outlier", "confidence"):
        assert np.isfinite(rows[column]).all(), column
    n_distinct = len(np.unique(np.nan_to_num(pixels.reshape(len(pixels), -1)), axis=0))
    assert len(set(rows["cluster"])) <= n_distinct
    key = rows["key"][0]
    for words in (["info"], ["score"], ["clusters"], ["clusters", "--clusters", 2], ["duplicates"], ["outliers"]):
        printed += answer(capsys, words[0], folder, *words[1:])
        said = answer(capsys, words[0], folder, *words[1:], "--json")
        if said:
            json.loads(said, parse_constant=pytest.fail)
    assert json.loads(answer(capsys, "search", folder, key, "--json"), parse_constant=pytest.fail)
    for words in (["explain", "--cluster", 0], ["explain", "--image", key]):
        answer(capsys, words[0], folder, *words[1:])
    assert atlas.sample(2).shape[0] == 2
    report = text_of(folder / "report.html")
    assert not SENSELESS.findall(printed), [m.group() for m in SENSELESS.finditer(printed)]
    assert not SENSELESS.search(report), report[max(0, SENSELESS.search(report).start() - 90) :][:180]


def test_identical_images_are_one_cluster_in_one_cell_and_none_is_an_outlier(tmp_path):
    atlas = ia.learn(SETS["24 of one"](), tmp_path / "a.atlas", budget=0.5, progress=False)
    rows = atlas.table().to_pydict()
    assert set(rows["cluster"]) == {0}
    assert set(rows["cell"]) == {0}
    assert len(atlas.model("map").codebook_) == 1
    np.testing.assert_allclose(rows["outlier"], 1, atol=0.1)
    assert "All images are equal" in " ".join(atlas.store.manifest.metrics["clusters"]["sentences"])
    assert "mse_ratio_to_pca" not in atlas.store.manifest.metrics["quality"]["metrics"]


def test_one_image_is_refused_in_one_line(tmp_path):
    with pytest.raises(InputError, match=r"at least 2 usable images\. Got 1; 'imatlas check' and 'imatlas duplicates'"):
        ia.learn(noise(1), tmp_path / "a.atlas", progress=False)


def test_nothing_is_measured_where_none_is_held_out(tmp_path):
    atlas = ia.learn(noise(5), tmp_path / "a.atlas", budget=0.5, progress=False)
    assert atlas.score().metrics == {}
    assert "Not measured" in atlas.score().sentences[0]
    assert "Not measured" in text_of(tmp_path / "a.atlas" / "report.html")


def test_a_share_of_nothing_holds_none_out_and_copies_of_one_image_hold_one_out():
    none, one = np.full(5, -1), np.array([-1, 0, 0, 0, 0])
    assert not held_out_rows(list("abcde"), none, 0.0, 0).any()
    assert held_out_rows(list("aaaaa"), one, 0.1, 0).sum() == 1


def rows(n: int, distinct: int) -> np.ndarray:
    found = np.random.default_rng(1).normal(size=(distinct, 6)).astype(np.float32)
    return found[np.arange(n) % distinct]


@pytest.mark.parametrize(("n", "distinct"), [(1, 1), (2, 1), (2, 2), (3, 1), (3, 3), (24, 1), (24, 2), (70, 1)])
@pytest.mark.parametrize("name", ["SOM", "SOM 3 x 3", "KMeans", "ImageClusterer", "Layout", "OutlierDetector"])
def test_models_of_rows_take_few_and_equal_ones(name, n, distinct):
    X = rows(n, distinct)
    models = {
        "SOM": ia.SOM,
        "SOM 3 x 3": lambda: ia.SOM(rows=3, cols=3),
        "KMeans": lambda: ia.KMeans(n_clusters=min(3, n)),
        "ImageClusterer": ia.ImageClusterer,
        "Layout": ia.Layout,
        "OutlierDetector": ia.OutlierDetector,
    }
    fewest = {"OutlierDetector": 4, "Layout": 2}.get(name, 1)
    if n < fewest:
        with pytest.raises(InputError, match=f"at least {fewest}"):
            models[name]().fit(X)
        return
    model = models[name]().fit(X)
    for verb in ("predict", "transform", "score_samples", "confidence", "project"):
        if hasattr(model, verb):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Notice)  # too few rows to call any an outlier
                assert np.isfinite(getattr(model, verb)(X)).all(), verb
    if name == "ImageClusterer":
        assert np.bincount(model.labels_, minlength=model.n_clusters_).min() > 0
        assert model.n_clusters_ <= distinct
    if name == "OutlierDetector" and distinct == 1:
        np.testing.assert_allclose(model.outlier_scores_, 1, atol=0.1)


def test_fewer_clusters_than_asked_for_where_fewer_rows_are_distinct():
    model = ia.ImageClusterer(n_clusters=3).fit(rows(20, 2))
    assert model.n_clusters_ == len(model.cluster_centers_) == len(model.medoids_) == 2
    assert np.bincount(model.labels_).tolist() == [10, 10]


def test_what_is_not_finite_is_null_in_json():
    value = {"a": np.float32("nan"), "b": [np.inf, 1.5], "c": np.array([1.0, np.nan]), "d": (np.int64(3), None)}
    assert plain(value) == {"a": None, "b": [None, 1.5], "c": [1.0, None], "d": [3, None]}
