"""Device, precision and memory layout of a network."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from imatlas.errors import ParameterError
from imatlas.images.memory_budget import machine_memory
from imatlas.system import processes

Precision = Literal["fp32", "bf16"]

_placing = threading.Lock()


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; "auto" is the first available of CUDA, MPS and CPU.

    Under torchrun, "auto" and "cuda" are the GPU of this process's number on its machine.

    Raises
    ------
    ParameterError
        If the name is unknown or this machine has no such device.
    """
    if processes.count() > 1:
        name = _own_device(name)
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device).cpu()  # the 'meta' device holds no data
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ParameterError(
            f"The device '{name}' cannot be used here ({str(error).splitlines()[0]}); pass device='auto' or 'cpu'."
        ) from error
    return device


def _own_device(name: str) -> str:
    """The name of the device of this process, where several train together.

    Raises
    ------
    ParameterError
        If they cannot share the device, or this process has no GPU.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ParameterError(
            f"Several processes take 'cpu' or one GPU each, by 'cuda' or 'auto'. Got device='{name}' instead."
        )
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return "cpu"
    number, n_gpus = processes.local_rank(), torch.cuda.device_count()
    if number >= n_gpus:
        raise ParameterError(
            f"Each process takes a GPU of its own. This machine has {n_gpus}, and none for process {number} on it; "
            "start as many processes as it has GPUs, or set device='cpu'."
        )
    return f"cuda:{number}"


def has_bf16(device: torch.device) -> bool:
    """Whether the hardware itself multiplies in bfloat16 (emulated bfloat16 is slower than float32)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        able = torch.cpu.get_capabilities()
        return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    return False


def total_memory(device: torch.device) -> int:
    """The memory of a device in bytes; that of the machine where the device has none of its own."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return machine_memory()


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Context in which matrix products and convolutions run in `precision`; weights stay float32."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def place(module: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """Move a module to the device in channels_last layout; a second call does nothing, also one in another thread."""
    with (
        _placing
    ):  # `Module.to` replaces the memory of all weights, which others may be reading, even if it is the same
        if not all(_is_placed(tensor, device) for tensor in (*module.parameters(), *module.buffers())):
            # pixels are (N, H, W, C), so channels_last also avoids a copy
            module.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return module


def _is_placed(tensor: torch.Tensor, device: torch.device) -> bool:
    """Whether a weight is where `place` puts it."""
    there = tensor.device.type == device.type and device.index in (None, tensor.device.index)
    return there and (tensor.dim() != 4 or tensor.is_contiguous(memory_format=torch.channels_last))


def synchronize(device: torch.device) -> None:
    """Wait for the device to finish its queued work, for timing."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the device or the machine is out of memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error) for words in ("out of memory", "not enough memory", "can't allocate memory")
    )
