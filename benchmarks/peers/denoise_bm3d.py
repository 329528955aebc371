"""Denoise images by BM3D: images.npz settings.json output.npz. The package is licensed for non-commercial use only."""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version

import bm3d
import numpy as np

images, settings, output = sys.argv[1:]
with open(settings) as file:
    sigma = json.load(file)["sigma"]
restored, seconds = {}, []
with np.load(images) as given:
    for key in given.files:
        began = time.perf_counter()
        color = given[key].shape[2] == 3
        restored[key] = bm3d.bm3d_rgb(given[key], sigma) if color else bm3d.bm3d(given[key][..., 0], sigma)[..., None]
        seconds.append(time.perf_counter() - began)
np.savez(output, **restored)
print(json.dumps({"seconds": seconds, "version": version("bm3d")}))
