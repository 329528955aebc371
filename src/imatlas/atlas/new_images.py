"""New images from the generator of an atlas, and edits of images by it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa

from imatlas.arguments import article, check_int, check_number, check_path, check_seed, refused, whole
from imatlas.atlas import queries
from imatlas.atlas.store import Store
from imatlas.errors import DecodeError, InputError, SourceError
from imatlas.images.dataset import Images
from imatlas.images.decode import read_picture
from imatlas.images.picture import Fit
from imatlas.images.sources.user_input import as_one, as_several
from imatlas.images.tensors import to_view
from imatlas.tasks.conditions import Cell, require_conditional, require_start, sample_from_map

MISSING, KNOWN, TOLERANCE = 64, 192, 3
"""Values of a mask while it is resized, within which a filter may overshoot, and how much a known pixel may deviate."""


Axis = Literal["horizontal", "vertical"]
"""The direction in which a blend goes from its first image to its second."""


@dataclass(frozen=True)
class Provenance:
    """Where the pixels of new images come from.

    Attributes
    ----------
    rows : array (n, H, W) of int64
        The row in the table of the atlas of the image that weighs most at each pixel; -1 if that image was removed
        from the atlas, or changed, since the generator was fitted.
    sources : list of dict {str: float}
        For each new image, the keys that its images had when the generator was fitted, with their share of the pixels,
        largest first; they sum to 1.
    """

    rows: np.ndarray
    sources: list[dict[str, float]]

    def table(self) -> pa.Table:
        """One row per new image and source: `image` from 0, `key` and `share`."""
        found = [(image, key, share) for image, one in enumerate(self.sources) for key, share in one.items()]
        kinds = {"image": pa.int64(), "key": pa.string(), "share": pa.float64()}
        return pa.table({name: pa.array([row[i] for row in found], kinds[name]) for i, name in enumerate(kinds)})


def sample(
    store: Store,
    n: int,
    *,
    targets: dict[str, Any],
    merged: np.ndarray,
    like: Any,
    strength: float,
    options: dict[str, Any],
    return_provenance: bool,
    random_state: int,
) -> Any:
    """See `Atlas.sample`; `targets` are cell, cluster and weights, `merged` the cluster that each counts as, `options`
    novelty, shape and tile."""
    n, random_state = check_int(n, "n", "sample", low=1), check_seed(random_state, "sample")
    strength = check_number(strength, "strength", "sample", low=0, high=1)
    if options.get("shape") is not None:
        options["shape"] = check_shape(options["shape"], "sample")
    model = store.model("generator")
    targets = {name: value for name, value in targets.items() if value is not None}
    options = {name: value for name, value in options.items() if value is not None and value is not False}
    if options or return_provenance:
        _require(model, "panorama", " and ".join(map(repr, [*options, *["return_provenance"] * return_provenance])))
    images = [] if like is None else as_several(like, "like")
    near = queries.cells_of(store, images)
    if images and not targets and strength < 1:
        other = [name for name in ("shape", "tile") if name in options] + ["return_provenance"] * return_provenance
        if other:
            raise InputError(
                f"Variations of images take no {' and no '.join(map(repr, other))}; sample the cells of the images "
                "instead, with strength=1."
            )
        require_start(model, "vary")
        turn = np.arange(n) % len(images)
        pixels, y = queries.pixels_of(store, images)[turn], store.map_conditions.prototypes[near[turn]]
        made = model.vary(pixels, strength=strength, y=y, random_state=random_state, **options)
        return to_view(made, store.spec)
    if images:
        targets["near"] = near.tolist()
    if return_provenance:
        options["return_provenance"] = True
    conditions = replace(store.map_conditions, clusters=merged[store.map_conditions.clusters])
    made = sample_from_map(model, conditions, n, random_state=random_state, options=options, **targets)
    if not return_provenance:
        return to_view(made, store.spec)
    images_made, found = made
    return to_view(images_made, store.spec), _in_atlas(store, found)


def morph(
    store: Store,
    images: Sequence[Any],
    cells: Sequence[Cell],
    *,
    frames: int,
    novelty: float | None,
    random_state: int,
) -> np.ndarray:
    """See `Atlas.morph`."""
    frames, random_state = check_int(frames, "frames", "morph", low=2), check_seed(random_state, "morph")
    _check_cells(cells, "morph")
    model = store.model("generator")
    if bool(images) == bool(len(cells)) or max(len(images), len(cells)) < 2:
        raise InputError(
            f"A morph goes between two or more images, or along two or more cells. Got {len(images)} images and "
            f"{len(cells)} cells."
        )
    if novelty is not None:
        _require(model, "panorama", "'novelty'")
    require_start(model, "morph")
    options = {} if novelty is None else {"novelty": novelty}
    way = queries.cells_of(store, images) if images else store.map_conditions.path(cells)
    pixels = queries.pixels_of(store, images) if images else None
    y = store.map_conditions.prototypes[way]
    return to_view(model.morph(frames, images=pixels, y=y, random_state=random_state, **options), store.spec)


def panorama(
    store: Store,
    images: Sequence[Any],
    cells: Sequence[Cell],
    *,
    shape: tuple[int, int] | None,
    novelty: float | None,
    random_state: int,
) -> np.ndarray:
    """See `Atlas.panorama`."""
    random_state = check_seed(random_state, "panorama")
    _check_cells(cells, "panorama")
    n = max(len(images), len(cells))
    if bool(images) == bool(len(cells)):
        raise InputError(
            f"A panorama goes through one or more images, or along one or more cells. Got {len(images)} images and "
            f"{len(cells)} cells."
        )
    size = (store.spec.height, store.spec.width * max(3, 2 * n - 1))
    size = size if shape is None else check_shape(shape, "panorama")
    model = store.model("generator")
    _require(model, "panorama", "panorama")
    require_conditional(model)
    if images:
        y = np.concatenate([queries.embedding_of(store, image) for image in images])
    else:
        y = store.map_conditions.prototypes[store.map_conditions.path(cells)]
    made = model.panorama(y, shape=size, novelty=novelty, random_state=random_state)
    return to_view(made[None], store.spec)[0]


def inpaint(store: Store, images: Any, mask: Any, novelty: float | None, random_state: int) -> np.ndarray:
    """See `Atlas.inpaint`."""
    random_state = check_seed(random_state, "inpaint")
    images, model = as_several(images), store.model("generator")
    _require(model, "inpaint", "inpaint")
    if not images:
        return np.zeros((0, *store.spec.shape), np.uint8)
    missing = _missing(store, images, mask)
    pixels = queries.pixels_of(store, images)
    holes = missing | np.isnan(pixels).any(-1) if pixels.dtype.kind == "f" else missing
    for i, one in enumerate(holes):
        if not one.any() or one.all():
            raise InputError(
                f"Image {i} has {'no' if not one.any() else 'only'} missing pixels; mark what is to be filled in with "
                "'mask', True (or white) where a pixel is missing."
            )
    return to_view(model.inpaint(pixels, missing, novelty=novelty, random_state=random_state), store.spec)


def extend(
    store: Store,
    image: Any,
    shape: tuple[int, int],
    *,
    at: tuple[int, int] | None,
    novelty: float | None,
    random_state: int,
) -> np.ndarray:
    """See `Atlas.extend`."""
    random_state = check_seed(random_state, "extend")
    size = check_shape(shape, "extend")
    at = None if at is None else _two_ints(at, "at", "extend", "two ints of at least 0: row and column in pixels", 0)
    model = store.model("generator")
    _require(model, "extend", "extend")
    made = model.extend(queries.pixels_of(store, [image]), size, at=at, novelty=novelty, random_state=random_state)
    return to_view(made, store.spec)[0]


def blend(
    store: Store,
    first: Any,
    second: Any,
    mask: Any,
    *,
    axis: Axis | None,
    strength: float,
    novelty: float | None,
    random_state: int,
) -> np.ndarray:
    """See `Atlas.blend`."""
    random_state = check_seed(random_state, "blend")
    strength = check_number(strength, "strength", "blend", low=0, high=1)
    if axis is not None and (not isinstance(axis, str) or axis not in get_args(Axis)):
        raise refused("axis", "blend", "'horizontal', 'vertical' or None", axis)
    if axis is not None and mask is not None:
        raise InputError("A blend takes either a 'mask' or an 'axis'. Got both; omit one.")
    model = store.model("generator")
    _require(model, "blend", "blend")
    pixels = queries.pixels_of(store, [first, second])
    share = _share_of_second(store, first, mask, axis)
    options: dict[str, Any] = {"strength": strength, "novelty": novelty, "random_state": random_state}
    return to_view(model.blend(pixels[:1], pixels[1:], share, **options), store.spec)[0]


def sliders(store: Store, image: Any, directions: int, steps: int) -> np.ndarray:
    """See `Atlas.sliders`."""
    directions = check_int(directions, "directions", "sliders", low=1)
    steps, model = check_int(steps, "steps", "sliders", low=2), store.autoencoder
    if model is None:
        name = type(store.model("generator")).__name__
        raise InputError(f"The generator is a {name}, which has no latent vectors to move along.")
    pixels = None if image is None else queries.pixels_of(store, [image])
    made = model.sliders(pixels, n_directions=directions, n_steps=steps)
    return to_view(made.reshape(-1, *made.shape[2:]), store.spec).reshape(*made.shape[:4], -1)


# -- checks ------------------------------------------------------------------------------------------------------------


def check_shape(shape: Any, of: str) -> tuple[int, int]:
    """A height and a width in pixels.

    Raises
    ------
    ParameterError
        If they are not two ints of at least 1.
    """
    return _two_ints(shape, "shape", of, "two ints of at least 1: height and width in pixels", 1)


def _two_ints(value: Any, name: str, of: str, must: str, low: int) -> tuple[int, int]:
    parts = value.tolist() if isinstance(value, np.ndarray) else value
    numbers = [whole(part) for part in parts] if isinstance(parts, list | tuple) else []
    if len(numbers) != 2 or any(number is None or number < low for number in numbers):
        raise refused(name, of, must, value)
    first, second = (number or 0 for number in numbers)
    return first, second


def _check_cells(cells: Any, of: str) -> None:
    if isinstance(cells, str) or not hasattr(cells, "__len__"):
        raise refused("cells", of, "a sequence of (row, column) or of flat indices", cells)


def _require(model: Any, verb: str, asked: str) -> None:
    """Refuse a generator without the method `verb`, which `asked` needs."""
    if not hasattr(model, verb):
        raise InputError(
            f"The generator of this atlas is {article(type(model).__name__)}, which does not support {asked}; a "
            "PatchDiffusion does, which 'imatlas learn' chooses for small sets of images."
        )


# -- provenance --------------------------------------------------------------------------------------------------------


def _in_atlas(store: Store, found: Any) -> Provenance:
    """Provenance by training image of the generator, by rows and keys of the atlas."""
    keys, rows = store.composed_of
    sources = [{keys[row]: share for row, share in one.items()} for one in found.sources]
    return Provenance(rows[found.rows], sources)


# -- masks -------------------------------------------------------------------------------------------------------------


def _missing(store: Store, images: list[Any], mask: Any) -> np.ndarray:
    """Where pixels of images are missing, (n, H, W) of bool in the size that the models see."""
    if mask is None:
        masks = [_transparent(store, image) for image in images]
    else:
        array = _read_gray(mask, "inpaint") >= 0.5 if isinstance(mask, str | Path) else np.asarray(mask)
        if array.dtype != bool or array.ndim not in (2, 3) or (array.ndim == 3 and len(array) != len(images)):
            raise InputError(
                "The 'mask' must be an image file, or bool of shape (H, W) or (n, H, W), True where a pixel is "
                f"missing. Got {array.dtype} of shape {array.shape} for {len(images)} images."
            )
        masks = list(array) if array.ndim == 3 else [array] * len(images)
        for image, one in zip(images, masks, strict=True):
            _check_mask(store, image, one)
    return np.stack([_resized(store, image, one) for image, one in zip(images, masks, strict=True)])


def _check_mask(store: Store, image: Any, mask: np.ndarray) -> None:
    """Refuse a mask that has neither the size of the models nor that of the image."""
    if mask.shape == store.spec.shape[:2]:
        return
    own = queries.row_of(store, image)
    if len(own):
        sizes = store.table.take(own, ["height", "width"]).to_pylist()[0]
        size = (sizes["height"], sizes["width"])
    else:
        size = Images(as_one(image))[0].shape[:2]
    if mask.shape != size:
        raise InputError(
            f"The 'mask' must have the size of the image, {size[1]} x {size[0]} pixels. "
            f"Got {mask.shape[1]} x {mask.shape[0]}."
        )


def _read_gray(path: str | Path, of: str) -> np.ndarray:
    """A gray picture (H, W) from 0, black or transparent, to 1, white."""
    images = Images(as_one(check_path(path, "mask", of), "mask"))
    view = to_view(np.asarray(images[0]), images.spec) / 255
    gray: np.ndarray = view[..., : 3 if view.shape[-1] >= 3 else 1].mean(-1)
    return gray * view[..., -1] if images.spec.alpha else gray


def _share_of_second(store: Store, first: Any, mask: Any, axis: Axis | None) -> np.ndarray:
    """How much of the second image of a blend is wanted: one number, or (H, W) in the size that the models see."""
    height, width = store.spec.shape[:2]
    if axis is not None:
        across = np.linspace(0, 1, width) if axis == "horizontal" else np.linspace(0, 1, height)[:, None]
        return np.broadcast_to(across, (height, width))
    if mask is None:
        return np.array(0.5)
    share = _read_gray(mask, "blend") if isinstance(mask, str | Path) else np.asarray(mask)
    if share.dtype.kind not in "bfiu" or share.ndim not in (0, 2) or not ((share >= 0) & (share <= 1)).all():
        raise InputError(
            "The 'mask' of a blend must be an image file, or a number or an array (H, W) from 0, the first image, to "
            f"1, the second. Got {share.dtype} of shape {share.shape}."
        )
    if share.ndim == 0:
        return share.astype(float)
    _check_mask(store, first, share)
    if share.shape == (height, width):
        return share.astype(float)
    return _like_image(store, first, np.rint(255 * share.astype(float)).astype(np.uint8), 0) / 255


def _transparent(store: Store, image: Any) -> np.ndarray:
    """Where an image is fully transparent, (H, W) of bool at its own size; nowhere without an alpha channel."""
    own = queries.row_of(store, image)
    if not len(own):
        images = Images(as_one(image))
        pixels, alpha = np.asarray(images[0]), images.spec.alpha
    else:
        content: Any = None
        with suppress(DecodeError, SourceError, OSError):
            content = store.originals.content(
                str(store.rows["key"][own[0]]), store.table.take(own, ["sha256"]).to_pylist()[0]["sha256"]
            )
        picture = read_picture(content if isinstance(content, bytes) else store.thumbnails(own)[0])
        pixels, alpha = picture.pixels(), picture.kind.alpha
    return pixels[..., -1] == 0 if alpha else np.zeros(pixels.shape[:2], bool)


def _resized(store: Store, image: Any, mask: np.ndarray) -> np.ndarray:
    """A mask, cropped, padded or stretched as its image is; a pixel that a missing one contributes to is missing."""
    height, width = store.spec.shape[:2]
    if mask.shape == (height, width) or not mask.any():
        return mask if mask.any() else np.zeros((height, width), bool)
    resized = _like_image(store, image, np.where(mask, MISSING, KNOWN).astype(np.uint8), KNOWN)
    return np.abs(resized.astype(int) - KNOWN) > TOLERANCE


def _like_image(store: Store, image: Any, values: np.ndarray, background: int) -> np.ndarray:
    """Values (h, w) uint8 at the size that the models see, cropped, padded or stretched as an image is."""
    fit: Fit = store.manifest.settings["fit"] if len(queries.row_of(store, image)) else "crop"
    size = store.spec.shape[:2]
    images = Images(values[None, ..., None], image_size=size, fit=fit, background=(background,) * 3)
    return np.asarray(images.pixels[0, ..., 0])
