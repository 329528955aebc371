"""How `learn` chooses, fits and runs the encoder of an atlas."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from imatlas.arguments import counted
from imatlas.atlas.job import Job
from imatlas.images.dataset import Images
from imatlas.models.parts.sharded_embedding import of_pixels
from imatlas.models.pretrained import PretrainedEncoder
from imatlas.models.self_supervised import SelfSupervisedEncoder
from imatlas.system.threads import slowdown
from imatlas.tasks.choose_encoder import encoder_for, within_time
from imatlas.training.checkpoints import Checkpoint

CHOOSING = 0.1
"""Share of the budget for comparing presets of the pretrained encoder."""


def encoder_kind_for(images: Images, asked: str) -> tuple[str, str]:
    """The kind of encoder, and the reason in words.

    "auto" is the pretrained network for photographs (8-bit color without alpha, 32 px and more) and an autoencoder
    trained on the images themselves for all others: ImageNet has no gray, 16-bit or many-channel images.
    """
    spec = images.spec
    side = float(np.median(np.minimum(images.records["width"], images.records["height"])))
    if asked != "auto":
        return asked, f"{asked}, as asked"
    if spec.channels == 3 and spec.dtype == "uint8" and side >= 32:
        return "pretrained", (
            "pretrained EfficientNet-Lite0 (trained with ImageNet's labels), because these are 8-bit color images; "
            "the encoder 'own' uses no labels at all"
        )
    return "own", (
        f"an autoencoder trained on these images alone, because they are not 8-bit color photographs "
        f"({counted(spec.channels, 'channel')}, {spec.dtype}, {side:.0f} px); the encoder 'pretrained' can be asked for"
    )


def features_of(job: Job, model: Any, images: Images) -> np.ndarray:
    """Features of images (n, n_features) by a fitted encoder."""
    if model.pretrained:
        return np.asarray(model.transform(images, cache=job.feature_cache))
    return of_pixels(model, images)


def embed_with_pretrained(job: Job) -> tuple[PretrainedEncoder, np.ndarray, dict[str, Any]]:
    """The pretrained encoder with the preset that suits the images, the features of every image, and what was chosen
    and why."""
    began = time.perf_counter()
    train = job.images[job.train]
    chosen = encoder_for(
        train,
        n_all=len(job.images),
        seconds=CHOOSING * job.budget.seconds / slowdown(),
        device=job.settings.device,
        random_state=job.settings.random_state,
    )
    left = job.seconds("encoder") - (time.perf_counter() - began)
    model, reduced = within_time(chosen.encoder, job.images, seconds=max(0.0, left), cache=job.feature_cache)
    learned = model.fit_transform(train, cache=job.feature_cache)
    vectors = np.empty((len(job.images), learned.shape[1]), np.float32)
    vectors[job.train] = learned
    if len(job.held_out):
        vectors[job.held_out] = model.transform(job.images[job.held_out], cache=job.feature_cache)
    return model, vectors, {"preset": chosen.name, "why": "; ".join(filter(None, (chosen.why, reduced)))}


def learn_self_supervised(job: Job, seconds: float) -> SelfSupervisedEncoder:
    """An encoder trained on these images alone; goes on from the checkpoint of a killed run."""
    settings = job.settings
    return SelfSupervisedEncoder(
        budget=round(seconds, 1),
        random_state=settings.random_state,
        device=settings.device,
        progress=job.progress,
    ).fit(
        job.images[job.train],
        validation=job.validation,
        checkpoint=Checkpoint(job.folder / "cache" / "checkpoint", disposable=True),
        callback=job.emit,
    )
