"""Choose what of the pretrained eyes to use for a set of images, by a score that needs no label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from imatlas.images.dataset import Images
from imatlas.models.image_clusterer import propose_n_clusters
from imatlas.models.pretrained import PretrainedEncoder

EYES: dict[str, dict[str, Any]] = {
    "things": {"views": 3},
    "surfaces": {"layers": "many"},
    "surfaces without an up": {"layers": "many", "turned": True},
}
"""What to look at, and the parameters of `PretrainedEncoder` for it."""

N_COMPONENTS, WHITEN = 128, 0.5
"""Principal components of the features, and how far they are brought to one spread."""

N_IMAGES = 1000
"""Images that the eyes are compared on."""


@dataclass(frozen=True)
class ChosenEyes:
    """The eyes that suit a set of images.

    Attributes
    ----------
    encoder : PretrainedEncoder
        Not fitted.
    name : str
        Of `EYES`.
    scores : dict
        The modularity that each reached.
    why : str
        The reason in words.
    """

    encoder: PretrainedEncoder
    name: str
    scores: dict[str, float]
    why: str


def choose_eyes(
    images: Images, *, image_size: int = 224, device: str = "auto", n_images: int = N_IMAGES, random_state: int = 0
) -> ChosenEyes:
    """Choose the eyes in whose features the images fall most clearly into groups.

    Each describes at most `n_images` images, drawn at random. The score is the modularity of the best grouping of their
    neighbour graph (`imatlas.models.image_clusterer.propose_n_clusters`): how much fewer neighbours it cuts apart than
    chance would. Each image of the sample is looked at 8 times.

    Parameters
    ----------
    images : Images
    image_size : int
        Height and width at which the network sees the images.
    device : str
    n_images : int
    random_state : int
    """
    rows = np.sort(np.random.default_rng(random_state).permutation(len(images))[:n_images])
    some = images[rows]
    encoders = {
        name: PretrainedEncoder(
            n_components=N_COMPONENTS,
            whiten=WHITEN,
            image_size=image_size,
            device=device,
            random_state=random_state,
            **options,
        )
        for name, options in EYES.items()
    }
    scores = {
        name: max(propose_n_clusters(encoder.fit_transform(some), random_state=random_state).modularities)
        for name, encoder in encoders.items()
    }
    name = max(scores, key=lambda name: scores[name])
    told = ", ".join(f"{other} {score:.3f}" for other, score in scores.items())
    why = f"eyes for {name}: {len(rows):,} images fall most clearly into groups by them (modularity: {told})"
    return ChosenEyes(encoders[name], name, scores, why)
