"""Half-disc differences on steps and ramps, and χ² distances against a direct computation."""

import math

import pytest
import torch

from imatlas.models.parts.half_discs import (
    N_DIRECTIONS,
    directional,
    gaussian,
    half_disc_differences,
    halved,
    histogram_distances,
    structure_tensor,
)


def test_a_vertical_step_differs_most_across_the_vertical_direction():
    step = torch.zeros(1, 21, 21)
    step[:, :, 10:] = 1
    differences = half_disc_differences(step, 3)[0, :, 10, 10].abs()
    assert int(differences.argmax()) == N_DIRECTIONS // 2
    # Along the step, the halves see it alike.
    assert float(differences[0]) < 1e-5
    assert float(half_disc_differences(step, 3)[:, :, :, 3].abs().max()) < 1e-5


def test_a_ramp_differs_by_the_distance_of_the_centroids():
    ramp = torch.arange(31.0).expand(31, 31)[None]
    radius = 5
    across = half_disc_differences(ramp, radius)[0, N_DIRECTIONS // 2, 15, 15].abs()
    assert float(across) == pytest.approx(2 * 4 * (radius + 0.3) / (3 * math.pi), rel=0.02)


def test_opposite_histograms_have_distance_near_1_and_equal_ones_0():
    histograms = torch.zeros(5, 40, 40)
    histograms[0, :, :20] = histograms[1, :, 20:] = 1  # first histogram: changes at column 20
    histograms[2:] = 1 / 3  # second histogram: uniform
    distances = histogram_distances(histograms, (2, 3), 5)
    assert distances.shape == (2, N_DIRECTIONS, 40, 40)
    assert float(distances[0, N_DIRECTIONS // 2, 20, 19:21].max()) > 0.6
    assert float(distances[0, 0, 20, 20]) < 0.01
    assert float(distances[1].abs().max()) < 1e-3


def test_distances_are_the_same_in_bands(monkeypatch):
    histograms = torch.rand(6, 33, 17, generator=torch.Generator().manual_seed(0))
    histograms[:4] /= histograms[:4].sum(0)
    histograms[4:] /= histograms[4:].sum(0)
    whole = histogram_distances(histograms, (4, 2), 2.5)
    monkeypatch.setattr("imatlas.models.parts.half_discs.BAND_SIZE", 6 * 17 * 5)
    torch.testing.assert_close(histogram_distances(histograms, (4, 2), 2.5), whole)


def test_distances_turn_with_the_image():
    histograms = torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(1))
    histograms /= histograms.sum(0)
    distances = histogram_distances(histograms, (3,), 2.5)[0]
    turned = histogram_distances(histograms.flip(2), (3,), 2.5)[0].flip(2)
    # A mirrored image has direction π - θ in place of θ.
    mirrored = [-i % N_DIRECTIONS for i in range(N_DIRECTIONS)]
    torch.testing.assert_close(distances, turned[mirrored], atol=2e-5, rtol=0)


def test_halved_means_and_gaussian_keeps_constants():
    maps = torch.arange(15.0).reshape(1, 3, 5)
    assert halved(maps)[0].tolist() == [[3, 5, 6.5], [10.5, 12.5, 14]]
    torch.testing.assert_close(gaussian(torch.full((2, 3, 1), 7.0), 1.5), torch.full((2, 3, 1), 7.0))


def test_structure_tensor_of_ramps_is_exact():
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(30.0), indexing="ij")
    tensor = structure_tensor(torch.stack([2 * x + y, 3 * y]))
    inside = tensor[:, 3:-3, 3:-3]
    torch.testing.assert_close(inside, torch.tensor([4.0, 2, 10])[:, None, None].expand_as(inside), atol=1e-3, rtol=0)


def test_gradients_across_directions_are_those_of_a_ramp():
    y, x = torch.meshgrid(torch.arange(15.0), torch.arange(15.0), indexing="ij")
    angle = 3 * math.pi / N_DIRECTIONS  # of the lines of equal value
    ramp = 5 * (y * math.cos(angle) - x * math.sin(angle))
    found = directional(structure_tensor(ramp[None]))[:, 7, 7]
    expected = [abs(5 * math.cos(angle - i * math.pi / N_DIRECTIONS)) for i in range(N_DIRECTIONS)]
    torch.testing.assert_close(found, torch.tensor(expected), atol=2e-3, rtol=0)
