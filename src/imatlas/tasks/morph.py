"""From one image to another, or along a path of cells, through images that do not exist."""

from __future__ import annotations

from typing import Any

import numpy as np

from imatlas import chance


def along(keys: np.ndarray, n_frames: int, *, on_sphere: bool = False) -> np.ndarray:
    """Points (n_frames, n_features) on the way through `keys` (n_keys, n_features), each leg in equal time.

    Legs start and end slowly, so that the key images are seen for a while. With `on_sphere` the way keeps the length
    that noise has (Shoemake 1985, "Animating rotation with quaternion curves": slerp); the mean of two draws of noise
    would be shorter than any draw, and a flow makes a blur of it.
    """
    places = np.linspace(0, len(keys) - 1, n_frames)
    leg = np.minimum(places.astype(int), len(keys) - 2) if len(keys) > 1 else np.zeros(n_frames, int)
    share = places - leg
    share = (share * share * (3 - 2 * share))[:, None]
    first, second = keys[leg], keys[np.minimum(leg + 1, len(keys) - 1)]
    if not on_sphere:
        return ((1 - share) * first + share * second).astype(np.float32)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    angle = np.arccos(np.clip((first * second).sum(1) / np.maximum(lengths, 1e-12), -1, 1))[:, None]
    flat = angle < 1e-3
    sine = np.where(flat, 1.0, np.sin(angle))
    left = np.where(flat, 1 - share, np.sin((1 - share) * angle) / sine)
    right = np.where(flat, share, np.sin(share * angle) / sine)
    return (left * first + right * second).astype(np.float32)


def morph(
    flow: Any,
    n_frames: int,
    conditions: np.ndarray,
    images: Any = None,
    *,
    random_state: int = 0,
) -> np.ndarray:
    """The frames of a morph, (n_frames, H, W, C) of the dtype that was fitted.

    Parameters
    ----------
    flow : FlowMatching
        Fitted with vectors as conditions.
    n_frames : int
    conditions : array (n_keys, n_features)
        What each key image is told.
    images : array (n_keys, H, W, C), optional
        The key images. None: new ones, of one and the same noise.
    random_state : int
        Of that noise.
    """
    told = along(np.asarray(conditions, np.float32), n_frames)
    if images is None:
        noise = np.repeat(chance.noise(random_state, 1, flow.n_noise), n_frames, axis=0)
    else:
        noise = along(flow.transform(images, y=conditions), n_frames, on_sphere=True)
    return flow.inverse_transform(noise, y=told)
