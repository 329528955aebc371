"""Scoring a generator: memorization and mode collapse are named, good ones pass, too few images are reported."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

import imatlas as ia
from imatlas.errors import InputError
from imatlas.images.spec import ImageSpec
from imatlas.result import Result
from imatlas.tasks.score import score, score_model
from imatlas.testing import synthetic_images

pytestmark = pytest.mark.usefixtures("one_thread")


@dataclass
class Planted:
    """A generator whose images are known."""

    images: np.ndarray

    def sample(self, n_samples: int, *, random_state: int) -> np.ndarray:
        return self.images[np.resize(np.random.default_rng(random_state).permutation(len(self.images)), n_samples)]


def score_of(images: np.ndarray, train: np.ndarray, held_out: np.ndarray, n_features: int = 24) -> Result:
    """The score of a generator of `images`, in features that are random projections of the pixels."""
    axes = np.random.default_rng(9).standard_normal((train[0].size, n_features)) / 28
    return score(
        Planted(images),
        train,
        held_out,
        spec=ImageSpec(28, 28, 1),
        embed=lambda pixels: (pixels.reshape(len(pixels), -1) / 255 @ axes).astype(np.float32),
        encoder="random projections",
    )


@pytest.fixture(scope="module")
def fashion_sets(fashion) -> dict[str, np.ndarray]:
    pixels = fashion[0][..., None]
    return {"train": pixels[:4000], "held_out": pixels[4000:4600], "fresh": pixels[5000:6000]}


def noisy(images: np.ndarray, deviation: float) -> np.ndarray:
    noise = np.random.default_rng(1).normal(0, deviation, images.shape)
    return np.clip(images + noise, 0, 255).astype(np.uint8)


def test_unseen_real_images_pass(fashion_sets):
    result = score_of(fashion_sets["fresh"], fashion_sets["train"], fashion_sets["held_out"])
    text, numbers = " ".join(result.sentences), result.metrics
    assert "No sign of memorization" in text
    assert "which is close." in text
    assert abs(numbers["c_t"]) < 2
    for name in ("precision", "recall", "coverage", "density"):
        assert numbers[name] == pytest.approx(numbers[f"{name}_real"], abs=0.1)
    assert numbers["frechet_distance"] < 3 * numbers["frechet_floor"]
    assert abs(numbers["kernel_distance"]) < 4 * numbers["kernel_deviation"]
    assert "Not measured" not in text
    assert "600 held-out and 4,000 training images at 28 x 28; 600 new images; distances between 24" in result.protocol


def test_memorization_is_found(fashion_sets):
    result = score_of(noisy(fashion_sets["train"][:800], 2), fashion_sets["train"], fashion_sets["held_out"])
    assert result.metrics["c_t"] < -6
    assert result.metrics["near_copies"] > 0.9
    assert any(s.startswith("Memorization: ") and "C_T" in s for s in result.sentences)


def test_some_copies_among_good_images_are_found(fashion_sets):
    mixed = np.concatenate([noisy(fashion_sets["train"][:100], 2), fashion_sets["fresh"][:900]])
    result = score_of(mixed, fashion_sets["train"], fashion_sets["held_out"])
    assert any(s.startswith("Memorization: ") for s in result.sentences)


def test_a_collapsed_generator_is_called_too_similar(fashion_sets):
    result = score_of(
        noisy(np.repeat(fashion_sets["fresh"][:3], 200, axis=0), 2), fashion_sets["train"], fashion_sets["held_out"]
    )
    assert result.metrics["recall"] < 0.1 * result.metrics["recall_real"]
    assert result.metrics["coverage"] < 0.2 * result.metrics["coverage_real"]
    assert "too similar to each other" in " ".join(result.sentences)


def test_noise_does_not_look_real_and_is_not_memorized(fashion_sets):
    noise = np.random.default_rng(0).integers(0, 255, (600, 28, 28, 1)).astype(np.uint8)
    result = score_of(noise, fashion_sets["train"], fashion_sets["held_out"])
    text = " ".join(result.sentences)
    assert result.metrics["precision"] < 0.2 * result.metrics["precision_real"]
    assert result.metrics["c_t"] > 3
    assert "easy to tell apart" in text
    assert "farther from training images" in text


def test_a_hundred_images_are_too_few_for_some_metrics(fashion_sets):
    train, held_out = fashion_sets["train"][:90], fashion_sets["held_out"][:10]
    result = score_of(fashion_sets["fresh"], train, held_out)
    text = " ".join(result.sentences)
    assert (
        "Not measured with 10 held-out images: the test for memorization C_T (20 needed), precision and recall "
        "(50 needed), the Fréchet distance over 24 features (48 needed)." in text
    )
    assert "A set of about 500 images would be enough for all." in text
    assert {"kernel_distance", "near_copies"} <= set(result.metrics)
    assert not {"c_t", "precision", "frechet_distance", "heldout_mse"} & set(result.metrics)
    assert "9.2% expected by chance" in text
    copied = score_of(train, train, held_out)
    assert any(s.startswith("Memorization: 100.0%") for s in copied.sentences)


def test_known_features_are_used(fashion_sets):
    train, held_out = fashion_sets["train"][:300], fashion_sets["held_out"][:100]

    def embed(pixels: np.ndarray) -> np.ndarray:
        return pixels.reshape(len(pixels), -1)[:, ::97].astype(np.float32)

    made = Planted(fashion_sets["fresh"])
    options = {"spec": ImageSpec(28, 28, 1), "embed": embed, "encoder": "some pixels"}
    plain = score(made, train, held_out, **options)
    known = score(made, train, held_out, features=(embed(train), embed(held_out)), **options)
    assert known.metrics == plain.metrics


def test_a_saved_model_is_scored_on_its_held_out_images(fashion_sets, tmp_path):
    images = fashion_sets["train"][:200]
    model = ia.VAE(latent_dim=4, size="small", max_steps=20, progress=False).fit(images)
    model.save(tmp_path / "vae")
    loaded = ia.load(tmp_path / "vae")
    pixels, learned, aside = loaded.training_split(images)
    np.testing.assert_array_equal(np.sort(np.concatenate([learned, aside])), np.arange(200))
    assert (len(aside), len(pixels)) == (20, 200)
    result = score_model(loaded, images)
    assert result.metrics["pca_mse"] > 0
    assert result.metrics["c_t"] == score_model(model, images).metrics["c_t"]
    assert "20 held-out and 180 training images" in result.protocol
    assert "EfficientNet-Lite0 at 64 px, trained with ImageNet's labels" in result.protocol
    with pytest.raises(InputError, match=r"These 199 images are not those that this VAE was fitted to"):
        score_model(loaded, images[1:])


def test_models_that_cannot_be_scored_are_refused(fashion_sets):
    images = fashion_sets["train"][:60]
    model = ia.VAE(latent_dim=2, size="small", max_steps=2, progress=False)
    model.fit(images, validation=fashion_sets["held_out"][:20])
    with pytest.raises(InputError, match="none were held out"):
        score_model(model, images)
    with pytest.raises(InputError, match="KMeans generates no images"):
        score_model(ia.KMeans(), images)


def test_a_generator_that_contains_its_images_is_scored_on_others(fashion_sets):
    images, others = fashion_sets["train"][:80], fashion_sets["held_out"][:40]
    model = ia.PatchDiffusion(novelty=0.6, n_steps=4, device="cpu", random_state=0).fit(images)
    result = score_model(model, held_out=others)
    assert "40 held-out and 80 training images at 28 x 28" in result.protocol
    assert result.metrics["kernel_distance"] > result.metrics["kernel_floor"]
    for known, unseen in ((images, None), (None, None), (images, others)):
        with pytest.raises(InputError, match=r"This PatchDiffusion contains the images .* give others"):
            score_model(model, known, held_out=unseen)
    with pytest.raises(InputError, match="Got 3 of 43 that are"):
        score_model(model, held_out=np.concatenate([others, images[:3]]))


def test_blurred_copies_are_found_by_their_codes():
    images = synthetic_images(400, size=16, random_state=0)
    autoencoder = ia.Autoencoder(latent_dim=8, size="small", max_steps=300, progress=False).fit(images[:300])

    def copies(n, seed):
        return autoencoder.inverse_transform(autoencoder.transform(images[:n]))

    result = score(
        autoencoder, images[:300], images[300:], spec=autoencoder.spec_, embed=rough, encoder="a test", sample=copies
    )
    assert result.metrics["near_copies_codes"] > 0.5
    assert any("Memorization" in sentence for sentence in result.sentences)


def rough(images):
    """Features in which every image that was not made by a network looks the same."""
    sharp = np.abs(np.diff(images.astype(float), axis=1)).mean((1, 2, 3))
    return np.stack([sharp, images.mean((1, 2, 3))], axis=1)


def test_without_time_fewer_new_images_are_scored():
    images = synthetic_images(60, size=8).reshape(60, 8, 8, 1)
    spec = ImageSpec(8, 8, 1)
    seen: list[int] = []

    def embed(pixels: np.ndarray) -> np.ndarray:
        seen.append(len(pixels))
        return pixels.reshape(len(pixels), -1).astype(np.float32)

    hurried = score(Planted(images), images[:40], images[40:], spec=spec, embed=embed, encoder="pixels", seconds=0.0)
    assert max(seen) == 64
    assert hurried.sentences[-1] == "There was only time to score 64 new images instead of 200; --budget gives more."
    assert "64 new images" in hurried.protocol
    few = score(Planted(images), images[:55], images[55:], spec=spec, embed=embed, encoder="pixels", seconds=0.0)
    assert few.sentences[-1] == "There was only time to score 16 new images instead of 200; --budget gives more."
    at_ease = score(Planted(images), images[:40], images[40:], spec=spec, embed=embed, encoder="pixels", seconds=1e6)
    assert max(seen) == 200
    assert not any("There was only time" in sentence for sentence in at_ease.sentences)
