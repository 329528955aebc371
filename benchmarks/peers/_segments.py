"""Calling convention of the segmenters: `python segments_X.py IMAGES.npz SETTINGS.json LABELS.npz`.

IMAGES: arrays (H, W, 3) uint8 by key. SETTINGS: method, the values of its sweep (`sweep`), threads. LABELS: arrays
(K, H, W) by key, one label map per value. Prints one line of JSON with the version and the seconds of each image for
all values, from the pixels to the label maps, after a warm-up on part of the first image.
"""

import json
import sys
import time
from importlib.metadata import version

import numpy as np


def run(distribution, methods):
    """Time `methods[name](image, sweep) -> label maps` on each image, and save what it returns."""
    with open(sys.argv[2], encoding="utf-8") as file:
        settings = json.load(file)
    segment, sweep = methods[settings["method"]], settings["sweep"]
    labels, seconds = {}, []
    with np.load(sys.argv[1]) as images:
        segment(images[images.files[0]][:100, :120], sweep[:1])
        for key in images.files:
            image = images[key]
            began = time.perf_counter()
            found = segment(image, sweep)
            seconds.append(time.perf_counter() - began)
            labels[key] = np.stack(found).astype(np.uint16)  # less than 65,536 segments
    np.savez_compressed(sys.argv[3], **labels)
    print(json.dumps({"version": version(distribution), "seconds": seconds}), flush=True)
