"""Boundary cues: sizes, the logistic function of them, and where boundaries are found."""

import numpy as np
import pytest
import torch

from imatlas.models.parts.boundary_cues import (
    CUES,
    INTERCEPTS,
    N_FULL_SIZE,
    boundary_cues,
    boundary_probability,
    first_block,
    full_size,
    image_features,
)
from imatlas.models.parts.half_discs import N_DIRECTIONS


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (33, 1), (47, 64)])
def test_cues_of_any_size(size, rng):
    coarse, fine = boundary_cues(image_features(rng.random((*size, 3), np.float32)))
    assert coarse.shape == (len(CUES) - N_FULL_SIZE, N_DIRECTIONS, -(-size[0] // 2), -(-size[1] // 2))
    assert fine.shape == (N_FULL_SIZE, N_DIRECTIONS, *size)
    assert coarse.isfinite().all()
    assert fine.isfinite().all()


@pytest.mark.parametrize("gray", [False, True])
def test_probability_is_the_logistic_function_of_the_cues(rng, gray):
    image = rng.random((31, 44, 3), np.float32)
    features = image_features(np.repeat(image[..., :1], 3, axis=2) if gray else image)
    assert features.is_gray == gray
    coarse, fine = boundary_cues(features)
    cues = torch.cat([torch.stack([full_size(cue, (31, 44)) for cue in coarse]), fine]).double().numpy()
    weights = np.array(list(CUES.values()))[:, int(gray)]
    logits = np.tensordot(weights, cues, 1).max(axis=0) + INTERCEPTS[gray]
    np.testing.assert_allclose(boundary_probability(features), 1 / (1 + np.exp(-logits)), atol=1e-5)


@pytest.mark.parametrize("column", [30, 31])
def test_the_ridge_of_a_step_is_at_the_step(column):
    """Within a pixel, whether or not the half size divides it."""
    image = np.full((48, 64, 3), 0.3, np.float32)
    image[:, column:] = 0.6
    probability = boundary_probability(image_features(image))[10:-10]
    assert set(np.unique(probability[:, 8:-8].argmax(axis=1) + 8)) <= {column - 1, column}
    assert probability[:, column].min() > 3 * probability[:, [column - 8, column + 8]].max()


def test_first_block_moves_with_the_image_by_single_pixels(rng):
    image = rng.random((40, 48, 3), np.float32)
    moved = np.roll(image, (1, 1), axis=(0, 1))
    a, b = first_block(image)[:, 8:-8, 8:-8], first_block(moved)[:, 9:-7, 9:-7]
    torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
