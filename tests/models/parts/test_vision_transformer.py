"""Vision models of transformers as encoders: tiny ones, built and saved here."""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from imatlas.errors import ArtifactError, InputError, MissingExtraError, ParameterError, SourceError
from imatlas.models import artifact
from imatlas.models.parts.vision_transformer import MODEL_TYPES, build_tower, load_tower
from imatlas.models.pretrained import PretrainedEncoder
from imatlas.system.inventory import seal
from imatlas.testing import check_image_estimator, synthetic_images

pytestmark = pytest.mark.usefixtures("one_thread")

WIDTH = 16
MEAN, DEVIATION = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
KINDS = (
    "dinov2",
    "dinov2 with registers",
    "dinov3",
    "clip",
    "clip with text",
    "siglip",
    "vit",
    "deit",
    "beit",
    "vit msn",
    "ijepa",
)


@pytest.fixture(scope="module")
def transformers() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("transformers", reason="needs the extra: pip install 'imatlas[pretrained]'")


@pytest.fixture(scope="module")
def folders(transformers: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folder of a tiny model of each kind, as transformers saves it with its image processor."""
    t, root = transformers, tmp_path_factory.mktemp("towers")
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 56, "patch_size": 14}
    wide = {"intermediate_size": 32, **sizes}
    text = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 9}
    models = {
        "dinov2": lambda: t.Dinov2Model(t.Dinov2Config(**sizes)),
        "clip": lambda: t.CLIPVisionModel(t.CLIPVisionConfig(**wide)),
        "clip with text": lambda: t.CLIPModel(t.CLIPConfig(vision_config=wide, text_config=text)),
        "siglip": lambda: t.SiglipVisionModel(t.SiglipVisionConfig(**wide)),
        "dinov2 with registers": lambda: t.Dinov2WithRegistersModel(t.Dinov2WithRegistersConfig(**sizes)),
        "dinov3": lambda: t.DINOv3ViTModel(t.DINOv3ViTConfig(**wide)),
        "vit": lambda: t.ViTModel(t.ViTConfig(**wide)),
        "deit": lambda: t.DeiTModel(t.DeiTConfig(**wide)),
        "beit": lambda: t.BeitModel(t.BeitConfig(**wide, use_relative_position_bias=True)),
        "vit msn": lambda: t.ViTMSNModel(t.ViTMSNConfig(**wide)),
        "ijepa": lambda: t.IJepaModel(t.IJepaConfig(**wide)),
    }
    found = {}
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        for kind in KINDS:
            found[kind] = root / kind.replace(" ", "-")
            models[kind]().eval().save_pretrained(found[kind])
            values: dict[str, Any] = {"do_normalize": True, "image_mean": MEAN, "image_std": DEVIATION}
            values["size"] = {"height": 56, "width": 56}
            if kind.startswith(("dino", "clip")):
                values |= {
                    "size": {"shortest_edge": 64},
                    "do_center_crop": True,
                    "crop_size": {"height": 56, "width": 56},
                }
            (found[kind] / "preprocessor_config.json").write_text(json.dumps(values))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_features_equal_the_output_of_the_model(transformers: Any, folders: dict[str, Path], kind: str) -> None:
    images = synthetic_images(3, size=56, channels=3)
    model = PretrainedEncoder(backbone=str(folders[kind]), normalize=False).fit(images)
    assert (model.side, model.learned_with_) == (56, f"what '{folders[kind].name}' was trained with")
    features = model.transform(images)
    whole = transformers.AutoModel.from_pretrained(folders[kind], local_files_only=True).eval()
    body = getattr(whole, "vision_model", whole)
    pixels = torch.tensor((images / 255 - MEAN) / DEVIATION).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        seen = body(pixel_values=pixels)
    expected = seen.pooler_output if kind.startswith(("dino", "clip", "siglip")) else seen.last_hidden_state.mean(1)
    assert features.shape == (3, WIDTH)
    np.testing.assert_allclose(features, expected.numpy(), rtol=1e-4, atol=1e-4)
    if kind == "dinov2":
        np.testing.assert_allclose(features, seen.last_hidden_state[:, 0].numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_encoder_needs_neither_folder_nor_network(
    folders: dict[str, Path], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = synthetic_images(12, size=24, channels=3)
    options: dict[str, Any] = {"views": 2, "rotation_invariant": True, "n_components": 3, "whiten": 0.5}
    model = PretrainedEncoder(backbone=str(folders[kind]), image_size=42, **options)
    features = model.fit_transform(images)
    assert features.shape == (12, 3)
    model.save(tmp_path / "encoder")
    monkeypatch.setattr("imatlas.models.pretrained.load_tower", None)
    assert np.array_equal(artifact.load(tmp_path / "encoder").transform(images), features)


def test_keeps_the_contract(folders: dict[str, Path]) -> None:
    check_image_estimator(PretrainedEncoder(backbone=str(folders["dinov2"]), image_size=42))


def test_no_other_image_in_a_batch_changes_a_feature(folders: dict[str, Path]) -> None:
    images = synthetic_images(5, size=56, channels=3)
    model = PretrainedEncoder(backbone=str(folders["siglip"])).fit(images)
    together = model.transform(images)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, rtol=1e-5)
    for i in range(5):
        assert np.array_equal(model.transform(images[i : i + 1])[0], together[i])


def test_unreadable_models_are_one_line_errors(
    transformers: Any, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    images = synthetic_images(2, channels=3)
    with pytest.raises(SourceError, match="cannot be read"):
        load_tower(str(tmp_path))
    with pytest.raises(SourceError, match="cannot be read"):
        load_tower("nobody/nothing")
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    for name in ("config.json", "preprocessor_config.json"):
        (pickled / name).write_bytes((folders["dinov2"] / name).read_bytes())
    torch.save({}, pickled / "pytorch_model.bin")
    with pytest.raises(ArtifactError, match="safetensors only"):
        load_tower(str(pickled))
    with pytest.raises(ParameterError, match="'layers'"):
        PretrainedEncoder(backbone=str(folders["dinov2"]), layers="many").fit(images)
    values = json.loads((pickled / "preprocessor_config.json").read_text())
    (pickled / "preprocessor_config.json").write_text(json.dumps({**values, "crop_size": None}))
    with pytest.raises(InputError, match="has no image size"):
        load_tower(str(pickled))


HOSTILE: dict[str, dict[str, Any]] = {
    "detr": {"model_type": "detr", "backbone": "evil/repo", "use_timm_backbone": True, "backbone_config": None},
    "dpt": {"model_type": "dpt", "backbone_config": {"model_type": "dinov2", "_name_or_path": "evil/repo"}},
    "maskformer": {"model_type": "maskformer", "backbone": "evil/repo", "use_pretrained_backbone": True},
    "timm": {"model_type": "timm_wrapper", "architecture": "hf-hub:evil/repo"},
    "of no kind": {"backbone": "evil/repo"},
    "of two": {"model_type": ["dinov2"]},
    "dinov2 with a backbone": {"model_type": "dinov2", "backbone": "evil/repo", "use_pretrained_backbone": True},
    "with code": {"model_type": "dinov2", "auto_map": {"AutoConfig": "evil/repo--run.Config", "AutoModel": "run.M"}},
    "clip of another kind": {"model_type": "clip", "vision_config": {"backbone": "evil/repo", "hidden_size": 8}},
    "too deep": {"model_type": "dinov2", "num_hidden_layers": 10**9},
    "too wide": {"model_type": "dinov2", "hidden_size": 2**40},
    "a number that is none": {"model_type": "dinov2", "hidden_size": "16"},
}


@pytest.fixture
def shut(monkeypatch: pytest.MonkeyPatch) -> None:
    """No network and no user input."""

    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("the network, or the user, was asked")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    monkeypatch.setattr("builtins.input", refuse)


def _resealed(folder: Path, change: Any) -> None:
    """Change what a saved model says, as someone would who can compute its checksum."""
    values = json.loads((folder / "model.json").read_text())
    change(values)
    values["seal"] = seal({k: v for k, v in values.items() if k != "seal"})
    (folder / "model.json").write_text(json.dumps(values))


@pytest.mark.usefixtures("shut")
@pytest.mark.parametrize("name", HOSTILE)
def test_no_config_fetches_a_model_or_runs_its_code(folders: dict[str, Path], name: str, tmp_path: Path) -> None:
    folder, config = tmp_path / "model", HOSTILE[name]
    shutil.copytree(folders["dinov2"], folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "run.py").write_text("raise SystemExit('was run')")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "evil/repo"}))
    with pytest.raises((InputError, ArtifactError)):
        load_tower(str(folder))
    with pytest.raises((InputError, ArtifactError)):
        build_tower({"config": config, "mean": MEAN, "deviation": DEVIATION, "image_size": 56})
    model = PretrainedEncoder(backbone=str(folders["dinov2"])).fit(synthetic_images(2, size=56, channels=3))
    model.save(tmp_path / "saved")
    items = {k: {"is": "dict", "items": v} if isinstance(v, dict) else v for k, v in config.items()}
    about = {"is": "dict", "items": items}
    _resealed(tmp_path / "saved", lambda values: values["state"]["tower_"]["items"].update(config=about))
    with pytest.raises(ArtifactError, match="cannot be used"):
        artifact.load(tmp_path / "saved")


@pytest.mark.usefixtures("shut")
def test_a_plain_folder_needs_no_network_whatever_lies_beside(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(folders["vit"], folder)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "evil/repo"}))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "attn_implementation": "evil/kernel", "id2label": {}}))
    assert load_tower(str(folder))[0].n_features == WIDTH


def test_weights_must_fill_the_network_that_the_config_describes(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(folders["dinov2"], folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 2**14, "num_hidden_layers": 200}))
    with pytest.raises(ArtifactError, match="weights, but the files contain"):
        load_tower(str(folder))
    (folder / "config.json").write_text(json.dumps(config))
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    safetensors.torch.save_file(dict(list(tensors.items())[:-1]), folder / "model.safetensors")
    with pytest.raises(ArtifactError, match=r"missing|files hold"):
        load_tower(str(folder))


def test_every_kind_that_is_read_is_tested(folders: dict[str, Path]) -> None:
    kinds = {json.loads((folder / "config.json").read_text())["model_type"] for folder in folders.values()}
    assert kinds - {"clip"} == set(MODEL_TYPES)


def test_where_transformers_is_missing_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"imatlas\[pretrained\]"):
        PretrainedEncoder(backbone=str(tmp_path)).fit(synthetic_images(2, channels=3))
    with pytest.raises(ParameterError, match="'backbone'"):
        PretrainedEncoder(backbone="resnet").fit(synthetic_images(2, channels=3))
