"""Model folders: everything comes back bit for bit, nothing is half there, nothing is run that a file names."""

from __future__ import annotations

import json
from typing import Annotated

import numpy as np
import pytest
from pydantic import Field
from sklearn.exceptions import NotFittedError

from imatlas import Autoencoder, KMeans, artifact
from imatlas.errors import ArtifactError, NotLearntError, ParameterError, SourceError
from imatlas.images.spec import ImageSpec
from imatlas.models.base import Estimator, estimator, parameters


@estimator
class Toy(Estimator):
    """A model with one of each thing that can be saved."""

    size: Annotated[int, Field(ge=1, le=9, description="how large")] = 3
    rate: Annotated[float, Field(gt=0, description="how fast")] = 0.5
    inner: Annotated[Estimator | None, Field(description="a model in a model")] = None

    def fit(self, X: np.ndarray) -> Toy:
        self._check_parameters()
        self.mean_ = X.mean(0)
        self.spec_ = ImageSpec(8, 9, 3, "uint16", 2.0, 700.5)
        self.history_ = [{"step": 1, "loss": 0.25}, {"step": 2, "loss": float("inf")}]
        self.shape_ = (2, 3)
        self.names_ = np.array(["a", "b"], dtype=object)
        self.count_ = np.int64(7)
        return self


def test_everything_comes_back(tmp_path, rng):
    inner = Toy(size=2).fit(rng.random((4, 2)))
    model = Toy(size=9, inner=inner).fit(rng.random((5, 3)))
    model.save(tmp_path / "toy")
    again = artifact.load(tmp_path / "toy", classes=(Toy,))
    assert again.get_params(deep=False).keys() == model.get_params(deep=False).keys()
    assert (again.size, again.rate, again.inner.size) == (9, 0.5, 2)
    np.testing.assert_array_equal(again.mean_, model.mean_)
    np.testing.assert_array_equal(again.inner.mean_, inner.mean_)
    assert again.mean_.dtype == np.float64
    assert (again.spec_, again.history_, again.shape_, again.count_) == (
        model.spec_, model.history_, model.shape_, 7,
    )  # fmt: skip
    assert again.names_.tolist() == ["a", "b"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["toy"]


def test_a_standing_folder_is_kept_unless_told_otherwise(tmp_path, rng):
    Toy().fit(rng.random((4, 2))).save(tmp_path / "toy")
    other = Toy(size=5).fit(rng.random((4, 2)))
    with pytest.raises(ArtifactError, match="already exists"):
        other.save(tmp_path / "toy")
    other.save(tmp_path / "toy", overwrite=True)
    assert artifact.load(tmp_path / "toy", classes=(Toy,)).size == 5


def test_a_failed_write_leaves_the_old_folder_and_no_crumbs(tmp_path, rng):
    model = Toy().fit(rng.random((4, 2)))
    model.save(tmp_path / "toy")
    model.odd_ = object()
    with pytest.raises(ArtifactError, match="cannot be saved"):
        model.save(tmp_path / "toy", overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["toy"]
    assert artifact.load(tmp_path / "toy", classes=(Toy,)).size == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "upgrade imatlas"),
        ({"class": "Nothing"}, "does not know"),
        ({"class": "os:system"}, "does not know"),
    ],
)
def test_what_cannot_be_read_says_why(tmp_path, rng, change, message):
    Toy().fit(rng.random((4, 2))).save(tmp_path / "toy")
    path = tmp_path / "toy" / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ArtifactError, match=message):
        artifact.load(tmp_path / "toy")


def test_damaged_and_missing_models_say_so(tmp_path, rng):
    with pytest.raises(SourceError, match="no model in"):
        artifact.load(tmp_path / "nothing")
    Toy().fit(rng.random((4, 2))).save(tmp_path / "toy")
    weights = tmp_path / "toy" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:20])
    with pytest.raises(ArtifactError, match="cannot be read"):
        artifact.load(tmp_path / "toy", classes=(Toy,))
    (tmp_path / "toy" / "model.json").write_text("{")
    with pytest.raises(ArtifactError, match="damaged"):
        artifact.load(tmp_path / "toy", classes=(Toy,))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 0}, r"'size' parameter of Toy must be an int in the range \[1, 9\]\. Got 0 instead"),
        ({"size": 2.0}, r"must be an int in the range \[1, 9\]\. Got 2\.0"),
        ({"rate": 0.0}, r"must be a float in the range \(0\.?0?, inf\)"),
        ({"inner": "no"}, r"must be an instance of Estimator or None\. Got 'no'"),
        ({"random_state": -1}, r"must be an int in the range \[0, inf\) or None"),
    ],
)
def test_wrong_parameters_are_named_at_fit(values, message, rng):
    model = Toy(**values)  # the constructor only stores
    with pytest.raises(ParameterError, match=message):
        model.fit(rng.random((4, 2)))


def test_numpy_numbers_are_numbers_and_are_not_written_back(rng):
    model = Toy(size=np.int64(4)).fit(rng.random((4, 2)))
    assert type(model.size) is np.int64


def test_a_parameter_is_declared_once():
    declared = parameters(Toy)
    assert list(declared) == ["size", "rate", "inner", "random_state"]
    assert declared["size"].description == "how large"
    assert declared["size"].expected() == "an int in the range [1, 9]"


def test_a_model_of_an_earlier_version_says_what_it_lacks(tmp_path, rng):
    X = rng.normal(size=(40, 3)).astype(np.float32)
    model = KMeans(n_clusters=2).fit(X)
    assert not hasattr(model, "something_")
    del model.cluster_centers_
    model.save(tmp_path / "old")
    with pytest.raises(NotLearntError, match=r"has no 'cluster_centers_'.*earlier version.*fit it again"):
        artifact.load(tmp_path / "old").predict(X)
    with pytest.raises(NotFittedError):
        KMeans().predict(X)
    with pytest.raises(AttributeError, match="no attribute 'colour'"):
        _ = model.colour
    with pytest.raises(AttributeError, match="no attribute 'module_'"):
        _ = Autoencoder().module_
