"""Calling convention of the generator runners: `python gen_X.py TRAIN.npy SETTINGS.json SAMPLES.npy`.

TRAIN: images (N, H, W, C) uint8. SETTINGS: method, seconds (of training), n_samples, sample_seconds (time limit for
sampling), seed, threads, and parameters of the method. SAMPLES: written, (n, H, W, C) uint8. Prints one line of JSON:
version, seconds of the whole fit, sample_64 (seconds for 64 images in a warm process, median of 3), n_weights,
training (in words).
"""

import json
import sys
import time


def run(distribution, fit):
    """Time `fit(images, settings) -> draw, n_weights, training`, then `draw(n, seed) -> (n, H, W, C) uint8`."""
    from importlib.metadata import PackageNotFoundError, version

    import numpy as np
    import torch

    images = np.load(sys.argv[1])
    with open(sys.argv[2], encoding="utf-8") as file:
        settings = json.load(file)
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(settings["seed"])
    began = time.perf_counter()
    draw, n_weights, training = fit(images, settings)
    seconds = time.perf_counter() - began
    draw(64, 1)
    taken = []
    for seed in (2, 3, 4):
        started = time.perf_counter()
        draw(64, seed)
        taken.append(time.perf_counter() - started)
    began, parts = time.perf_counter(), []
    while sum(map(len, parts)) < settings["n_samples"] and time.perf_counter() - began < settings["sample_seconds"]:
        parts.append(draw(64, 100 + len(parts)))
    np.save(sys.argv[3], np.concatenate(parts)[: settings["n_samples"]])
    try:
        number = version(distribution)
    except PackageNotFoundError:
        number = ""
    facts = {"version": number, "seconds": seconds, "sample_64": sorted(taken)[1]}
    print(json.dumps({**facts, "n_weights": n_weights, "training": training}), flush=True)


def batches(images, batch_size, seed):
    """Endless batches (batch_size, C, H, W) float32 in [0, 1], reshuffled every epoch."""
    import numpy as np
    import torch

    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(images))
        for start in range(0, len(order) - batch_size + 1, batch_size):
            part = images[np.sort(order[start : start + batch_size])]
            yield torch.from_numpy(part).permute(0, 3, 1, 2).contiguous().float().div_(255)


def as_pixels(x):
    """A tensor (N, C, H, W) in [0, 1] as pixels (N, H, W, C) uint8."""
    return (x.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()


def count(module):
    """Weights of a network."""
    return sum(p.numel() for p in module.parameters())
