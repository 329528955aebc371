"""Model folders: bit-equal round trips, atomic writes, and no code run by names in files."""

from __future__ import annotations

import json
import os
import re
from typing import Annotated

import numpy as np
import pytest
from pydantic import Field
from sklearn.exceptions import NotFittedError

from imatlas import Autoencoder, KMeans, models
from imatlas.errors import ArtifactError, ParameterError, SourceError
from imatlas.images.spec import ImageSpec
from imatlas.models import artifact
from imatlas.models.base import Estimator, estimator, parameters
from imatlas.models.learned_attributes import state_of
from imatlas.system.inventory import seal
from imatlas.testing import synthetic_images


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


def test_a_saved_model_is_restored(tmp_path, rng):
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


def test_an_existing_folder_is_replaced_only_on_request(tmp_path, rng):
    Toy().fit(rng.random((4, 2))).save(tmp_path / "toy")
    other = Toy(size=5).fit(rng.random((4, 2)))
    with pytest.raises(ArtifactError, match="already exists"):
        other.save(tmp_path / "toy")
    other.save(tmp_path / "toy", overwrite=True)
    assert artifact.load(tmp_path / "toy", classes=(Toy,)).size == 5


def test_a_failed_write_leaves_the_old_folder_and_no_other_files(tmp_path, rng):
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
        ({"format": 1}, "fit the model again"),
        ({"class": "Nothing"}, "is unknown"),
        ({"class": "os:system"}, "is unknown"),
        ({"more": 1}, "does not describe a model"),
        ({"files": {}}, "does not describe a model"),
        ({"parameters": {"size": 0}}, "'size' parameter of Toy must be"),
        ({"parameters": {"no_such": 0}}, "no_such"),
        ({"state": {"fit": 0}}, "not the name of a learned attribute"),
        ({"state": {"__class__": 0}}, "not the name of a learned attribute"),
        ({"state": {"mean_": {"is": "object"}}}, "unknown kind"),
        ({"state": {"mean_": {"is": "array", "path": "/etc/passwd"}}}, "does not describe a model"),
        ({"state": {"other_": {"is": "array"}}}, "is missing"),
        ({"state": {"spec_": {"is": "image_spec", "height": 8}}}, "does not describe a model"),
        ({"state": {}}, "is not fitted"),
    ],
)
def test_unusable_models_are_refused_with_the_reason(tmp_path, rng, change, message):
    folder = Toy().fit(rng.random((4, 2))).save(tmp_path / "toy")
    resealed(folder, lambda described: described.update(change))
    with pytest.raises(ArtifactError, match=message) as caught:
        artifact.load(folder, classes=(Toy,) if "class" not in change else ())
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def same_json(one, other):
    try:
        return json.loads(one) == json.loads(other)
    except ValueError:
        return False


@pytest.mark.parametrize("name", artifact.FILES)
def test_any_changed_byte_is_detected(tmp_path, rng, name):
    model = KMeans(n_clusters=2).fit(rng.random((9, 2)))
    folder = model.save(tmp_path / "model")
    content = (folder / name).read_bytes()
    before = artifact.load(folder).cluster_centers_
    noticed = 0
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1
        (folder / name).write_bytes(changed)
        if name == artifact.MODEL_JSON and same_json(
            changed, content
        ):  # other whitespace, or a digit beyond float precision
            assert np.array_equal(artifact.load(folder).cluster_centers_, before)
            continue
        with pytest.raises(ArtifactError, match=f"{re.escape(str(folder))}.*(fit the model again|upgrade imatlas)"):
            artifact.load(folder)
        noticed += 1
    assert noticed > 0.7 * len(content)


@pytest.mark.parametrize("name", artifact.FILES)
@pytest.mark.parametrize("kind", ["pipe", "link", "folder", "gone", "empty"])
def test_only_regular_files_are_read(tmp_path, rng, name, kind):
    folder = Toy().fit(rng.random((4, 2))).save(tmp_path / "toy")
    path = folder / name
    path.rename(tmp_path / "aside")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(tmp_path / "aside")
    elif kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    with pytest.raises((ArtifactError, SourceError)):
        artifact.load(folder, classes=(Toy,))


@pytest.mark.parametrize(
    "text",
    [b"[" * 10_000, b"\xff\xfe", b'{"a": ' * 3000, b"", b"[]", b"1" * 5000, b'{"format": NaN}', b'{"format": 2}'],
)
def test_invalid_json_is_one_line(tmp_path, rng, text):
    folder = Toy().fit(rng.random((4, 2))).save(tmp_path / "toy")
    (folder / "model.json").write_bytes(text)
    with pytest.raises(ArtifactError, match="fit the model again"):
        artifact.load(folder, classes=(Toy,))


def test_a_network_is_built_only_for_matching_weights(tmp_path):
    import tracemalloc

    images = synthetic_images(12, size=8)
    folder = Autoencoder(latent_dim=2, size="small", max_steps=1, progress=False).fit(images).save(tmp_path / "model")
    for change in ({"latent_dim": 60_000}, {"size": "large"}):
        resealed(folder, lambda described, change=change: described["parameters"].update(change))
        tracemalloc.start()
        with pytest.raises(ArtifactError, match=r"must have the shape|do not match the network"):
            artifact.load(folder)
        assert tracemalloc.get_traced_memory()[1] < 50e6
        tracemalloc.stop()
    resealed(folder, lambda described: described["parameters"].update(latent_dim=2, size="small"))
    resealed(folder, lambda described: described["state"]["spec_"].update(height=20_000, width=20_000))
    with pytest.raises(ArtifactError, match="pixels"):
        artifact.load(folder)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("n_features_in_", 3, r"'cluster_centers_' must have the shape \(n_centers, n_features_in_\)"),
        ("n_iter_", -1, "'n_iter_' is -1"),
        ("n_iter_", True, "'n_iter_' is True"),
        ("inertia_", "much", "'inertia_' is 'much'"),
        ("labels_", None, "'labels_' is missing"),
        ("labels_", {"is": "strings", "values": ["a"] * 9}, "must be an array of int64"),
        ("other_", 1, "not a learned attribute of KMeans"),
    ],
)
def test_contradictory_attributes_are_refused(tmp_path, rng, name, value, message):
    folder = KMeans(n_clusters=2).fit(rng.random((9, 2))).save(tmp_path / "model")
    resealed(folder, lambda described: described["state"].update({name: value}))
    with pytest.raises(ArtifactError, match=message):
        artifact.load(folder)


@pytest.mark.parametrize("spoil", [np.nan, np.inf])
def test_a_broken_model_is_not_saved(tmp_path, rng, spoil):
    model = KMeans(n_clusters=2).fit(rng.random((9, 2)))
    model.cluster_centers_[0, 0] = spoil
    with pytest.raises(ArtifactError, match="finite numbers"):
        model.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_every_model_declares_its_learned_attributes():
    without_network = {  # of their own: what they learn instead
        "patch_diffusion": {"images_"},
        "segmenter": {"mean_", "axes_", "cluster_centers_"},
        "enhancer": {"tone_mean_", "tone_scatter_", "color_mean_", "color_scatter_"},
    }
    for name in models.MODELS:
        declared = state_of(models.model_class(name))
        learned = without_network.get(name, {"module_"})
        assert "n_features_in_" in declared or {"spec_", *learned} <= set(declared)


def test_damaged_and_missing_models_are_refused(tmp_path, rng):
    with pytest.raises(SourceError, match="no model in"):
        artifact.load(tmp_path / "nothing")
    Toy().fit(rng.random((4, 2))).save(tmp_path / "toy")
    weights = tmp_path / "toy" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:20])
    with pytest.raises(ArtifactError, match=r"damaged \(20 bytes instead of .*fit the model again"):
        artifact.load(tmp_path / "toy", classes=(Toy,))
    (tmp_path / "toy" / "model.json").write_text("{")
    with pytest.raises(ArtifactError, match="damaged"):
        artifact.load(tmp_path / "toy", classes=(Toy,))


def resealed(folder, change):
    """Change a saved model and recompute its checksum."""
    path = folder / "model.json"
    described = json.loads(path.read_text())
    change(described)
    described["seal"] = seal({k: v for k, v in described.items() if k != "seal"})
    path.write_text(json.dumps(described))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 0}, r"'size' parameter of Toy must be an int in the range \[1, 9\]\. Got 0 instead"),
        ({"size": 2.0}, r"must be an int in the range \[1, 9\]\. Got 2\.0"),
        ({"rate": 0.0}, r"must be a float in the range \(0\.?0?, inf\)"),
        ({"inner": "no"}, r"must be an instance of Estimator or None\. Got 'no'"),
        ({"random_state": -1}, r"must be an int in the range \[0, \d+\] or None"),
    ],
)
def test_invalid_parameters_are_named_at_fit(values, message, rng):
    model = Toy(**values)  # the constructor only stores
    with pytest.raises(ParameterError, match=message):
        model.fit(rng.random((4, 2)))


def test_numpy_numbers_are_valid_and_not_converted(rng):
    model = Toy(size=np.int64(4)).fit(rng.random((4, 2)))
    assert type(model.size) is np.int64


def test_a_parameter_is_declared_once():
    declared = parameters(Toy)
    assert list(declared) == ["size", "rate", "inner", "random_state"]
    assert declared["size"].description == "how large"
    assert declared["size"].expected() == "an int in the range [1, 9]"


def test_missing_attributes_are_attribute_errors(rng):
    X = rng.normal(size=(40, 3)).astype(np.float32)
    model = KMeans(n_clusters=2).fit(X)
    assert not hasattr(model, "something_")
    with pytest.raises(NotFittedError):
        KMeans().predict(X)
    with pytest.raises(AttributeError, match="no attribute 'color'"):
        _ = model.color
    with pytest.raises(AttributeError, match="no attribute 'module_'"):
        _ = Autoencoder().module_
