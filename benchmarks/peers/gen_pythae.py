"""Runs inside pythae's own environment; see _generate.py. `method` is "rae" (RAE-L2 and its Gaussian mixture) or "vae".

pythae's models, losses, samplers and trainer, stopped by the clock. Its own networks are a multi-layer perceptron, or
convolutions of 128 to 1,024 channels sized for a GPU; here it gets a convolutional encoder and decoder sized for the
time.
"""

import itertools
import tempfile
import time

import torch
from _generate import as_pixels, count, run
from pythae.data.datasets import BaseDataset
from pythae.models import RAE_L2, VAE, RAE_L2_Config, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.samplers import GaussianMixtureSampler, GaussianMixtureSamplerConfig, NormalSampler
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback
from torch import nn

WIDTHS = (32, 64, 128, 256)


def widths(side):
    """Channels of the layers that halve `side` down to 4 px."""
    return WIDTHS[: (side // 4).bit_length() - 1]


class Encoder(BaseEncoder):
    def __init__(self, shape, latent_dim, variational):
        super().__init__()
        layers, before = [], shape[0]
        for after in widths(shape[1]):
            layers += [nn.Conv2d(before, after, 4, 2, 1), nn.BatchNorm2d(after), nn.ReLU()]
            before = after
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.mean = nn.Linear(before * 16, latent_dim)
        self.logvar = nn.Linear(before * 16, latent_dim) if variational else None

    def forward(self, x):
        h = self.body(x)
        if self.logvar is None:
            return ModelOutput(embedding=self.mean(h))
        return ModelOutput(embedding=self.mean(h), log_covariance=self.logvar(h))


class Decoder(BaseDecoder):
    def __init__(self, shape, latent_dim):
        super().__init__()
        channels = [*widths(shape[1])[::-1], shape[0]]
        self.first = nn.Linear(latent_dim, channels[0] * 16)
        layers = []
        for i, (before, after) in enumerate(itertools.pairwise(channels)):
            layers += [nn.ConvTranspose2d(before, after, 4, 2, 1)]
            layers += [nn.BatchNorm2d(after), nn.ReLU()] if i < len(channels) - 2 else [nn.Sigmoid()]
        self.body = nn.Sequential(*layers)

    def forward(self, z):
        h = torch.relu(self.first(z)).unflatten(1, (-1, 4, 4))
        return ModelOutput(reconstruction=self.body(h))


class TimeIsUp(Exception):
    """Raised after a step once the time is up."""


class Clock(TrainingCallback):
    def __init__(self, seconds):
        self.deadline, self.n_steps = time.perf_counter() + seconds, 0

    def on_train_step_end(self, training_config, **kwargs):
        self.n_steps += 1
        if time.perf_counter() > self.deadline:
            raise TimeIsUp


def fit(images, settings):
    """RAE-L2 or VAE, trained with Adam at 1e-3 in batches of 64."""
    train = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().float().div_(255)
    shape, latent_dim = tuple(train.shape[1:]), settings["latent_dim"]
    variational = settings["method"] == "vae"
    kind, config = (VAE, VAEConfig) if variational else (RAE_L2, RAE_L2_Config)
    model = kind(
        config(input_dim=shape, latent_dim=latent_dim),
        encoder=Encoder(shape, latent_dim, variational),
        decoder=Decoder(shape, latent_dim),
    )
    clock = Clock(settings["seconds"])
    with tempfile.TemporaryDirectory() as folder:
        chosen = BaseTrainerConfig(
            output_dir=folder, num_epochs=100_000, learning_rate=1e-3, per_device_train_batch_size=64, no_cuda=True
        )
        dataset = BaseDataset(train, torch.zeros(len(train)))
        trainer = BaseTrainer(model, dataset, training_config=chosen, callbacks=[clock])
        try:
            trainer.train()
        except TimeIsUp:
            model = trainer.model.eval()
    if variational:
        sampler = NormalSampler(model)
    else:
        sampler = GaussianMixtureSampler(model, GaussianMixtureSamplerConfig(n_components=10))
        sampler.fit(train[:10_000])

    def draw(n, seed):
        torch.manual_seed(seed)
        with torch.no_grad():
            return as_pixels(sampler.sample(n, batch_size=256))

    return draw, count(model), f"{clock.n_steps:,} steps, {64 * clock.n_steps:,} images"


run("pythae", fit)
