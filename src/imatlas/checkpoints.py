"""What a run keeps: a copy of all weights in memory to go back to, and the same on disk to go on from."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import get_ema_multi_avg_fn

from imatlas.disk import replacing
from imatlas.errors import ArtifactError

NAME = "checkpoint.safetensors"
"""The one file of a checkpoint: tensors, and in its header the plain values as JSON."""

AVERAGE_EVERY = 8
"""Steps between two updates of the averaged weights."""


LONGEST_HALF_LIFE = 500.0
"""Steps."""


class Weights:
    """Every tensor of a run: the live weights, their running average, and what the optimizers remember.

    Parameters
    ----------
    live : torch.nn.Module
        The network that is trained, on its device.
    optimizers : dict of str to Optimizer
    half_life : float
        Of the average, as a share of the run so far.
    """

    def __init__(self, live: nn.Module, optimizers: dict[str, Optimizer], half_life: float = 0.02) -> None:
        self.half_life = half_life
        self.live = live
        self.average = copy.deepcopy(live).eval().requires_grad_(False)
        self.optimizers = optimizers
        self.kept: dict[str, Tensor] = {}

    def update_average(self, step: int) -> None:
        """Move the average towards the live weights."""
        decay = 0.5 ** (AVERAGE_EVERY / min(LONGEST_HALF_LIFE, self.half_life * max(1, step)))
        average, live = list(self.average.parameters()), [p.detach() for p in self.live.parameters()]
        get_ema_multi_avg_fn(decay)(average, live, None)
        for kept, buffer in zip(self.average.buffers(), self.live.buffers(), strict=True):
            kept.copy_(buffer)

    def snapshot(self) -> None:
        """Copy everything to `kept`."""
        tensors = {f"live/{k}": v for k, v in self.live.state_dict().items()}
        tensors |= {f"average/{k}": v for k, v in self.average.state_dict().items()}
        for name, optimizer in self.optimizers.items():
            for index, values in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer/{name}/{index}/{key}": torch.as_tensor(v) for key, v in values.items()}
        self.kept = {name: tensor.detach().clone() for name, tensor in tensors.items()}

    def restore(self) -> None:
        """Put everything in `kept` back."""
        modules: dict[str, dict[str, Tensor]] = {"live": {}, "average": {}}
        states: dict[str, dict[int, dict[str, Tensor]]] = {name: {} for name in self.optimizers}
        for path, tensor in self.kept.items():
            part, _, name = path.partition("/")
            if part != "optimizer":
                modules[part][name] = tensor
                continue
            optimizer_name, index, key = name.rsplit("/", 2)
            states[optimizer_name].setdefault(int(index), {})[key] = tensor
        self.live.load_state_dict(modules["live"])
        self.average.load_state_dict(modules["average"])
        for name, optimizer in self.optimizers.items():
            weights = [p for group in optimizer.param_groups for p in group["params"]]
            numbered = {
                i: {key: _laid_out_like(weights[i], value) for key, value in values.items()}
                for i, values in states[name].items()
            }
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": numbered, "param_groups": groups})


def _laid_out_like(weight: Tensor, value: Tensor) -> Tensor:
    """A copy of `value`, in the memory layout of `weight` where it has its shape.

    A fused optimizer walks through memory, not through indices: with another layout it would mix up the elements.
    """
    return torch.empty_like(weight).copy_(value) if value.shape == weight.shape else value.clone()


def write(folder: Path, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    """Put a checkpoint into `folder` in place of the last one; a reader sees either the old or the new, always whole.

    Raises
    ------
    OSError
        Where it cannot be written; the last one then stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(folder / NAME) as aside:
        try:
            save_file(contiguous, str(aside), metadata={"values": json.dumps(values)})
        except SafetensorError as error:  # what it raises where the disk is full
            raise OSError(str(error)) from error


def read(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The tensors and values of the checkpoint in `folder`, or None where there is none.

    Raises
    ------
    ArtifactError
        If it cannot be read.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        with safe_open(str(path), framework="pt") as file:
            values = json.loads((file.metadata() or {})["values"])
            return {name: file.get_tensor(name) for name in file.keys()}, values  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise ArtifactError(f"The checkpoint '{path}' is damaged ({error}); delete it to start anew.") from error


def saved_seed(folder: str | Path | None) -> int | None:
    """The seed of the run whose checkpoint is in `folder`, None where there is none."""
    saved = None if folder is None else read(Path(folder))
    return None if saved is None else int(saved[1]["seed"])


def check_same_run(folder: Path, saved: dict[str, Any], asked: dict[str, Any]) -> None:
    """Compare what a checkpoint was learnt with to what is asked now.

    Raises
    ------
    ArtifactError
        Naming every difference.
    """
    names = [name for name in {**saved, **asked} if saved.get(name) != asked.get(name)]
    if names:
        differences = ", ".join(f"{name} was {saved.get(name)!r} and is now {asked.get(name)!r}" for name in names)
        raise ArtifactError(
            f"The checkpoint in '{folder}' belongs to another run: {differences}; "
            "ask for the same to go on, or name another folder to start anew."
        )
