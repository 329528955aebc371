"""Vision models of the transformers library as encoders, read from a folder or from Hugging Face.

A vision tower turns pixels into one vector: a whole DINOv2 or DINOv3, or the vision half of CLIP or SigLIP. The files
of a model are untrusted: of its config only the numbers of known model types are read, and no class is looked up by a
name in a file, so that nothing downloads another backbone or runs code of the model. Weights are read from safetensors
files only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from torch import Tensor, nn

from imatlas.errors import ArtifactError, ImatlasError, InputError, MissingExtraError, SourceError
from imatlas.system.atomic_io import within
from imatlas.system.inventory import open_regular, read_json

MODEL_TYPES = {
    "dinov2": ("Dinov2Config", "Dinov2Model"),
    "dinov2_with_registers": ("Dinov2WithRegistersConfig", "Dinov2WithRegistersModel"),
    "dinov3_vit": ("DINOv3ViTConfig", "DINOv3ViTModel"),
    "clip_vision_model": ("CLIPVisionConfig", "CLIPVisionModel"),
    "siglip_vision_model": ("SiglipVisionConfig", "SiglipVisionModel"),
    "vit": ("ViTConfig", "ViTModel"),
    "deit": ("DeiTConfig", "DeiTModel"),
    "beit": ("BeitConfig", "BeitModel"),
    "vit_msn": ("ViTMSNConfig", "ViTMSNModel"),
    "ijepa": ("IJepaConfig", "IJepaModel"),
}
"""Supported `model_type` -> its config class and model class in transformers. Each is tested."""

VISION_HALVES = {"clip": "clip_vision_model", "siglip": "siglip_vision_model"}
"""Model types with a text half -> their vision half, whose config is `vision_config`."""

POOLED = ("clip_vision_model", "siglip_vision_model", "dinov2", "dinov2_with_registers", "dinov3_vit")
"""Model types whose own pooled output is used: the class token of DINO, the normalized class token of CLIP, the
attention head of SigLIP. Others use the mean of all tokens."""

MAX_TOKENS = 2**14
"""Maximum number of patches per image: the cost of attention is quadratic in it."""

MAX_CONFIG_BYTES = 2**20

REDIRECTING = ("backbone", "backbone_config", "use_timm_backbone", "use_pretrained_backbone", "auto_map")
"""Entries of a config that refer to another model or to code."""

Side = Annotated[int, Field(ge=1, le=2048)]
Width = Annotated[int, Field(ge=1, le=2**16)]
Real = Annotated[float, Field(ge=-1e9, le=1e9)]
Activation = Literal["gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "quick_gelu", "relu", "silu", "tanh"]


class Config(BaseModel):
    """The entries of a config that determine the layers of a network. All others are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore")

    hidden_size: Width | None = None
    num_hidden_layers: Annotated[int, Field(ge=1, le=256)] | None = None
    num_attention_heads: Annotated[int, Field(ge=1, le=256)] | None = None
    intermediate_size: Width | None = None
    mlp_ratio: Annotated[int, Field(ge=1, le=64)] | Annotated[float, Field(gt=0, le=64)] | None = None
    image_size: Side | None = None
    patch_size: Side | None = None
    num_channels: Literal[3] | None = None
    projection_dim: Width | None = None
    pooler_output_size: Width | None = None
    num_register_tokens: Annotated[int, Field(ge=0, le=1024)] | None = None
    hidden_act: Activation | None = None
    pooler_act: Activation | None = None
    layer_norm_eps: Real | None = None
    rope_theta: Real | None = None
    layerscale_value: Real | None = None
    layer_scale_init_value: Real | None = None
    qkv_bias: bool | None = None
    query_bias: bool | None = None
    key_bias: bool | None = None
    value_bias: bool | None = None
    proj_bias: bool | None = None
    mlp_bias: bool | None = None
    use_swiglu_ffn: bool | None = None
    use_gated_mlp: bool | None = None
    use_mask_token: bool | None = None
    use_absolute_position_embeddings: bool | None = None
    use_relative_position_bias: bool | None = None
    use_shared_relative_position_bias: bool | None = None
    use_mean_pooling: bool | None = None
    vision_use_head: bool | None = None


class TowerDescription(BaseModel):
    """What a saved encoder stores of a tower."""

    model_config = ConfigDict(strict=True, extra="forbid")

    config: dict[Annotated[str, Field(max_length=100)], Any]
    mean: Annotated[list[Real], Field(min_length=3, max_length=3)]
    deviation: Annotated[list[Annotated[float, Field(gt=1e-9, le=1e9)]], Field(min_length=3, max_length=3)]
    image_size: Side


class VisionTower(nn.Module):
    """Vision model: pixels (N, 3, side, side) in [-1, 1] to features (N, n_features).

    Parameters
    ----------
    body : nn.Module
        A vision model of transformers.
    description : dict
        `mean` and `deviation` of the three channels, for pixels in 0..1; `image_size`.
    """

    def __init__(self, body: Any, description: dict[str, Any]) -> None:
        super().__init__()
        self.body = body
        self.description = description
        self.n_features = int(body.config.hidden_size)
        self.pooled = body.config.model_type in POOLED
        # position embeddings must be interpolated for another image size; DINO does so by default
        self.interpolates = "interpolate_pos_encoding" in signature(body.forward).parameters

    def layers(self, x: Tensor) -> list[Tensor]:
        """Its features, in a list of one layer, as `EfficientNetLite0.layers` gives several."""
        if (x.shape[2] // self.body.config.patch_size) ** 2 > MAX_TOKENS:
            raise InputError(
                f"Images of {x.shape[2]} x {x.shape[3]} are more than {MAX_TOKENS:,} patches of "
                f"{self.body.config.patch_size} x {self.body.config.patch_size}; set a smaller image_size."
            )
        mean, deviation = (x.new_tensor(self.description[name]).reshape(1, 3, 1, 1) for name in ("mean", "deviation"))
        options = {}
        if self.interpolates and x.shape[2] != self.body.config.image_size:
            options["interpolate_pos_encoding"] = True
        output = self.body(pixel_values=((x + 1) / 2 - mean) / deviation, **options)
        if self.pooled:
            return [output.pooler_output]
        return [output.last_hidden_state.mean(dim=1)]


def load_tower(name: str) -> tuple[VisionTower, dict[str, Any]]:
    """Load a tower, and the description from which `build_tower` rebuilds it.

    Parameters
    ----------
    name : str
        A folder written by transformers, which needs no network, or a name on Hugging Face.

    Raises
    ------
    MissingExtraError
        If transformers is not installed.
    SourceError
        If there is no such model, or it cannot be downloaded.
    InputError, ArtifactError
        If its type is not supported, or it has no weights in safetensors.
    """
    transformers = _transformers()
    folder = Path(name) if Path(name).is_dir() else _downloaded(name)
    try:
        config, processor = (_read_mapping(folder / file) for file in ("config.json", "preprocessor_config.json"))
    except (OSError, ArtifactError) as error:
        raise SourceError(
            f"The vision model '{name}' cannot be read ({_first_line(error)}); name a folder that holds config.json, "
            "preprocessor_config.json and model.safetensors, or a model on Hugging Face."
        ) from None
    description = {"config": _supported(name, config), **_pixel_format(name, processor)}
    try:
        body = _with_weights(transformers, description, _weights(folder))
    except ImatlasError:
        raise
    except Exception as error:
        raise ArtifactError(
            f"The weights of '{name}' cannot be read ({_first_line(error)}); imatlas reads safetensors only, complete "
            "for the network that config.json describes."
        ) from None
    return VisionTower(body, description).eval().requires_grad_(False), description


def build_tower(description: dict[str, Any]) -> VisionTower:
    """Build the tower of a saved encoder, without weights.

    Raises
    ------
    MissingExtraError
        If transformers is not installed.
    ArtifactError
        If the description is invalid, or its type is not supported.
    """
    transformers = _transformers()
    try:
        TowerDescription.model_validate(description)
    except ValidationError as error:
        raise ArtifactError(f"The description of a vision model is damaged ({_first_wrong(error)}).") from None
    if _supported("", description["config"]) != description["config"]:
        raise ArtifactError("The description of a vision model is damaged (unknown entries).")
    body = _body(transformers, description)
    return VisionTower(body, description).eval().requires_grad_(False)


def _read_mapping(path: Path) -> dict[str, Any]:
    """The values of a JSON file of a model; links are followed, since the cache of Hugging Face consists of them."""
    values = read_json(path.resolve(), most_bytes=MAX_CONFIG_BYTES)
    if not isinstance(values, dict):
        raise ArtifactError(f"'{path}' is damaged (not a mapping)")
    return values


def _downloaded(name: str) -> Path:
    """The folder of a model of Hugging Face in its cache, with only the files that are read."""
    files = ["config.json", "preprocessor_config.json", "model*.safetensors", "model.safetensors.index.json"]
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(name, allow_patterns=files))
    except Exception as error:
        raise SourceError(
            f"The vision model '{name}' cannot be read ({_first_line(error)}); name a folder that holds config.json, "
            "preprocessor_config.json and model.safetensors, or a model on Hugging Face."
        ) from None


def _supported(name: str, config: dict[str, Any]) -> dict[str, Any]:
    """The supported part of a config: its type and its numbers.

    Raises
    ------
    InputError
        If its type is not supported, it refers to another model, or holds numbers out of range.
    """
    kind = config.get("model_type")
    if isinstance(kind, str) and kind in VISION_HALVES and isinstance(config.get("vision_config"), dict):
        return _supported(name, {**config["vision_config"], "model_type": VISION_HALVES[kind]})
    if not isinstance(kind, str) or kind not in MODEL_TYPES:
        raise InputError(
            f"The vision model '{name}' has the type {str(kind)[:40]!r}, which imatlas does not support; use one of "
            f"{', '.join(sorted({*MODEL_TYPES, *VISION_HALVES}))}."
        )
    if redirects := [key for key in REDIRECTING if config.get(key)]:
        raise InputError(
            f"The config of '{name}' refers to another model or to code ('{redirects[0]}'); use a plain one."
        )
    try:
        values = Config.model_validate(config).model_dump(exclude_none=True)
    except ValidationError as error:
        raise InputError(f"The config of '{name}' cannot be used ({_first_wrong(error)}).") from None
    return {"model_type": kind, **values}


def _body(transformers: Any, description: dict[str, Any]) -> Any:
    """The network of a description, with initial weights."""
    values = dict(description["config"])
    kind = values.pop("model_type")
    config_class, model_class = (getattr(transformers, name) for name in MODEL_TYPES[kind])
    return model_class(config_class(**values)).float()


def _weights(folder: Path) -> dict[str, Tensor]:
    """All tensors in the safetensors files of a model."""
    from safetensors.torch import load_file

    names = ["model.safetensors"]
    if (folder / "model.safetensors.index.json").exists():
        files = _read_mapping(folder / "model.safetensors.index.json").get("weight_map")
        names = sorted(set(TypeAdapter(dict[str, str]).validate_python(files).values()))
    tensors: dict[str, Tensor] = {}
    for name in names:
        if "/" in name or not name.endswith(".safetensors"):
            raise ArtifactError(f"'{name}' is not a file of weights")
        path = within(folder, name, link=True).resolve()
        open_regular(path).close()
        tensors |= load_file(path)
    return tensors


def _with_weights(transformers: Any, description: dict[str, Any], weights: dict[str, Tensor]) -> Any:
    """The network of a description, with weights saved by transformers.

    Raises
    ------
    ArtifactError
        If weights are missing.
    """
    with torch.device("meta"):  # no memory is allocated for a network that the files cannot fill
        empty = _body(transformers, description)
    n_needed = sum(v.numel() for k, v in empty.state_dict().items() if "pooler" not in k)
    n_given = sum(v.numel() for v in weights.values())
    if n_needed > 1.01 * n_given:
        raise ArtifactError(f"The config describes {n_needed:,} weights, but the files contain {n_given:,}.")
    with _quiet(transformers), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # for an unused pooler, which may be missing
        body, found = type(empty).from_pretrained(
            None, config=empty.config, state_dict=weights, dtype=torch.float32, output_loading_info=True
        )
    pooled = description["config"]["model_type"] in POOLED
    missing = [k for k in found["missing_keys"] if "mask_token" not in k and (pooled or "pooler" not in k)]
    if missing:
        raise ArtifactError(f"'{min(missing)}' and {len(missing) - 1} other weights are missing.")
    return body


def _pixel_format(name: str, processor: dict[str, Any]) -> dict[str, Any]:
    """Mean, deviation and image size from the settings of an image processor."""
    normalizes = processor.get("do_normalize", True) and "image_mean" in processor
    mean, deviation = (processor["image_mean"], processor.get("image_std")) if normalizes else ([0.0] * 3, [1.0] * 3)
    size = processor.get("crop_size") if processor.get("do_center_crop") else processor.get("size")
    if isinstance(size, dict):
        size = size.get("height") or size.get("shortest_edge")
    if not isinstance(size, int):
        raise InputError(
            f"The image processor of '{name}' has no image size. Got {size!r}; correct preprocessor_config.json."
        )
    pixel_format = {"mean": mean, "deviation": deviation, "image_size": size}
    try:
        TowerDescription.model_validate({"config": {}, **pixel_format})
    except ValidationError as error:
        raise InputError(
            f"The image processor of '{name}' cannot be used ({_first_wrong(error)}); correct preprocessor_config.json."
        ) from None
    return pixel_format


def _first_wrong(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False)[0]
    return f"'{first['loc'][0]}': {first['msg'][:1].lower()}{first['msg'][1:]}"


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
    """Silence its progress bar, and its warning of unused weights of a text half."""
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
