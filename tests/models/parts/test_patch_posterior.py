"""The local denoiser against a loop over patches, and its limits on patches and shares."""

import itertools

import numpy as np
import pytest
import torch

from imatlas.models.parts.patch_posterior import (
    Locality,
    Sources,
    _limited,
    box_sum,
    level_scale,
    noise_levels,
    posterior,
    shares,
)

HEIGHT, WIDTH, N = 6, 7, 4


def sources(rng, *, missing=False, prior=False) -> Sources:
    pixels = rng.uniform(-1, 1, (2, HEIGHT, WIDTH, N)).astype(np.float32)
    known = (rng.random((HEIGHT, WIDTH, N)) > 0.25).astype(np.float32)
    known[..., 0] = 1
    if missing:
        pixels *= known
    log_weights = rng.normal(size=N) if prior else np.zeros(N)
    return Sources(
        torch.from_numpy(pixels),
        torch.from_numpy(known) if missing else None,
        torch.from_numpy(log_weights.astype(np.float32)),
        torch.arange(N),
        torch.arange(N),
    )


def by_loop(x, given, sigma, side, certainty=None):
    """The posterior mean and weights, pixel by pixel and image by image, in float64."""
    pixels, r = given.pixels.double().numpy(), side // 2
    known = np.ones(pixels.shape[1:]) if given.known is None else given.known.double().numpy()
    counts = known if certainty is None else known * certainty.double().numpy()[..., None]
    weights = np.zeros(pixels.shape[1:])
    for i, j in itertools.product(range(HEIGHT), range(WIDTH)):
        patch = (slice(max(0, i - r), i + r + 1), slice(max(0, j - r), j + r + 1))
        sums = counts[patch].sum((0, 1))
        logits = np.full(N, -np.inf)
        for k in range(N):
            if known[i, j, k]:
                square = np.square(x.double().numpy()[:, *patch] - pixels[:, *patch, k]).sum(0)
                distance = (square * counts[(*patch, k)]).sum() * sums.max() / max(sums[k], 1)
                logits[k] = -distance / (2 * sigma**2) + float(given.prior[k])
        weights[i, j] = np.exp(logits - logits.max())
        weights[i, j] /= weights[i, j].sum()
    return (pixels * weights).sum(-1), weights


@pytest.mark.parametrize("side", [1, 3, 5, 9, 13])
@pytest.mark.parametrize(("missing", "held", "prior"), list(itertools.product([False, True], repeat=3)))
def test_it_is_the_mean_over_patches(side, missing, held, prior, rng):
    given = sources(rng, missing=missing, prior=prior)
    x = torch.from_numpy(rng.normal(size=(2, HEIGHT, WIDTH)).astype(np.float32))
    certainty = torch.from_numpy(rng.choice([1.0, 9.0], (HEIGHT, WIDTH)).astype(np.float32)) if held else None
    mean, weights = posterior(x, given, 1.3, side, 1.0, certainty)
    expected, expected_weights = by_loop(x, given, 1.3, side, certainty)
    assert mean.expand(2, HEIGHT, WIDTH).numpy() == pytest.approx(expected, abs=1e-4)
    assert weights.expand(HEIGHT, WIDTH, N).numpy() == pytest.approx(expected_weights, abs=1e-4)


def test_a_patch_over_the_whole_image_gives_the_global_softmax(rng):
    given = sources(rng, prior=True)
    x = torch.from_numpy(rng.normal(size=(2, HEIGHT, WIDTH)).astype(np.float32))
    mean, weights = posterior(x, given, 2.0, 2 * WIDTH + 1, 1.0)
    distances = (x[..., None] - given.pixels).square().sum((0, 1, 2))
    expected = torch.softmax(-distances / 8 + given.prior, 0)
    assert weights.shape == (1, 1, N)
    assert weights.flatten().numpy() == pytest.approx(expected.numpy(), abs=1e-5)
    assert mean.numpy() == pytest.approx((given.pixels * expected).sum(-1).numpy(), abs=1e-5)


@pytest.mark.parametrize("radius", range(9))
@pytest.mark.parametrize("axis", [0, 1])
def test_box_sum_is_the_sum_of_windows(radius, axis, rng):
    values = rng.normal(size=(HEIGHT, WIDTH, 3)).astype(np.float32)
    moved = np.moveaxis(values, axis, 0)
    expected = np.stack([moved[max(0, i - radius) : i + radius + 1].sum(0) for i in range(len(moved))])
    found = box_sum(torch.from_numpy(values), radius, axis)
    assert found.shape[axis] in (1, values.shape[axis])
    assert found.expand(values.shape).numpy() == pytest.approx(np.moveaxis(expected, 0, axis), abs=1e-5)


def test_the_sum_is_not_changed_in_place(rng):
    values = torch.from_numpy(rng.normal(size=(HEIGHT, WIDTH, 3)))
    before = values.clone()
    box_sum(values, 1, 0)
    assert torch.equal(values, before)


@pytest.mark.parametrize(("max_share", "n_groups"), [(0.6, 2), (0.5, 2), (0.4, 8), (0.19, 12), (0.1, 20), (0.1, 3)])
def test_no_group_exceeds_the_largest_share(max_share, n_groups, rng):
    groups = torch.from_numpy(np.arange(3 * n_groups) % n_groups)
    logits = torch.from_numpy(rng.normal(0, 3, (9, 9, len(groups))).astype(np.float32))
    logits += torch.from_numpy((4 * rng.normal(size=n_groups)).astype(np.float32))[groups]
    before = torch.softmax(logits, -1)
    assert shares(before, groups).max() > max_share
    after = _limited(logits, before, groups, max_share)
    assert after.sum(-1).numpy() == pytest.approx(np.ones((9, 9)), abs=1e-5)
    assert shares(after, groups).max() < max(max_share, 1 / n_groups) + 0.02
    # within a group, nothing changes
    mine = groups == 0
    one, other = (w[..., mine] / w[..., mine].sum(-1, keepdim=True).clamp(min=1e-30) for w in (before, after))
    assert other.numpy() == pytest.approx(one.numpy(), abs=1e-3)


def test_shares_below_the_largest_are_left_alone(rng):
    logits = torch.from_numpy(rng.normal(size=(5, 5, 6)).astype(np.float32))
    before = torch.softmax(logits, -1)
    assert torch.equal(_limited(logits, before, torch.arange(6), 0.9), before)


def test_a_limited_share_is_used_up_where_pixels_are_missing(rng):
    """An image that is lowered gives its largest share, also if it or all others miss some pixels."""
    for alone in (False, True):
        logits = torch.from_numpy(rng.normal(size=(10, 10, 3)).astype(np.float32))
        logits[..., 0] += 5
        logits[0, :, 1:] = -1e30 if alone else logits[0, :, 1:]
        logits[1, :, 0] = -1e30
        after = _limited(logits, torch.softmax(logits, -1), torch.arange(3), 0.5)
        assert shares(after, torch.arange(3))[0] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("novelty", [0.0, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("size", [(28, 28), (64, 64), (20, 90)])
def test_patches_grow_with_the_noise_from_5_pixels_to_the_image(novelty, size):
    scale = level_scale(3 * size[0] * size[1])
    sides = [Locality.of(novelty).side(sigma, *size, scale) for sigma in reversed(noise_levels(40, 80 * scale)[:-1])]
    assert sides == sorted(sides)
    assert all(side % 2 for side in sides)
    assert sides[0] == 5
    assert Locality.of(novelty).side(1e4, *size, scale) >= 2 * max(size) - 1


def test_novelty_shrinks_patches_and_shares():
    low, high = Locality.of(0.2), Locality.of(0.9)
    assert low.side(3.0, 64, 64, 1.0) > high.side(3.0, 64, 64, 1.0)
    assert low.max_share > high.max_share
    assert Locality.of(0.0).max_share == 1


def test_noise_levels_fall_to_zero():
    levels = noise_levels(16, 80.0)
    assert len(levels) == 17
    assert levels == sorted(levels, reverse=True)
    assert levels[0] == pytest.approx(80.0)
    assert levels[-2:] == pytest.approx([0.02, 0.0])
