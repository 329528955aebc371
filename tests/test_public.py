"""The public names: all there, resolved on first use, known to editors."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import imatlas
from imatlas.models import MODELS, class_names, model_class

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "sklearn", "skimage", "scipy", "lance", "pandas", "PIL", "matplotlib")
"""Libraries that take long to import."""


@pytest.mark.parametrize("name", imatlas.__all__)
def test_every_public_name_resolves(name: str) -> None:
    thing = getattr(imatlas, name)
    if name != "__version__":
        assert thing.__name__ == name
        assert thing.__module__ == imatlas._NAMES[name], "the table must name the module where it is defined"
        assert thing.__doc__


def test_all_is_sorted_and_what_dir_shows() -> None:
    assert imatlas.__all__ == sorted(set(imatlas.__all__))
    assert dir(imatlas) == imatlas.__all__


def test_the_names_that_the_design_promises_are_public() -> None:
    promised = {"Images", "learn", "load", "Atlas", "SOM", "KMeans", "Autoencoder", "VAE", "GAN", "PretrainedEncoder"}
    assert promised <= set(imatlas.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        imatlas.nothing  # noqa: B018 - the access is the test


def test_the_table_of_models_and_the_classes_agree() -> None:
    for name in MODELS:
        cls = model_class(name)
        assert class_names()[cls.__name__] == name
        assert model_class(cls.__name__) is cls


@pytest.mark.parametrize(
    "module", ["imatlas", "imatlas.errors", "imatlas.result", "imatlas.images", "imatlas.models", "imatlas.cli"]
)
def test_import_is_light(module: str) -> None:
    code = f"import sys, {module}; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not found, f"'import {module}' must not import {found}"


def test_the_stub_is_up_to_date() -> None:
    path = ROOT / "tools" / "make_stub.py"
    if not path.exists():
        pytest.skip("tools/ is not part of an sdist")
    spec = importlib.util.spec_from_file_location("make_stub", path)
    assert spec is not None
    assert spec.loader is not None
    make_stub = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_stub)
    assert make_stub.STUB.read_text(encoding="utf-8") == make_stub.stub(), "run: python tools/make_stub.py"
