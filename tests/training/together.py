"""What each process does in the tests of several processes: `torchrun … together.py WORK FOLDER`."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch

from imatlas.errors import ImatlasError, TrainingError
from imatlas.images.dataset import Images
from imatlas.models.autoencoder import Autoencoder
from imatlas.models.base import estimator
from imatlas.models.flow_matching import FlowMatching
from imatlas.models.gan import GAN
from imatlas.models.parts import adversarial
from imatlas.models.self_supervised import SelfSupervisedEncoder
from imatlas.models.vae import VAE
from imatlas.nn.losses import vicreg
from imatlas.system import processes
from imatlas.testing import synthetic_images
from imatlas.training.progress import JsonLines

SHARED = {
    "max_steps": 25,
    "batch_size": 16,
    "size": "small",
    "progress": False,
    "random_state": 0,
    "precision": "fp32",
    "device": "cpu",
}


def options(**changes):
    return {**SHARED, **changes}


@estimator
class NoiselessGAN(GAN):
    """A GAN whose codes are pixels of the images, so that nothing in a step is random."""

    def _losses(self, module, batch, generator):
        discriminator = module.discriminator
        fake = module.generator(batch.x.flatten(1)[:, : self.latent_dim], None).float()
        loss, logs = adversarial.discriminator_step(discriminator, batch.x, fake, generator, gamma=0)
        yield "discriminator", loss, logs
        yield "generator", adversarial.generator_step(discriminator, batch.x, fake), {}
        discriminator.requires_grad_(True)


@estimator
class MirroredViews(SelfSupervisedEncoder):
    """VICReg, a loss between images, of images and their mirror images."""

    def _losses(self, module, batch, generator):
        views = (batch.x, batch.x.flip(3))
        features = torch.cat([processes.whole_batch(module.encoder(view)) for view in views])
        yield "adam", sum(vicreg(*module.projector(features).float().chunk(2))), {}


@estimator
class Troubled(Autoencoder):
    """An autoencoder with a trouble in the last process alone: no memory for more than 4 images, then a NaN."""

    def _losses(self, module, batch, generator):
        last = processes.rank() == processes.count() - 1
        if last and len(batch.x) > 4:
            raise MemoryError
        for name, loss, logs in super()._losses(module, batch, generator):
            self.calls = getattr(self, "calls", 0) + 1
            yield name, loss * (torch.nan if last and self.calls == 7 else 1.0), logs


@estimator
class Struck(Autoencoder):
    """An autoencoder during whose sixth step the last process receives a signal."""

    signal: int = int(signal.SIGTERM)

    def _losses(self, module, batch, generator):
        self.calls = getattr(self, "calls", 0) + 1
        if self.calls == 6 and processes.rank() == processes.count() - 1:
            os.kill(os.getpid(), self.signal)
        return super()._losses(module, batch, generator)


def models():
    """Models by name; those of the first row draw nothing in a step and are the same in any number of processes."""
    return {
        "autoencoder": Autoencoder(latent_dim=4, augment=False, **options()),
        "uneven": Autoencoder(latent_dim=4, augment=False, **options(batch_size=13)),
        "noiseless_gan": NoiselessGAN(latent_dim=8, **options()),
        "mirrored_views": MirroredViews(**options(batch_size=13)),
        "vae": VAE(latent_dim=4, **options()),
        "gan": GAN(latent_dim=8, **options()),
        "flow": FlowMatching(autoencoder=None, **options()),
    }


def weights(model):
    """Weights and buffers of a fitted model as one vector."""
    return torch.cat([value.detach().double().flatten() for value in model.module_.state_dict().values()]).numpy()


def images():
    return synthetic_images(96, size=16, random_state=0)


def learn_all(folder):
    """Fit every model, and save weights and history of each, with what the other processes have."""
    for name, model in models().items():
        save(folder, name, model.fit(images()))


def save(folder, name, model):
    alike = processes.gathered([model.seed_, model.n_steps_, model.decisions_, float(weights(model).sum())])
    if processes.is_first():
        about = {"history": model.history_, "decisions": model.decisions_, "alike": alike}
        (folder / f"{name}.json").write_text(json.dumps(about))
        np.save(folder / f"{name}.npy", weights(model))


def troubles(folder):
    """Out of memory, a NaN, a signal and other images in one process; unreadable images, a seed, a budget for all."""
    save(folder, "troubled", Troubled(latent_dim=4, augment=False, **options()).fit(images()))
    struck, checkpoint = Struck(latent_dim=4, augment=False, **options()), folder / "struck"
    try:
        struck.fit(images(), checkpoint=checkpoint)
    except KeyboardInterrupt:
        assert (checkpoint / "checkpoint.safetensors").is_file()
        save(folder, "struck", struck.fit(images(), checkpoint=checkpoint))
    try:
        Autoencoder(**options()).fit(images()[processes.rank() :])
    except TrainingError as error:
        print(f"refused in {processes.rank()}: {error}", flush=True)
    try:
        Autoencoder(**options()).fit(Images(folder / "unreadable"))
    except ImatlasError as error:
        print(f"failed in {processes.rank()}: {type(error).__name__}: {error}", flush=True)
    save(folder, "drawn", Autoencoder(**options(random_state=None, max_steps=3)).fit(images()))
    save(folder, "budget", Autoencoder(**options(max_steps=None, budget="3s", precision="auto")).fit(images()))


def writing(folder):
    """Resume a checkpoint of one process; leave one for one process; save and log in all processes at once."""
    model = Autoencoder(latent_dim=4, augment=False, **options())
    log = JsonLines(folder / "metrics.jsonl")
    pictures = Images(folder / "photos", cache_dir=folder / "cache")
    save(folder, "resumed", model.fit(pictures, checkpoint=folder / "of_one", callback=log))
    model.save(folder / "model")
    struck = Struck(latent_dim=4, augment=False, **options(), signal=int(signal.SIGINT))
    try:
        struck.fit(pictures, checkpoint=folder / "of_two")
    except KeyboardInterrupt:
        print(f"stopped in {processes.rank()}", flush=True)


def killed(folder):
    Struck(latent_dim=4, **options(max_steps=100_000), signal=int(signal.SIGKILL)).fit(images())


if __name__ == "__main__":
    {work.__name__: work for work in (learn_all, troubles, writing, killed)}[sys.argv[1]](Path(sys.argv[2]))
