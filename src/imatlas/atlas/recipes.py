"""Recipes of new images: everything that they depend on, in keys and numbers, so that they can be made again."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from imatlas.arguments import article
from imatlas.atlas import queries
from imatlas.atlas.store import Store
from imatlas.errors import InputError
from imatlas.system.inventory import seal
from imatlas.tasks.conditions import Start, composes, why_no_start

if TYPE_CHECKING:
    from imatlas.atlas.atlas import Atlas

N_SEEDS = 2**32

Key = Annotated[str, Field(min_length=1, max_length=5000)]
Share = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=N_SEEDS)]
Variants = Annotated[int, Field(ge=1, le=16)]
Border = Annotated[int, Field(ge=0, le=512)]


class _Recipe(BaseModel):
    """What all recipes are: values that JSON can hold, and nothing unknown."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class _Seeded(_Recipe):
    novelty: Share | None = None
    seed: Seed = 0


class Sampling(_Seeded):
    """New images of the cells of some images, or of the whole map; with a strength below 1, variations of them."""

    kind: Literal["sample"]
    images: Annotated[list[Key], Field(max_length=16)] = []
    n: Annotated[int, Field(ge=1, le=64)] = 8
    strength: Share = 1.0
    tile: bool = False


class Morphing(_Seeded):
    """Frames on the way from image to image."""

    kind: Literal["morph"]
    images: Annotated[list[Key], Field(min_length=2, max_length=8)]
    frames: Annotated[int, Field(ge=2, le=120)] = 16


class Blending(_Seeded):
    """One image of two; variant i has the seed `seed` + i."""

    kind: Literal["blend"]
    images: Annotated[list[Key], Field(min_length=2, max_length=2)]
    n: Variants = 4
    axis: Literal["horizontal", "vertical"] | None = None
    strength: Share = 0.5


class Panorama(_Seeded):
    """One wide image along a path through images; variants as of `Blending`."""

    kind: Literal["panorama"]
    images: Annotated[list[Key], Field(min_length=1, max_length=8)]
    n: Variants = 2


class Inpainting(_Seeded):
    """An image in which a part is filled in; variants as of `Blending`.

    `mask` has one bit per pixel of the generator's images, row by row, 1 where a pixel is missing: the bytes of
    `numpy.packbits`, in base 64.
    """

    kind: Literal["inpaint"]
    images: Annotated[list[Key], Field(min_length=1, max_length=1)]
    mask: Annotated[str, Field(max_length=2**21)]
    n: Variants = 4


class Extending(_Seeded):
    """An image that is continued beyond its borders, by pixels on each side; variants as of `Blending`."""

    kind: Literal["extend"]
    images: Annotated[list[Key], Field(min_length=1, max_length=1)]
    top: Border = 0
    right: Border = 0
    bottom: Border = 0
    left: Border = 0
    n: Variants = 4


class Sliding(_Recipe):
    """What changes along the main directions of variation, from an image or from the mean of all."""

    kind: Literal["sliders"]
    images: Annotated[list[Key], Field(max_length=1)] = []
    directions: Annotated[int, Field(ge=1, le=16)] = 6
    steps: Annotated[int, Field(ge=2, le=15)] = 9


Recipe = Annotated[
    Sampling | Morphing | Blending | Panorama | Inpainting | Extending | Sliding, Field(discriminator="kind")
]


@dataclass(frozen=True)
class Made:
    """What was made by a recipe.

    Attributes
    ----------
    images : array (n, H, W, C) uint8
        Of sliders those of the first direction first.
    rows : array (n, H, W) of int64, or None
        The row of the image that weighs most at each pixel, -1 if it left the atlas; None if the generator does not
        know.
    sources : list of dict {key: share}
        For each image, largest first; empty if unknown.
    """

    images: np.ndarray
    rows: np.ndarray | None = None
    sources: tuple[dict[str, float], ...] = ()


def make(atlas: Atlas, recipe: Any) -> Made:
    """Make what a recipe describes; the same generator makes the same images of it.

    Parameters
    ----------
    atlas : Atlas
    recipe : one of the recipes of this module

    Raises
    ------
    InputError
        If the atlas has not all of its images, its generator cannot make such images, or a mask or border does not fit.
    """
    for key in recipe.images:
        if not len(queries.row_of(atlas.store, key)):  # it would be taken for a path
            raise InputError(f"There is no image '{key}' in this atlas; choose another one.")
    reason = cannot(atlas.store).get(recipe.kind)
    if reason:
        raise InputError(reason)
    makers: dict[str, Callable[[Atlas, Any], Made]] = {
        "sample": _sampled,
        "morph": _morphed,
        "sliders": _slid,
        "blend": _blended,
        "panorama": _panorama,
        "inpaint": _inpainted,
        "extend": _extended,
    }
    return makers[recipe.kind](atlas, recipe)


def cannot(store: Store) -> dict[str, str]:
    """What the generator of an atlas cannot make or take into account, each with the reason in a sentence.

    The names are the kinds of recipes, and "place", "strength", "novelty" and "tile".
    """
    model = store.model("generator")
    name = type(model).__name__
    whole = (
        f"The generator of this atlas, {article(name)}, makes whole images at once; this needs one that composes "
        "them of patches, a PatchDiffusion, which 'imatlas learn' chooses for small sets."
    )
    found = {} if composes(model) else dict.fromkeys(("novelty", "tile", "panorama", "blend"), whole)
    found |= {kind: whole for kind in ("inpaint", "extend") if not hasattr(model, kind)}
    starts: dict[str, Start | None] = {"place": None, "strength": "vary", "morph": "morph"}
    found |= {kind: reason for kind, verb in starts.items() if (reason := why_no_start(model, verb))}
    if store.autoencoder is None:
        found["sliders"] = (
            "Sliders move along the directions in which latent vectors vary most. This atlas has no latent vectors: "
            f"its generator is {article(name)}, and its encoder cannot decode."
        )
    return found


def generator_of(store: Store) -> str:
    """A hash of what makes images by a recipe: the generator, the map whose cells it is given, and the encoder."""
    models = [name for role, name in store.manifest.models.items() if role in ("encoder", "map", "generator")]
    names = [file for model in models for file in store.inventory.below(model)]
    return seal({name: store.inventory.files[name].sha256 for name in names})[:16]


def packed(mask: np.ndarray) -> str:
    """A mask (H, W) of bool as a recipe holds it."""
    return base64.b64encode(np.packbits(np.asarray(mask, bool)).tobytes()).decode()


def _unpacked(mask: str, shape: tuple[int, int]) -> np.ndarray:
    n = shape[0] * shape[1]
    try:
        bits = np.unpackbits(np.frombuffer(base64.b64decode(mask, validate=True), np.uint8))
    except (binascii.Error, ValueError):
        bits = np.empty(0, np.uint8)
    if len(bits) != 8 * -(-n // 8):
        raise InputError(f"The mask must have one bit per pixel of an image of {shape[1]} x {shape[0]} pixels, packed.")
    return bits[:n].reshape(shape).astype(bool)


def _novelty(recipe: Any) -> dict[str, Any]:
    return {} if recipe.novelty is None else {"novelty": recipe.novelty}


def _variants(recipe: Any, one: Callable[..., np.ndarray], *given: Any, **options: Any) -> Made:
    """Images by several seeds, of a verb that makes one."""
    seeds = [(recipe.seed + i) % N_SEEDS for i in range(recipe.n)]
    return Made(np.stack([one(*given, random_state=seed, **options, **_novelty(recipe)) for seed in seeds]))


def _sampled(atlas: Atlas, recipe: Sampling) -> Made:
    if recipe.images and (reason := cannot(atlas.store).get("place" if recipe.strength == 1 else "strength")):
        raise InputError(reason)
    traced = composes(atlas.model("generator")) and not (recipe.images and recipe.strength < 1)
    options = {"like": recipe.images or None, "strength": recipe.strength, "tile": recipe.tile, **_novelty(recipe)}
    made = atlas.sample(recipe.n, random_state=recipe.seed, return_provenance=traced, **options)
    if not traced:
        return Made(made)
    images, found = made
    return Made(images, found.rows, tuple(found.sources))


def _morphed(atlas: Atlas, recipe: Morphing) -> Made:
    return Made(atlas.morph(*recipe.images, frames=recipe.frames, random_state=recipe.seed, **_novelty(recipe)))


def _blended(atlas: Atlas, recipe: Blending) -> Made:
    return _variants(recipe, atlas.blend, *recipe.images, axis=recipe.axis, strength=recipe.strength)


def _panorama(atlas: Atlas, recipe: Panorama) -> Made:
    return _variants(recipe, atlas.panorama, *recipe.images)


def _inpainted(atlas: Atlas, recipe: Inpainting) -> Made:
    height, width = atlas.store.spec.shape[:2]
    mask = _unpacked(recipe.mask, (height, width))
    return _variants(recipe, lambda *given, **options: atlas.inpaint(*given, **options)[0], recipe.images[0], mask)


def _extended(atlas: Atlas, recipe: Extending) -> Made:
    height, width = atlas.store.spec.shape[:2]
    shape = (recipe.top + height + recipe.bottom, recipe.left + width + recipe.right)
    if shape == (height, width):
        raise InputError("An image is continued by at least one pixel; say on which side, and by how many.")
    return _variants(recipe, atlas.extend, recipe.images[0], shape, at=(recipe.top, recipe.left))


def _slid(atlas: Atlas, recipe: Sliding) -> Made:
    made = atlas.sliders(recipe.images[0] if recipe.images else None, directions=recipe.directions, steps=recipe.steps)
    return Made(made.reshape(-1, *made.shape[2:]))
