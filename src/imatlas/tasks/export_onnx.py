"""Write the networks of a model for programs without imatlas, and say how near the files are to the networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from imatlas.arguments import strict_yes
from imatlas.errors import InputError
from imatlas.models.onnx import TOLERANCE
from imatlas.result import FileList, Result


@strict_yes
def export_model(model: Any, output: str | Path, *, tolerance: float = TOLERANCE, overwrite: bool = False) -> Result:
    """Write a model as ONNX files; see `imatlas.models.onnx.OnnxMixin.export` for what is checked and what is refused.

    Parameters
    ----------
    model : Estimator
        Fitted.
    output : path
        A folder, or a name that ends in .onnx for a model of one network.
    tolerance : float
        Largest difference allowed, as a share of the largest output.
    overwrite : bool
        Replace an earlier export.

    Returns
    -------
    Result
        The largest difference of each network, and the files.

    Raises
    ------
    InputError
        If the model has no network to export.
    """
    name = type(model).__name__
    if not hasattr(model, "export"):
        raise InputError(
            f"There is no network to export in this {name}; name the folder of a saved autoencoder, VAE, GAN, flow or "
            "pretrained encoder (those of an atlas lie inside it, such as photos.atlas/encoder-0001)."
        )
    done = model.export(output, tolerance=tolerance, overwrite=overwrite)
    said = [
        f"The {part} gives the same through onnxruntime as through PyTorch on {one.n_checked} inputs: largest "
        f"difference {one.difference:.2g}, where the largest output is {one.largest:.2g}."
        for part, one in done.items()
    ]
    return Result(
        name="export",
        title=f"{name} as ONNX",
        sentences=said,
        metrics={f"largest difference, {part}": one.difference for part, one in done.items()},
        panels=[
            FileList(title="Files", files=[(str(one.path), _size(one.path)) for one in done.values()]),
        ],
        data={"files": {part: str(one.path) for part, one in done.items()}},
    )


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"
