"""A model as a folder: `model.json` + `weights.safetensors`, written aside and renamed, read without pickle.

What is saved is what scikit-learn calls the learned state: every attribute that ends in `_`. Arrays and network weights
go to the safetensors file under their path ("autoencoder_.module_.encoder.0.weight"), the rest to the JSON file.

A folder may be damaged, or a stranger's. Damage is noticed by the hashes in `model.json`, of the weights and of itself,
before anything is parsed. A stranger can write new hashes; so nothing is imported by a name in a file, parameters and
learned attributes are held against what the class declares, and a network is built only once it is known that its
weights are those in the file.
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
from imatlas.models.learned import MAX_TEXT, Weights, contradiction
from imatlas.system import atomic_io
from imatlas.system.atomic_io import output_path, within, write_folder
from imatlas.system.inventory import MAX_JSON, Entry, Inventory, entry_of, open_regular, read_json, seal

if TYPE_CHECKING:
    from imatlas.models.base import Estimator

TOLD, WEIGHTS = FILES = ("model.json", "weights.safetensors")
"""The files of a saved model, and so all that overwriting it replaces."""

MARKS = (b'"format"', b'"library"', b'"class"')
"""What stands in every `model.json` of ours: other programs call their files so, too."""

FORMAT = 2
"""Version of the folder's layout. A reader refuses every other one."""

MAX_IMAGE_SIDE = 2**20
"""Pixels a side of the images that a model was fitted to; an encoder makes all of them smaller."""

ADVICE = "learn the model again"

NAME = Annotated[str, Field(min_length=1, max_length=200)]
TEXT = Annotated[str, Field(max_length=MAX_TEXT)]
SHA256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


def _schema(**keys: Any) -> type[BaseModel]:
    """Exactly these keys, each of exactly this type."""
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
"""What `model.json` holds. Deeper down, a value is a plain one of JSON, a list, or `{"is": kind, …}`."""

ENTRY = _schema(size=Annotated[int, Field(ge=0)], sha256=SHA256)
"""What it knows of the file with the weights."""

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
"""What `{"is": kind, …}` holds besides."""


@strict_yes
def save(model: Estimator, folder: str | Path, *, overwrite: bool = False) -> Path:
    """Write `model` to `folder`, whole or not at all.

    Raises
    ------
    ArtifactError
        Where the folder exists and `overwrite` is False or it holds no model, or the model holds something that cannot
        be saved.
    ParameterError
        If a parameter was changed to what is not allowed.
    """
    from safetensors.numpy import save_file

    folder = output_path(check_path(folder, "folder", "save"))
    check_free(folder, overwrite)
    arrays: dict[str, np.ndarray] = {}
    described = _describe_estimator(model, "", arrays)
    described = {"format": FORMAT, "library": __version__, **described}
    described["shapes"] = {name: list(array.shape) for name, array in arrays.items() if ".module_." not in f".{name}"}

    def write(aside: Path) -> None:
        save_file(arrays, str(aside / WEIGHTS))
        described["files"] = {WEIGHTS: entry_of(aside / WEIGHTS)._asdict()}
        described["seal"] = seal(described)
        (aside / TOLD).write_text(json.dumps(described, indent=1, allow_nan=False) + "\n", encoding="utf-8")

    write_folder(folder, write, replaces=FILES if overwrite else None)
    return folder


def check_free(folder: str | Path, overwrite: bool) -> None:
    """Refuse a folder that `save` would not write: before hours of learning.

    Raises
    ------
    ArtifactError
        Where it exists and `overwrite` is False, it holds no model, or anything besides.
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
                raise ArtifactError("it has learned nothing")
        except MissingExtraError:
            raise
        except ImatlasError as error:
            raise ArtifactError(
                f"The model in '{folder}' cannot be used ({str(error).rstrip('.')}); {ADVICE}."
            ) from error
    return model


def _described(folder: Path) -> dict[str, Any]:
    """What `model.json` says, once it is known that nothing of it has changed."""
    path = folder / TOLD
    if not os.path.lexists(path):
        raise SourceError(f"There is no model in '{folder}': '{TOLD}' was not found.")
    try:
        described = read_json(path)
        version = described.get("format") if isinstance(described, dict) else None
        if version in (None, FORMAT):
            _validate(HEAD, described)
            _validate(ENTRY, described["files"].get(WEIGHTS))
    except ArtifactError as error:
        raise ArtifactError(f"The model in '{folder}' cannot be read ({str(error).rstrip('.')}); {ADVICE}.") from None
    if not isinstance(version, int) or version != FORMAT:
        way = "upgrade imatlas" if isinstance(version, int) and version > FORMAT else ADVICE
        told = repr(version)[:40]
        raise ArtifactError(f"'{folder}' has format {told}, and this imatlas {__version__} reads {FORMAT}; {way}.")
    if seal({k: v for k, v in described.items() if k != "seal"}) != described["seal"]:
        raise ArtifactError(f"'{path}' is damaged (its checksum differs); {ADVICE}.")
    return described


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Whatever goes wrong with what a file says, panics of Rust and memory that ends among it, as one line."""
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
        raise ArtifactError(f"its JSON is not that of a model ('{where}': {first['msg']})") from None


def _describe_estimator(model: Estimator, prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """The model as JSON values, its arrays added to `arrays` under names that start with `prefix`."""
    name = type(model).__name__
    learned = {k: v for k, v in vars(model).items() if k.endswith("_") and not k.startswith("_")}
    given = model.get_params(deep=False)
    used = {k: name for k, v in learned.items() for name, value in given.items() if v is value and _is_model(v)}
    state = {k: _describe(v, f"{prefix}{k}", arrays) for k, v in learned.items() if k not in used}
    model._check_declared()
    if is_generator(given.get("random_state")):  # what it drew is what makes the same model again
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
    """A value with numbers of Python in place of those of NumPy."""
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, value))
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return value.item() if isinstance(value, np.generic) else value


def _weights_of(module: Any) -> Weights:
    return Weights({key: tensor.detach().cpu().contiguous().numpy() for key, tensor in module.state_dict().items()})


def _describe(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """One value as JSON; `{"is": kind, …}` marks what JSON cannot hold itself."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"is": "float", "value": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray) and value.dtype.kind in "OU":  # feature_names_in_, classes_
        if not all(isinstance(word, str) for word in value.tolist()):
            raise ArtifactError(f"'{name}' holds objects that are no strings, which cannot be saved.")
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
        raise ArtifactError(f"the saved model is a '{name}', which imatlas does not know; pass classes=({name},)")
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
            raise ArtifactError(f"'{key}' is no name of a learned attribute")
        if isinstance(value, _Parameter):  # a fitted model that was given, and used as it is
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
    """A learned attribute that is a parameter of this name."""

    def __init__(self, name: str) -> None:
        self.name = name


def _restore_module(model: Any, weights: Weights) -> Any:
    """A network built by the model's own `_build(spec_)`, with these weights.

    It is built without memory first: only where names, shapes and types of all its weights are those in the file, it is
    built in earnest.
    """
    import torch

    with torch.device("meta"):
        expected = {k: (tuple(v.shape), v.dtype) for k, v in model._build(model.spec_).state_dict().items()}
    tensors = {k: torch.from_numpy(v) for k, v in weights.items()}
    found = {k: (tuple(v.shape), v.dtype) for k, v in tensors.items()}
    if odd := sorted(k for k in {**expected, **found} if expected.get(k) != found.get(k)):
        raise ArtifactError(f"its weights are not those of the network that its parameters describe ('{odd[0]}')")
    with torch.random.fork_rng(devices=[]):  # first weights are drawn by chance, and replaced at once
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
        raise ArtifactError(f"'{name}' is of no kind that a model holds")
    _validate(KINDS[kind], rest)
    if kind == "array":
        if name not in arrays:
            raise ArtifactError(f"'{name}' is not among its arrays")
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
    prefix = f"{name}."  # a module: `_restore_estimator` builds it last, once the spec is known
    return Weights({k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)})
