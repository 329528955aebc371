"""Contrast and white balance by OpenCV contrib: `enhance_opencv.py IMAGES.npz MADE.npz`, arrays "METHOD KEY"."""

import os
import sys

import cv2
import numpy as np

cv2.setNumThreads(int(os.environ.get("OMP_NUM_THREADS", "1")))


def clahe(image):
    lab = cv2.cvtColor(image, cv2.COLOR_BGR2LAB)
    lab[..., 0] = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(lab[..., 0])
    return cv2.cvtColor(lab, cv2.COLOR_LAB2BGR)


METHODS = {
    "clahe": clahe,
    "simple": cv2.xphoto.createSimpleWB().balanceWhite,
    "learned": cv2.xphoto.createLearningBasedWB().balanceWhite,
}

with np.load(sys.argv[1]) as given:
    made = {
        f"{name} {key}": method(np.ascontiguousarray(given[key][..., ::-1]))[..., ::-1]
        for key in given.files
        for name, method in METHODS.items()
    }
np.savez(sys.argv[2], **made)
