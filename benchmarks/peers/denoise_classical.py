"""Denoise images by a classical method: METHOD images.npz settings.json output.npz; prints seconds as JSON.

Settings: "sigmas", the deviation of the noise by key, or null where it is to be estimated. The package bm3d is licensed
for non-commercial use only.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version

import numpy as np


def bm3d(image: np.ndarray, sigma: float) -> np.ndarray:
    import bm3d

    return bm3d.bm3d_rgb(image, sigma) if image.shape[2] == 3 else bm3d.bm3d(image[..., 0], sigma)[..., None]


def nl_means(image: np.ndarray, sigma: float) -> np.ndarray:
    from skimage.restoration import denoise_nl_means

    return denoise_nl_means(image, h=0.6 * sigma, sigma=sigma, patch_size=5, patch_distance=6, channel_axis=-1)


def tv(image: np.ndarray, sigma: float) -> np.ndarray:
    from skimage.restoration import denoise_tv_chambolle

    return denoise_tv_chambolle(image, weight=1.1 * sigma, channel_axis=-1)


def wavelets(image: np.ndarray, sigma: float) -> np.ndarray:
    from skimage.restoration import denoise_wavelet

    color = image.shape[2] == 3
    return denoise_wavelet(image, sigma=sigma, method="BayesShrink", channel_axis=-1, convert2ycbcr=color)


def opencv(image: np.ndarray, sigma: float) -> np.ndarray:
    import cv2

    bytes_ = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    h = 0.8 * 255 * sigma
    if image.shape[2] == 3:
        return cv2.fastNlMeansDenoisingColored(bytes_, None, h, h, 7, 21) / np.float32(255)
    return cv2.fastNlMeansDenoising(bytes_[..., 0], None, h, 7, 21)[..., None] / np.float32(255)


METHODS = {f.__name__: f for f in (bm3d, nl_means, tv, wavelets, opencv)}


def main() -> None:
    from skimage.restoration import estimate_sigma

    method, images, settings, output = sys.argv[1:]
    with open(settings) as file:
        sigmas = json.load(file)["sigmas"]
    restored, seconds = {}, []
    with np.load(images) as given:
        for key in given.files:
            image, sigma, began = given[key], sigmas[key], time.perf_counter()
            if sigma is None:
                sigma = float(estimate_sigma(image, average_sigmas=True, channel_axis=-1))
            restored[key] = METHODS[method](image, sigma).reshape(image.shape).astype(np.float32)
            seconds.append(time.perf_counter() - began)
    np.savez(output, **restored)
    package = {"bm3d": "bm3d", "opencv": "opencv-python-headless"}.get(method, "scikit-image")
    print(json.dumps({"seconds": seconds, "version": version(package)}))


main()
