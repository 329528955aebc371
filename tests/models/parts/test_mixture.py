"""The mixture over latent vectors, and the models that sample from it."""

import numpy as np
import pytest

from imatlas import VAE, Autoencoder
from imatlas.errors import InputError, ParameterError
from imatlas.models.parts.mixture import fit_mixture
from imatlas.testing import synthetic_images

QUIET = {"progress": False, "precision": "fp32"}


@pytest.fixture
def clouds(rng):
    """Two clouds of vectors, with a label and a condition vector for each."""
    z = np.concatenate([rng.normal(-5, 1, (300, 2)), rng.normal(5, 0.5, (100, 2))]).astype(np.float32)
    labels = np.repeat([0, 1], [300, 100])
    return z, labels, np.where(labels[:, None] == 0, [[1.0, 0.0]], [[0.0, 3.0]]).astype(np.float32)


def test_it_finds_two_clouds(clouds):
    mixture = fit_mixture(clouds[0], None, 0, n_components=2)
    order = np.argsort(mixture.means[:, 0])
    assert mixture.weights[order] == pytest.approx([0.75, 0.25])
    assert mixture.means[order] == pytest.approx(np.array([[-5, -5], [5, 5]]), abs=0.3)
    # 100 vectors against 2 of shrinkage
    own = mixture.factors[order[1]] @ mixture.factors[order[1]].T
    assert own == pytest.approx(0.25 * np.eye(2), abs=0.1)


def test_samples_have_the_moments_of_the_vectors(rng):
    z = rng.normal(size=(4000, 3)) @ np.array([[2.0, 0, 0], [1, 1, 0], [0, 0.5, 0.1]]) + [1, 2, 3]
    mixture = fit_mixture(z.astype(np.float32), None, 0)
    assert len(mixture.weights) == 4000 // 60
    drawn = mixture.draw(rng.normal(size=(20_000, 3)).astype(np.float32), rng.random(20_000))
    assert drawn.mean(0) == pytest.approx(z.mean(0), abs=0.1)
    # shrinkage to the pooled covariance adds a little variance
    assert np.trace(np.cov(drawn.T)) == pytest.approx(np.trace(np.cov(z.T)), rel=0.08)


@pytest.mark.parametrize("kind", ["labels", "vectors"])
def test_samples_follow_their_conditions(clouds, kind, rng):
    z, labels, vectors = clouds
    cond = labels if kind == "labels" else vectors
    mixture = fit_mixture(z, cond, 0)
    noise, level = rng.normal(size=(200, 2)), rng.random(200)
    for which, sign in ((0, -1), (-1, 1)):
        drawn = mixture.draw(noise, level, np.repeat(cond[which][None], 200, axis=0))
        assert (np.sign(drawn) == sign).all()
    free = mixture.draw(noise, level)
    assert 0.1 < (free[:, 0] > 0).mean() < 0.4
    if kind == "vectors":
        near = mixture.draw(noise, level, np.repeat(vectors[:1] + 0.3, 200, axis=0))
        assert (near < 0).all()


def test_vectors_that_never_repeat_are_conditions_too(rng):
    """Conditioned on a position along a line, samples are at that position."""
    place = rng.uniform(-10, 10, 3000).astype(np.float32)
    z = np.stack([place, rng.normal(0, 0.1, 3000)], axis=1).astype(np.float32)
    mixture = fit_mixture(z, place[:, None], 0)
    for asked in (-8, 0, 5):
        drawn = mixture.draw(rng.normal(size=(300, 2)), rng.random(300), np.full((300, 1), asked, np.float32))
        assert abs(np.median(drawn[:, 0]) - asked) < 0.5
        assert drawn[:, 0].std() < 1


def test_single_images_and_constant_vectors_can_be_fitted():
    z = np.zeros((5, 3), np.float32)
    mixture = fit_mixture(z, np.array([0, 0, 0, 0, 1]), 0)
    drawn = mixture.draw(np.ones((2, 3)), np.array([0.2, 0.9999999]), np.array([0, 1]))
    assert np.abs(drawn).max() < 1e-3


def test_variations_stay_in_their_gaussian(clouds, rng):
    mixture = fit_mixture(clouds[0], None, 0, n_components=2)
    z = clouds[0][:50]
    noise = rng.normal(size=z.shape)
    assert mixture.vary(z, 0.0, noise) == pytest.approx(z, abs=1e-5)
    little, much = (np.abs(mixture.vary(z, s, noise) - z).mean() for s in (0.2, 1.0))
    assert 0 < little < much
    assert (mixture.vary(z, 1.0, noise) < 0).all()


def test_its_axes_are_those_of_the_vectors(rng):
    z = rng.normal(size=(3000, 3)) * [5.0, 1.0, 0.2] + [1, 2, 3]
    mean, axes = fit_mixture(z.astype(np.float32), None, 0).axes()
    assert mean == pytest.approx([1, 2, 3], abs=0.3)
    assert np.abs(axes) == pytest.approx(np.diag([5.0, 1.0, 0.2]), rel=0.1, abs=0.3)


@pytest.mark.parametrize("cls", [Autoencoder, VAE])
def test_samples_of_a_model_follow_their_labels(cls, two_kinds):
    images, y = two_kinds
    model = cls(latent_dim=4, size="small", max_steps=150, **QUIET).fit(images, y)
    dark, bright = (model.sample(20, y=label, random_state=0).mean((1, 2, 3)) for label in (3, 7))
    assert dark.max() < 128 < bright.min()
    free = model.sample(80, random_state=0).mean((1, 2, 3)) > 128
    assert 0.3 < free.mean() < 0.7
    with pytest.raises(InputError, match="must be one label"):
        model.sample(2, y=5)
    row = model.sliders(images[:1], n_directions=2, n_steps=5)
    assert row.shape == (2, 5, 8, 8, 1)
    brightness = row[0].mean((1, 2, 3))
    assert abs(brightness[0] - brightness[-1]) > 60
    frames = model.morph(7, y=[3, 7], random_state=0).mean((1, 2, 3))
    assert frames[0] < 100 < 160 < frames[-1]
    way = model.morph(5, images=images[[0, -1]])
    np.testing.assert_array_equal(way[[0, -1]], model.inverse_transform(model.transform(images[[0, -1]])))
    near = model.vary(images[:4], strength=0.5, y=np.full(4, 7), random_state=0)
    assert near.shape == (4, 8, 8, 1)
    with pytest.raises(ParameterError, match="strength"):
        model.vary(images[:4], strength=1.5)


def test_the_prior_can_be_fitted_again(two_kinds, tmp_path):
    images, y = two_kinds
    model = Autoencoder(latent_dim=4, size="small", max_steps=60, **QUIET).fit(images)
    before = model.transform(images)
    with pytest.raises(InputError, match="without conditions"):
        model.sample(2, y=3)
    model.fit_prior(images, y)
    np.testing.assert_array_equal(model.transform(images), before)
    assert (model.sample(20, y=7, random_state=0).mean((1, 2, 3)) > 128).all()
    model.save(tmp_path / "m")
    from imatlas import load

    np.testing.assert_array_equal(load(tmp_path / "m").sample(3, y=7), model.sample(3, y=7))


def test_a_mixture_is_nearer_to_the_codes_than_a_standard_normal():
    """Codes of a VAE with a low beta are far from normal, and so are its samples from a normal prior."""
    images = synthetic_images(200, size=8)
    drawn = {}
    for prior in ("mixture", "normal"):
        model = VAE(latent_dim=4, beta=0.01, prior=prior, max_steps=200, size="small", **QUIET).fit(images)
        drawn[prior] = model.transform(model.sample(200, random_state=0))
    codes = model.transform(images)
    far = {prior: np.abs(np.cov(z.T) - np.cov(codes.T)).mean() for prior, z in drawn.items()}
    assert far["mixture"] < far["normal"]
