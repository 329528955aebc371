"""Every model in the table keeps its contract: scikit-learn's for vectors, `check_image_estimator` for images.

A model that is added to `imatlas.models.MODELS` is covered here without a new line.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

import imatlas
from imatlas.models import MODELS, class_names, model_class
from imatlas.models.base import estimator
from imatlas.models.kmeans import KMeans
from imatlas.testing import check_image_estimator
from tests.sklearn_checks import run_checks

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL: dict[str, Any] = {
    "latent_dim": 3,
    "size": "small",
    "max_steps": 6,
    "batch_size": 16,
    "image_size": 32,
    "progress": False,
    "n_clusters": 3,
    "n_init": 2,
    "n_folds": 2,
    "false_positive_rate": 0.1,  # scikit-learn expects outliers among its 300 rows
}
"""Parameters that make a model fit within a second; each model gets those that it has."""

UNLABELED = "it fits classes -1 and 1, but -1 marks an unlabeled row, as in scikit-learn's LabelSpreading"
EXPECTED: dict[str, dict[str, str]] = {
    "som": {
        "check_sample_weight_equivalence_on_dense_data": "the size of the map depends on the number of rows, and a "
        "repeated row counts twice"
    },
    "kmeans": {
        "check_sample_weight_equivalence_on_dense_data": "a repeated row shifts the random draw of the first centers, "
        "as in scikit-learn's KMeans"
    },
    "few_labels": {"check_classifiers_classes": UNLABELED},
    "som_classifier": {"check_classifiers_classes": UNLABELED},
}
"""Checks that cannot pass, each with the reason."""


def small(cls: type) -> Any:
    """A model that fits within a second."""
    names = cls().get_params()
    given = {name: value for name, value in SMALL.items() if name in names}
    if "autoencoder" in names:
        given |= {"autoencoder": small(model_class("autoencoder")), "n_steps": 2}
    return cls(**given)


def table(kind: str) -> list[str]:
    return [name for name in MODELS if model_class(name).input == kind]


@pytest.mark.parametrize("name", table("images"))
def test_models_of_images(name: str) -> None:
    check_image_estimator(small(model_class(name)))


@pytest.mark.parametrize("name", table("vectors"))
def test_models_of_vectors(name: str) -> None:
    run_checks(small(model_class(name)), EXPECTED.get(name))


def test_no_model_is_left_out() -> None:
    assert sorted(table("images") + table("vectors")) == sorted(MODELS)


@pytest.mark.parametrize("folder", ["tasks", "atlas", "report", "cli"])
def test_nothing_above_the_models_asks_for_their_class(folder: str) -> None:
    """Tasks dispatch on `input`, `labels`, `pretrained` and verbs."""
    classes = {*class_names(), "Estimator", "ImageEstimator", "Generator", "LatentModel"}
    found = []
    for path in (Path(imatlas.__file__).parent / folder).rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") in ("isinstance", "issubclass"):
                names = {name.id for name in ast.walk(call.args[1]) if isinstance(name, ast.Name)}
                found += [f"{path.name}:{call.lineno} {name}" for name in names & classes]
    assert not found


@estimator
class Overwriting(KMeans):
    """Changes a parameter in `fit`."""

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        self.n_init = self.n_init + 1
        return super().fit(X, y, sample_weight=sample_weight)


@estimator
class BatchDependent(KMeans):
    """Subtracts the mean of the batch in `transform`."""

    def transform(self, X: Any) -> Any:
        distances = super().transform(X)
        return distances - distances.mean(0)


@pytest.mark.parametrize(
    ("cls", "check"),
    [(Overwriting, "check_dont_overwrite_parameters"), (BatchDependent, "check_methods_subset_invariance")],
)
def test_a_broken_model_of_vectors_fails(cls: type, check: str) -> None:
    with pytest.raises(AssertionError, match=check):
        run_checks(small(cls), EXPECTED["kmeans"])
