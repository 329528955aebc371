"""Eyes are chosen by how clearly images fall into groups, without a label."""

from __future__ import annotations

import numpy as np
import pytest

from imatlas.images.dataset import Images
from imatlas.models.image_clusterer import propose_n_clusters
from imatlas.tasks.embed import EYES, choose_eyes
from imatlas.testing import synthetic_images

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_best_score_wins_and_is_what_its_features_give() -> None:
    images = Images(synthetic_images(60, size=32, channels=3))
    chosen = choose_eyes(images, image_size=32, n_images=40)
    assert list(chosen.scores) == list(EYES)
    assert chosen.scores[chosen.name] == max(chosen.scores.values())
    assert chosen.name in chosen.why
    assert "40 images" in chosen.why
    rows = np.sort(np.random.default_rng(0).permutation(60)[:40])
    features = chosen.encoder.fit_transform(images[rows])
    assert max(propose_n_clusters(features).modularities) == chosen.scores[chosen.name]
