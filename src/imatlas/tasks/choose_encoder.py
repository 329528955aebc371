"""Choose what of the pretrained eyes to use for a set of images, by a score that needs no label."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.base import clone

from imatlas.images.dataset import Images
from imatlas.models.image_clusterer import propose_n_clusters
from imatlas.models.parts.feature_cache import Kept
from imatlas.models.pretrained import SIDE, PretrainedEncoder, fit_together

EYES: dict[str, dict[str, Any]] = {
    "things": {"views": 3},
    "surfaces": {"layers": "many"},
    "surfaces without an up": {"layers": "many", "turned": True},
}
"""What to look at, and the parameters of `PretrainedEncoder` for it."""

N_COMPONENTS, WHITEN = 128, 0.5
"""Most principal components of the features, and how far they are brought to one spread."""

IMAGES_A_COMPONENT, FEWEST_COMPONENTS = 8, 8
"""Images that each component takes: of fewer, the last ones are chance, which whitening would make as large as what
tells the images apart."""

N_IMAGES = 1000
"""Most images that the eyes are compared on."""

BOTH = "things and surfaces"
"""Eyes that are taken without a comparison: seldom far from the better of these two, for as many looks as the first."""

BOTH_OPTIONS: dict[str, Any] = {"layers": "both", "views": 3}

FEWEST_IN_ALL = 300
"""Fewest images of a set whose eyes are compared: with fewer, those that won were no better than both together."""

FEWEST_IMAGES = 200
"""Fewest images, a sample of the set, that say which eyes are better."""

COMPARED_AT = 128
"""Height and width at which the eyes are compared: of as many seconds, more images at this size told the sets apart
more clearly than fewer at 224."""

LOOK_SECONDS = 0.007
"""What one look at an image of this size is taken to cost on one core, decoding and grouping included."""

PROBED = 16
"""Images by which is measured how long a look takes."""

CERTAIN = 0.2
"""Share of the time under which the stated cost of all looks needs no measurement."""

SMALLER = (160, 112, 80)
"""Heights and widths at which images are seen where there is no time for more."""

LOOKS = ((2_000, 4), (4_000, 2))
"""Most images of a set, and how often each is then looked at: each look takes as long again."""


@dataclass(frozen=True)
class ChosenEyes:
    """The eyes that suit a set of images.

    Attributes
    ----------
    encoder : PretrainedEncoder
        Not fitted.
    name : str
        Of `EYES`, or `BOTH`.
    scores : dict
        The modularity that each reached.
    why : str
        The reason in words.
    """

    encoder: PretrainedEncoder
    name: str
    scores: dict[str, float]
    why: str


def choose_eyes(
    images: Images,
    *,
    image_size: int | None = None,
    device: str = "auto",
    n_images: int = N_IMAGES,
    eyes: Mapping[str, Mapping[str, Any]] = EYES,
    random_state: int = 0,
) -> ChosenEyes:
    """Choose the eyes in whose features the images fall most clearly into groups.

    Each describes at most `n_images` images, drawn at random, in `n_components_of` so many. The score is the modularity
    of the best grouping of their neighbor graph (`imatlas.models.image_clusterer.propose_n_clusters`): how much fewer
    neighbors it cuts apart than chance would. All of `EYES` together look at an image 6 times.

    Parameters
    ----------
    images : Images
    image_size : int, optional
        Height and width at which the network sees the images; by default as it learned.
    device : str
    n_images : int
    eyes : dict
        Name -> parameters of `PretrainedEncoder`, for those to choose from.
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
        for name, options in eyes.items()
    }
    features = fit_together(list(encoders.values()), images[rows])
    scores = {
        name: max(propose_n_clusters(seen, random_state=random_state).modularities)
        for name, seen in zip(encoders, features, strict=True)
    }
    name = max(scores, key=lambda name: scores[name])
    told = ", ".join(f"{other} {score:.3f}" for other, score in scores.items())
    why = f"eyes for {name}: {len(rows):,} images fall most clearly into groups by them (modularity: {told})"
    chosen = clone(encoders[name]).set_params(n_components=n_components_of(len(images)))
    return ChosenEyes(chosen, name, scores, why)


def n_components_of(n_images: int) -> int:
    """Principal components that so many images say enough about: one for every 8, at least 8 and at most 128."""
    return min(N_COMPONENTS, max(FEWEST_COMPONENTS, n_images // IMAGES_A_COMPONENT))


def kept_to(
    encoder: PretrainedEncoder, images: Images, *, seconds: float, kept: Kept | None = None
) -> tuple[PretrainedEncoder, str]:
    """Eyes that look at all images within `seconds`: with fewer views than `encoder`, then at a smaller size.

    How long a look takes is measured on a few images, where a stated cost leaves any doubt.

    Parameters
    ----------
    encoder : PretrainedEncoder
        Not fitted; EfficientNet-Lite0.
    images : Images
    seconds : float
    kept : imatlas.models.parts.feature_cache.Kept, optional
        What need not be looked at again.

    Returns
    -------
    encoder : PretrainedEncoder
    why : str
        What was reduced, in words; "" where nothing was.
    """
    looks = n_looks({"": encoder.get_params()})
    stated = LOOK_SECONDS * (SIDE / COMPARED_AT) ** 2
    if len(images) * looks * stated <= CERTAIN * seconds:
        return encoder, ""
    n = len(images) if kept is None else encoder.n_unseen(images, kept)
    a_look = seconds_a_look(images, encoder.device) if n else 0.0
    if n * looks * a_look <= seconds:
        return encoder, ""
    tries = [{"views": views, "turned": encoder.turned} for views in range(encoder.views - 1, 0, -1)]
    tries += [{"views": 1, "turned": False, "image_size": size} for size in (SIDE, *SMALLER)]
    for change in tries:
        fewer = n_looks({"": change})
        size = change.get("image_size") or SIDE
        if n * fewer * a_look * (size / SIDE) ** 2 <= seconds:
            break
    smaller = f", at {size} px instead of {SIDE}" if size < SIDE else ""
    why = (
        f"{fewer} of {looks} views of each image{smaller}, because one view takes {1000 * a_look:.0f} ms here now and "
        f"{seconds:.0f} s are left for {n:,} images (--budget gives more)"
    )
    return clone(encoder).set_params(**change), why


def seconds_a_look(images: Images, device: str = "auto") -> float:
    """How long one look at one image takes now, decoding included, from a few of them."""
    few = images[: min(PROBED, len(images))]
    eyes = PretrainedEncoder(device=device).fit(few)
    eyes.transform(few[:4])  # makes ready what the first call makes ready
    began = time.perf_counter()
    eyes.transform(few)
    return (time.perf_counter() - began) / len(few)


def n_looks(eyes: Mapping[str, Mapping[str, Any]]) -> int:
    """How often these eyes together look at an image: a look that several of them take counts once."""
    looks = {
        (view, quarter)
        for options in eyes.values()
        for view in range(options.get("views", 1))
        for quarter in range(4 if options.get("turned") else 1)
    }
    return len(looks)


def most_looks(n_images: int) -> int:
    """How often each image of so many may be looked at: every look takes as long again."""
    return next((looks for limit, looks in LOOKS if n_images <= limit), 1)


def eyes_for(images: Images, *, n_all: int, seconds: float, device: str = "auto", random_state: int = 0) -> ChosenEyes:
    """The eyes for a set, chosen on a sample; eyes for things and surfaces where there are too few images or no time.

    The more images there are, the fewer looks each gets: up to 2,000 four, up to 4,000 two, above one. How large a
    sample may be follows from `seconds` and a stated cost, not from a clock, so that the same settings choose alike.

    Parameters
    ----------
    images : Images
        Those to compare on.
    n_all : int
        How many will be looked at in all.
    seconds : float
        What the comparison may take on one core.
    device : str
    random_state : int
    """
    most = most_looks(n_all)
    eyes = {
        name: {**options, **({"views": min(options["views"], most)} if "views" in options else {})}
        for name, options in {**EYES, BOTH: BOTH_OPTIONS}.items()
        if not options.get("turned") or most >= 4
    }
    both = eyes.pop(BOTH)
    n_sample = min(N_IMAGES, len(images), int(seconds / (n_looks(eyes) * LOOK_SECONDS)))
    if len(images) >= FEWEST_IN_ALL and n_sample >= FEWEST_IMAGES:
        found = choose_eyes(
            images, image_size=COMPARED_AT, device=device, n_images=n_sample, eyes=eyes, random_state=random_state
        )
        return replace(found, encoder=found.encoder.set_params(image_size=None))
    needed = FEWEST_IMAGES * n_looks(eyes) * LOOK_SECONDS
    encoder = PretrainedEncoder(
        n_components=n_components_of(len(images)), whiten=WHITEN, device=device, random_state=random_state, **both
    )
    why = (
        f"eyes for {BOTH}, not compared with others: that takes {FEWEST_IN_ALL} images and {needed:.0f} s; "
        f"there are {len(images):,} and {f'{seconds:.0f}' if seconds >= 1 else 'less than 1'} s"
    )
    return ChosenEyes(encoder, BOTH, {}, why)
