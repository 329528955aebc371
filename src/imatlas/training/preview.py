"""Images of a network while it is trained: often at first, then ever more rarely."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from imatlas.training.batches import Data
from imatlas.training.checkpoints import State

Show = Callable[[np.ndarray, dict[str, Any]], None]
"""Receives images (n, H, W, C), and `model`, `step` and `seconds` of the training."""

GROWTH, LEAST = 1.3, 1.0
"""The next images come when the training is this much longer, by a factor and by seconds; so a run of an hour shows
no more than 30 times."""


class Preview:
    """Hands images that a network generates to whoever watches.

    Parameters
    ----------
    show : callable
        See `Show`.
    """

    def __init__(self, show: Show) -> None:
        self.show = show
        self._next = 0.0

    @torch.no_grad()
    def look(self, learner: Any, module: torch.nn.Module, data: Data, device: torch.device, state: State) -> None:
        """Hand over images, if they are due and the model generates any: `ImageEstimator._preview`."""
        if state.seconds < self._next:
            return
        self._next = max(GROWTH * state.seconds, state.seconds + LEAST)
        images = learner._preview(module, data, device)
        if images is not None:
            about = {"model": type(learner).__name__, "step": state.step, "seconds": round(state.seconds, 1)}
            self.show(images, about)
