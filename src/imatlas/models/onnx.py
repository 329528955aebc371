"""ONNX export: networks as files that run without PyTorch and imatlas, each verified against its network.

    network -> temporary ONNX file -> same inputs through both -> compare -> rename into place

Inputs and outputs are described in the metadata of the file. ONNX files are not read back.
"""

from __future__ import annotations

import copy
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from imatlas import __version__, seeding
from imatlas.arguments import check_path, strict_yes
from imatlas.errors import ArtifactError, InputError, MissingExtraError
from imatlas.images.spec import ImageSpec
from imatlas.system.atomic_io import output_path, replacing, write_folder
from imatlas.system.inventory import is_as_written, with_own_hash

N_CHECKED = 16
"""Inputs for the comparison."""

TOLERANCE = 1e-4
"""Largest difference allowed, as a fraction of the largest output."""


class Network(nn.Module):
    """One network of a model, to be exported.

    Parameters
    ----------
    module : nn.Module
        Holds the weights.
    call : callable
        `call(module, *inputs)` -> Tensor (N, …).
    inputs : dict of Tensor (N_CHECKED, …)
        By name, in the order of `call`, for the comparison. Only N is dynamic.
    output : str
        Name of the output.
    contract : dict of str
        "input NAME" and "output NAME" -> type, shape, range and meaning in words, written to the metadata.
    """

    def __init__(
        self,
        module: nn.Module,
        call: Callable[..., Tensor],
        inputs: dict[str, Tensor],
        output: str,
        contract: dict[str, str],
    ) -> None:
        super().__init__()
        self.module = copy.deepcopy(module).to("cpu", memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
        self.call = call
        self.inputs = inputs
        self.output = output
        self.contract = contract

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.call(self.module, *inputs)


@dataclass(frozen=True)
class Exported:
    """An exported file and its difference from the network.

    Attributes
    ----------
    path : Path
    difference : float
        Largest absolute difference of outputs, over `n_checked` inputs.
    largest : float
        Largest absolute output of the network.
    n_checked : int
    """

    path: Path
    difference: float
    largest: float
    n_checked: int = N_CHECKED


@strict_yes
def export_onnx(
    model: Any, path: str | Path, *, tolerance: float = TOLERANCE, overwrite: bool = False
) -> dict[str, Exported]:
    """Export the networks of a fitted model as ONNX files.

    Each file is run by onnxruntime on 16 inputs and compared with the network; a file that differs is removed. Inputs
    and outputs (names, shapes, ranges, normalization of pixels) are described in the metadata of the file:
    `onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map`. Images are float32 (N, C, H, W) of a fixed
    size, with the darkest value of the set at -1 and the brightest at 1; the number of images N is dynamic.

    Parameters
    ----------
    model : Estimator
        Fitted; its `_networks()` returns networks by name.
    path : path
        A name that ends in .onnx is a file, for models of one network; any other name is a folder with one file per
        network, such as encoder.onnx and decoder.onnx.
    tolerance : float
        Largest difference allowed, as a fraction of the largest output.
    overwrite : bool
        Replace an earlier export; in a folder, only if its files are unchanged.

    Returns
    -------
    dict of Exported
        Name of the network -> its file and difference.

    Raises
    ------
    InputError
        If the model has no network, or `path` ends in .onnx and the model has several.
    NotFittedError
        Before `fit`.
    ArtifactError
        If `path` exists and `overwrite` is False, or a file differs from its network.
    MissingExtraError
        If onnx, onnxscript or onnxruntime is not installed.
    """
    name = type(model).__name__
    if not hasattr(model, "_networks"):
        raise InputError(
            f"A {name} has no network to export; give an autoencoder, VAE, GAN, flow or encoder (an atlas contains its "
            "models as folders, such as photos.atlas/encoder-0001)."
        )
    model._check_fitted()
    path = check_path(path, "path", "export_onnx")
    require_onnx()
    path = output_path(path)
    one_file = path.suffix.lower() == ".onnx"
    _check_free(path, one_file, overwrite)
    networks = model._networks()
    if not one_file:
        done: dict[str, Exported] = {}

        def write(aside: Path) -> None:
            for part, network in networks.items():
                file = aside / f"{part}.onnx"
                checked = _write(network, file, tolerance, {"class": name, "network": part})
                file.write_bytes(with_own_hash(file.name, file.read_bytes()))
                done[part] = Exported(path / file.name, *checked)

        write_folder(path, write, replaces=_written_before(path) if overwrite else None)
        return done
    if len(networks) > 1:
        raise InputError(
            f"A {name} has {len(networks)} networks ({', '.join(networks)}), which are exported to a folder. "
            f"Got the file name '{path.name}'; drop the ending."
        )
    [(part, network)] = networks.items()
    with replacing(path) as aside:
        checked = _write(network, aside, tolerance, {"class": name, "network": part})
    return {part: Exported(path, *checked)}


def require_onnx() -> None:
    """Raise an error with the pip command if a package for ONNX is missing.

    Raises
    ------
    MissingExtraError
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"Export needs onnx, onnxscript and onnxruntime ({error}); run: pip install 'imatlas[onnx]'"
        ) from None


def _check_free(path: Path, one_file: bool, overwrite: bool) -> None:
    """Refuse an existing path, unless it is an earlier export and `overwrite` is True.

    Raises
    ------
    ArtifactError
    """
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise ArtifactError(f"'{path}' already exists; choose another name or pass overwrite=True (--overwrite).")
    if path.is_dir() == one_file or (path.is_dir() and not any(path.iterdir())):
        raise ArtifactError(f"'{path}' is not an earlier export, so it is not replaced; choose another name.")
    if not one_file:
        others = {entry.name for entry in path.iterdir()} - set(_written_before(path))
        if others:
            raise ArtifactError(
                f"'{path}' is not an earlier export, so it is not replaced: '{min(others)}' in it was not written by "
                "imatlas; choose another name."
            )


def _written_before(folder: Path) -> list[str]:
    """Names of the files in a folder that an earlier export wrote and that are unchanged."""
    return [path.name for path in sorted(folder.glob("*.onnx")) if is_as_written(path)]


def _write(network: Network, path: Path, tolerance: float, about: dict[str, str]) -> tuple[float, float]:
    """Write and verify one ONNX file; returns the largest difference and the largest output."""
    batch = torch.export.Dim("N")
    with _quiet():
        program: Any = torch.onnx.export(
            network,
            tuple(x[:2] for x in network.inputs.values()),  # with one row, N would be exported as the constant 1
            input_names=list(network.inputs),
            output_names=[network.output],
            dynamic_shapes=(tuple({0: batch} for _ in network.inputs),),
            dynamo=True,
            verbose=False,
        )
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # they contain paths of source files on this machine
    program.model.metadata_props.update({**about, "library": f"imatlas {__version__}", **network.contract})
    program.save(path)
    try:
        difference, largest = _compare(network, path)
    except Exception as error:  # onnxruntime's errors have no common base class
        raise ArtifactError(
            f"The ONNX file of the {about['network']} does not run ({str(error).splitlines()[0]}). It was removed; "
            "use operations that work for any number of inputs."
        ) from error
    if not difference <= tolerance * largest:  # NaN is a failure too
        raise ArtifactError(
            f"The ONNX file of the {about['network']} differs from its network by {difference:.3g}, where the largest "
            f"output is {largest:.3g}; the tolerance is {tolerance:g} of that. It was removed; pass a higher tolerance "
            "if the difference is acceptable."
        )
    return difference, largest


def _compare(network: Network, path: Path) -> tuple[float, float]:
    """Largest difference between a file, run in batches of two sizes, and its network; and the largest output."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    got = [
        session.run(None, {name: x[rows].numpy() for name, x in network.inputs.items()})[0]
        for rows in (slice(0, 3), slice(3, None))
    ]
    with torch.inference_mode():
        expected = network(*network.inputs.values()).numpy()
    return float(np.abs(np.concatenate(got) - expected).max()), float(np.abs(expected).max())


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the warnings and log messages of the exporter."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


# -- inputs for the comparison, and descriptions for the metadata ----------------------------------------------------


def random_images(spec: ImageSpec) -> Tensor:
    """Images (N_CHECKED, C, H, W) of coarse and fine noise in [-1, 1]."""
    draws = seeding.rng(0, "export", "images")
    fine = draws.uniform(-1, 1, (N_CHECKED, spec.channels, spec.height, spec.width))
    coarse = torch.from_numpy(draws.uniform(-1, 1, (N_CHECKED, spec.channels, 3, 3)))
    coarse = nn.functional.interpolate(coarse, (spec.height, spec.width), mode="bilinear", align_corners=True)
    return (0.8 * coarse + 0.2 * torch.from_numpy(fine)).float()


def random_vectors(width: int) -> Tensor:
    """Standard normal vectors (N_CHECKED, width)."""
    return torch.from_numpy(seeding.noise(0, N_CHECKED, width))


def images_in(spec: ImageSpec) -> str:
    """Description of input images."""
    return (
        f"float32 {_axes(spec)}: images, channels first, in [-1, 1]: a pixel v ({spec.dtype}) becomes "
        f"2 * (v - {spec.low:.9g}) / ({spec.high:.9g} - {spec.low:.9g}) - 1; a missing pixel becomes 0"
    )


def images_out(spec: ImageSpec) -> str:
    """Description of output images."""
    return (
        f"float32 {_axes(spec)}: images, channels first, around [-1, 1]: x becomes the pixel "
        f"(x + 1) / 2 * ({spec.high:.9g} - {spec.low:.9g}) + {spec.low:.9g} ({spec.dtype}; clip and round it)"
    )


def _axes(spec: ImageSpec) -> str:
    return f"(N, {spec.channels}, {spec.height}, {spec.width})"
