"""Saved models: a folder of `model.json` and `weights.safetensors`, written atomically and read without pickle.

Parameters and learned attributes (whose names end in `_`) are saved. Arrays and network weights are in the safetensors
file under their path ("autoencoder_.module_.encoder.0.weight"), all else in the JSON file.

A folder may be damaged or malicious. Damage is detected by the hashes in `model.json`, of the weights and of itself.
Against forged hashes, nothing is imported by a name in a file, parameters and learned attributes are checked against
the declarations of the class, and a network is allocated only after its weights are known to match those in the file.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from imatlas import __version__
from imatlas.arguments import check_path, is_generator, strict_yes
from imatlas.errors import (
    ArtifactError,
    ImatlasError,
    MissingExtraError,
    ParameterError,
    SourceError,
    UnsafePathError,
)
from imatlas.images.spec import ImageSpec
from imatlas.models.learned_attributes import MAX_TEXT, Weights, contradiction
from imatlas.system import atomic_io, processes
from imatlas.system.atomic_io import output_path, within, write_folder
from imatlas.system.inventory import MAX_JSON, Entry, Inventory, entry_of, open_regular, read_json, seal

if TYPE_CHECKING:
    from imatlas.models.base import Estimator

MODEL_JSON, WEIGHTS = FILES = ("model.json", "weights.safetensors")
"""The files of a saved model; overwriting replaces only these."""

MARKS = (b'"format"', b'"library"', b'"class"')
"""Found in every `model.json` of imatlas; other programs use the file name, too."""

FORMAT = 2
"""Version of the layout; others are refused."""

MAX_IMAGE_SIDE = 2**20
"""Largest side, in pixels, of the images that a model was fitted to."""

ADVICE = "fit the model again"

NAME = Annotated[str, Field(min_length=1, max_length=200)]
TEXT = Annotated[str, Field(max_length=MAX_TEXT)]
SHA256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


def _schema(**keys: Any) -> type[BaseModel]:
    """Schema of a JSON object with exactly these keys and types."""
    fields: dict[str, Any] = {name: (kind, ...) for name, kind in keys.items()}
    return create_model("Saved", __config__=ConfigDict(strict=True, extra="forbid"), **fields)


MODEL = {"class": NAME, "parameters": dict[NAME, Any], "state": dict[NAME, Any]}
HEAD = _schema(
    format=int,
    library=NAME,
    shapes=dict[TEXT, list[int]],
    files=dict[Literal["weights.safetensors"], Any],
    seal=SHA256,
    **MODEL,
)
"""Schema of `model.json`. Nested values are plain JSON values, lists, or `{"is": kind, …}`."""

ENTRY = _schema(size=Annotated[int, Field(ge=0)], sha256=SHA256)
"""Schema of the entry of the weights file."""

KINDS = {
    "array": _schema(),
    "module": _schema(),
    "float": _schema(value=Literal["nan", "inf", "-inf"]),
    "strings": _schema(values=list[TEXT]),
    "image_spec": _schema(**dict.fromkeys(ImageSpec(1, 1, 1).to_json(), Any)),
    "tuple": _schema(items=list[Any]),
    "dict": _schema(items=dict[TEXT, Any]),
    "estimator": _schema(**MODEL),
    "parameter": _schema(name=NAME),
}
"""Schemas of `{"is": kind, …}` by kind."""


@strict_yes
def save(model: Estimator, folder: str | Path, *, overwrite: bool = False) -> Path:
    """Write `model` to `folder`, atomically; one that several processes trained is written by process 0.

    Raises
    ------
    ArtifactError
        If the folder exists and `overwrite` is False or it holds no model, or the model has an attribute that cannot be
        saved.
    ParameterError
        If a parameter was set to an invalid value.
    """
    from safetensors.numpy import save_file

    folder = output_path(check_path(folder, "folder", "save"))
    if model.resumable and not processes.is_first():
        return folder
    check_free(folder, overwrite)
    arrays: dict[str, np.ndarray] = {}
    described = _describe_estimator(model, "", arrays)
    described = {"format": FORMAT, "library": __version__, **described}
    described["shapes"] = {name: list(array.shape) for name, array in arrays.items() if ".module_." not in f".{name}"}

    def write(aside: Path) -> None:
        save_file(arrays, str(aside / WEIGHTS))
        described["files"] = {WEIGHTS: entry_of(aside / WEIGHTS)._asdict()}
        described["seal"] = seal(described)
        (aside / MODEL_JSON).write_text(json.dumps(described, indent=1, allow_nan=False) + "\n", encoding="utf-8")

    write_folder(folder, write, replaces=FILES if overwrite else None)
    return folder


def check_free(folder: str | Path, overwrite: bool) -> None:
    """Refuse a folder that `save` would refuse, before hours of training.

    Raises
    ------
    ArtifactError
        If it exists and `overwrite` is False, or it holds no model, or other files besides.
    """
    folder = output_path(check_path(folder, "folder", "save"))
    if overwrite and os.path.lexists(folder):
        try:
            with open_regular(within(folder, "model.json")) as file:
                text = file.read(MAX_JSON)
        except (OSError, ArtifactError, UnsafePathError):
            text = b""
        if not all(mark in text for mark in MARKS):
            raise ArtifactError(f"'{folder}' holds no model of imatlas, so it is not overwritten; choose another name.")
    atomic_io.check_free(folder, FILES if overwrite else None)


def load(folder: str | Path, *, classes: tuple[type, ...] = ()) -> Any:
    """Load the model that `save` wrote to `folder`.

    Parameters
    ----------
    folder : path
    classes : tuple of classes
        Your own model classes. Nothing is imported by a name in a file.

    Raises
    ------
    SourceError
        If there is no model in `folder`.
    ArtifactError
        If the model is damaged, of another format, or of an unknown class.
    MissingExtraError
        If it needs a package that is not installed.
    """
    from safetensors.numpy import load_file

    folder = check_path(folder, "folder", "load")
    with _reading(folder):
        described = _described(folder)
        entry = Entry(**described["files"][WEIGHTS])
        Inventory(folder, {WEIGHTS: entry}, advice=ADVICE).check([WEIGHTS])
        arrays = load_file(str(folder / WEIGHTS))
        try:
            model = _restore_estimator(described, "", arrays, {cls.__name__: cls for cls in classes})
            if not model.__sklearn_is_fitted__():
                raise ArtifactError("it is not fitted")
        except MissingExtraError:
            raise
        except ImatlasError as error:
            raise ArtifactError(
                f"The model in '{folder}' cannot be used ({str(error).rstrip('.')}); {ADVICE}."
            ) from error
    return model


def is_saved(folder: str | Path) -> bool:
    """Whether a folder holds a saved model, which may be damaged."""
    return os.path.lexists(Path(folder) / MODEL_JSON)


def _described(folder: Path) -> dict[str, Any]:
    """The content of `model.json`, after its seal is verified."""
    path = folder / MODEL_JSON
    if not is_saved(folder):
        raise SourceError(f"There is no model in '{folder}': '{MODEL_JSON}' was not found.")
    try:
        described = read_json(path)
        version = described.get("format") if isinstance(described, dict) else None
        if version in (None, FORMAT):
            _validate(HEAD, described)
            _validate(ENTRY, described["files"].get(WEIGHTS))
    except ArtifactError as error:
        raise ArtifactError(f"The model in '{folder}' cannot be read ({str(error).rstrip('.')}); {ADVICE}.") from None
    if not isinstance(version, int) or version != FORMAT:
        advice = "upgrade imatlas" if isinstance(version, int) and version > FORMAT else ADVICE
        got = repr(version)[:40]
        raise ArtifactError(f"'{folder}' has format {got}, but imatlas {__version__} reads {FORMAT}; {advice}.")
    if seal({k: v for k, v in described.items() if k != "seal"}) != described["seal"]:
        raise ArtifactError(f"'{path}' is damaged (its checksum differs); {ADVICE}.")
    return described


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Turn any error about the content of a file, Rust panics and MemoryError included, into an `ArtifactError`."""
    try:
        yield
    except ImatlasError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
        raise ArtifactError(f"The model in '{folder}' is damaged ({reason}); {ADVICE}.") from error


def _validate(schema: type[BaseModel], values: Any) -> None:
    try:
        schema.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(key)[:40] for key in first["loc"][:3])
        raise ArtifactError(f"its JSON does not describe a model ('{where}': {first['msg']})") from None


def _describe_estimator(model: Estimator, prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """A model as JSON values; its arrays are added to `arrays` under names that start with `prefix`."""
    name = type(model).__name__
    learned = {k: v for k, v in vars(model).items() if k.endswith("_") and not k.startswith("_")}
    given = model.get_params(deep=False)
    used = {k: name for k, v in learned.items() for name, value in given.items() if v is value and _is_model(v)}
    state = {k: _describe(v, f"{prefix}{k}", arrays) for k, v in learned.items() if k not in used}
    model._check_declared()
    if is_generator(given.get("random_state")):  # save the seed that was drawn
        given["random_state"] = model._seed()
    held = {k: _weights_of(v) if hasattr(v, "state_dict") else _plain(v) for k, v in learned.items()}
    if held and (reason := contradiction(model, held, every=False) or model._contradiction()):
        raise ArtifactError(f"This {name} cannot be saved: {reason}; fit it again.")
    return {
        "class": name,
        "parameters": {k: _describe(v, f"{prefix}{k}", arrays) for k, v in given.items()},
        "state": state | {k: {"is": "parameter", "name": name} for k, name in used.items()},
    }


def _is_model(value: Any) -> bool:
    return hasattr(value, "get_params") and not isinstance(value, type)


def _plain(value: Any) -> Any:
    """A value with NumPy scalars replaced by Python numbers."""
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, value))
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return value.item() if isinstance(value, np.generic) else value


def _weights_of(module: Any) -> Weights:
    return Weights({key: tensor.detach().cpu().contiguous().numpy() for key, tensor in module.state_dict().items()})


def _describe(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """A value as JSON; `{"is": kind, …}` stands for values that JSON cannot represent."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"is": "float", "value": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray) and value.dtype.kind in "OU":  # feature_names_in_, classes_
        if not all(isinstance(word, str) for word in value.tolist()):
            raise ArtifactError(f"'{name}' holds objects other than strings, which cannot be saved.")
        return {"is": "strings", "values": value.tolist()}
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
        arrays |= {f"{name}.{key}": array for key, array in _weights_of(value).items()}
        return {"is": "module"}
    raise ArtifactError(f"'{name}' holds a {type(value).__name__}, which cannot be saved; remove it before saving.")


def _restore_estimator(
    described: dict[str, Any], prefix: str, arrays: dict[str, np.ndarray], classes: dict[str, type]
) -> Any:
    from imatlas import models

    name = described["class"]
    if name not in classes and name not in models.class_names():
        raise ArtifactError(f"the class '{name}' of the saved model is unknown; pass classes=({name},)")
    cls = classes.get(name) or models.model_class(name)
    given, learned = (
        {k: _restore(v, f"{prefix}{k}", arrays, classes) for k, v in described[part].items()}
        for part in ("parameters", "state")
    )
    try:
        model = cls(**given)
        model._check_parameters()
    except ParameterError as error:
        raise ArtifactError(str(error)) from None
    for key, value in learned.items():
        if not key.isidentifier() or key.startswith("_") or not key.endswith("_"):
            raise ArtifactError(f"'{key}' is not the name of a learned attribute")
        if isinstance(value, _Parameter):  # a fitted model passed as a parameter
            value = learned[key] = given.get(value.name)
        if not isinstance(value, Weights):
            setattr(model, key, value)
    if not learned:
        return model
    if reason := contradiction(model, learned, every=name not in classes):
        raise ArtifactError(reason)
    for key, value in learned.items():
        if isinstance(value, Weights):
            setattr(model, key, _restore_module(model, value))
    if reason := model._contradiction():
        raise ArtifactError(reason)
    return model


class _Parameter:
    """A learned attribute that is the parameter of this name."""

    def __init__(self, name: str) -> None:
        self.name = name


def _restore_module(model: Any, weights: Weights) -> Any:
    """The network of the model's `_build(spec_)`, with these weights.

    It is first built on the meta device, and allocated only if names, shapes and dtypes match the weights in the file.
    """
    import torch

    with torch.device("meta"):
        expected = {k: (tuple(v.shape), v.dtype) for k, v in model._build(model.spec_).state_dict().items()}
    tensors = {k: torch.from_numpy(v) for k, v in weights.items()}
    found = {k: (tuple(v.shape), v.dtype) for k, v in tensors.items()}
    if differing := sorted(k for k in {**expected, **found} if expected.get(k) != found.get(k)):
        raise ArtifactError(f"its weights do not match the network that its parameters describe ('{differing[0]}')")
    with torch.random.fork_rng(devices=[]):  # the initial weights are random, but replaced below
        module = model._build(model.spec_)
    module.load_state_dict(tensors)
    return module.eval()


def _restore(value: Any, name: str, arrays: dict[str, np.ndarray], classes: dict[str, type]) -> Any:
    if isinstance(value, list):
        return [_restore(v, f"{name}.{i}", arrays, classes) for i, v in enumerate(value)]
    if not isinstance(value, dict):
        return value
    kind, rest = value.get("is"), {k: v for k, v in value.items() if k != "is"}
    if not isinstance(kind, str) or kind not in KINDS:
        raise ArtifactError(f"'{name}' is of an unknown kind")
    _validate(KINDS[kind], rest)
    if kind == "array":
        if name not in arrays:
            raise ArtifactError(f"the array '{name}' is missing")
        return arrays[name]
    if kind == "float":
        return float(rest["value"])
    if kind == "strings":
        return np.array(rest["values"], dtype=object)
    if kind == "image_spec":
        return ImageSpec.from_json(rest, most_side=MAX_IMAGE_SIDE)
    if kind == "tuple":
        return tuple(_restore(v, f"{name}.{i}", arrays, classes) for i, v in enumerate(rest["items"]))
    if kind == "dict":
        return {k: _restore(v, f"{name}.{k}", arrays, classes) for k, v in rest["items"].items()}
    if kind == "estimator":
        return _restore_estimator(rest, f"{name}.", arrays, classes)
    if kind == "parameter":
        return _Parameter(rest["name"])
    prefix = f"{name}."  # `_restore_estimator` builds modules last
    return Weights({k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)})
