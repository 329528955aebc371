"""Vision models of the transformers library as eyes: read from a folder or from Hugging Face, kept without either.

A tower is what turns pixels into one vector: a whole DINOv2 or DINOv3, or the half of CLIP or SigLIP that looks at
pictures. Weights are read from safetensors files only, and no code that comes with a model is ever run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from imatlas.errors import ArtifactError, InputError, MissingExtraError, SourceError

POOLED = (
    "clip_vision_model",
    "siglip_vision_model",
    "siglip2_vision_model",
    "dinov2",
    "dinov2_with_registers",
    "dinov3_vit",
)
"""Kinds of model whose own pooled output was trained: of DINO the class token, of CLIP the class token after a last
normalisation, of SigLIP a head that attends. Of all others the mean of all tokens, or places, is taken."""


class VisionTower(nn.Module):
    """Pixels (N, 3, side, side) in [-1, 1] to features (N, n_features).

    Parameters
    ----------
    body : nn.Module
        A vision model of transformers.
    about : dict
        `mean` and `deviation` of the three colours, for pixels in 0..1; `image_size`.
    """

    def __init__(self, body: Any, about: dict[str, Any]) -> None:
        super().__init__()
        self.body = body
        self.about = about
        self.n_features = int(body.config.hidden_size)
        self.pooled = body.config.model_type in POOLED
        # places learnt for one size of pictures must be stretched for another; DINO does so unasked
        self.stretches = "interpolate_pos_encoding" in signature(body.forward).parameters

    def layers(self, x: Tensor) -> list[Tensor]:
        """Its one description of each image, in a list, as `EfficientNetLite0.layers` gives several."""
        mean, deviation = (x.new_tensor(self.about[name]).reshape(1, 3, 1, 1) for name in ("mean", "deviation"))
        options = {}
        if self.stretches and x.shape[2] != self.body.config.image_size:
            options["interpolate_pos_encoding"] = True
        seen = self.body(pixel_values=((x + 1) / 2 - mean) / deviation, **options)
        if self.pooled:
            return [seen.pooler_output]
        tokens = seen.last_hidden_state
        return [tokens.mean(dim=1) if tokens.ndim == 3 else tokens.mean(dim=(2, 3))]


def load_tower(name: str) -> tuple[VisionTower, dict[str, Any]]:
    """The tower of a model, and what `build_tower` needs to build it anew: its config and how it wants its pixels.

    Parameters
    ----------
    name : str
        A folder that transformers wrote, which is then read without any network, or a name on Hugging Face.

    Raises
    ------
    MissingExtraError
        If transformers is not installed.
    SourceError
        If there is no such model, or it cannot be fetched.
    InputError, ArtifactError
        If it does not look at pictures, or has no weights in safetensors.
    """
    transformers = _transformers()
    options = {"local_files_only": True} if Path(name).is_dir() else {}
    try:
        config = transformers.AutoConfig.from_pretrained(name, **options)
        wants, _ = transformers.ImageProcessingMixin.get_image_processor_dict(name, **options)
    except (OSError, ValueError) as error:
        raise SourceError(
            f"The vision model '{name}' cannot be read ({_first_line(error)}); name a folder that holds config.json, "
            "preprocessor_config.json and model.safetensors, or a model on Hugging Face."
        ) from None
    config = getattr(config, "vision_config", config)
    about = {"config": config.to_json_string(use_diff=False), **_wanted(name, wants)}
    try:
        with _quiet(transformers):
            body = transformers.AutoModel.from_pretrained(
                name, config=config, use_safetensors=True, dtype=torch.float32, **options
            )
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"The weights of '{name}' cannot be read ({_first_line(error)}); imatlas reads safetensors only, of models "
            "that transformers knows."
        ) from None
    if getattr(body, "main_input_name", "") != "pixel_values" or not hasattr(config, "hidden_size"):
        raise InputError(
            f"'{name}' is a {type(body).__name__}, which gives no features of pictures; name a vision model."
        )
    return VisionTower(body, about).eval().requires_grad_(False), about


def build_tower(about: dict[str, Any]) -> VisionTower:
    """The tower of a saved encoder, without weights.

    Raises
    ------
    MissingExtraError
        If transformers is not installed.
    """
    transformers = _transformers()
    values = json.loads(about["config"])
    config = transformers.AutoConfig.for_model(values.pop("model_type"), **values)
    body = transformers.AutoModel.from_config(config, dtype=torch.float32)
    return VisionTower(body, about).eval().requires_grad_(False)


def _wanted(name: str, wants: dict[str, Any]) -> dict[str, Any]:
    """Mean, deviation and side from the settings of an image processor."""
    plain = [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]
    mean, deviation = (
        (wants["image_mean"], wants["image_std"])
        if wants.get("do_normalize", True) and "image_mean" in wants
        else plain
    )
    size = wants.get("crop_size") if wants.get("do_center_crop") else wants.get("size")
    if isinstance(size, dict):
        size = size.get("height") or size.get("shortest_edge")
    if not isinstance(size, int):
        raise InputError(
            f"The image processor of '{name}' names no size of pictures. Got {size!r}; mend preprocessor_config.json."
        )
    return {"mean": list(mean), "deviation": list(deviation), "image_size": size}


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError(
            f"A vision model other than efficientnet-lite0 needs transformers ({error}); "
            "run: pip install 'imatlas[pretrained]'"
        ) from None
    return transformers


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """It draws a bar of its own while it reads, and tells of the weights of CLIP's other half, which is left out."""
    logging = transformers.logging
    before = logging.get_verbosity()
    shown = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if shown:
            logging.enable_progress_bar()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")
