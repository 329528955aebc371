"""Quality and memorization of a generator, measured on held-out images."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA

from imatlas.arguments import counted
from imatlas.errors import InputError
from imatlas.images.dataset import load_pixels
from imatlas.images.spec import ImageSpec
from imatlas.metrics.generation import (
    MIN_PER_CELL,
    density_coverage,
    frechet_distance,
    kernel_distance,
    kernel_distance_spread,
    precision_recall,
)
from imatlas.metrics.restoration import mean_squared_error
from imatlas.models.pretrained import PretrainedEncoder
from imatlas.neighbors import all_alike
from imatlas.result import Result
from imatlas.system.threads import sharing_cores
from imatlas.tasks.conditions import MapConditions, composes, sample_from_map
from imatlas.tasks.memorization import memorization, memorization_in_words

MOST_TRAIN = 20_000
"""Training images used by PCA and by the test for memorization: bounds time and memory."""

MOST_EMBEDDED = 4_000
"""The same where each must first pass the pretrained network."""

FEWEST_MADE, MOST_MADE = 200, 1000
"""Limits of the number of new images, which otherwise is that of the held-out ones."""

FEWEST_IN_A_HURRY, LEAST_TRAIN = 64, 2000
"""New images and training images used however little time there is; with few held-out images, `PROBED` new ones."""

PROBED = 16
"""Images on which the time per image is measured."""

FEWEST_OVERLAP = 50
"""Held-out images below which precision, recall, density and coverage are mostly noise."""

N_COMPONENTS = 128
"""Principal components of the pretrained features in which a saved model is scored."""

NEAR, FAR = 50.0, 1000.0
"""Kernel distances, beyond that of real images, below which new images are close and above which they are far."""

PERFECT = 1e-9
"""Mean squared error of pictures that differ only by rounding."""

TITLE = "Quality of new images"

NOT_MEASURED = Result(
    name="quality",
    title=TITLE,
    sentences=["Not measured: no image was held out, because there are so few. At least 8 images are needed."],
)
"""The result where no image was held out."""

Features = tuple[np.ndarray, np.ndarray]
"""Features of the training images and of the held-out ones."""


def score(
    generator: Any,
    train: np.ndarray,
    held_out: np.ndarray,
    *,
    spec: ImageSpec,
    embed: Callable[[np.ndarray], np.ndarray],
    encoder: str,
    features: Features | None = None,
    sample: Callable[[int, int], np.ndarray] | None = None,
    random_state: int = 0,
    seconds: float | None = None,
) -> Result:
    """Compare new images, and reconstructions where the model makes them, with images held out from training.

    Parameters
    ----------
    generator : model with `sample`
        If it encodes images, or is built on a model that does, its reconstruction error is compared with PCA's.
    train, held_out : arrays (n, H, W, C)
        Pixels in the depth of `spec`. Of `train`, at most 20,000 random rows are used.
    spec : ImageSpec
    embed : callable
        Pixels (n, H, W, C) to features (n, n_features), in which new images are compared with real ones.
    encoder : str
        The name of `embed` for the protocol.
    features : (array (n_train, n_features), array (n_held_out, n_features)), optional
        The output of `embed` for `train` and `held_out`, where it is known.
    sample : callable, optional
        (n, random_state) to new images; default `generator.sample`.
    random_state : int
    seconds : float, optional
        Use fewer new images and fewer training images where all would take longer; the result says so.

    Returns
    -------
    Result
        Sentences, and as metrics:
        `heldout_mse` and `pca_mse` (as many dimensions), for pixels from 0 to 1, and their ratio;
        `kernel_distance` of new images to held-out ones, its deviation over subsets, and `frechet_distance`;
        `precision, recall, density, coverage`; each also for as many real training images
        (`kernel_floor, frechet_floor, precision_real` …);
        `c_t`, the test for memorization (below -3), and `near_copies`, the share of new images nearer to a training
        image than 99.9 % of held-out images are, with the share expected by chance. All distances are between features;
        both measures of memorization are also taken between the model's codes (`c_t_codes, near_copies_codes`), where
        blurred copies stay close to their originals. Metrics that need more held-out images are left out; the sentences
        say so.
    """
    rng = np.random.default_rng(random_state)
    n_train, autoencoder = len(train), autoencoder_of(generator)
    n_made = wanted = int(np.clip(len(held_out), FEWEST_MADE, MOST_MADE))
    most_train = MOST_TRAIN
    draw = sample or (lambda n, seed: generator.sample(n, random_state=seed))
    if seconds is not None:
        few = held_out[np.arange(PROBED) % len(held_out)]
        drawn = _affordable(lambda n: draw(n, random_state), seconds / 2)
        fewest = FEWEST_IN_A_HURRY if len(held_out) >= MIN_PER_CELL else PROBED
        n_made = min(n_made, max(fewest, min(_affordable(lambda n: embed(few[:n]), seconds / 2), drawn)))
        if autoencoder is not None:
            most_train = max(LEAST_TRAIN, _affordable(lambda n: autoencoder.transform(few[:n]), seconds / 8))
    if n_train > most_train:
        rows = np.sort(rng.choice(n_train, most_train, replace=False))
        train, features = train[rows], None if features is None else (features[0][rows], features[1])
    made = draw(n_made, random_state)
    known, unseen = (embed(train), embed(held_out)) if features is None else features
    new = embed(made)
    real = known[np.sort(rng.choice(len(known), min(len(known), len(new)), replace=False))]
    metrics = {**_fidelity(unseen, new, real, random_state), **memorization(known, unseen, new, random_state)}
    sentences = []
    if autoencoder is not None:
        known_codes, codes, new_codes = (autoencoder.transform(images) for images in (train, held_out, made))
        span = spec.high - spec.low
        metrics = {**_reconstruction(autoencoder, codes, train, held_out, span, random_state), **metrics}
        in_codes = memorization(known_codes, codes, new_codes, random_state)
        metrics |= {f"{name}_codes": in_codes[name] for name in ("c_t", "near_copies") if name in in_codes}
        sentences = _reconstruction_in_words(metrics, min(codes.shape[1], len(train)))
    sentences += [
        *_fidelity_in_words(metrics),
        *memorization_in_words(metrics),
        *_too_few_in_words(metrics, n_train, len(unseen), unseen.shape[1]),
    ]
    if n_made < wanted:
        sentences.append(f"There was only time to score {n_made} new images instead of {wanted}; --budget gives more.")
    protocol = [
        f"{len(unseen):,} held-out and {len(train):,} training images at {spec.width} x {spec.height}",
        f"{len(new):,} new images",
        f"distances between {unseen.shape[1]} features of {encoder}",
        *_protocol(metrics, min(len(unseen), len(new), len(real))),
        f"seed {random_state}",
    ]
    return Result(name="quality", title=TITLE, sentences=sentences, metrics=metrics, protocol="; ".join(protocol))


def score_on_map(
    generator: Any,
    conditions: MapConditions,
    pixels: Callable[[np.ndarray], np.ndarray],
    *,
    train: np.ndarray,
    held_out: np.ndarray,
    embedding: np.ndarray,
    spec: ImageSpec,
    encoder: Any,
    embed: Callable[[np.ndarray], np.ndarray],
    random_state: int = 0,
    seconds: float | None = None,
) -> Result:
    """`score` of the generator of an atlas, whose new images are drawn from the map.

    Parameters
    ----------
    generator : model with `sample`
    conditions : MapConditions
    pixels : callable
        Rows (n,) to images (n, H, W, C) in the depth of `spec`.
    train, held_out : arrays (n_train,), (n_held_out,) of int64
        Rows of the atlas.
    embedding : array (n_images, n_features) float32
    spec : ImageSpec
    encoder : fitted encoder
        The model that made `embedding`, for the protocol.
    embed, random_state, seconds
        As for `score`.
    """
    if len(train) > MOST_TRAIN:
        train = np.sort(np.random.default_rng(random_state).choice(train, MOST_TRAIN, replace=False))
    return score(
        generator,
        pixels(train),
        pixels(held_out),
        spec=spec,
        embed=embed,
        encoder=encoder_in_words(encoder),
        features=(embedding[train], embedding[held_out]),
        sample=lambda n, seed: sample_from_map(generator, conditions, n, random_state=seed),
        random_state=random_state,
        seconds=seconds,
    )


@sharing_cores()
def score_model(model: Any, images: Any = None, *, held_out: Any = None, random_state: int = 0) -> Result:
    """`score` of a fitted generator on images that its `fit` held out, in features of the pretrained encoder.

    Parameters
    ----------
    model : fitted model with `sample`
    images : Images, or anything that `Images` takes, optional
        Those that the model was fitted on, of which it held some out.
    held_out : Images, or anything that `Images` takes, optional
        Instead of `images`, for a model that contains those and held none out: others of the same kind.
    random_state : int

    Raises
    ------
    InputError
        If the model generates no images, or the images are not those that it needs.
    """
    train, unseen = _known_and_unseen(model, images, held_out)
    if len(train) > MOST_EMBEDDED:
        train = train[np.sort(np.random.default_rng(random_state).choice(len(train), MOST_EMBEDDED, replace=False))]
    # Twice the size of the images, in steps of the network: 224 px would take 12 times as long for small ones.
    side = int(np.clip(math.ceil(max(model.spec_.shape[:2]) / 16) * 32, 64, 224))
    encoder = PretrainedEncoder(
        image_size=side,
        n_components=min(N_COMPONENTS, len(train)),
        device=model.device,
        random_state=random_state,
    )
    features = encoder.fit_transform(train), encoder.transform(unseen)
    return score(
        model,
        train,
        unseen,
        spec=model.spec_,
        embed=encoder.transform,
        encoder=encoder_in_words(encoder),
        features=features,
        random_state=random_state,
    )


def _known_and_unseen(model: Any, images: Any, held_out: Any) -> tuple[np.ndarray, np.ndarray]:
    """The images that a model was fitted to and others, each (n, H, W, C) in its size and depth."""
    name = type(model).__name__
    if not hasattr(model, "sample"):
        raise InputError(f"A model of the class {name} generates no images; score a generator, such as a VAE.")
    if not composes(model):
        if images is None or held_out is not None:
            raise InputError(
                f"This {name} is scored on images that its fit held out; give those that it was fitted to with "
                "'images' (--images), and no others."
            )
        pixels, learned, aside = model.training_split(images)
        return np.asarray(pixels[learned]), np.asarray(pixels[aside])
    if held_out is None or images is not None:
        raise InputError(
            f"This {name} contains the images that it was fitted to, and held none out; give others of the "
            "same kind with 'held_out' (--held-out), and no 'images' (--images)."
        )
    unseen = load_pixels(held_out, spec=model.spec_)[0]
    known = {one.tobytes() for one in model.images_}
    n_known = sum(one.tobytes() in known for one in unseen)
    if n_known:
        raise InputError(
            f"Held-out images must not be among those that the model was fitted to. Got {n_known:,} of {len(unseen):,} "
            "that are; leave them out."
        )
    return model.images_, unseen


def encoder_in_words(encoder: Any) -> str:
    """An encoder and what it was trained on, for protocols."""
    if encoder.pretrained:
        name = "EfficientNet-Lite0" if encoder.backbone == "efficientnet-lite0" else Path(encoder.backbone).name
        return f"{name} at {encoder.side} px, trained with {encoder.learned_with_}"
    return f"the {type(encoder).__name__} trained on these images without labels"


def autoencoder_of(generator: Any) -> Any:
    """The model that encodes images as short codes and decodes them: the generator, what it is built on, or None."""
    return getattr(generator, "reconstructor", None)


def _affordable(run: Callable[[int], Any], seconds: float) -> int:
    """How many images `run(n)` processes in a time, by the time for 16; its first call is not timed."""
    run(1)
    began = time.perf_counter()
    run(PROBED)
    return int(seconds * PROBED / max(1e-9, time.perf_counter() - began))


def _reconstruction(
    autoencoder: Any, codes: np.ndarray, train: np.ndarray, held_out: np.ndarray, span: float, random_state: int
) -> dict[str, float]:
    """The reconstruction error of held-out images, and that of PCA with as many dimensions."""
    if not np.isfinite(held_out).any():  # every pixel is missing
        return {}
    error = mean_squared_error(held_out, autoencoder.inverse_transform(codes), span=span)
    baseline = _pca_error(train, held_out, codes.shape[1], span, random_state)
    found = {"heldout_mse": error, "pca_mse": baseline}
    if baseline > PERFECT:
        found["mse_ratio_to_pca"] = error / baseline
    return found


def _pca_error(train: np.ndarray, held_out: np.ndarray, n_dims: int, span: float, random_state: int) -> float:
    """Mean squared error of the held-out images through a PCA, at unit span."""
    rows = np.nan_to_num(train.reshape(len(train), -1).astype(np.float32))
    flat = np.nan_to_num(held_out.reshape(len(held_out), -1).astype(np.float32))
    if all_alike(rows):  # PCA has no axis: predict the mean
        rebuilt = np.broadcast_to(rows.mean(axis=0, dtype=np.float64), flat.shape).reshape(held_out.shape)
        return mean_squared_error(held_out, rebuilt, span=span)
    n_dims = min(n_dims, *rows.shape)
    pca = PCA(n_dims, svd_solver="randomized", random_state=random_state).fit(rows)
    rebuilt = pca.inverse_transform(pca.transform(flat)).reshape(held_out.shape)
    return mean_squared_error(held_out, rebuilt, span=span)


def _fidelity(unseen: np.ndarray, new: np.ndarray, real: np.ndarray, random_state: int) -> dict[str, float]:
    """Distances and overlap of new and held-out features, each with the value for as many real training images."""
    found: dict[str, float] = {}
    if min(len(unseen), len(real)) >= 4:
        found["kernel_distance"] = kernel_distance(unseen, new)
        found["kernel_deviation"] = kernel_distance_spread(unseen, new, random_state=random_state)[1]
        found["kernel_floor"] = kernel_distance(unseen, real)
    if min(len(unseen), len(new), len(real)) >= 2 * unseen.shape[1]:
        found["frechet_distance"] = frechet_distance(unseen, new)
        found["frechet_floor"] = frechet_distance(unseen, real)
    n = min(len(unseen), len(new), len(real))  # each value grows with the number of images on the other side
    if n >= FEWEST_OVERLAP:
        for ending, side in (("", new), ("_real", real)):
            found[f"precision{ending}"], found[f"recall{ending}"] = precision_recall(unseen[:n], side[:n])
            found[f"density{ending}"], found[f"coverage{ending}"] = density_coverage(unseen[:n], side[:n])
    return found


def _reconstruction_in_words(metrics: dict[str, float], n_dims: int) -> list[str]:
    ratio = metrics.get("mse_ratio_to_pca")
    if ratio is None and "heldout_mse" in metrics:
        return ["PCA reconstructs the held-out images without error: the images are all nearly identical."]
    if ratio is None:
        return []
    pca = f"PCA with {counted(n_dims, 'component')}"
    if ratio < 0.95:
        return [f"The generator's reconstruction error on held-out images is {1 - ratio:.0%} lower than that of {pca}."]
    verdict = "is as good" if ratio < 1.05 else "is better" if ratio < 2 else "is much better"
    return [
        f"The generator's reconstruction error on held-out images is {ratio:.2f} times that of {pca}: this simple "
        f"baseline {verdict}; more training time (--budget) or more images would help."
    ]


def _fidelity_in_words(metrics: dict[str, float]) -> list[str]:
    words = []
    if "kernel_distance" in metrics:
        gap = metrics["kernel_distance"] - max(metrics["kernel_floor"], 0.0)
        verdict = ""
        if gap < NEAR:
            verdict = ", which is close"
        elif gap > FAR:
            verdict = (
                "; they are easy to tell apart, for example because new ones are blurred or too similar to each other"
            )
        words.append(
            f"The kernel distance of new images to held-out ones is {_short(metrics['kernel_distance'])} "
            f"(real training images: {_short(metrics['kernel_floor'])}){verdict}."
        )
    if "frechet_distance" in metrics:
        words.append(
            f"The Fréchet distance is {_short(metrics['frechet_distance'])} "
            f"(real training images: {_short(metrics['frechet_floor'])})."
        )
    if "precision" in metrics:
        precision, real_precision, recall, real_recall = (
            f"{metrics[name]:.0%}" if metrics[name] >= 0.005 else "below 1%"
            for name in ("precision", "precision_real", "recall", "recall_real")
        )
        words.append(
            f"Precision is {precision} (real training images: {real_precision}), recall is {recall} "
            f"({real_recall}){_shortcoming(metrics)}."
        )
    return words


def _short(value: float) -> str:
    """A distance with about three digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _shortcoming(metrics: dict[str, float]) -> str:
    """What is wrong where precision or recall is less than half that of real images."""
    unreal, narrow = (metrics[name] < 0.5 * metrics[f"{name}_real"] for name in ("precision", "recall"))
    if unreal and narrow:
        return ": new images are neither realistic nor varied"
    if unreal:
        return ": many new images do not look real"
    return ": new images are too similar to each other" if narrow else ""


def _too_few_in_words(metrics: dict[str, float], n_train: int, n_unseen: int, n_features: int) -> list[str]:
    """Which metrics need more held-out images, and how many images would be enough."""
    needs = {
        "c_t": ("the test for memorization C_T", MIN_PER_CELL),
        "precision": ("precision and recall", FEWEST_OVERLAP),
        "frechet_distance": (f"the Fréchet distance over {n_features} features", 2 * n_features),
    }
    missing = [need for name, need in needs.items() if name not in metrics]
    if not missing:
        return []
    listed = ", ".join(f"{what} ({fewest:,} needed)" for what, fewest in missing)
    text = f"Not measured with {counted(n_unseen, 'held-out image')}: {listed}."
    if n_train < MOST_TRAIN:
        enough = math.ceil(max(fewest for _, fewest in missing) * (n_train + n_unseen) / n_unseen / 100) * 100
        text += f" A set of about {enough:,} images would be enough for all."
    return [text]


def _protocol(metrics: dict[str, float], n_equal: int) -> list[str]:
    """How each metric was measured."""
    parts = {
        "kernel_distance": "kernel distance x 1,000, deviation over 50 subsets of half the images",
        "precision": f"precision and recall (k = 3), density and coverage (k = 5) with {n_equal:,} images on each side",
        "c_t": f"C_T in k-means cells with at least {MIN_PER_CELL} images of each kind",
        "near_copies": "near copies: below the 0.1 % quantile of held-out images",
        "pca_mse": "PCA fitted to the same training images",
    }
    return [text for name, text in parts.items() if name in metrics]


def small_pixels(images: np.ndarray) -> np.ndarray:
    """Pixels averaged over blocks to at most 16 x 16, one row per image, to compare pictures as a whole."""
    size = (min(16, images.shape[1]), min(16, images.shape[2]))
    parts = []
    for start in range(0, max(1, len(images)), 256):  # as floats, all of them would take four times the memory
        part = torch.from_numpy(np.nan_to_num(images[start : start + 256].astype(np.float32))).permute(0, 3, 1, 2)
        parts.append(torch.nn.functional.adaptive_avg_pool2d(part, size).flatten(1))
    return torch.cat(parts).numpy()
