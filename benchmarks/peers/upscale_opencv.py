"""Interpolation of OpenCV: `python upscale_opencv.py IMAGES.npz SETTINGS.json LARGE.npz`, as `_segments.py`."""

import json
import os
import sys
import time

import cv2
import numpy as np

cv2.setNumThreads(int(os.environ.get("OMP_NUM_THREADS", "1")))
KERNELS = {"cubic": cv2.INTER_CUBIC, "lanczos": cv2.INTER_LANCZOS4}

with open(sys.argv[2], encoding="utf-8") as file:
    settings = json.load(file)
found, seconds = {}, []
with np.load(sys.argv[1]) as images:
    for key in images.files:
        size = [side * settings["scale"] for side in images[key].shape[1::-1]]
        began = time.perf_counter()
        found[key] = cv2.resize(images[key], size, interpolation=KERNELS[settings["kernel"]])
        seconds.append(time.perf_counter() - began)
np.savez(sys.argv[3], **found)
print(json.dumps({"version": cv2.__version__, "seconds": seconds}), flush=True)
