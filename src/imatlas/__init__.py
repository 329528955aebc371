"""imatlas learns from images that nobody labeled. Start with `imatlas.learn`, or `imatlas.Images` and a model."""

from __future__ import annotations

from imatlas.system.interrupts import TYPE_CHECKING  # isort: skip - first, to hear a Ctrl-C from here on
from imatlas.models import MODELS
from imatlas.system.threads import wait_passively as _wait_passively

_wait_passively()  # before torch is first imported, which is when its threads learn how to wait

__version__ = "0.1.0"

if TYPE_CHECKING:
    from typing import Any

# Public names outside the model table, with the module that holds each; resolved on first use, so importing is fast.
_NAMES = {
    "Atlas": "imatlas.atlas.atlas",
    "ImageSpec": "imatlas.images.spec",
    "Images": "imatlas.images.dataset",
    "export_onnx": "imatlas.models.onnx",
    "learn": "imatlas.atlas.learn",
    "load": "imatlas.atlas.atlas",
}
_NAMES |= {target.partition(":")[2]: f"imatlas.models.{target.partition(':')[0]}" for target in MODELS.values()}

__all__ = sorted([*_NAMES, "__version__"])


def __getattr__(name: str) -> Any:
    import importlib

    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    raise AttributeError(f"module 'imatlas' has no attribute '{name}'")


def __dir__() -> list[str]:
    return list(__all__)
