"""Training steps: from a batch to the losses, their gradients and the optimizers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from imatlas import seeding
from imatlas.system import processes
from imatlas.training import devices, schedule
from imatlas.training.batches import Batch, Data, batch_rows, make_batch
from imatlas.training.checkpoints import State, Weights
from imatlas.training.clock import Clock
from imatlas.training.progress import Interrupt

CLIP = 1.0
"""Largest norm of a gradient; longer ones are scaled down."""

Pass = tuple[str, Tensor, dict[str, Tensor]]
"""A backward pass: the name of the optimizer, the loss, and what is logged besides it."""


class Learner(Protocol):
    """What training needs of a model."""

    budget: Any
    max_steps: int | None
    batch_size: int
    learning_rate: float
    device: str
    precision: Any
    progress: bool
    _half_life: float
    _stops_early: bool

    def _optimizers(self, module: torch.nn.Module) -> dict[str, Optimizer]: ...

    def _losses(self, module: torch.nn.Module, batch: Batch, generator: torch.Generator) -> Iterator[Pass]: ...

    def _held_out_loss(self, module: torch.nn.Module, batch: Batch, generator: torch.Generator) -> Tensor: ...


class Steps:
    """The training steps of a run; the processes of torchrun take each step together.

    Attributes
    ----------
    sums : dict of str to Tensor
        The losses of this process since `clear`, each weighted by its share of the batch.
    n_sums : int
        The number of steps since then.
    """

    def __init__(
        self,
        learner: Learner,
        data: Data,
        weights: Weights,
        device: torch.device,
        clock: Clock,
        interrupt: Interrupt,
    ) -> None:
        self.learner, self.data, self.weights, self.device = learner, data, weights, device
        self.clock, self.interrupt, self._any_interrupted = clock, interrupt, False
        self.optimizers = weights.optimizers
        self.base_rates = {name: [g["lr"] for g in o.param_groups] for name, o in self.optimizers.items()}
        self.generator = torch.Generator(device=device)
        self.clear()

    def clear(self) -> None:
        """Forget the losses so far."""
        self.sums, self.n_sums = dict[str, Tensor](), 0

    @property
    def is_interrupted(self) -> bool:
        """Whether the run is to end now; with several processes, whether one of them was told so before this step."""
        return self.interrupt.asked if processes.count() == 1 else self._any_interrupted

    def take(self, state: State, seed: int, precision: devices.Precision) -> bool:
        """One step of every optimizer. Returns False, in each process, if a loss or gradient is not finite in one.

        Raises
        ------
        MemoryError or RuntimeError
            In each process, if one is out of memory.
        """
        factor = state.rate * schedule.learning_rate(state.step, state.decay_start, state.max_steps)
        for name, optimizer in self.optimizers.items():
            for group, base in zip(optimizer.param_groups, self.base_rates[name], strict=True):
                group["lr"] = base * factor
        rows = batch_rows(len(self.data), seed, state.images_seen, state.batch_size)
        own = processes.part_of(rows)
        share, first = len(own) / len(rows), True
        passes = self._passes(own, share, state.step, seed, precision)
        while (item := self._next(passes)) is not None:
            name, loss, logs = item
            weights = [p for group in self.optimizers[name].param_groups for p in group["params"]]
            mean_loss = processes.sum_gradients(weights, share * loss)
            norm = torch.nn.utils.clip_grad_norm_(weights, CLIP)
            if not math.isfinite(float(mean_loss + norm)):
                return False
            self.optimizers[name].step()
            for key, value in ({"train": loss, **logs} if first else logs).items():
                value = share * value.detach().float()
                self.sums[key] = self.sums[key] + value if key in self.sums else value
            first = False
        self.n_sums += 1
        return True

    def _passes(self, rows: Any, share: float, step: int, seed: int, precision: devices.Precision) -> Iterator[Pass]:
        """What `_losses` yields for some rows of the data, each after the backward pass of its share of the loss."""
        data = self.data
        if data.rows is not None:
            rows = data.rows[rows]
        y = None if data.y is None else data.y[rows]
        batch = make_batch(data.pixels[rows], data.spec, self.device, y, n_images=len(data))
        of_process = ("process", processes.rank()) if processes.rank() else ()  # each draws noise of its own
        self.generator.manual_seed(seeding.seed_of(seed, "step", step, *of_process))
        losses = self.learner._losses(self.weights.live, batch, self.generator)
        while True:
            with devices.autocast(self.device, precision):
                item = next(losses, None)
            if item is None:
                return
            for optimizer in self.optimizers.values():
                optimizer.zero_grad(set_to_none=True)
            (item[1] if share == 1 else share * item[1]).backward()
            yield item

    def _next(self, passes: Iterator[Pass]) -> Pass | None:
        """The next backward pass, if there is one; an error in each process if one has no memory for it."""
        failure: Exception | None = None
        item: Pass | None = None
        try:
            if (item := next(passes, None)) is None:
                return None
        except (RuntimeError, MemoryError) as error:
            if not devices.is_out_of_memory(error):
                raise
            failure = error
        told = [failure is not None, self.interrupt.asked, self.clock.here()]
        n_failures, n_interrupted, seconds = processes.summed(told)
        self._any_interrupted = n_interrupted > 0
        self.clock.hear(seconds)
        if n_failures:
            raise failure or MemoryError("there is not enough memory in another process")
        return item
