"""A run on disk: one safetensors file that holds the tensors and, in its header, the plain values. Replaced whole."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from imatlas.errors import ArtifactError

NAME = "checkpoint.safetensors"


def write(folder: Path, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    """Put a checkpoint into `folder` in place of the last one; a reader sees either the old or the new, always whole.

    Raises
    ------
    OSError
        Where it cannot be written; the last one then stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f".{NAME}.new-{os.getpid()}"
    try:
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, str(aside), metadata={"values": json.dumps(values)})
        _flush(aside)
        os.replace(aside, folder / NAME)
        _flush(folder)
    except SafetensorError as error:  # what it raises where the disk is full
        raise OSError(str(error)) from error
    finally:
        aside.unlink(missing_ok=True)


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


def _flush(path: Path) -> None:
    """Ask the operating system to put a file or folder on the disk now."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except (PermissionError, IsADirectoryError):  # folders cannot be opened on Windows
        return
    try:
        os.fsync(descriptor)
    except OSError:
        if path.is_file():
            raise
        # some network file systems refuse to sync folders
    finally:
        os.close(descriptor)
