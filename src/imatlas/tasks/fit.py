"""Learn one model from images and save it: what `imatlas fit MODEL` does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from imatlas.arguments import check_path, strict_yes
from imatlas.errors import InputError
from imatlas.images.dataset import Images
from imatlas.models import artifact
from imatlas.system.atomic_io import make_folder, output_path, refuse_links, remove_listed
from imatlas.training import checkpoints


@strict_yes
def fit_and_save(model: Any, images: Images, folder: str | Path, *, overwrite: bool = False) -> Any:
    """Fit `model` to `images` and save it to `folder`; a killed run of the same settings is resumed.

    Image models see the pictures. Vector models (SOM, KMeans) see the pixels of each picture as one row
    (n_images, height * width * channels), from 0 to 1.

    Parameters
    ----------
    model : Estimator
    images : Images
    folder : path
        Where the model goes; its checkpoint is kept beside it, as `FOLDER.checkpoint`, until it is saved.
    overwrite : bool
        Replace a model that is already there.

    Returns
    -------
    Estimator
        The fitted model.

    Raises
    ------
    ArtifactError
        Where `folder` exists and `overwrite` is False, or it holds anything besides a model.
    InputError
        Where the model learns from labels.
    """
    if model.labels == "required":
        raise InputError(
            f"A {type(model).__name__} learns from labels, and there are none here; 'imatlas classify' spreads a few "
            "labels over the images of an atlas."
        )
    folder = output_path(check_path(folder, "folder", "fit_and_save"))
    artifact.check_free(folder, overwrite)
    if model.resumable:
        folder = Path(os.path.abspath(folder))  # "." has no name
        checkpoint = folder.with_name(folder.name + ".checkpoint")
        refuse_links(folder.parent, [checkpoint.name + "/"])
        make_folder(folder.parent)
        model.fit(images, checkpoint=checkpoint)
        model.save(folder, overwrite=overwrite)
        remove_listed(checkpoint, [checkpoints.NAME])
        return model
    if model.input == "images":
        model.fit(images)
    else:
        rows = images.pixels.reshape(len(images), -1).astype(np.float32)
        model.fit((rows - images.spec.low) / (images.spec.high - images.spec.low))
    model.save(folder, overwrite=overwrite)
    return model
