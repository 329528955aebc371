"""Saliency of OpenCV contrib, and its GrabCut from a box in the center, as maps from 0 to 255; see `_segments.py`."""

import os

import cv2
import numpy as np
from _segments import run

cv2.setNumThreads(int(os.environ.get("OMP_NUM_THREADS", "1")))


def _saliency(create):
    def find(image, _):
        saliency = create().computeSaliency(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].astype(np.float64)
        return [255 * (saliency - saliency.min()) / max(np.ptp(saliency), 1e-9)]

    return find


def grab_cut(image, _):
    """Five iterations from the box that leaves out an eighth at each side."""
    height, width = image.shape[:2]
    box = (width // 8, height // 8, width * 3 // 4, height * 3 // 4)
    mask = np.zeros((height, width), np.uint8)
    models = np.zeros((2, 1, 65))
    cv2.setRNGSeed(0)
    cv2.grabCut(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), mask, box, models[0], models[1], 5, cv2.GC_INIT_WITH_RECT)
    return [255 * (mask % 2)]


METHODS = {
    "spectral residual": _saliency(cv2.saliency.StaticSaliencySpectralResidual_create),
    "fine grained": _saliency(cv2.saliency.StaticSaliencyFineGrained_create),
    "grab cut": grab_cut,
}

if __name__ == "__main__":
    run("opencv-contrib-python-headless", METHODS)
