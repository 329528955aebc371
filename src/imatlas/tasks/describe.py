"""What a saved model is, was fitted to, and learned, in words and numbers."""

from __future__ import annotations

from typing import Any

from imatlas.images.pixels import kind_of
from imatlas.images.spec import ImageSpec
from imatlas.models.restorer import SummarizedRestorer
from imatlas.result import DataTable, Panel, Result


def describe(model: Any) -> Result:
    """A fitted model of any kind: the images or vectors it was fitted to, its training, and its parameters.

    Those parameters are listed that differ from the defaults.
    """
    name = type(model).__name__
    sentences = [f"{name}, fitted to {_fitted_to(model)}."]
    metrics: dict[str, float | int | str] = {}
    if hasattr(model, "n_steps_"):
        sentences.append(f"{model.n_steps_:,} training steps in {model.seconds_:,.0f} s.")
    if hasattr(model, "module_"):
        metrics["n_weights"] = sum(weights.numel() for weights in model.module_.parameters())
    if isinstance(model, SummarizedRestorer):
        sentences += model.summary()
    defaults = type(model)().get_params(deep=False) | {"progress": None}
    given = model.get_params(deep=False) | {"progress": None}
    rows = [[key, str(value)] for key, value in given.items() if str(value) != str(defaults[key])]
    panels: list[Panel] = [DataTable(title="Parameters", columns=["parameter", "value"], rows=rows)]
    return Result(name="info", title=name, sentences=sentences, metrics=metrics, panels=panels if rows else [])


def _fitted_to(model: Any) -> str:
    spec = getattr(model, "spec_", None)
    if not isinstance(spec, ImageSpec):
        n = getattr(model, "n_features_in_", None)
        return "images" if n is None else f"vectors of {n} values"
    kind, bits = kind_of(spec), {"uint8": "8-bit ", "uint16": "16-bit "}.get(spec.dtype, "float ")
    colors = {1: "gray", 3: "RGB"}.get(kind.colors, f"{kind.colors}-channel")
    return f"{bits}{colors} images{' with alpha' if kind.alpha else ''} of {spec.height} x {spec.width} pixels"
