"""Outliers at a false positive rate, and their heat maps."""

from __future__ import annotations

import numpy as np
import pytest

from imatlas.errors import InputError
from imatlas.models.autoencoder import Autoencoder
from imatlas.models.pretrained import PretrainedEncoder
from imatlas.tasks.outlier_maps import FEATURE_MAP_SPEC, has_feature_maps, heat_map, overlaid
from imatlas.tasks.outliers import ordinary_near, outliers
from imatlas.testing import synthetic_images

pytestmark = pytest.mark.usefixtures("one_thread")


def test_outliers_are_found_and_the_bound_is_stated(rng) -> None:
    X = rng.normal(size=(1000, 8)).astype(np.float32)
    X[[3, 500]] += 9
    keys = [f"{i}.png" for i in range(1000)]
    found = outliers(X, keys, false_positive_rate=0.01)
    assert set(found.rows[:2].tolist()) == {3, 500}
    assert len(found.rows) == found.result.metrics["n_outliers"] == 10  # the share asked for, of each half
    assert found.result.data["outliers"][0]["key"] in ("3.png", "500.png")
    assert "with 95% confidence" in found.result.sentences[1]
    near = ordinary_near(found, X, X[100], exclude=np.array([100]), n=5)
    apart = ((X[near] - X[100]) ** 2).sum(1)
    assert (np.diff(apart) >= 0).all()
    assert 100 not in near
    assert not {3, 500} & set(near.tolist())


def test_new_images_are_judged_by_those_of_the_atlas(rng) -> None:
    X = rng.normal(size=(1000, 8)).astype(np.float32)
    new = rng.normal(size=(50, 8)).astype(np.float32)
    new[7] += 9
    found = outliers(X, [""] * 1000, new=new, new_keys=[f"n{i}" for i in range(50)])
    assert found.rows[0] == 7
    assert found.result.data["outliers"][0]["key"] == "n7"
    assert len(found.rows) < 5
    with pytest.raises(InputError, match="embed them with the encoder"):
        outliers(X, [""] * 1000, new=new[:, :3])


def test_too_low_a_rate_names_the_lowest_possible(rng) -> None:
    found = outliers(rng.normal(size=(60, 4)), [str(i) for i in range(60)], false_positive_rate=0.01)
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
