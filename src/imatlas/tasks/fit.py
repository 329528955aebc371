"""Fit one model to images and save it: `imatlas fit MODEL`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from imatlas.arguments import check_path, strict_yes
from imatlas.errors import InputError
from imatlas.images.dataset import Images
from imatlas.models import artifact
from imatlas.system import processes
from imatlas.system.atomic_io import make_folder, output_path, refuse_links, remove_listed
from imatlas.training import checkpoints


@strict_yes
def fit_and_save(model: Any, images: Images, folder: str | Path, *, overwrite: bool = False) -> Any:
    """Fit `model` to `images` and save it to `folder`; an interrupted run with the same settings is resumed.

    Under torchrun all processes train one network (docs/networks.md).

    Models of vectors (SOM, KMeans) get one row of pixels per image, (n_images, height * width * channels) from 0 to 1.

    Parameters
    ----------
    model : Estimator
    images : Images
    folder : path
        The output; until it is saved, a checkpoint is kept beside it as `FOLDER.checkpoint`.
    overwrite : bool
        Replace an existing model.

    Returns
    -------
    Estimator
        The fitted model.

    Raises
    ------
    ArtifactError
        If `folder` exists and `overwrite` is False, or it holds anything besides a model.
    InputError
        If the model requires labels.
    ParameterError
        Under torchrun, if the model is not a network.
    """
    if model.labels == "required":
        raise InputError(
            f"A {type(model).__name__} requires labels, which images alone do not have; label a few images of an atlas "
            "and run: imatlas classify ATLAS --labels labels.csv"
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
        if processes.is_first():
            remove_listed(checkpoint, [checkpoints.NAME])
        return model
    processes.check_alone(f"Fitting a {type(model).__name__}, which trains no network,")
    if model.input == "images":
        model.fit(images)
    else:
        rows = images.pixels.reshape(len(images), -1).astype(np.float32)
        model.fit((rows - images.spec.low) / (images.spec.high - images.spec.low))
    model.save(folder, overwrite=overwrite)
    return model
