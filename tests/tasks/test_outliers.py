"""Outliers at a false positive rate, and their heat maps."""

from __future__ import annotations

import numpy as np
import pytest

from imatlas.errors import ParameterError
from imatlas.models.autoencoder import Autoencoder
from imatlas.models.outlier_detector import OutlierDetector
from imatlas.models.pretrained import PretrainedEncoder
from imatlas.tasks.outlier_maps import FEATURE_MAP_SPEC, has_feature_maps, heat_map, overlaid
from imatlas.tasks.outliers import Outliers, ordinary_near, outliers
from imatlas.testing import synthetic_images

pytestmark = pytest.mark.usefixtures("one_thread")


def among_themselves(X: np.ndarray, rate: float = 0.01) -> Outliers:
    """The outliers among rows, by a detector that is fitted to them."""
    model = OutlierDetector().fit(X)
    keys = [f"{i}.png" for i in range(len(X))]
    return outliers(model, keys, model.outlier_scores_, model.p_values_, false_positive_rate=rate)


def test_outliers_are_found_and_the_bound_is_stated(rng) -> None:
    X = rng.normal(size=(1000, 8)).astype(np.float32)
    X[[3, 500]] += 9
    found = among_themselves(X)
    assert set(found.rows[:2].tolist()) == {3, 500}
    assert len(found.rows) == found.result.metrics["n_outliers"] == 10  # the share asked for, of each half
    assert found.result.data["outliers"][0]["key"] in ("3.png", "500.png")
    assert "with 95% confidence" in found.result.sentences[1]
    near = ordinary_near(found.p_values, X, X[100], exclude=np.array([100]), n=5)
    apart = ((X[near] - X[100]) ** 2).sum(1)
    assert (np.diff(apart) >= 0).all()
    assert 100 not in near
    assert not {3, 500} & set(near.tolist())


def test_new_images_are_judged_by_those_of_the_atlas(rng) -> None:
    X = rng.normal(size=(1000, 8)).astype(np.float32)
    new = rng.normal(size=(50, 8)).astype(np.float32)
    new[7] += 9
    model = OutlierDetector().fit(X)
    scores = -model.score_samples(new)
    found = outliers(model, [f"n{i}" for i in range(50)], scores, model.p_values_of(scores), new=True)
    assert found.rows[0] == 7
    assert found.result.data["outliers"][0]["key"] == "n7"
    assert len(found.rows) < 5


def test_another_rate_is_as_if_fitted_with_it(rng) -> None:
    X = rng.normal(size=(500, 4)).astype(np.float32)
    five = among_themselves(X, 0.05)
    fitted = OutlierDetector(false_positive_rate=0.05).fit(X)
    assert len(five.rows) == 24  # the share asked for, of each half
    assert five.model.threshold_ == fitted.threshold_ < among_themselves(X).model.threshold_
    assert five.model.false_positive_bound_ == fitted.false_positive_bound_
    with pytest.raises(ParameterError, match="false_positive_rate"):
        among_themselves(X, 0.7)


def test_too_low_a_rate_names_the_lowest_possible(rng) -> None:
    found = among_themselves(rng.normal(size=(60, 4)))
    assert len(found.rows) == 0
    assert "ask for at least 3.2%" in found.result.sentences[1]
    assert len(found.result.panels[0].rows) == 10  # the highest scores are listed all the same


def test_heat_is_highest_where_noise_was_pasted() -> None:
    images = synthetic_images(12, size=128, channels=3, random_state=0)
    outlier = images[0].copy()
    outlier[80:120, 8:48] = np.random.default_rng(0).integers(0, 255, (40, 40, 3))
    encoder = PretrainedEncoder(image_size=64).fit(images)
    assert has_feature_maps(encoder)
    assert outlier.shape == (FEATURE_MAP_SPEC.height, FEATURE_MAP_SPEC.width, 3)
    heat = heat_map(encoder, outlier, images[:8], encoder.transform)
    assert heat.shape == (14, 14)
    assert (heat.min(), heat.max()) == (0, 1)
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert 8 <= row <= 13
    assert 0 <= column <= 5
    shown = overlaid(outlier, heat)
    assert (shown.shape, shown.dtype) == (outlier.shape, np.uint8)


def test_encoders_without_feature_maps_are_probed_by_replacing_parts() -> None:
    """With raw pixels as the embedding, only the part that differs is hot."""
    ordinary = np.zeros((1, 32, 32, 1), np.uint8)
    outlier = ordinary[0].copy()
    outlier[8:12, 20:24] = 255

    def embed(images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), -1).astype(np.float32)

    heat = heat_map(Autoencoder(), outlier, ordinary, embed)
    assert heat.shape == (8, 8)
    assert np.argwhere(heat == 1).tolist() == [[2, 5]]
    assert (heat > 0).sum() == 1
