"""Choose a preset of the pretrained encoder for a set of images, without labels."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.base import clone

from imatlas.images.dataset import Images
from imatlas.models.image_clusterer import propose_n_clusters
from imatlas.models.parts.feature_cache import FeatureCache
from imatlas.models.parts.layer_features import views_of
from imatlas.models.pretrained import SIDE, PretrainedEncoder, fit_together

Presets = Mapping[str, Mapping[str, Any]]
"""Name -> parameters of `PretrainedEncoder`."""

PRESETS: Presets = {
    "objects": {"views": 3},
    "texture": {"layers": "many"},
    "texture-rotation-invariant": {"layers": "many", "rotation_invariant": True},
}
"""The presets that are compared."""

COMBINED = "objects+texture"
"""The preset that is taken without a comparison: it costs as many forward passes as "objects"."""

COMBINED_OPTIONS: Mapping[str, Any] = {"layers": "both", "views": 3}

N_COMPONENTS, WHITEN = 128, 0.5
"""Maximum number of principal components, and the degree of whitening."""

IMAGES_PER_COMPONENT, MIN_COMPONENTS = 8, 8
"""Images needed for each component: with fewer, the last components are noise, which whitening would amplify."""

N_IMAGES = 1000
"""Maximum number of images that presets are compared on."""

MIN_IMAGES = 300
"""Size of the set below which presets are not compared."""

MIN_SAMPLE = 200
"""Size of the sample below which presets are not compared."""

COMPARED_AT = 128
"""Height and width in pixels at which presets are compared."""

STATED_SECONDS = 0.007
"""Stated cost of a forward pass of one image of this size on one core, including decoding and clustering."""

N_TIMED = 32
"""Images on which a forward pass is timed."""

CERTAIN = 0.2
"""Share of the time limit below which the stated cost is trusted without timing."""

SMALLER = (160, 112, 80)
"""Image sizes in pixels to fall back to when time is short."""

VIEWS = ((2_000, 4), (4_000, 2))
"""(maximum number of images, views per image); larger sets get one view."""


@dataclass(frozen=True)
class ChosenEncoder:
    """The encoder that suits a set of images.

    Attributes
    ----------
    encoder : PretrainedEncoder
        Not fitted.
    name : str
        One of `PRESETS`, or `COMBINED`.
    scores : dict
        Preset -> modularity.
    why : str
        The reason in words.
    """

    encoder: PretrainedEncoder
    name: str
    scores: dict[str, float]
    why: str


def choose_encoder(
    images: Images,
    *,
    image_size: int | None = None,
    device: str = "auto",
    n_images: int = N_IMAGES,
    presets: Presets = PRESETS,
    random_state: int = 0,
) -> ChosenEncoder:
    """Choose the preset whose features divide the images most clearly into groups.

    Each preset embeds the same random sample of at most `n_images` images. Its score is the modularity of the best
    grouping of their neighbor graph (`imatlas.models.image_clusterer.propose_n_clusters`). Comparing all `PRESETS`
    takes 6 forward passes per image.

    Parameters
    ----------
    images : Images
    image_size : int, optional
        Input height and width of the network; by default the size it was trained at.
    device : str
    n_images : int
    presets : dict
        Name -> parameters of `PretrainedEncoder`.
    random_state : int
    """
    rows = np.sort(np.random.default_rng(random_state).permutation(len(images))[:n_images])
    encoders = {
        name: PretrainedEncoder(
            n_components=n_components_of(len(rows)),
            whiten=WHITEN,
            image_size=image_size,
            device=device,
            random_state=random_state,
            **options,
        )
        for name, options in presets.items()
    }
    embeddings = fit_together(list(encoders.values()), images[rows])
    scores = {
        name: max(propose_n_clusters(embedding, random_state=random_state).modularities)
        for name, embedding in zip(encoders, embeddings, strict=True)
    }
    best = max(scores, key=lambda name: scores[name])
    listed = ", ".join(f"{name} {score:.3f}" for name, score in scores.items())
    why = f"preset '{best}': its features divide {len(rows):,} images most clearly into groups (modularity: {listed})"
    encoder = clone(encoders[best]).set_params(n_components=n_components_of(len(images)))
    return ChosenEncoder(encoder, best, scores, why)


def n_components_of(n_images: int) -> int:
    """Number of principal components for a set of `n_images`: one for every 8 images, at least 8, at most 128."""
    return min(N_COMPONENTS, max(MIN_COMPONENTS, n_images // IMAGES_PER_COMPONENT))


def within_time(
    encoder: PretrainedEncoder, images: Images, *, seconds: float, cache: FeatureCache | None = None
) -> tuple[PretrainedEncoder, str]:
    """Reduce the views of `encoder`, then its image size, until it embeds all images within `seconds`.

    A forward pass is timed on a few images, unless its stated cost leaves no doubt.

    Parameters
    ----------
    encoder : PretrainedEncoder
        EfficientNet-Lite0, not fitted.
    images : Images
    seconds : float
    cache : imatlas.models.parts.feature_cache.FeatureCache, optional
        Images whose features it holds cost nothing.

    Returns
    -------
    encoder : PretrainedEncoder
    why : str
        What was reduced, in words; "" if nothing was.
    """
    asked = n_forward_passes({"": encoder.get_params()})
    stated = STATED_SECONDS * (SIDE / COMPARED_AT) ** 2
    if len(images) * asked * stated <= CERTAIN * seconds:
        return encoder, ""
    n = len(images) if cache is None else encoder.n_uncached(images, cache)
    per_pass = seconds_per_pass(images, encoder.device) if n else 0.0
    if n * asked * per_pass <= seconds:
        return encoder, ""
    changes = [
        {"views": views, "rotation_invariant": encoder.rotation_invariant} for views in range(encoder.views - 1, 0, -1)
    ]
    changes += [{"views": 1, "rotation_invariant": False, "image_size": size} for size in (SIDE, *SMALLER)]
    for change in changes:
        n_passes = n_forward_passes({"": change})
        size = change.get("image_size") or SIDE
        at_size = per_pass if size == SIDE else seconds_per_pass(images, encoder.device, size)
        if n * n_passes * at_size <= seconds:
            break
    smaller = f", at {size} px instead of {SIDE}" if size < SIDE else ""
    why = (
        f"{n_passes} of {asked} views of each image{smaller}, because one view takes {1000 * per_pass:.0f} ms on this "
        f"machine at present and {seconds:.0f} s are left for {n:,} images (--budget gives more)"
    )
    return clone(encoder).set_params(**change), why


def embedding_seconds(encoder: PretrainedEncoder, images: Images) -> float:
    """Seconds that the features of all images take at present, by an encoder that need not be fitted."""
    n_passes = n_forward_passes({"": encoder.get_params()})
    return len(images) * n_passes * seconds_per_pass(images, encoder.device, encoder.side)


def seconds_per_pass(images: Images, device: str = "auto", image_size: int = SIDE) -> float:
    """Seconds that one forward pass of one image takes at present, including decoding; timed on a few images."""
    few = images[: min(N_TIMED, len(images))]
    encoder = PretrainedEncoder(image_size=image_size, device=device).fit(few)
    encoder.transform(few[:4])  # warm-up
    began = time.perf_counter()
    encoder.transform(few)
    return (time.perf_counter() - began) / len(few)


def n_forward_passes(presets: Presets) -> int:
    """Number of forward passes per image that these presets take together; shared views count once."""
    views = [views_of(of.get("views", 1), of.get("rotation_invariant", False)) for of in presets.values()]
    return len(set().union(*views))


def max_views(n_images: int) -> int:
    """Maximum number of views of each image in a set of `n_images`."""
    return next((views for limit, views in VIEWS if n_images <= limit), 1)


def encoder_for(
    images: Images, *, n_all: int, seconds: float, device: str = "auto", random_state: int = 0
) -> ChosenEncoder:
    """Choose a preset on a sample of the images, or take `COMBINED` if there are too few images or too little time.

    The size of the sample follows from `seconds` and a stated cost rather than from a clock, so that the same settings
    choose the same preset.

    Parameters
    ----------
    images : Images
        Images to compare on.
    n_all : int
        Number of images that will be embedded; it limits the number of views (`max_views`).
    seconds : float
        Time limit of the comparison on one core.
    device : str
    random_state : int
    """
    most = max_views(n_all)
    presets = {
        name: {**options, **({"views": min(options["views"], most)} if "views" in options else {})}
        for name, options in {**PRESETS, COMBINED: COMBINED_OPTIONS}.items()
        if not options.get("rotation_invariant") or most >= 4
    }
    combined = presets.pop(COMBINED)
    seconds_per_image = n_forward_passes(presets) * STATED_SECONDS
    n_sample = min(N_IMAGES, len(images), int(seconds / seconds_per_image))
    if len(images) >= MIN_IMAGES and n_sample >= MIN_SAMPLE:
        chosen = choose_encoder(
            images, image_size=COMPARED_AT, device=device, n_images=n_sample, presets=presets, random_state=random_state
        )
        return replace(chosen, encoder=chosen.encoder.set_params(image_size=None))
    encoder = PretrainedEncoder(
        n_components=n_components_of(len(images)), whiten=WHITEN, device=device, random_state=random_state, **combined
    )
    why = (
        f"preset '{COMBINED}', chosen without a comparison, which needs at least {MIN_IMAGES} images and "
        f"{MIN_SAMPLE * seconds_per_image:.0f} s (here: {len(images):,} images, "
        f"{f'{seconds:.0f}' if seconds >= 1 else 'less than 1'} s)"
    )
    return ChosenEncoder(encoder, COMBINED, {}, why)
