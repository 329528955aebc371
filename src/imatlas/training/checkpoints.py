"""State of a training run: a copy in memory for rollbacks, and the same on disk to resume from."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import secrets
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, TypeAdapter
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import get_ema_multi_avg_fn

from imatlas.errors import ArtifactError
from imatlas.system.atomic_io import output_path, replacing
from imatlas.system.inventory import open_regular
from imatlas.training.devices import Precision

NAME = "checkpoint.safetensors"
"""The only file of a checkpoint: tensors, and in its header the plain values as JSON and a hash of both."""

MARK = "imatlas_sha256"
"""Header key of the hash; a file that has it was written by imatlas, damaged or not."""

MAX_HEADER = 2**26
"""Bytes in which the mark is searched."""

EMA_EVERY = 8
"""Steps between two updates of the averaged weights."""

MAX_HALF_LIFE = 500.0
"""Longest half-life of the averaged weights, in steps."""

Decision = dict[str, Any]


@dataclass
class State:
    """Where a run stands, in plain values; with the tensors this is all that a checkpoint holds."""

    batch_size: int
    precision: Precision | None = None
    threads: int | None = None
    """PyTorch threads, once other programs on the machine have changed them."""
    processes: int = 1
    """How many train together."""
    max_steps: int | None = None
    decay_start: int | None = None
    expected_steps: int = 0
    """Estimated at the end of the warm-up of a run with a budget."""
    step: int = 0
    images_seen: int = 0
    rate: float = 1.0
    """Factor on the learning rate: halved by a rollback."""
    failures: int = 0
    """Rollbacks since the last snapshot."""
    clean: int = 0
    """Snapshots since the last rollback, or since the rate was last raised."""
    seconds: float = 0.0
    decisions: list[Decision] = field(default_factory=list)
    history: dict[str, list[Any]] = field(default_factory=dict)

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended the run early."""
        return bool(self.decisions) and self.decisions[-1]["decision"] == "stop"


@dataclass(frozen=True)
class Checkpoint:
    """Folder of a run's checkpoint, and what happens to one that does not fit the run.

    Attributes
    ----------
    folder : Path
    disposable : bool
        Whether it may be dropped, as in the cache of an atlas: a checkpoint of other images or settings then restarts
        the training with a message, where it otherwise raises. The budget may differ from that of the checkpoint.
    """

    folder: Path
    disposable: bool = False

    @classmethod
    def at(cls, place: str | Path | Checkpoint | None) -> Checkpoint | None:
        """A checkpoint from the path of its folder; checkpoints and None are returned as they are."""
        return place if place is None or isinstance(place, Checkpoint) else cls(Path(place))

    def below(self, name: str) -> Checkpoint:
        """The checkpoint of a part of the same run."""
        return Checkpoint(self.folder / name, self.disposable)

    def drop(self) -> str:
        """Make room for a new checkpoint: delete ours, move any other file aside. Returns what was done, in words."""
        path = self.folder / NAME
        with suppress(OSError, ArtifactError):
            if _is_ours(path):
                path.unlink()
                return "training starts over"
        aside = path.with_name(f"{NAME}.before-{secrets.token_hex(4)}")
        with suppress(OSError):
            os.rename(path, aside)
        return f"it is moved to '{aside}' and training starts over"


class Weights:
    """All tensors of a run: the live weights, their exponential moving average (EMA), and the optimizer states.

    Parameters
    ----------
    live : torch.nn.Module
        The network being trained, on its device.
    optimizers : dict of str to Optimizer
    half_life : float
        Half-life of the EMA, as a fraction of the steps so far.
    """

    def __init__(self, live: nn.Module, optimizers: dict[str, Optimizer], half_life: float = 0.02) -> None:
        self.half_life = half_life
        self.live = live
        self.ema = copy.deepcopy(live).eval().requires_grad_(False)
        self.optimizers = optimizers
        self.saved: dict[str, Tensor] = {}

    def update_ema(self, step: int) -> None:
        """Move the averaged weights towards the live ones."""
        decay = 0.5 ** (EMA_EVERY / min(MAX_HALF_LIFE, self.half_life * max(1, step)))
        ema, live = list(self.ema.parameters()), [p.detach() for p in self.live.parameters()]
        get_ema_multi_avg_fn(decay)(ema, live, None)
        for averaged, buffer in zip(self.ema.buffers(), self.live.buffers(), strict=True):
            averaged.copy_(buffer)

    def averaged(self) -> nn.Module:
        """The network with averaged weights, of which those can be trained that were."""
        for averaged, live in zip(self.ema.parameters(), self.live.parameters(), strict=True):
            averaged.requires_grad_(live.requires_grad)
        return self.ema

    def snapshot(self) -> None:
        """Copy all tensors to `saved`."""
        tensors = {f"live/{k}": v for k, v in self.live.state_dict().items()}
        tensors |= {f"ema/{k}": v for k, v in self.ema.state_dict().items()}
        for name, optimizer in self.optimizers.items():
            for index, values in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer/{name}/{index}/{key}": torch.as_tensor(v) for key, v in values.items()}
        self.saved = {name: tensor.detach().clone() for name, tensor in tensors.items()}

    def restore(self) -> None:
        """Load all tensors from `saved`."""
        modules: dict[str, dict[str, Tensor]] = {"live": {}, "ema": {}}
        states: dict[str, dict[int, dict[str, Tensor]]] = {name: {} for name in self.optimizers}
        for path, tensor in self.saved.items():
            part, _, name = path.partition("/")
            if part != "optimizer":
                modules[part][name] = tensor
                continue
            optimizer_name, index, key = name.rsplit("/", 2)
            states[optimizer_name].setdefault(int(index), {})[key] = tensor
        self.live.load_state_dict(modules["live"])
        self.ema.load_state_dict(modules["ema"])
        for name, optimizer in self.optimizers.items():
            weights = [p for group in optimizer.param_groups for p in group["params"]]
            numbered = {
                i: {key: _in_layout_of(weights[i], value) for key, value in values.items()}
                for i, values in states[name].items()
            }
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": numbered, "param_groups": groups})


def _in_layout_of(weight: Tensor, value: Tensor) -> Tensor:
    """A copy of `value` in the memory layout of `weight`, if both have the same shape.

    A fused optimizer walks through memory, not indices: another layout would mix up the elements.

    Raises
    ------
    ValueError
        If the shapes differ and `value` is not a scalar.
    """
    if value.shape == weight.shape:
        return torch.empty_like(weight).copy_(value)
    if value.ndim:
        raise ValueError(f"an optimizer state {tuple(value.shape)} for a weight {tuple(weight.shape)}")
    return value.clone()


def write(folder: Path, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    """Write a checkpoint to `folder`, replacing the last one atomically.

    Raises
    ------
    OSError
        If it cannot be written; the last one then stays.
    """
    folder = output_path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(folder / NAME) as aside:
        try:
            text = json.dumps(values)
            save_file(contiguous, str(aside), metadata={"values": text, MARK: _hash_of(contiguous, text)})
        except SafetensorError as error:  # raised when the disk is full
            raise OSError(str(error)) from error


def _hash_of(tensors: dict[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | str | None:
    """The tensors and values of the checkpoint in `folder`; what is damaged in it; or None if there is none.

    Raises
    ------
    ArtifactError
        If a file of that name was not written by imatlas, and so must not be replaced.
    """
    path = output_path(folder) / NAME
    if not path.exists():
        return None
    ours = _is_ours(path)
    try:
        with safe_open(str(path), framework="pt") as file:
            header = file.metadata() or {}
            values = json.loads(header["values"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        if _hash_of(tensors, header["values"]) != header[MARK]:
            raise ValueError("its checksum differs")
        return tensors, values
    except BaseException as error:  # safetensors is written in Rust, and Rust panics
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
        if not ours:
            raise ArtifactError(f"'{path}' is not a checkpoint ({reason}); move it away to start over.") from error
        return reason


def resume(
    checkpoint: Checkpoint, weights: Weights, identity: dict[str, Any], max_batch: int
) -> tuple[int, State] | str | None:
    """Load `weights` from a checkpoint.

    Returns
    -------
    (int, State), str or None
        The seed and state of its run; what is damaged in it; or None if there is none.

    Raises
    ------
    ArtifactError
        If the checkpoint belongs to another run or network; `weights` may then be partly loaded.
    """
    saved = read(checkpoint.folder)
    if not isinstance(saved, tuple):
        return saved
    tensors, values = saved
    try:
        check_same_run(checkpoint, values["identity"], identity)
        parameters = {f"{part}/{name}" for part in ("live", "ema") for name, _ in weights.live.named_parameters()}
        for name, tensor in tensors.items():
            if (name in parameters or name.startswith("optimizer/")) and not bool(torch.isfinite(tensor).all()):
                raise ValueError(f"'{name}' is not finite")
        seed = TypeAdapter(Annotated[int, Field(ge=0, lt=2**63)]).validate_python(values["seed"], strict=True)
        state = TypeAdapter(State).validate_python(asdict(State(**values["state"])))
        if not 1 <= state.batch_size <= max_batch or state.step < 0:
            raise ValueError(f"a batch of {state.batch_size} images at step {state.step}")
        if any("decision" not in entry or "step" not in entry for entry in state.decisions):
            raise ValueError("a decision without its kind or step")
        weights.saved = tensors
        weights.restore()
    except ArtifactError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ArtifactError(
            f"The checkpoint in '{checkpoint.folder}' is not of this network ({reason}); delete it to start over."
        ) from error
    return seed, state


def _is_ours(path: Path) -> bool:
    """Whether a file is a checkpoint written by imatlas, damaged or not.

    Raises
    ------
    ArtifactError, OSError
        If it is not a regular file, or cannot be read.
    """
    with open_regular(path) as file:
        return MARK.encode() in file.read(min(MAX_HEADER, path.stat().st_size))


def saved_seed(place: str | Path | Checkpoint | None) -> int | None:
    """The seed in a checkpoint, or None if there is none."""
    checkpoint = Checkpoint.at(place)
    saved = None if checkpoint is None else read(checkpoint.folder)
    seed = saved[1].get("seed") if isinstance(saved, tuple) and isinstance(saved[1], dict) else None
    return seed if isinstance(seed, int) and 0 <= seed < 2**63 else None


def check_same_run(checkpoint: Checkpoint, saved: dict[str, Any], expected: dict[str, Any]) -> None:
    """Compare the identity in a checkpoint with that of this run.

    Raises
    ------
    ArtifactError
        Naming every difference.
    """
    names = [name for name in {**saved, **expected} if saved.get(name) != expected.get(name)]
    if checkpoint.disposable:
        names = [name for name in names if name != "budget"]
        if names:
            raise ArtifactError(
                f"The checkpoint in '{checkpoint.folder}' is of other images or settings ({', '.join(names)})."
            )
    elif names:
        differences = ", ".join(f"{name} was {saved.get(name)!r} and is now {expected.get(name)!r}" for name in names)
        raise ArtifactError(
            f"The checkpoint in '{checkpoint.folder}' belongs to another run: {differences}; "
            "use the same settings to resume it, or another folder to start over."
        )
