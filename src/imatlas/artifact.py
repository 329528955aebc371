"""A model as a folder: `model.json` + `weights.safetensors`, written aside and renamed, read without pickle.

What is saved is what scikit-learn calls the learnt state: every attribute that ends in `_`. Arrays and network weights
go to the safetensors file under their path ("autoencoder_.module_.encoder.0.weight"), the rest to the JSON file.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from imatlas import disk
from imatlas._version import __version__
from imatlas.disk import within, write_folder
from imatlas.errors import ArtifactError, SourceError, UnsafePathError
from imatlas.images.spec import ImageSpec
from imatlas.inventory import MOST_JSON, open_regular

if TYPE_CHECKING:
    from imatlas.models.base import Estimator

FILES = ("model.json", "weights.safetensors")
"""The files of a saved model, and so all that overwriting it replaces."""

MARKS = (b'"format"', b'"library"', b'"class"')
"""What stands in every `model.json` of ours: other programs call their files so, too."""

FORMAT = 1
"""Version of the folder's layout. A reader refuses a higher one and must go on reading every lower one."""


def save(model: Estimator, folder: str | Path, *, overwrite: bool = False) -> Path:
    """Write `model` to `folder`, whole or not at all.

    Raises
    ------
    ArtifactError
        Where the folder exists and `overwrite` is False or it holds no model, or the model holds something that cannot
        be saved.
    """
    from safetensors.numpy import save_file

    folder = Path(folder)
    check_free(folder, overwrite)
    arrays: dict[str, np.ndarray] = {}
    described = _describe_estimator(model, "", arrays)
    described = {"format": FORMAT, "library": __version__, **described}
    described["shapes"] = {name: list(array.shape) for name, array in arrays.items() if ".module_." not in f".{name}"}

    def write(aside: Path) -> None:
        save_file(arrays, str(aside / "weights.safetensors"))
        (aside / "model.json").write_text(json.dumps(described, indent=1, allow_nan=True) + "\n", encoding="utf-8")

    write_folder(folder, write, replaces=FILES if overwrite else None)
    return folder


def check_free(folder: str | Path, overwrite: bool) -> None:
    """Refuse a folder that `save` would not write: before hours of learning.

    Raises
    ------
    ArtifactError
        Where it exists and `overwrite` is False, it holds no model, or anything besides.
    """
    folder = Path(folder)
    if overwrite and os.path.lexists(folder):
        try:
            with open_regular(within(folder, "model.json")) as file:
                text = file.read(MOST_JSON)
        except (OSError, ArtifactError, UnsafePathError):
            text = b""
        if not all(mark in text for mark in MARKS):
            raise ArtifactError(f"'{folder}' holds no model of imatlas, so it is not overwritten; choose another name.")
    disk.check_free(folder, FILES if overwrite else None)


def load(folder: str | Path, *, classes: tuple[type, ...] = ()) -> Any:
    """The model that `save` wrote to `folder`.

    Parameters
    ----------
    folder : path
    classes : tuple of classes
        Models of your own that the table of imatlas does not know. Nothing is ever imported by a name in a file.

    Raises
    ------
    SourceError
        If there is no model in `folder`.
    ArtifactError
        If the model is damaged, of a newer format, or of an unknown class.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    folder = Path(folder)
    path = folder / "model.json"
    if not path.is_file():
        raise SourceError(f"There is no model in '{folder}': 'model.json' was not found.")
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        version = int(described["format"])
        if "class" not in described:
            raise KeyError("class")
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"'{path}' is damaged ({error}); learn the model again.") from error
    if version > FORMAT:
        raise ArtifactError(
            f"'{folder}' has format {version}, and this imatlas {__version__} reads up to {FORMAT}; upgrade imatlas."
        )
    try:
        arrays = load_file(str(folder / "weights.safetensors"))
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"The weights in '{folder}' cannot be read ({error}); learn the model again.") from error
    try:
        return _restore_estimator(described, "", arrays, {cls.__name__: cls for cls in classes})
    except (KeyError, RuntimeError, TypeError) as error:
        raise ArtifactError(f"The model in '{folder}' is damaged ({error}); learn it again.") from error


def _describe_estimator(model: Estimator, prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """The model as JSON values, its arrays added to `arrays` under names that start with `prefix`."""
    learnt = {k: v for k, v in vars(model).items() if k.endswith("_") and not k.startswith("_")}
    given = model.get_params(deep=False)
    used = {k: name for k, v in learnt.items() for name, value in given.items() if v is value and _is_model(v)}
    state = {k: _describe(v, f"{prefix}{k}", arrays) for k, v in learnt.items() if k not in used}
    return {
        "class": type(model).__name__,
        "parameters": {k: _describe(v, f"{prefix}{k}", arrays) for k, v in given.items()},
        "state": state | {k: {"is": "parameter", "name": name} for k, name in used.items()},
    }


def _is_model(value: Any) -> bool:
    return hasattr(value, "get_params") and not isinstance(value, type)


def _describe(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """One value as JSON; `{"is": kind, …}` marks what JSON cannot hold itself."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray) and value.dtype.kind in "OU":  # feature_names_in_, classes_
        return {"is": "strings", "values": [str(v) for v in value]}
    if isinstance(value, np.ndarray):
        arrays[name] = np.ascontiguousarray(value)
        return {"is": "array"}
    if isinstance(value, ImageSpec):
        return {"is": "image_spec", **value.to_json()}
    if isinstance(value, tuple):
        return {"is": "tuple", "items": [_describe(v, f"{name}.{i}", arrays) for i, v in enumerate(value)]}
    if isinstance(value, list):
        return [_describe(v, f"{name}.{i}", arrays) for i, v in enumerate(value)]
    if isinstance(value, dict):
        return {"is": "dict", "items": {str(k): _describe(v, f"{name}.{k}", arrays) for k, v in value.items()}}
    if _is_model(value):
        return {"is": "estimator", **_describe_estimator(value, f"{name}.", arrays)}
    if hasattr(value, "state_dict"):
        for key, tensor in value.state_dict().items():
            arrays[f"{name}.{key}"] = tensor.detach().cpu().contiguous().numpy()
        return {"is": "module"}
    raise ArtifactError(f"'{name}' holds a {type(value).__name__}, which cannot be saved; remove it before saving.")


def _restore_estimator(
    described: dict[str, Any], prefix: str, arrays: dict[str, np.ndarray], classes: dict[str, type]
) -> Any:
    from imatlas import models

    name = described["class"]
    if name not in classes and name not in models.class_names():
        raise ArtifactError(f"The saved model is a '{name}', which imatlas does not know; pass classes=({name},).")
    cls = classes.get(name) or models.model_class(name)
    values = {
        part: {k: _restore(v, f"{prefix}{k}", arrays, classes) for k, v in described[part].items()}
        for part in ("parameters", "state")
    }
    model = cls(**values["parameters"])
    modules = [k for k, v in described["state"].items() if isinstance(v, dict) and v.get("is") == "module"]
    for key, value in values["state"].items():
        told = described["state"][key]
        if isinstance(told, dict) and told["is"] == "parameter":  # a fitted model that was given, and used as it is
            value = getattr(model, told["name"])
        if key not in modules:
            setattr(model, key, value)
    for key in modules:
        setattr(model, key, _restore_module(model, f"{prefix}{key}.", arrays))
    return model


def _restore_module(model: Any, prefix: str, arrays: dict[str, np.ndarray]) -> Any:
    """A network built by the model's own `_build(spec_)`, with the weights whose names start with `prefix`."""
    import torch

    with torch.random.fork_rng(devices=[]):  # first weights are drawn by chance, and replaced at once
        module = model._build(model.spec_)
    weights = {k.removeprefix(prefix): torch.from_numpy(v) for k, v in arrays.items() if k.startswith(prefix)}
    module.load_state_dict(weights)
    return module.eval()


def _restore(value: Any, name: str, arrays: dict[str, np.ndarray], classes: dict[str, type]) -> Any:
    if isinstance(value, list):
        return [_restore(v, f"{name}.{i}", arrays, classes) for i, v in enumerate(value)]
    if not isinstance(value, dict):
        return value
    kind = value["is"]
    if kind == "array":
        return arrays[name]
    if kind == "strings":
        return np.array(value["values"], dtype=object)
    if kind == "image_spec":
        return ImageSpec.from_json({k: v for k, v in value.items() if k != "is"})
    if kind == "tuple":
        return tuple(_restore(v, f"{name}.{i}", arrays, classes) for i, v in enumerate(value["items"]))
    if kind == "dict":
        return {k: _restore(v, f"{name}.{k}", arrays, classes) for k, v in value["items"].items()}
    if kind == "estimator":
        return _restore_estimator(value, f"{name}.", arrays, classes)
    return None  # a module: `_restore_estimator` builds it last, once the spec is known
