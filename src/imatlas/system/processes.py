"""The processes that train one network together: those that torchrun started, or this one alone.

torchrun tells each process its number and how many there are (RANK, WORLD_SIZE, LOCAL_RANK). Without these variables
every function here returns at once and nothing is loaded. With them each process runs the same program; process 0
decides, prints and writes.

Gradients are averaged here after the backward pass, rather than by `DistributedDataParallel`: that averages in hooks
of a module's `forward`, and expects one forward and one backward pass per step through all weights. The losses of
imatlas call parts of a module (`module.encode`, `module.decoder`), differentiate gradients (the penalties of GANs), and
make several backward passes per step, each for the weights of one optimizer. One message after each backward pass is
right for all of them. It cannot overlap with the backward pass, as hooks do; that counts for larger networks than ours.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from imatlas.errors import ParameterError, TrainingError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from torch.distributed import ProcessGroup

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun sets in the environment of each process."""

TIMEOUT = timedelta(minutes=10)
"""How long a process waits for the others in a training step. One that died is noticed at once, by its connection."""

PATIENCE = timedelta(days=365)
"""The same where one process works and the others wait, as for a pixel cache."""


def count() -> int:
    """The number of processes; 1 without torchrun."""
    return int(os.environ["WORLD_SIZE"]) if all(name in os.environ for name in VARIABLES) else 1


def rank() -> int:
    """The number of this process, from 0."""
    return int(os.environ["RANK"]) if count() > 1 else 0


def local_rank() -> int:
    """The number of this process among those on this machine, from 0."""
    return int(os.environ["LOCAL_RANK"]) if count() > 1 else 0


def is_first() -> bool:
    """Whether this is process 0, which prints and writes."""
    return rank() == 0


def check_alone(what: str) -> None:
    """Refuse what several processes cannot do together.

    Raises
    ------
    ParameterError
        Under torchrun with more than one process.
    """
    if count() > 1:
        raise ParameterError(
            f"{what} runs in one process. Got {count()} from torchrun, which is for training networks ('imatlas fit'); "
            "run it without torchrun."
        )


# -- plain values --------------------------------------------------------------------------------------------------


def gathered(value: Any) -> list[Any]:
    """The JSON values of all processes, by number; waits for all of them, however long that takes."""
    if count() == 1:
        return [value]
    import torch
    import torch.distributed as dist

    patient = _groups()[1]
    text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
    with _communicating():
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(count())]
        dist.all_gather(sizes, torch.tensor([len(text)]), group=patient)
        texts = [torch.zeros(max(map(int, sizes)), dtype=torch.uint8) for _ in sizes]
        dist.all_gather(texts, torch.nn.functional.pad(text, (0, len(texts[0]) - len(text))), group=patient)
    return [json.loads(bytes(each[: int(size)].tolist())) for each, size in zip(texts, sizes, strict=True)]


def shared(value: Any) -> Any:
    """The JSON value of process 0."""
    return value if count() == 1 else gathered(value if is_first() else None)[0]


def from_first(work: Callable[[], Any], *, of_machine: bool = False) -> Any:
    """The JSON value that `work()` returns in process 0, or in the first of each machine, while the others wait.

    Raises
    ------
    TrainingError
        In the processes that wait, if `work` raises an error.
    """
    if count() == 1:
        return work()
    _groups()  # while all are here: later the others would give up waiting for a connection after `TIMEOUT`
    works = local_rank() == 0 if of_machine else is_first()
    worker = rank() - local_rank() if of_machine else 0
    outcome: dict[str, Any] = {}
    failure: Exception | None = None
    if works:
        try:
            outcome["value"] = work()
        except Exception as error:
            failure, outcome["error"] = error, str(error)
    outcomes = gathered(outcome)
    if failure is not None:
        raise failure
    if "error" in outcomes[worker]:
        raise TrainingError(f"Process {worker} of this run has failed: {outcomes[worker]['error']}")
    return outcomes[worker]["value"]


def summed(values: Sequence[float]) -> list[float]:
    """The sum of each value over all processes, the same to the last bit in each."""
    if count() == 1:
        return list(values)
    import torch
    import torch.distributed as dist

    total = torch.tensor(values, dtype=torch.float64)
    with _communicating():
        dist.all_reduce(total, group=_groups()[0])
    return total.tolist()


# -- tensors -------------------------------------------------------------------------------------------------------


def part_of(rows: np.ndarray) -> np.ndarray:
    """This process's part of the rows of a batch: consecutive ones, of lengths that differ by at most one."""
    n = len(rows)
    return rows[n * rank() // count() : n * (rank() + 1) // count()]


def sum_gradients(weights: list[Tensor], loss: Tensor) -> Tensor:
    """Replace the gradients of `weights` by their sums over all processes.

    A weight that has a gradient in no process keeps none, so that its optimizer leaves it alone.

    Parameters
    ----------
    weights : list of Tensor
        The same in each process. Their gradients are those of `loss`.
    loss : Tensor of shape ()
        The mean loss of this process's part of the batch, times the part's share of the batch.

    Returns
    -------
    Tensor of shape ()
        The mean loss of the batch. It and the gradients are the same to the last bit in each process.
    """
    loss = loss.detach()
    if count() == 1:
        return loss
    import torch
    import torch.distributed as dist

    gradients = [torch.zeros_like(w) if w.grad is None else w.grad.float() for w in weights]
    has_gradient = torch.tensor([float(w.grad is not None) for w in weights], device=loss.device)
    parts = [_in_memory_order(each, weight) for each, weight in zip(gradients, weights, strict=True)]
    message = torch.cat([*parts, loss.float().reshape(1), has_gradient])
    with _communicating():
        dist.all_reduce(message, group=_groups()[0] if loss.device.type == "cpu" else None)
    *sums, total, counts = message.split([*(w.numel() for w in weights), 1, len(weights)])
    for weight, flat, n in zip(weights, sums, counts.tolist(), strict=True):
        if n:  # a view of the message, in the order of the weight, which fused optimizers rely on
            weight.grad = flat.as_strided(weight.shape, weight.stride()).to(weight.dtype)
    return total[0]


def _in_memory_order(gradient: Tensor, weight: Tensor) -> Tensor:
    """The values of a gradient (...,) as they lie in memory, in the order of its weight (channels may be last)."""
    import torch

    if gradient.stride() != weight.stride():
        gradient = torch.empty_like(weight, dtype=gradient.dtype).copy_(gradient)
    return gradient.as_strided((gradient.numel(),), (1,))


def whole_batch(features: Tensor) -> Tensor:
    """The features (N, …) of the whole batch, from those of this process's part of it, for losses between images.

    The loss is then that of the whole batch in each process, and `sum_gradients` of it the gradient of one process.
    Without gradients, as on held-out images, the features are returned as they are.
    """
    import torch

    if count() == 1 or not torch.is_grad_enabled():
        return features
    import torch.distributed as dist

    lengths = [int(n) for n in summed([len(features) if i == rank() else 0 for i in range(count())])]
    longest = max(lengths)
    mine = features.detach().float()
    padded = torch.cat([mine, mine.new_zeros(longest - len(mine), *mine.shape[1:])])
    parts = [torch.empty_like(padded) for _ in lengths]
    with _communicating():
        dist.all_gather(parts, padded, group=_groups()[0] if mine.device.type == "cpu" else None)
    parts = [part[:n] for part, n in zip(parts, lengths, strict=True)]
    # Each process differentiates with regard to its own part; its gradient will be weighted by its share.
    scale = sum(lengths) / len(features)
    parts[rank()] = mine + scale * (features - features.detach()).float()
    return torch.cat(parts)


def shared_tensors(tensors: dict[str, Tensor], device: Any) -> dict[str, Tensor]:
    """The tensors of process 0, on `device`, except those that it has on the CPU, which stay there."""
    if count() == 1:
        return tensors
    import torch
    import torch.distributed as dist

    described = [(name, list(t.shape), str(t.dtype), t.device.type == "cpu") for name, t in tensors.items()]
    received = {}
    for name, shape, dtype, on_cpu in shared(described):
        kind = getattr(torch, dtype.removeprefix("torch."))
        place = "cpu" if on_cpu else device
        tensor = tensors[name].contiguous() if is_first() else torch.empty(shape, dtype=kind, device=place)
        with _communicating():
            dist.broadcast(tensor, 0, group=_groups()[0] if on_cpu else None)
        received[name] = tensor
    return received


# -- the connections -----------------------------------------------------------------------------------------------


@functools.cache
def _groups() -> tuple[ProcessGroup, ProcessGroup]:
    """Two groups of all processes for values on the CPU: one that gives up after `TIMEOUT`, and a patient one.

    What lies on GPUs goes through the default group.
    """
    import atexit
    import socket

    import torch
    import torch.distributed as dist

    if not dist.is_initialized():
        if os.environ["LOCAL_WORLD_SIZE"] == os.environ["WORLD_SIZE"]:  # one machine: nothing listens outside it
            loopback = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
            if loopback:
                os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
        with _communicating():
            dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=TIMEOUT)
        atexit.register(dist.destroy_process_group)
    with _communicating():
        return dist.new_group(backend="gloo", timeout=TIMEOUT), dist.new_group(backend="gloo", timeout=PATIENCE)


@contextmanager
def _communicating() -> Iterator[None]:
    """Context in which a lost connection is an error in plain words."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0][:200]
        raise TrainingError(
            f"Process {rank()} has lost another process of this run: it has ended, or did not answer for "
            f"{TIMEOUT.total_seconds() / 60:.0f} minutes ({reason}). The same command resumes from the last checkpoint."
        ) from error
