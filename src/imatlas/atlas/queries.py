"""The images that a user asks an atlas about: one of its own by key, or any other image."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow.compute as pc

from imatlas.atlas.originals import Region, cropped
from imatlas.atlas.store import Store
from imatlas.atlas.table import THUMBNAIL
from imatlas.errors import DecodeError, InputError, Notice, SourceError
from imatlas.images.dataset import Images, images_of, load_pixels, pixels_like
from imatlas.images.decode import read_picture
from imatlas.images.keys import keys_of
from imatlas.images.pixels import alike, conformed, kind_of
from imatlas.images.sources.user_input import as_one, as_several
from imatlas.images.spec import ImageSpec


def row_of(store: Store, image: Any) -> np.ndarray:
    """The row of the image whose key `image` is, (1,) int64; (0,) if it is no key of this atlas."""
    if not isinstance(image, str):
        return np.array([], dtype=np.int64)
    rows = (pc.index(store.keys, key).as_py() for key in keys_of(image))
    return np.array([row for row in rows if row >= 0][:1], dtype=np.int64)


def embedding_of(store: Store, image: Any, name: str = "image") -> np.ndarray:
    """The features of one image, (1, n_features): from the table by its key, or from the encoder.

    Raises
    ------
    InputError
        If `image` is a file of several pictures.
    """
    own = row_of(store, image)
    if len(own):
        return store.vectors.at(own)
    found = np.asarray(store.model("encoder").transform(for_encoder(store, as_one(image, name))), np.float32)
    if len(found) != 1:
        raise InputError(f"The '{name}' must be one image. Got a file of {len(found)} pictures; give one of them.")
    return found


def embed(store: Store, images: Any) -> np.ndarray:
    """The features of images from anywhere, (n, n_features) float32."""
    model, images = store.model("encoder"), for_encoder(store, images)
    if not len(images):
        return np.empty((0, store.table.n_features("embedding") or model.n_features_in_), np.float32)
    return np.asarray(model.transform(images), dtype=np.float32)


def for_encoder(store: Store, images: Any) -> Images | np.ndarray:
    """Images in the size, depth and channels that the encoder of the atlas takes."""
    model = store.model("encoder")
    if not model.pretrained:  # it takes only images like those it was trained on
        return pixels_like(images, model.spec_)
    if not isinstance(images, Images):
        has_pixels = isinstance(images, np.ndarray) or hasattr(images, "detach")
        images = images_of(images, image_size=None if has_pixels else model.source_side)
    if isinstance(images, Images) and not alike(kind_of(images.spec), kind_of(model.spec_)):
        side = model.source_side
        return np.ma.getdata(pixels_like(images, replace(model.spec_, height=side, width=side)))
    return images


def cells_of(store: Store, images: Sequence[Any]) -> np.ndarray:
    """The map cell of each image, (n,) int64."""
    som = store.model("map")
    return np.array([int(som.predict(embedding_of(store, image))[0]) for image in images], np.int64)


def pixels_of(store: Store, images: Sequence[Any], spec: ImageSpec | None = None) -> np.ndarray:
    """Images (n, H, W, C) in the size and depth that the models see, or of `spec`."""
    spec = spec or store.spec
    found = []
    for image in images:
        own = row_of(store, image)
        found.append(store.pixels(own, spec) if len(own) else load_pixels(as_one(image), spec=spec)[0])
    return np.concatenate(found)


def thumbnails_of(store: Store, images: Any, region: Region | None = None) -> list[bytes]:
    """A thumbnail of each image as the bytes of an image file; of the first image only its `region`, if given."""
    found = []
    for image in as_several(images):
        own = row_of(store, image)
        if region is None and len(own):
            found += store.thumbnails(own)
            continue
        pixels, region = as_one(image) if region is None else region_of(store, image, region)[None], None
        one = Images(pixels, thumbnail_size=THUMBNAIL)
        if one.spec.dtype != store.spec.dtype == "uint8":  # black and white as in the atlas
            one = Images(_in_depth(store, one[0])[None], thumbnail_size=THUMBNAIL)
        found.append(one.thumbnails[0])
    return found


def region_of(store: Store, image: Any, region: Region) -> np.ndarray:
    """A region of one image at its original size, (height, width, C); of its thumbnail if the original is gone.

    Raises
    ------
    InputError
        If the region does not lie within the image.
    """
    own = row_of(store, image)
    if not len(own):
        return cropped(_in_depth(store, np.asarray(Images(as_one(image))[0])), region, "the image")
    size = store.table.take(own, ["width", "height", "sha256"]).to_pylist()[0]
    try:
        whole = store.originals.pixels(image, size["sha256"])
    except (DecodeError, SourceError, OSError) as error:
        small = read_picture(store.thumbnails(own)[0]).pixels()
        shape = f"{small.shape[1]} x {small.shape[0]}"
        warnings.warn(
            f"The original of '{image}' cannot be used ({error}); the region is cropped from its thumbnail of {shape} "
            "pixels.",
            Notice,
            stacklevel=4,
        )
        cropped(np.empty((size["height"], size["width"], 0)), region, f"'{image}'")
        share = np.tile([small.shape[1] / size["width"], small.shape[0] / size["height"]], 2)
        left, top, width, height = (int(v) for v in np.array(region) * share)
        return small[top : top + max(1, height), left : left + max(1, width)]
    return cropped(_in_depth(store, whole), region, f"'{image}'")


def _in_depth(store: Store, whole: np.ndarray) -> np.ndarray:
    """A whole image (H, W, C) in the depth of the atlas; the range of a region alone would not be that of the image."""
    if whole.dtype.name == store.spec.dtype:
        return whole
    own = Images(whole[None])
    to = replace(own.spec, dtype=store.spec.dtype, low=store.spec.low, high=store.spec.high)
    return conformed(own.pixels, own.spec, to)[0]
