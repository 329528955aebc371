"""Eyes are chosen by how clearly images fall into groups, without a label."""

from __future__ import annotations

import numpy as np
import pytest

from imatlas.images.dataset import Images
from imatlas.models.image_clusterer import propose_n_clusters
from imatlas.tasks import embed
from imatlas.tasks.embed import EYES, choose_eyes, eyes_for, n_looks
from imatlas.testing import synthetic_images

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_best_score_wins_and_is_what_its_features_give() -> None:
    images = Images(synthetic_images(60, size=32, channels=3))
    chosen = choose_eyes(images, image_size=32, n_images=40)
    assert list(chosen.scores) == list(EYES)
    assert chosen.scores[chosen.name] == max(chosen.scores.values())
    assert chosen.name in chosen.why
    assert "40 images" in chosen.why
    alike = {name: options for name, options in EYES.items() if "views" not in options}  # of images of one size
    chosen = choose_eyes(images, image_size=32, n_images=40, eyes=alike)
    rows = np.sort(np.random.default_rng(0).permutation(60)[:40])
    features = chosen.encoder.fit_transform(images[rows])
    assert max(propose_n_clusters(features).modularities) == chosen.scores[chosen.name]


def test_looks_that_are_shared_count_once() -> None:
    assert n_looks(EYES) == 6
    assert n_looks({"things": {"views": 2}, "surfaces": {"layers": "many"}}) == 2


def test_a_set_that_is_small_or_in_a_hurry_gets_eyes_for_things_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    images = Images(synthetic_images(40, size=32, channels=3))
    for seconds in (60.0, 0.1):
        chosen = eyes_for(images, n_all=44, seconds=seconds)
        assert (chosen.name, chosen.scores, chosen.encoder.views) == ("things", {}, 3)
        assert "not compared" in chosen.why
    monkeypatch.setattr(embed, "FEWEST_IMAGES", 20)
    monkeypatch.setattr(embed, "LOOK_SECONDS", 0.001)
    assert "25 images" in eyes_for(images, n_all=44, seconds=0.15).why
    chosen = eyes_for(images, n_all=5_000, seconds=0.03)  # too many for more than one look at each
    assert set(chosen.scores) == {"things", "surfaces"}
    assert "30 images" in chosen.why
