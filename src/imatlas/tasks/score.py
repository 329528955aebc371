"""How good a generator is and whether it copies, measured on images that it never learned from."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA

from imatlas.errors import InputError
from imatlas.images.spec import ImageSpec
from imatlas.metrics.generation import (
    FEWEST_IN_CELL,
    copying_score,
    density_coverage,
    frechet_distance,
    kernel_distance,
    kernel_distance_spread,
    near_copy_chance,
    near_copy_share,
    precision_recall,
)
from imatlas.metrics.restoration import mean_squared_error
from imatlas.models.pretrained import PretrainedEncoder
from imatlas.neighbors import all_alike, as_tensor, nearest
from imatlas.result import Result
from imatlas.system.threads import sharing_cores

MOST_TRAIN = 20_000
"""Training images that PCA and the copy audit look at: bounds time and memory."""

MOST_EMBEDDED = 4_000
"""The same where each must first go through the pretrained network."""

FEWEST_MADE, MOST_MADE = 200, 1000
"""New images that are judged: as many as are held out, within these."""

FEWEST_IN_A_HURRY, LEAST_TRAIN = 64, 2000
"""New images that are judged, and training images that are used, however little time there is."""

PROBED = 16
"""Images by which is measured how long one takes."""

FEWEST_OVERLAP = 50
"""Held-out images below which precision, recall, density and coverage are mostly chance."""

N_COMPONENTS = 128
"""Principal components of the pretrained features in which a saved model is judged."""

NEAR, FAR = 50.0, 1000.0
"""Kernel distances, beyond that of real images, below and above which words are used."""

PERFECT = 1e-9
"""Mean squared error below which pictures are the same but for rounding."""

COPIES = -3.0
"""C_T below which a generator copies; above minus this its images lie off."""

SPARE_COPIES = 0.005
"""Share of near copies beyond chance that is let pass."""

NOT_MEASURED = Result(
    name="quality",
    title="How good it is",
    sentences=[
        "Nothing is measured: so few images were all learned from, and none was held out. From 8 images on some are."
    ],
)
"""What is said in place of a score where no image was held out."""

Places = tuple[np.ndarray, np.ndarray]
"""Features of the training images and of those held out."""


def score(
    generator: Any,
    train: np.ndarray,
    held_out: np.ndarray,
    *,
    spec: ImageSpec,
    embed: Callable[[np.ndarray], np.ndarray],
    eyes: str,
    places: Places | None = None,
    sample: Callable[[int, int], np.ndarray] | None = None,
    random_state: int = 0,
    seconds: float | None = None,
) -> Result:
    """Measure new images, and reconstruction where there is any, against images held out from learning.

    Parameters
    ----------
    generator : model with `sample`
        One that rebuilds images through short vectors, or stands on a model that does, is measured at that, beside PCA.
    train, held_out : arrays (n, H, W, C)
        Pixels in the depth of `spec`. Of `train`, at most 20,000 rows drawn by the seed are used.
    spec : ImageSpec
    embed : callable
        Pixels (n, H, W, C) to features (n, n_features): the space in which new images are compared with real ones.
    eyes : str
        What `embed` is, for the protocol.
    places : (array (n_train, n_features), array (n_held_out, n_features)), optional
        What `embed` gives for `train` and `held_out`, where it is known.
    sample : callable, optional
        (n, random_state) to the images that are judged; `generator.sample` where it is not given.
    random_state : int
    seconds : float, optional
        Make and judge fewer new images, and use fewer training images, where all would take longer; the words say so.

    Returns
    -------
    Result
        The verdict in words, and as metrics:
        `heldout_mse`, `pca_mse` (as many dimensions) over pixels from 0 to 1, and their ratio;
        `kernel_distance` of new images to held-out ones, its deviation over subsets, and `frechet_distance`;
        `precision, recall, density, coverage`; each with what as many real training images reach in their place
        (`kernel_floor, frechet_floor, precision_real` …);
        `c_t`, the copying test (below -3: copies), and `near_copies`, the share of new images nearer to a training
        image than 99.9 % of held-out images are, with what chance gives. All distances are between features; both
        copying measures also between the short vectors of the model (`c_t_codes, near_copies_codes`), because a blurred
        copy lies far from its original in the eyes of a network that saw sharp pictures. A metric
        that so few images do not allow is left out, and the words say so.
    """
    rng = np.random.default_rng(random_state)
    n_train, rebuilder = len(train), rebuilder_of(generator)
    n_made = wanted = int(np.clip(len(held_out), FEWEST_MADE, MOST_MADE))
    most_train = MOST_TRAIN
    if seconds is not None:
        n_made = min(n_made, max(FEWEST_IN_A_HURRY, _affordable(embed, held_out, seconds / 2)))
        if rebuilder is not None:
            most_train = max(LEAST_TRAIN, _affordable(rebuilder.transform, held_out, seconds / 8))
    if n_train > most_train:
        rows = np.sort(rng.choice(n_train, most_train, replace=False))
        train, places = train[rows], None if places is None else (places[0][rows], places[1])
    made = sample(n_made, random_state) if sample else generator.sample(n_made, random_state=random_state)
    known, unseen = (embed(train), embed(held_out)) if places is None else places
    new = embed(made)
    real = known[np.sort(rng.choice(len(known), min(len(known), len(new)), replace=False))]
    metrics = {**_fidelity(unseen, new, real, random_state), **_copying(known, unseen, new, random_state)}
    if rebuilder is not None:
        learned, aside, invented = (rebuilder.transform(images) for images in (train, held_out, made))
        metrics = {**_rebuilding(rebuilder, aside, train, held_out, spec.high - spec.low, random_state), **metrics}
        in_codes = _copying(learned, aside, invented, random_state)
        metrics |= {f"{name}_codes": in_codes[name] for name in ("c_t", "near_copies") if name in in_codes}
    words = [
        *_rebuilding_in_words(metrics, min(getattr(rebuilder, "latent_dim", 0), len(train))),
        *_fidelity_in_words(metrics),
        *_copying_in_words(metrics),
        *_too_few_in_words(metrics, n_train, len(unseen), unseen.shape[1]),
    ]
    if n_made < wanted:
        words.append(f"There was time to judge {n_made} new images, of {wanted} (--budget gives more).")
    return Result(
        name="quality",
        title="How good it is",
        sentences=words,
        metrics=metrics,
        protocol="; ".join(
            [
                f"{len(unseen):,} held-out and {len(train):,} training images at {spec.width} x {spec.height}",
                f"{len(new):,} new images",
                f"distances between {unseen.shape[1]} features of {eyes}",
                *_protocol(metrics, min(len(unseen), len(new), len(real))),
                f"seed {random_state}",
            ]
        ),
    )


@sharing_cores()
def score_model(model: Any, images: Any, *, random_state: int = 0) -> Result:
    """`score` of a fitted generator, on the images of its `fit` that it kept aside, seen by the pretrained eyes.

    Parameters
    ----------
    model : fitted model with `sample`
    images : Images, or anything that `Images` takes
        Those that the model was fitted on.
    random_state : int

    Raises
    ------
    InputError
        If the model makes no images, was fitted on others, or kept none aside.
    """
    if model.input != "images" or not hasattr(model, "sample"):
        raise InputError(f"A {type(model).__name__} makes no images, so there is nothing to score; give a generator.")
    pixels, learned, aside = model.training_split(images)
    if len(learned) > MOST_EMBEDDED:
        learned = np.sort(np.random.default_rng(random_state).choice(learned, MOST_EMBEDDED, replace=False))
    train, held_out = np.asarray(pixels[learned]), np.asarray(pixels[aside])
    # twice the size of the images, in steps of the network: at its usual 224 px small ones would take 12 times as long
    side = int(np.clip(math.ceil(max(model.spec_.shape[:2]) / 16) * 32, 64, 224))
    n_components = min(N_COMPONENTS, len(train))
    eyes = PretrainedEncoder(image_size=side, n_components=n_components, device=model.device, random_state=random_state)
    places = eyes.fit_transform(train), eyes.transform(held_out)
    return score(
        model,
        train,
        held_out,
        spec=model.spec_,
        embed=eyes.transform,
        eyes=encoder_in_words(eyes),
        places=places,
        random_state=random_state,
    )


def encoder_in_words(encoder: Any) -> str:
    """What an encoder is and what it has learned from, for protocols."""
    if isinstance(encoder, PretrainedEncoder):
        name = "EfficientNet-Lite0" if encoder.backbone == "efficientnet-lite0" else Path(encoder.backbone).name
        return f"{name} at {encoder.side} px, which learned with {encoder.learned_with_}"
    return f"the {type(encoder).__name__} that learned from these images alone, without labels"


def rebuilder_of(generator: Any) -> Any:
    """The model that brings images to short vectors and back: the generator, what it stands on, or None."""
    model = getattr(generator, "autoencoder_", None) or generator
    return model if hasattr(model, "latent_dim") and hasattr(model, "inverse_transform") else None


def _affordable(look: Callable[[np.ndarray], np.ndarray], images: np.ndarray, seconds: float) -> int:
    """How many images a network sees in so much time, by the time that it takes for 16; its first call is not timed."""
    few = images[np.arange(PROBED) % len(images)]
    look(few[:1])
    began = time.perf_counter()
    look(few)
    return int(seconds * PROBED / max(1e-9, time.perf_counter() - began))


def _rebuilding(
    rebuilder: Any, codes: np.ndarray, train: np.ndarray, held_out: np.ndarray, span: float, random_state: int
) -> dict[str, float]:
    """The error of rebuilding held-out images from their codes, beside PCA's."""
    if not np.isfinite(held_out).any():  # no pixel is known
        return {}
    error = mean_squared_error(held_out, rebuilder.inverse_transform(codes), span=span)
    baseline = _pca_error(train, held_out, int(rebuilder.latent_dim), span, random_state)
    found = {"heldout_mse": error, "pca_mse": baseline}
    if baseline > PERFECT:  # else there is nothing to compare with
        found["mse_ratio_to_pca"] = error / baseline
    return found


def _pca_error(train: np.ndarray, held_out: np.ndarray, n_dims: int, span: float, random_state: int) -> float:
    """Mean squared error of the held-out images through a PCA of as many dimensions, at unit span."""
    rows = np.nan_to_num(train.reshape(len(train), -1).astype(np.float32))
    flat = np.nan_to_num(held_out.reshape(len(held_out), -1).astype(np.float32))
    if all_alike(rows):  # no axis: the mean is all there is
        rebuilt = np.broadcast_to(rows.mean(axis=0, dtype=np.float64), flat.shape).reshape(held_out.shape)
        return mean_squared_error(held_out, rebuilt, span=span)
    n_dims = min(n_dims, *rows.shape)
    pca = PCA(n_dims, svd_solver="randomized", random_state=random_state).fit(rows)
    rebuilt = pca.inverse_transform(pca.transform(flat)).reshape(held_out.shape)
    return mean_squared_error(held_out, rebuilt, span=span)


def _fidelity(unseen: np.ndarray, new: np.ndarray, real: np.ndarray, random_state: int) -> dict[str, float]:
    """Distances and overlap of new and held-out features, each beside that of as many real training images."""
    found: dict[str, float] = {}
    if min(len(unseen), len(real)) >= 4:
        found["kernel_distance"] = kernel_distance(unseen, new)
        found["kernel_deviation"] = kernel_distance_spread(unseen, new, random_state=random_state)[1]
        found["kernel_floor"] = kernel_distance(unseen, real)
    if min(len(unseen), len(new), len(real)) >= 2 * unseen.shape[1]:
        found["frechet_distance"] = frechet_distance(unseen, new)
        found["frechet_floor"] = frechet_distance(unseen, real)
    n = min(len(unseen), len(new), len(real))  # each number grows with the other side's n: equal sides
    if n >= FEWEST_OVERLAP:
        for ending, side in (("", new), ("_real", real)):
            found[f"precision{ending}"], found[f"recall{ending}"] = precision_recall(unseen[:n], side[:n])
            found[f"density{ending}"], found[f"coverage{ending}"] = density_coverage(unseen[:n], side[:n])
    return found


def _copying(known: np.ndarray, unseen: np.ndarray, new: np.ndarray, random_state: int) -> dict[str, float]:
    """C_T where there are enough images, and near copies with what chance gives."""
    found: dict[str, float] = {}
    if len(unseen) >= FEWEST_IN_CELL:
        try:
            found["c_t"] = copying_score(known, unseen, new, random_state=random_state)
        except InputError:  # no cell holds enough of both: new images lie where no held-out ones do
            found["c_t"] = copying_score(known, unseen, new, n_cells=1, random_state=random_state)
    to_train = [nearest(as_tensor(a), as_tensor(known))[1].numpy() for a in (new, unseen)]
    found["near_copies"] = near_copy_share(*to_train)
    found["near_copies_by_chance"], found["near_copies_deviation"] = near_copy_chance(len(unseen), len(new))
    return found


def _rebuilding_in_words(metrics: dict[str, float], n_dims: int) -> list[str]:
    ratio = metrics.get("mse_ratio_to_pca")
    if ratio is None and "heldout_mse" in metrics:
        return ["PCA rebuilds the unseen images without error: the images are all alike, or nearly."]
    if ratio is None:
        return []
    if ratio < 0.95:
        return [f"Rebuilding unseen images, it makes {1 - ratio:.0%} less error than PCA with {n_dims} numbers."]
    verdict = "is as good" if ratio < 1.05 else "is better" if ratio < 2 else "is far better"
    return [
        f"Rebuilding unseen images, it makes {ratio:.2f} times the error of PCA with {n_dims} numbers: "
        f"the simple baseline {verdict}, and more time to learn (--budget) or more images would help."
    ]


def _fidelity_in_words(metrics: dict[str, float]) -> list[str]:
    words = []
    if "kernel_distance" in metrics:
        gap = metrics["kernel_distance"] - max(metrics["kernel_floor"], 0.0)
        words.append(
            f"New images lie at kernel distance {metrics['kernel_distance']:.3g} from unseen real ones; "
            f"real training images lie at {metrics['kernel_floor']:.3g}"
            + (
                ": near."
                if gap < NEAR
                else ": told apart at a glance, blurred or too much alike."
                if gap > FAR
                else "."
            )
        )
    if "frechet_distance" in metrics:
        words.append(
            f"Their Fréchet distance is {metrics['frechet_distance']:.3g}; "
            f"that of real training images is {metrics['frechet_floor']:.3g}."
        )
    if "precision" in metrics:
        precision, own_precision, recall, own_recall = (
            f"{metrics[name]:.0%}" if metrics[name] >= 0.005 else "none"
            for name in ("precision", "precision_real", "recall", "recall_real")
        )
        words.append(
            f"{precision.capitalize()} of the new images lie among real ones (real ones: {own_precision}), and they "
            f"reach {recall} of what is real ({own_recall}){_short_of(metrics)}."
        )
    return words


def _short_of(metrics: dict[str, float]) -> str:
    """What is wrong where precision or recall are under half of what real images reach."""
    odd, alike = (metrics[name] < 0.5 * metrics[f"{name}_real"] for name in ("precision", "recall"))
    if odd and alike:
        return ": neither good nor varied"
    return ": many do not look real" if odd else ": too much alike" if alike else ""


def _copying_in_words(metrics: dict[str, float]) -> list[str]:
    c_t, copies = metrics.get("c_t"), metrics["near_copies"]
    chance = metrics["near_copies_by_chance"]
    most = chance + max(SPARE_COPIES, 3 * metrics["near_copies_deviation"])
    if most >= 1:
        return ["So few held-out images cannot tell whether it copies."]
    many = copies > most
    memorized = metrics.get("near_copies_codes", 0.0)
    if memorized > most:
        return [
            f"It copies: {memorized:.1%} of the new images have the short vector of a training image, nearly (chance "
            f"gives {chance:.1%}); they are blurred copies. More images, or less time to learn, would help."
        ]
    counted = f"{copies:.1%} of the new images are near copies of training images (chance gives {chance:.1%})"
    if many or (c_t is not None and c_t < COPIES):
        seen = c_t is not None and c_t < COPIES
        why = f"; new ones lie nearer to training images than unseen real ones do (C_T {c_t:.1f})" if seen else ""
        return [f"It copies: {counted}{why}. More images, or less time to learn, would help."]
    if c_t is None:
        return [f"{counted}: no sign of copying, as far as so few held-out images can tell."]
    words = [f"No sign of copying: C_T is {c_t:.1f} (copies are below {COPIES:.0f}); {counted}."]
    if c_t > -COPIES:
        words.append(
            "New images lie farther from training images than unseen real ones do: it has not learned all yet."
        )
    return words


def _too_few_in_words(metrics: dict[str, float], n_train: int, n_unseen: int, n_features: int) -> list[str]:
    """Which measures so few held-out images do not allow, why, and from how many images on they would."""
    needs = {
        "c_t": ("the copying test C_T", FEWEST_IN_CELL),
        "precision": ("precision and recall", FEWEST_OVERLAP),
        "frechet_distance": (f"the Fréchet distance over {n_features} features", 2 * n_features),
    }
    missing = [need for name, need in needs.items() if name not in metrics]
    if not missing:
        return []
    listed = ", ".join(f"{what} ({fewest})" for what, fewest in missing)
    images = "held-out image is" if n_unseen == 1 else f"{n_unseen:,} held-out images are"
    said = f"The {images} too few for {listed}: with fewer, chance moves these numbers more than a generator does."
    if n_train < MOST_TRAIN:
        enough = math.ceil(max(fewest for _, fewest in missing) * (n_train + n_unseen) / n_unseen / 100) * 100
        said += f" A set of about {enough:,} images would allow them all."
    return [said]


def _protocol(metrics: dict[str, float], n_equal: int) -> list[str]:
    """How the metrics that are there were measured."""
    parts = {
        "kernel_distance": "kernel distance x 1,000, deviation over 50 subsets of half the images",
        "precision": f"precision and recall (k = 3), density and coverage (k = 5) with {n_equal:,} images a side",
        "c_t": f"C_T in k-means cells that hold {FEWEST_IN_CELL} images of each kind or more",
        "near_copies": "near copies below the 0.1 % quantile of held-out images",
        "pca_mse": "PCA fitted to the same training images",
    }
    return [said for name, said in parts.items() if name in metrics]


def small_pixels(images: np.ndarray) -> np.ndarray:
    """Pixels averaged over blocks to at most 16 x 16, one row an image: what the eye would call the same picture."""
    tensor = torch.from_numpy(np.nan_to_num(images.astype(np.float32))).permute(0, 3, 1, 2)
    size = (min(16, tensor.shape[2]), min(16, tensor.shape[3]))
    return torch.nn.functional.adaptive_avg_pool2d(tensor, size).flatten(1).numpy()
