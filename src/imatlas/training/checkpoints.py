"""What a run keeps: a copy of all weights in memory to go back to, and the same on disk to go on from."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import get_ema_multi_avg_fn

from imatlas.errors import ArtifactError
from imatlas.system.atomic_io import output_path, replacing
from imatlas.system.inventory import open_regular

NAME = "checkpoint.safetensors"
"""The one file of a checkpoint: tensors, and in its header the plain values as JSON, and a hash of all of it."""

MARK = "imatlas_sha256"
"""Where the hash stands in the header: what has it is a checkpoint of ours, damaged or not."""

LONGEST_HEADER = 2**26
"""Bytes in which the mark is looked for."""

EMA_EVERY = 8
"""Steps between two updates of the averaged weights."""


LONGEST_HALF_LIFE = 500.0
"""Steps."""


@dataclass(frozen=True)
class Checkpoint:
    """Where a run keeps its checkpoint, and what happens to one that it cannot go on from.

    Attributes
    ----------
    folder : Path
    spare : bool
        Whether it may be dropped, as in the cache of an atlas: then a run starts anew where the checkpoint is of other
        images or settings, and says so, in place of raising. Its budget may differ: it is what other stages have left,
        another one after each interruption.
    """

    folder: Path
    spare: bool = False

    @classmethod
    def at(cls, place: str | Path | Checkpoint | None) -> Checkpoint | None:
        """A checkpoint as it is named: by its folder, of whose making the user decides, or wholly."""
        return place if place is None or isinstance(place, Checkpoint) else cls(Path(place))

    def below(self, name: str) -> Checkpoint:
        """The checkpoint of a part of the same run."""
        return Checkpoint(self.folder / name, self.spare)

    def drop(self) -> str:
        """Make room for a new checkpoint, and say what was done: ours is deleted, anything else is only moved aside."""
        path = self.folder / NAME
        with suppress(OSError, ArtifactError):
            if _is_ours(path):
                path.unlink()
                return "training starts anew"
        aside = path.with_name(f"{NAME}.before-{secrets.token_hex(4)}")
        with suppress(OSError):
            os.rename(path, aside)
        return f"it is moved to '{aside}' and training starts anew"


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

    def update_ema(self, step: int) -> None:
        """Move the average towards the live weights."""
        decay = 0.5 ** (EMA_EVERY / min(LONGEST_HALF_LIFE, self.half_life * max(1, step)))
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

    Raises
    ------
    ValueError
        If it has another shape, and is no single number.
    """
    if value.shape == weight.shape:
        return torch.empty_like(weight).copy_(value)
    if value.ndim:
        raise ValueError(f"the optimizer remembers {tuple(value.shape)} of a weight {tuple(weight.shape)}")
    return value.clone()


def write(folder: Path, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    """Put a checkpoint into `folder` in place of the last one; a reader sees either the old or the new, always whole.

    Raises
    ------
    OSError
        Where it cannot be written; the last one then stays.
    """
    folder = output_path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(folder / NAME) as aside:
        try:
            text = json.dumps(values)
            save_file(contiguous, str(aside), metadata={"values": text, MARK: _hash_of(contiguous, text)})
        except SafetensorError as error:  # what it raises where the disk is full
            raise OSError(str(error)) from error


def _hash_of(tensors: dict[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | str | None:
    """The tensors and values of the checkpoint in `folder`, or what is wrong with it, or None where there is none.

    Raises
    ------
    ArtifactError
        If a file of that name was not written here, so that it must not be replaced.
    """
    path = output_path(folder) / NAME
    if not path.exists():
        return None
    ours = _is_ours(path)
    try:
        with safe_open(str(path), framework="pt") as file:
            told = file.metadata() or {}
            values = json.loads(told["values"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        if _hash_of(tensors, told["values"]) != told[MARK]:
            raise ValueError("its checksum differs")
        return tensors, values
    except BaseException as error:  # safetensors is Rust, and Rust panics
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
        if not ours:
            raise ArtifactError(f"'{path}' is no checkpoint ({reason}); move it away to start anew.") from error
        return reason


def _is_ours(path: Path) -> bool:
    """Whether a file is a checkpoint that was written here, damaged or not.

    Raises
    ------
    ArtifactError, OSError
        If it is no file, or cannot be read.
    """
    with open_regular(path) as file:
        return MARK.encode() in file.read(min(LONGEST_HEADER, path.stat().st_size))


def saved_seed(place: str | Path | Checkpoint | None) -> int | None:
    """The seed of the run whose checkpoint is there, None where there is none."""
    checkpoint = Checkpoint.at(place)
    saved = None if checkpoint is None else read(checkpoint.folder)
    seed = saved[1].get("seed") if isinstance(saved, tuple) and isinstance(saved[1], dict) else None
    return seed if isinstance(seed, int) and 0 <= seed < 2**63 else None


def check_same_run(checkpoint: Checkpoint, saved: dict[str, Any], asked: dict[str, Any]) -> None:
    """Compare what a checkpoint was learned with to what is asked now.

    Raises
    ------
    ArtifactError
        Naming every difference.
    """
    names = [name for name in {**saved, **asked} if saved.get(name) != asked.get(name)]
    if checkpoint.spare:
        names = [name for name in names if name != "budget"]
        if names:
            raise ArtifactError(
                f"The checkpoint in '{checkpoint.folder}' is of other images or settings ({', '.join(names)})."
            )
    elif names:
        folder = checkpoint.folder
        differences = ", ".join(f"{name} was {saved.get(name)!r} and is now {asked.get(name)!r}" for name in names)
        raise ArtifactError(
            f"The checkpoint in '{folder}' belongs to another run: {differences}; "
            "ask for the same to go on, or name another folder to start anew."
        )
