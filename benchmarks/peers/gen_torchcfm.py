"""Runs inside torchcfm's own environment; see _generate.py: OT-CFM in pixels with its U-Net, after its own example.

Smaller (32 channels, 1 block per level) and with weight averaging at 0.999, to suit the time; sampled with 30 Euler
steps.
"""

import copy
import time

import torch
from _generate import as_pixels, batches, count, run
from torchcfm.conditional_flow_matching import ExactOptimalTransportConditionalFlowMatcher
from torchcfm.models.unet.unet import UNetModelWrapper

STEPS = 30


def fit(images, settings):
    """Adam at 5e-4 with 200 steps of warm-up, batches of 64."""
    side, channels = images.shape[1], images.shape[3]
    net = UNetModelWrapper(dim=(channels, side, side), num_channels=32, num_res_blocks=1, attention_resolutions="16")
    matcher = ExactOptimalTransportConditionalFlowMatcher(sigma=0.0)
    average = copy.deepcopy(net)
    adam = torch.optim.Adam(net.parameters(), lr=5e-4)
    warm = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: min(1.0, (step + 1) / 200))
    deadline, n_steps = time.perf_counter() + settings["seconds"], 0
    for x in batches(images, 64, settings["seed"]):
        x_1 = x * 2 - 1
        t, x_t, u_t = matcher.sample_location_and_conditional_flow(torch.randn_like(x_1), x_1)
        loss = (net(t, x_t) - u_t).square().mean()
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        adam.step()
        warm.step()
        n_steps += 1
        keep = min(0.999, n_steps / (n_steps + 10))
        with torch.no_grad():
            for kept, new in zip(average.parameters(), net.parameters()):
                kept.lerp_(new, 1 - keep)
        if time.perf_counter() > deadline:
            break
    average.eval()

    def draw(n, seed):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn((n, channels, side, side), generator=generator)
        with torch.no_grad():
            for i in range(STEPS):
                x = x + average(torch.full((n,), i / STEPS), x) / STEPS
        return as_pixels((x + 1) / 2)

    return draw, count(net), f"{n_steps:,} steps, {64 * n_steps:,} images, {STEPS} Euler steps"


run("torchcfm", fit)
