"""Vision models of the transformers library as eyes: read from a folder or from Hugging Face, kept without either.

A tower is what turns pixels into one vector: a whole DINOv2 or DINOv3, or the half of CLIP or SigLIP that looks at
pictures. What a model's files say is a stranger's word: of its config only the numbers of a few kinds of models are
taken, that are known to build from these alone; no class is looked up by a name in a file, so nothing fetches a
backbone or runs code that comes with a model. Weights are read from safetensors files only.
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

KINDS = {
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
"""Kinds of model that are read, by `model_type`: their config and their class in transformers. Each is tested."""

HALVES = {"clip": "clip_vision_model", "siglip": "siglip_vision_model"}
"""Kinds with a half that reads text -> the half that looks at pictures, whose config is `vision_config`."""

POOLED = ("clip_vision_model", "siglip_vision_model", "dinov2", "dinov2_with_registers", "dinov3_vit")
"""Kinds of model whose own pooled output was trained: of DINO the class token, of CLIP the class token after a last
normalization, of SigLIP a head that attends. Of all others the mean of all tokens is taken."""

MOST_TOKENS = 2**14
"""Patches of one image: attention costs their square."""

MOST_TOLD = 2**20
"""Bytes of a config."""

FORWARD = ("backbone", "backbone_config", "use_timm_backbone", "use_pretrained_backbone", "auto_map")
"""What leads from a config to another model, or to code."""

Side = Annotated[int, Field(ge=1, le=2048)]
Width = Annotated[int, Field(ge=1, le=2**16)]
Real = Annotated[float, Field(ge=-1e9, le=1e9)]
Activation = Literal["gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "quick_gelu", "relu", "silu", "tanh"]


class Config(BaseModel):
    """All that is taken from a config: what decides the layers of a network. Whatever else it says is left out."""

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


class About(BaseModel):
    """What a saved encoder keeps of a tower."""

    model_config = ConfigDict(strict=True, extra="forbid")

    config: dict[Annotated[str, Field(max_length=100)], Any]
    mean: Annotated[list[Real], Field(min_length=3, max_length=3)]
    deviation: Annotated[list[Annotated[float, Field(gt=1e-9, le=1e9)]], Field(min_length=3, max_length=3)]
    image_size: Side


class VisionTower(nn.Module):
    """Pixels (N, 3, side, side) in [-1, 1] to features (N, n_features).

    Parameters
    ----------
    body : nn.Module
        A vision model of transformers.
    about : dict
        `mean` and `deviation` of the three colors, for pixels in 0..1; `image_size`.
    """

    def __init__(self, body: Any, about: dict[str, Any]) -> None:
        super().__init__()
        self.body = body
        self.about = about
        self.n_features = int(body.config.hidden_size)
        self.pooled = body.config.model_type in POOLED
        # places learned for one size of pictures must be stretched for another; DINO does so unasked
        self.stretches = "interpolate_pos_encoding" in signature(body.forward).parameters

    def layers(self, x: Tensor) -> list[Tensor]:
        """Its one description of each image, in a list, as `EfficientNetLite0.layers` gives several."""
        if (x.shape[2] // self.body.config.patch_size) ** 2 > MOST_TOKENS:
            raise InputError(
                f"Images of {x.shape[2]} x {x.shape[3]} are more than {MOST_TOKENS:,} patches of "
                f"{self.body.config.patch_size} x {self.body.config.patch_size}; set a smaller image_size."
            )
        mean, deviation = (x.new_tensor(self.about[name]).reshape(1, 3, 1, 1) for name in ("mean", "deviation"))
        options = {}
        if self.stretches and x.shape[2] != self.body.config.image_size:
            options["interpolate_pos_encoding"] = True
        seen = self.body(pixel_values=((x + 1) / 2 - mean) / deviation, **options)
        if self.pooled:
            return [seen.pooler_output]
        return [seen.last_hidden_state.mean(dim=1)]


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
        If it is of a kind that is not read, or has no weights in safetensors.
    """
    transformers = _transformers()
    folder = Path(name) if Path(name).is_dir() else _fetched(name)
    try:
        config, wants = (_told(folder / file) for file in ("config.json", "preprocessor_config.json"))
    except (OSError, ArtifactError) as error:
        raise SourceError(
            f"The vision model '{name}' cannot be read ({_first_line(error)}); name a folder that holds config.json, "
            "preprocessor_config.json and model.safetensors, or a model on Hugging Face."
        ) from None
    about = {"config": _taken(name, config), **_wanted(name, wants)}
    try:
        body = _with_weights(transformers, about, _weights(folder))
    except ImatlasError:
        raise
    except Exception as error:
        raise ArtifactError(
            f"The weights of '{name}' cannot be read ({_first_line(error)}); imatlas reads safetensors only, whole, of "
            "the network that config.json describes."
        ) from None
    return VisionTower(body, about).eval().requires_grad_(False), about


def build_tower(about: dict[str, Any]) -> VisionTower:
    """The tower of a saved encoder, without weights.

    Raises
    ------
    MissingExtraError
        If transformers is not installed.
    ArtifactError
        If it is no such description, or of a kind that is not read.
    """
    transformers = _transformers()
    try:
        About.model_validate(about)
    except ValidationError as error:
        raise ArtifactError(f"The description of a vision model is damaged ({_first_wrong(error)}).") from None
    if _taken("", about["config"]) != about["config"]:
        raise ArtifactError("The description of a vision model holds more than imatlas writes.")
    body = _body(transformers, about)
    return VisionTower(body, about).eval().requires_grad_(False)


def _told(path: Path) -> dict[str, Any]:
    """The values of a JSON file of a model; a cache of Hugging Face holds links to its files."""
    values = read_json(path.resolve(), most_bytes=MOST_TOLD)
    if not isinstance(values, dict):
        raise ArtifactError(f"'{path}' is damaged (not a mapping)")
    return values


def _fetched(name: str) -> Path:
    """The folder of a model of Hugging Face, fetched into its cache: what is read of it, and nothing else."""
    files = ["config.json", "preprocessor_config.json", "model*.safetensors", "model.safetensors.index.json"]
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(name, allow_patterns=files))
    except Exception as error:
        raise SourceError(
            f"The vision model '{name}' cannot be read ({_first_line(error)}); name a folder that holds config.json, "
            "preprocessor_config.json and model.safetensors, or a model on Hugging Face."
        ) from None


def _taken(name: str, config: dict[str, Any]) -> dict[str, Any]:
    """What is taken from a config: its kind and its numbers.

    Raises
    ------
    InputError
        If it is of a kind that is not read, leads to another model, or holds numbers out of range.
    """
    kind = config.get("model_type")
    if isinstance(kind, str) and kind in HALVES and isinstance(config.get("vision_config"), dict):
        return _taken(name, {**config["vision_config"], "model_type": HALVES[kind]})
    if not isinstance(kind, str) or kind not in KINDS:
        raise InputError(
            f"The vision model '{name}' is of the kind {str(kind)[:40]!r}, which imatlas does not read; give one of "
            f"{', '.join(sorted({*KINDS, *HALVES}))}."
        )
    if leads := [key for key in FORWARD if config.get(key)]:
        raise InputError(f"The config of '{name}' leads to another model or to code ('{leads[0]}'); give a plain one.")
    try:
        values = Config.model_validate(config).model_dump(exclude_none=True)
    except ValidationError as error:
        raise InputError(f"The config of '{name}' cannot be used ({_first_wrong(error)}).") from None
    return {"model_type": kind, **values}


def _body(transformers: Any, about: dict[str, Any]) -> Any:
    """The network of a description, with first weights."""
    kind, values = about["config"]["model_type"], {k: v for k, v in about["config"].items() if k != "model_type"}
    config_class, model_class = (getattr(transformers, name) for name in KINDS[kind])
    return model_class(config_class(**values)).float()


def _weights(folder: Path) -> dict[str, Tensor]:
    """All tensors in the safetensors files of a model."""
    from safetensors.torch import load_file

    names = ["model.safetensors"]
    if (folder / "model.safetensors.index.json").exists():
        files = _told(folder / "model.safetensors.index.json").get("weight_map")
        names = sorted(set(TypeAdapter(dict[str, str]).validate_python(files).values()))
    tensors: dict[str, Tensor] = {}
    for name in names:
        if "/" in name or not name.endswith(".safetensors"):
            raise ArtifactError(f"'{name}' is no file with weights")
        path = within(folder, name, link=True).resolve()
        open_regular(path).close()
        tensors |= load_file(path)
    return tensors


def _with_weights(transformers: Any, about: dict[str, Any], weights: dict[str, Tensor]) -> Any:
    """The network of a description, with the weights of a model that transformers saved.

    Raises
    ------
    ArtifactError
        If weights are missing.
    """
    with torch.device("meta"):  # no memory is used for a network that the file cannot fill
        empty = _body(transformers, about)
    n_needed = sum(v.numel() for k, v in empty.state_dict().items() if "pooler" not in k)
    n_given = sum(v.numel() for v in weights.values())
    if n_needed > 1.01 * n_given:
        raise ArtifactError(f"The config describes {n_needed:,} weights, and the files hold {n_given:,}.")
    with _quiet(transformers), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # for a pooler that is not used and may be missing
        body, found = type(empty).from_pretrained(
            None, config=empty.config, state_dict=weights, dtype=torch.float32, output_loading_info=True
        )
    pooled = about["config"]["model_type"] in POOLED
    missing = [k for k in found["missing_keys"] if "mask_token" not in k and (pooled or "pooler" not in k)]
    if missing:
        raise ArtifactError(f"'{min(missing)}' and {len(missing) - 1} other weights are missing.")
    return body


def _wanted(name: str, wants: dict[str, Any]) -> dict[str, Any]:
    """Mean, deviation and side from the settings of an image processor."""
    told = wants.get("do_normalize", True) and "image_mean" in wants
    mean, deviation = (wants["image_mean"], wants.get("image_std")) if told else ([0.0] * 3, [1.0] * 3)
    size = wants.get("crop_size") if wants.get("do_center_crop") else wants.get("size")
    if isinstance(size, dict):
        size = size.get("height") or size.get("shortest_edge")
    if not isinstance(size, int):
        raise InputError(
            f"The image processor of '{name}' names no size of pictures. Got {size!r}; mend preprocessor_config.json."
        )
    wanted = {"mean": mean, "deviation": deviation, "image_size": size}
    try:
        About.model_validate({"config": {}, **wanted})
    except ValidationError as error:
        raise InputError(
            f"The image processor of '{name}' cannot be used ({_first_wrong(error)}); mend preprocessor_config.json."
        ) from None
    return wanted


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
