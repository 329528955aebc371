"""Runs inside the environment of denoising-diffusion-pytorch; see _generate.py: its U-Net and Gaussian diffusion.

Smaller than its example (32 channels; multipliers 1, 2, 4), with its weight averaging; sampled with 30 DDIM steps. Its
Trainer reads files and needs torchvision, which is replaced by an unused stub; the training loop is a plain one.
"""

import sys
import time
import types

import torch
from _generate import as_pixels, batches, count, run


class Absent(types.ModuleType):
    """A module that is imported but not used."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)


try:
    import torchvision  # noqa: F401
except (ImportError, RuntimeError):
    for name in [key for key in sys.modules if key.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    sys.modules |= {n: Absent(n) for n in ("torchvision", "torchvision.transforms", "torchvision.utils")}

from denoising_diffusion_pytorch import GaussianDiffusion, Unet  # noqa: E402
from ema_pytorch import EMA  # noqa: E402


def fit(images, settings):
    """Adam at 3e-4, batches of 64, weights averaged with 0.995 every 10 steps as in its Trainer."""
    side, channels = images.shape[1], images.shape[3]
    net = Unet(dim=32, dim_mults=(1, 2, 4), channels=channels)
    diffusion = GaussianDiffusion(net, image_size=side, timesteps=1000, sampling_timesteps=30)
    average = EMA(diffusion, beta=0.995, update_every=10)
    adam = torch.optim.Adam(diffusion.parameters(), lr=3e-4, betas=(0.9, 0.99))
    deadline, n_steps = time.perf_counter() + settings["seconds"], 0
    for x in batches(images, 64, settings["seed"]):
        loss = diffusion(x)
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(diffusion.parameters(), 1.0)
        adam.step()
        average.update()
        n_steps += 1
        if time.perf_counter() > deadline:
            break
    model = average.ema_model.eval()

    def draw(n, seed):
        torch.manual_seed(seed)
        with torch.no_grad():
            return as_pixels(model.sample(batch_size=n))

    return draw, count(net), f"{n_steps:,} steps, {64 * n_steps:,} images, 30 DDIM steps"


run("denoising-diffusion-pytorch", fit)
