"""How `learn` chooses and trains the generator of an atlas, and autoencoders."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np

from imatlas.arguments import counted
from imatlas.atlas.job import Job
from imatlas.atlas.previews import N_SHOWN
from imatlas.models.autoencoder import FEW_IMAGES, Autoencoder
from imatlas.models.patch_diffusion import UNCHECKED, PatchDiffusion
from imatlas.tasks.choose_generator import (
    FEW_TO_TRAIN,
    MAX_COMPARED,
    MAX_COMPOSED,
    MIN_COMPARED,
    MIN_HELD_OUT,
    choose_generator,
)
from imatlas.tasks.conditions import MapConditions, sample_from_map
from imatlas.training.checkpoints import Checkpoint

CALIBRATING = 0.25
"""Share of the generator's time for calibrating and comparing one that is not trained, if another one is."""

SHARPNESS, SHARPENING = 0.1, 0.33
"""Weight of textures in the loss that sharpens the decoder, and the share of its time spent on that."""


def chosen_generator(job: Job, seconds: float) -> tuple[Any, str]:
    """The generator, and why: of a small set one that composes new images of these, unless a trained one is better."""
    n, encoder, seed = len(job.train), job.model("encoder"), job.settings.random_state
    if n > MAX_COMPOSED:
        return _learn_generator(job, seconds), f"trained, because more than {MAX_COMPOSED:,} images are enough for that"
    began = time.perf_counter()
    cells = job.map_conditions
    known, held_out = (job.table.vectors("embedding", rows) for rows in (job.train, job.held_out))
    model = PatchDiffusion(novelty=UNCHECKED, random_state=seed, device=job.settings.device)
    model.fit(job.images[job.train], y=known)
    decodes = hasattr(encoder, "fit_prior")
    trains = n >= FEW_TO_TRAIN and not decodes
    allowed = seconds * (CALIBRATING if trains else 2 * CALIBRATING)
    started = time.perf_counter()
    first = model.sample(1, random_state=seed)
    n_samples = int(allowed / 4 / (time.perf_counter() - started))  # three candidates, and the comparison
    job.previews.add(first, {"model": type(model).__name__})
    if len(held_out) >= MIN_HELD_OUT:
        pixels = job.images.pixel_rows[job.held_out]
        n_audited = int(np.clip(n_samples, MIN_COMPARED, MAX_COMPARED))
        model.calibrate(pixels, encoder.transform, known=known, n_samples=n_audited, seconds=allowed / 2)
    generators: dict[str, Any] = {"PatchDiffusion": model}
    if trains or decodes:
        trained = _learn_generator(job, max(1.0, seconds - (time.perf_counter() - began)))
        generators[type(trained).__name__] = trained
    chosen, why = choose_generator(
        {name: (one, partial(sample_from_map, one, cells, random_state=seed)) for name, one in generators.items()},
        known,
        held_out,
        encoder.transform,
        n_samples=n_samples,
        random_state=seed,
    )
    if n_samples >= N_SHOWN:
        shown = sample_from_map(chosen, cells, N_SHOWN, random_state=seed)
        job.previews.add(shown, {"model": type(chosen).__name__})
    return chosen, why or f"composed of the images, because {counted(n, 'image')} are too few to train a network"


def _learn_generator(job: Job, seconds: float) -> Autoencoder:
    """An autoencoder with a prior conditioned on the cell of each image; the encoder, if that is one."""
    encoder, conditions = job.model("encoder"), job.map_conditions
    if hasattr(encoder, "fit_prior"):
        return encoder.fit_prior(job.images[job.train], conditions.of(job.train))
    return learn_autoencoder(job, seconds, "checkpoint-generator", conditions)


def learn_autoencoder(
    job: Job, seconds: float, checkpoint: str, conditions: MapConditions | None = None
) -> Autoencoder:
    """An autoencoder of the training images, its decoder sharpened if there are many."""
    images, sharpened = job.images[job.train], len(job.train) >= FEW_IMAGES
    place = Checkpoint(job.folder / "cache" / checkpoint, disposable=True)
    model: Autoencoder = (
        _autoencoder(job)
        .set_params(budget=round((1 - SHARPENING) * seconds if sharpened else seconds, 1))
        .fit(
            images,
            conditions.of(job.train) if conditions else None,
            validation=job.validation,
            validation_y=conditions.of(job.held_out) if conditions and len(job.held_out) else None,
            checkpoint=place,
            callback=job.emit,
            preview=job.previews.add,
        )
    )
    if sharpened:
        model.sharpen(
            images,
            weight=SHARPNESS,
            validation=job.validation,
            budget=round(max(SHARPENING * seconds, seconds - model.seconds_), 1),
            checkpoint=place.below("sharpening"),
            callback=job.emit,
            preview=job.previews.add,
        )
    return model


def _autoencoder(job: Job) -> Autoencoder:
    """An unfitted autoencoder for images of this size."""
    size = max(job.images.spec.height, job.images.spec.width)
    return Autoencoder(
        latent_dim=64 if size <= 32 else 128,
        random_state=job.settings.random_state,
        device=job.settings.device,
        progress=job.progress,
    )
