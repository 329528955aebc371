"""How odd each image is: the distance to its nearest neighbours, in the set's own measure."""

from __future__ import annotations

import numpy as np
import torch

from imatlas.nearest import as_tensor, k_nearest

NEIGHBORS = 10
MOST_REFERENCES = 8192
"""Images that neighbours are sought among; a random sample where the set is larger, so that time stays linear."""


def outlier_scores(embedding: np.ndarray, *, n_neighbors: int = NEIGHBORS, random_state: int = 0) -> np.ndarray:
    """Mean distance of each image to its nearest neighbours (Angiulli & Pizzuti 2002), over the median in the set.

    1 is ordinary, 2 is twice as far from its neighbours as usual; an image with `n_neighbors` exact doubles has 0.
    Where there are more than 8,192 images, neighbours are sought in a random sample of them.

    Parameters
    ----------
    embedding : ndarray (n_samples, n_features)
    n_neighbors : int
        Fewer where the set is smaller.
    random_state : int
        Seed of the sample.

    Returns
    -------
    ndarray (n_samples,) float32
        At least 0; all 1 for a single image.
    """
    n = len(embedding)
    if n < 2:
        return np.ones(n, dtype=np.float32)
    data = as_tensor(embedding)
    own = torch.arange(n)
    references = data
    if n > MOST_REFERENCES:
        chosen = np.sort(np.random.default_rng(random_state).choice(n, MOST_REFERENCES, replace=False))
        references = data[torch.from_numpy(chosen)]
        own = torch.full((n,), -1)
        own[chosen] = torch.arange(len(chosen))
    k = min(n_neighbors, len(references) - 1)
    _, squared = k_nearest(references, data, k, exclude_self=own)
    mean = squared.sqrt_().mean(1).double().numpy()
    usual = np.median(mean)
    if usual <= 0:  # most images are doubles: the others are measured by their own mean
        usual = mean.mean() or 1.0
    return (mean / usual).astype(np.float32)
