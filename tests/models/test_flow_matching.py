"""Flow matching: samples, conditions, and its autoencoder."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline

from imatlas import VAE, Autoencoder, FlowMatching, SelfSupervisedEncoder
from imatlas.errors import InputError, ParameterError, TrainingError
from imatlas.models import artifact
from imatlas.models.parts.principal_axes import MIN_DEVIATION, principal_axes, to_points
from imatlas.nn import solvers
from imatlas.nn.velocity import gaussian_velocity, optimal_coupling
from imatlas.testing import check_image_estimator, synthetic_images

QUIET = {"progress": False, "precision": "fp32"}


def tiny(**changes):
    autoencoder = Autoencoder(latent_dim=4, size="small", max_steps=60, **QUIET)
    plain = {"autoencoder": autoencoder, "size": "small", "max_steps": 40, "batch_size": 32, "n_steps": 4, **QUIET}
    return FlowMatching(**{**plain, **changes})


@pytest.fixture(scope="module")
def conditional(two_kinds):
    images, y = two_kinds
    return tiny(max_steps=500).fit(images, y)


def test_it_keeps_the_contract_in_pixels():
    check_image_estimator(FlowMatching(autoencoder=None, size="small", max_steps=3, n_steps=2, batch_size=16, **QUIET))


def test_results_do_not_depend_on_the_batch_for_long_vectors(two_kinds):
    images = two_kinds[0].astype(np.float32) / 255  # floats show differences in the last bit
    vectors = Autoencoder(latent_dim=128, size="small", max_steps=3, **QUIET)
    model = FlowMatching(autoencoder=vectors, size="small", max_steps=3, n_steps=2, **QUIET).fit(images)
    many, points = model.sample(5, random_state=0), model.transform(images[:5])
    for k in (1, 2, 5):
        assert np.array_equal(model.sample(k, random_state=0), many[:k])
        assert np.array_equal(model.transform(images[:k]), points[:k])


def test_samples_follow_their_labels(conditional):
    dark, bright = (conditional.sample(20, y=label, random_state=0).mean((1, 2, 3)) for label in (3, 7))
    assert dark.max() < 128 < bright.min()
    mixed = conditional.sample(4, y=[3, 7, 7, 3], random_state=0).mean((1, 2, 3))
    np.testing.assert_array_equal(mixed > 128, [False, True, True, False])


def test_unconditional_samples_are_of_both_kinds(conditional):
    bright = conditional.sample(60, random_state=1).mean((1, 2, 3)) > 128
    assert 0.15 < bright.mean() < 0.85


@pytest.fixture(scope="module")
def with_shortcuts(two_kinds):
    images, y = two_kinds
    return tiny(max_steps=500, solver="shortcut").fit(images, y)


@pytest.mark.parametrize("n_steps", [1, 2, 4])
def test_shortcuts_are_close_in_few_steps(with_shortcuts, n_steps):
    slow = with_shortcuts.sample(30, y=7, solver="heun", random_state=0).astype(float)
    quick = with_shortcuts.sample(30, y=7, n_steps=n_steps, random_state=0).astype(float)
    assert np.abs(quick.mean() - slow.mean()) < 25
    other = with_shortcuts.sample(30, y=3, solver="heun", random_state=0).astype(float)
    assert np.abs(quick - slow).mean() < np.abs(quick - other).mean() / 2


def test_shortcuts_are_learned_on_request(conditional, with_shortcuts, tmp_path):
    assert "shortcuts" in with_shortcuts.history_
    assert "shortcuts" not in conditional.history_
    assert artifact.load(with_shortcuts.save(tmp_path / "model")).has_shortcuts_
    with pytest.raises(ParameterError, match="fit it with solver='shortcut'"):
        conditional.sample(2, y=3, solver="shortcut")


def test_every_solver_agrees_on_the_same_noise(conditional):
    fine = conditional.sample(8, y=3, solver="heun", n_steps=40, random_state=0).astype(float)
    for options in ({"solver": "euler", "n_steps": 60}, {"solver": "adaptive"}):
        assert np.abs(conditional.sample(8, y=3, random_state=0, **options) - fine).mean() < 4


def test_samples_follow_their_vectors(two_kinds):
    images, y = two_kinds
    vectors = np.stack([y / 7, np.zeros(len(y))], axis=1)
    model = tiny(max_steps=250).fit(images, vectors)
    assert model.sample(9, y=[3 / 7, 0], random_state=0).mean() < 110 < 145 < model.sample(9, y=[1, 0]).mean()
    with pytest.raises(InputError, match="vector of length 2"):
        model.sample(3, y=[1.0, 0.0, 0.0])


def test_invalid_conditions_are_refused(conditional, two_kinds):
    images, y = two_kinds
    with pytest.raises(InputError, match=r"fitted with \(3 to 7\)"):
        conditional.sample(3, y=5)
    with pytest.raises(InputError, match="one label or one vector for each of the 120 images"):
        tiny().fit(images, y[:-1])
    with pytest.raises(InputError, match="all text or all numbers"):
        tiny().fit(images, np.array(["a", None] * 60, object))
    with pytest.raises(InputError, match="finite"):
        tiny().fit(images, np.full(120, np.nan))
    with pytest.raises(InputError, match="finite"):
        tiny().fit(images, np.full((120, 2), np.nan))
    with pytest.raises(InputError, match="fitted without conditions"):
        tiny(max_steps=2).fit(images).sample(1, y=3)


def test_transform_and_inverse_transform_are_inverse(conditional, two_kinds):
    images, y = two_kinds
    noise = conditional.transform(images[:10], y=y[:10])
    assert noise.shape == (10, 4)
    rebuilt = conditional.autoencoder_.inverse_transform(conditional.autoencoder_.transform(images[:10])).astype(float)
    assert np.abs(conditional.inverse_transform(noise, y=y[:10]) - rebuilt).mean() < 6


def test_a_morph_passes_through_its_images(two_kinds):

    images, y = two_kinds
    model = tiny(max_steps=150).fit(images, y[:, None].astype(np.float32))
    keys, cond = images[[0, 119]], y[[0, 119], None]
    frames = model.morph(9, images=keys, y=cond).astype(float)
    rebuilt = model.autoencoder_.inverse_transform(model.autoencoder_.transform(keys))
    assert np.abs(frames[[0, -1]] - rebuilt).mean() < 6
    assert np.all(np.diff(frames.mean((1, 2, 3))) > -8)
    walk = model.morph(9, y=cond, random_state=3).mean((1, 2, 3))
    assert walk[0] < 128 < walk[-1]


def test_variations_stay_near_when_weak(conditional, two_kinds):
    images, _ = two_kinds
    rebuilt = conditional.autoencoder_.inverse_transform(conditional.autoencoder_.transform(images[:20]))
    np.testing.assert_array_equal(conditional.vary(images[:20], strength=0.0), rebuilt)
    weak, strong = (
        np.abs(conditional.vary(images[:20], strength=s) - rebuilt.astype(float)).mean() for s in (0.1, 1.0)
    )
    assert weak < strong
    with pytest.raises(ParameterError, match="strength"):
        conditional.vary(images[:2], strength=1.5)


def test_a_fitted_autoencoder_is_used_unchanged_and_saved_once(two_kinds, tmp_path):
    images, _ = two_kinds
    given = Autoencoder(latent_dim=4, size="small", max_steps=5, **QUIET).fit(images)
    before = {k: v.clone() for k, v in given.module_.state_dict().items()}
    model = tiny(autoencoder=given, max_steps=5).fit(images)
    assert model.autoencoder_ is given
    assert all(torch.equal(v, before[k]) for k, v in given.module_.state_dict().items())
    loaded = artifact.load(model.save(tmp_path / "model"))
    assert loaded.autoencoder_ is loaded.autoencoder
    np.testing.assert_array_equal(loaded.sample(3), model.sample(3))


def test_an_unfitted_autoencoder_is_cloned_and_fitted(two_kinds):
    images, _ = two_kinds
    given = VAE(latent_dim=3, size="small", max_steps=5, **QUIET)
    model = tiny(autoencoder=given, max_steps=5).fit(images)
    assert not given.__sklearn_is_fitted__()
    assert isinstance(model.autoencoder_, VAE)
    assert model.autoencoder_.n_steps_ == 5
    named = tiny(autoencoder="vae", max_steps=3).fit(images)
    assert isinstance(named.autoencoder_, VAE)


def test_other_models_than_autoencoders_are_refused(two_kinds):
    images, _ = two_kinds
    with pytest.raises(ParameterError, match="must be an Autoencoder, a VAE"):
        tiny(autoencoder="kmeans").fit(images)
    other = Autoencoder(latent_dim=4, size="small", max_steps=2, **QUIET).fit(synthetic_images(12, size=16))
    with pytest.raises(InputError, match=r"fitted to images of shape \(16, 16, 1\)"):
        tiny(autoencoder=other).fit(images)


def test_the_budget_is_split_and_replayed(two_kinds):
    images, _ = two_kinds
    autoencoder = Autoencoder(latent_dim=4, size="small", **QUIET)
    model = tiny(autoencoder=autoencoder, max_steps=None, budget=3.0).fit(images)
    assert model.autoencoder_.budget == pytest.approx(0.6 * 3.0)
    assert {entry.get("of") for entry in model.decisions_} == {"autoencoder", None}
    again = tiny(autoencoder=autoencoder, max_steps=None, budget=3.0).fit(images, replay=model.decisions_)
    np.testing.assert_array_equal(again.sample(4), model.sample(4))


class Killed(Exception):
    pass


def test_killed_and_resumed_is_bit_equal_to_uninterrupted(two_kinds, tmp_path, monkeypatch):
    from imatlas.training import checkpoints, loop

    images, y = two_kinds
    monkeypatch.setattr(loop, "SNAPSHOT", 10)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    whole = tiny().fit(images, y)
    real, writes = checkpoints.write, []

    def write(folder, tensors, values):
        real(folder, tensors, values)
        writes.append((folder, values["state"]["step"]))
        if folder == tmp_path and values["state"]["step"] == 20:
            raise Killed

    monkeypatch.setattr(checkpoints, "write", write)
    with pytest.raises(Killed):
        tiny().fit(images, y, checkpoint=tmp_path)
    monkeypatch.setattr(checkpoints, "write", real)
    resumed = tiny().fit(images, y, checkpoint=tmp_path)
    np.testing.assert_array_equal(resumed.sample(5, y=3), whole.sample(5, y=3))


def test_a_loss_that_is_never_finite_is_an_error(two_kinds, monkeypatch):
    images, _ = two_kinds
    given = Autoencoder(latent_dim=4, size="small", max_steps=5, **QUIET).fit(images)
    monkeypatch.setattr(
        FlowMatching, "_losses", lambda *_: iter([("adam", torch.full((), torch.nan, requires_grad=True), {})])
    )
    with pytest.raises(TrainingError):
        tiny(autoencoder=given).fit(images)


def test_the_optimal_coupling_pairs_the_nearest():
    x1 = torch.tensor([[0.0], [10.0], [20.0]])
    x0 = torch.tensor([[19.0], [1.0], [11.0]])
    assert optimal_coupling(x0, x1).tolist() == [1, 2, 0]


def test_points_keep_the_shares_of_variance_and_are_invertible():
    rng = np.random.default_rng(0)
    z = (rng.normal(size=(500, 6)) @ rng.normal(size=(6, 6)) + 5).astype(np.float32)
    z[:, 3] = z[:, 0]  # rank 1 below the number of dimensions
    mean, axes, deviations = principal_axes(z)
    points = to_points(z, mean, axes)
    np.testing.assert_allclose(mean + points @ axes, z, atol=1e-2)
    np.testing.assert_allclose(np.cov(points[:, 1:].T, bias=True), np.diag(deviations[1:] ** 2), atol=1e-3)
    assert deviations[0] == np.float32(MIN_DEVIATION)
    np.testing.assert_allclose(points.var(0).sum() / 6, 1, atol=0.01)
    lengths = np.linalg.norm(axes, axis=1)
    clear = deviations > MIN_DEVIATION
    np.testing.assert_allclose(lengths[clear], lengths[-1], rtol=1e-5)


def test_an_untrained_flow_over_points_gives_normal_ones_of_their_deviations():
    deviations = torch.tensor([0.3, 1.0, 2.0])
    x = torch.randn((4000, 3, 1, 1), generator=torch.Generator().manual_seed(0))
    right = x * deviations[:, None, None]
    end = solvers.heun(lambda x, t: gaussian_velocity(x, t, torch.zeros_like(t), deviations), x, 0.0, 1.0, 100)
    torch.testing.assert_close(end, right, rtol=5e-3, atol=5e-3)
    for n_steps in (1, 2, 4):
        d = torch.full((len(x),), 1 / n_steps)
        end = solvers.euler(lambda x, t, d=d: gaussian_velocity(x, t, d, deviations), x, 0.0, 1.0, n_steps)
        torch.testing.assert_close(end, right, rtol=1e-4, atol=1e-4)


def test_without_max_steps_training_ends_once_the_held_out_loss_gets_worse():
    images = synthetic_images(60, size=16, random_state=0)
    vectors = Autoencoder(latent_dim=16, size="small", max_steps=60, **QUIET).fit(images)
    model = tiny(autoencoder=vectors, max_steps=None).fit(images)
    decision = model.decisions_[-1]
    assert decision["decision"] == "schedule"
    assert decision["decay_start"] == decision["step"] < decision["max_steps"] == model.n_steps_ < 1000
    again = tiny(autoencoder=vectors, max_steps=None).fit(images, replay=model.decisions_)
    np.testing.assert_array_equal(again.sample(4), model.sample(4))


def test_labels_may_be_strings_and_floats_are_vectors_of_length_one(two_kinds, tmp_path):
    images, y = two_kinds
    words = np.where(y == 3, "dark", "light")
    for given in (words, words.astype(object), list(words), pd.Series(words, dtype="category")):
        model = tiny(max_steps=2).fit(images, given)
        assert model.classes_.tolist() == ["dark", "light"]
    model.save(tmp_path / "m")
    again = artifact.load(tmp_path / "m")
    for asked in ("light", ["dark", "light", "light"], np.array(["dark", "light", "light"], object)):
        same = [of.sample(3, y=asked, random_state=0) for of in (again, model)]
        np.testing.assert_array_equal(*same)
    numbered, worded = (tiny(max_steps=30).fit(images, given) for given in (y, words))
    np.testing.assert_array_equal(numbered.sample(4, y=7), worded.sample(4, y="light"))
    assert not np.array_equal(worded.sample(4, y="dark"), worded.sample(4, y="light"))
    for wrong in ("green", 1, ["dark", "light"]):
        with pytest.raises(InputError, match=r"fitted with \(dark to light\)"):
            again.sample(3, y=wrong)
    assert model.sample(0).shape == (0, *images.shape[1:])
    numbers = tiny(max_steps=2).fit(images, y / 2)
    assert numbers.condition_range_.shape == (2, 1)
    np.testing.assert_array_equal(numbers.sample(3, y=1.5), numbers.sample(3, y=[1.5, 1.5, 1.5]))
    with pytest.raises(InputError, match="vector of length 1"):
        numbers.sample(3, y=[1.0, 2.0])


@pytest.mark.parametrize("first", [FlowMatching, Autoencoder, VAE, SelfSupervisedEncoder])
def test_image_models_can_be_the_first_step_of_a_pipeline(first, two_kinds):
    images, y = two_kinds
    model = first(max_steps=2, progress=False)
    for last, target in ((LogisticRegression(), np.where(y == 3, "a", "b")), (Ridge(), y / 2)):
        pipe = make_pipeline(clone(model), last).fit(images[::3], target[::3])
        assert len(pipe.predict(images[:3])) == 3
