"""Every model in the table is as its class attributes say: input, labels, resumable."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from imatlas.errors import ImatlasError
from imatlas.images.dataset import Images
from imatlas.models import MODELS, model_class
from imatlas.tasks.fit import fit_and_save
from imatlas.testing import synthetic_images


@pytest.mark.parametrize("name", MODELS)
def test_fit_takes_labels_where_the_class_says_so(name: str) -> None:
    cls = model_class(name)
    y = inspect.signature(cls.fit).parameters.get("y")
    assert cls.labels in ("none", "optional", "required")
    if cls.labels != "none":
        assert y is not None
    if cls.labels == "required":
        rows = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
        with pytest.raises((ImatlasError, TypeError, ValueError)):
            cls().fit(rows)


@pytest.mark.parametrize("name", MODELS)
def test_fit_takes_a_checkpoint_where_the_class_says_so(name: str) -> None:
    cls = model_class(name)
    assert ("checkpoint" in inspect.signature(cls.fit).parameters) == cls.resumable


@pytest.mark.parametrize("name", [name for name in MODELS if model_class(name).input == "vectors"])
def test_vector_models_take_rows_and_refuse_images(name: str) -> None:
    cls = model_class(name)
    rows = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    labels = np.where(np.arange(60) < 20, np.arange(60) % 2, -1)
    model = cls().fit(rows, labels) if cls.labels == "required" else cls().fit(rows)
    assert any(attribute.endswith("_") for attribute in vars(model))
    with pytest.raises(ImatlasError, match="PretrainedEncoder"):
        cls().fit(rows.reshape(60, 2, 2, 1))


def test_models_that_require_labels_are_not_fitted_to_a_folder(tmp_path) -> None:
    images = Images(synthetic_images(12, size=8, random_state=0))
    with pytest.raises(ImatlasError, match="imatlas classify"):
        fit_and_save(model_class("few_labels")(), images, tmp_path / "model")
    assert not (tmp_path / "model").exists()
