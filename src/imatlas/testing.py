"""For authors of models: `check_image_estimator`, the contract of all image models, and synthetic images.

scikit-learn's `check_estimator` skips nearly all of its checks for input that is not two-dimensional.
"""

from __future__ import annotations

import copy
import functools
import inspect
import pickle
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from imatlas.errors import ParameterError
from imatlas.models import artifact
from imatlas.models.base import Estimator, parameters

VERBS = ("transform", "inverse_transform", "predict", "score_samples", "sample", "kneighbors", "compress", "decompress")
"""Verbs of fitted models; each is checked if the class has it."""

IMAGE_VERBS = ("transform", "predict", "score_samples")
"""Verbs that take images and return one row per image."""


def synthetic_images(
    n: int = 32,
    *,
    size: int | tuple[int, int] = 16,
    channels: int = 1,
    dtype: str = "uint8",
    random_state: int = 0,
) -> np.ndarray:
    """Small images of one soft disc each, of random position, radius and color, on a gradient.

    Parameters
    ----------
    n : int
    size : int or (height, width)
    channels : int
    dtype : {'uint8', 'uint16', 'float32', 'float64'}
        Integers use the full range of the type, floats 0 to 1.
    random_state : int

    Returns
    -------
    array (n, height, width, channels)
    """
    rng = np.random.default_rng(random_state)
    height, width = (size, size) if isinstance(size, int) else size
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    center = rng.uniform(0.2, 0.8, (2, n, 1, 1)) * np.array([height, width]).reshape(2, 1, 1, 1) / max(height, width)
    radius = rng.uniform(0.1, 0.3, (n, 1, 1))
    disc = 1 / (1 + np.exp(40 * (np.hypot(y - center[0], x - center[1]) - radius)))
    color, background = rng.uniform(0.4, 1.0, (n, 1, 1, channels)), rng.uniform(0.0, 0.4, (n, 1, 1, channels))
    images = disc[..., None] * color + (1 - disc[..., None]) * background * (0.5 + 0.5 * x[..., None])
    if dtype.startswith("float"):
        return images.astype(dtype)
    return np.rint(images * np.iinfo(dtype).max).astype(dtype)


def check_image_estimator(estimator: Estimator) -> None:
    """Check that an image model keeps imatlas's contract.

    Verbs, and the `mask` of `fit`, are checked only if the class has them. Pass an instance that fits within
    seconds: `check_image_estimator(MyModel(latent_dim=4, max_steps=8, progress=False))`.

    Parameters
    ----------
    estimator : Estimator
        An unfitted instance, which is cloned.

    Raises
    ------
    AssertionError
        Naming the failed check and the reason.
    """
    for check in CHECKS:
        try:
            check(clone(estimator))
        except AssertionError as error:
            raise AssertionError(f"{type(estimator).__name__} fails {check.__name__}: {error}") from error


def check_constructor_only_stores(estimator: Any) -> None:
    """A new instance holds its parameters, each the same object that was given; `clone` copies them."""
    cls = type(estimator)
    given = estimator.get_params(deep=False)
    assert cls(), "the constructor must work without arguments"
    assert set(vars(estimator)) == set(given), "the constructor must set its parameters and nothing else"
    copied = cls(**given)
    for name, value in given.items():
        assert getattr(copied, name) is value, f"the constructor must store '{name}' as given"
    assert repr(clone(estimator)) == repr(estimator), "clone must give the same parameters"
    for name, parameter in parameters(cls).items():
        assert parameter.description, f"the parameter '{name}' needs a description"


def check_parameters_are_checked(estimator: Any) -> None:
    """An invalid value is refused at `fit` with the parameter's name, and leaves the model unfitted."""
    images = _images()
    for name, parameter in parameters(type(estimator)).items():
        if parameter.type is Any:
            continue
        wrong = clone(estimator)
        setattr(wrong, name, {"no": "such value"})
        message = _raised(functools.partial(wrong.fit, images), ParameterError, f"fit with an invalid {name}")
        assert f"'{name}'" in message, f"the message must name the parameter '{name}': {message}"
        assert not wrong.__sklearn_is_fitted__(), "a refused fit must leave the model unfitted"


def check_needs_fit(estimator: Any) -> None:
    """Every verb raises `NotFittedError` before `fit`."""
    for verb in _verbs(estimator):
        given = () if verb == "sample" else (np.zeros((2, 4), np.float32) if "inverse" in verb else _images(),)
        _raised(functools.partial(getattr(estimator, verb), *given), NotFittedError, f"{verb} before fit")


def check_fit(estimator: Any) -> None:
    """`fit` returns self, leaves parameters and input unchanged, and sets attributes that end in `_`."""
    images = _images(n=70, dtype="float32")
    before, original = {k: repr(v) for k, v in estimator.get_params().items()}, images.copy()
    assert estimator.fit(images) is estimator, "fit must return self"
    for verb in _image_verbs(estimator):
        getattr(estimator, verb)(images)
    assert {k: repr(v) for k, v in estimator.get_params().items()} == before, "fit must not change a parameter"
    assert np.array_equal(images, original), "the input must not be changed"
    images = _images(n=70)
    images.flags.writeable = False  # like a memory-mapped cache
    _results(clone(estimator).fit(images), images)
    learned = [name for name in vars(estimator) if name not in before]
    misnamed = [name for name in learned if not name.endswith("_") and not name.startswith("_")]
    assert learned, "fit must learn something"
    if hasattr(estimator, "fit_predict"):
        assert len(clone(estimator).fit_predict(images)) == len(images), "fit_predict must answer for each image"
    assert not misnamed, f"learned attributes must end in '_': {misnamed}"


def check_random_state(estimator: Any) -> None:
    """The same seed gives bit-equal results; global random states are neither used nor changed."""
    import torch

    images = _images()
    first = _results(clone(estimator).fit(images), images)
    random.random()
    np.random.random()  # noqa: NPY002
    torch.rand(3)
    before = _global_states()
    second = _results(clone(estimator).fit(images), images)
    assert _global_states() == before, "fit and the verbs must not change the global random states"
    _same(first, second, "two fits with one seed")


def check_batch_independence(estimator: Any) -> None:
    """The result for an image does not depend on the other images in the call."""
    images = _images(n=70)
    estimator.fit(images)
    for verb in _image_verbs(estimator):
        result = getattr(estimator, verb)(images)
        assert len(result) == len(images), f"{verb} must return one row per image"
        for some in (slice(3, 4), slice(3, 5)):
            assert np.array_equal(getattr(estimator, verb)(images[some]), result[some]), f"{verb} depends on its batch"
        backwards = getattr(estimator, verb)(images[::-1])
        assert np.array_equal(backwards[::-1], result), f"{verb} depends on the order of images"
    if hasattr(estimator, "sample"):
        many = estimator.sample(67, random_state=1)
        assert many.shape == (67, *images.shape[1:]), f"sample must return (n, H, W, C), not {many.shape}"
        assert many.dtype == images.dtype, f"sample must keep the dtype {images.dtype}, not {many.dtype}"
        for k in (1, 3):
            assert np.array_equal(estimator.sample(k, random_state=1), many[:k]), "sample(n)[:k] must equal sample(k)"
        assert not np.array_equal(estimator.sample(67, random_state=2), many), "another seed must give other samples"


def check_kinds_of_images(estimator: Any) -> None:
    """Gray, RGB and 4-channel images of any depth and aspect ratio can be fitted; decoded images have their dtype."""
    kinds: list[dict[str, Any]] = [
        {"channels": 3},
        {"channels": 4, "size": (12, 20)},
        {"dtype": "uint16", "size": (15, 9)},
        {"dtype": "float32", "channels": 2, "size": 8},
        {"dtype": "float64"},
    ]
    for kind in kinds:
        images = _images(n=12, **kind)
        model = clone(estimator).fit(images)
        results = _results(model, images)
        for verb, result in results.items():
            assert np.isfinite(result).all(), f"{verb} of {kind} must be finite"
        dtype = np.float32 if images.dtype == np.float64 else images.dtype
        for verb in ("inverse_transform", "sample"):
            if verb in results:
                assert results[verb].dtype == dtype, f"{verb} of {kind} must be {dtype}, not {results[verb].dtype}"
                assert results[verb].shape[1:] == images.shape[1:], f"{verb} of {kind} must keep the shape"
    gray = _images(n=12)
    with_axis, without = clone(estimator).fit(gray), clone(estimator).fit(gray[..., 0])
    _same(_results(with_axis, gray), _results(without, gray[..., 0]), "(N, H, W, 1) and (N, H, W)")


def check_save_and_load(estimator: Any) -> None:
    """A saved, pickled or copied model gives bit-equal results."""
    images = _images()
    expected = _results(estimator.fit(images), images)
    _same(expected, _results(pickle.loads(pickle.dumps(estimator)), images), "a pickled model")
    _same(expected, _results(copy.deepcopy(estimator), images), "a copied model")
    with tempfile.TemporaryDirectory() as folder:
        saved = estimator.save(Path(folder) / "model")
        found = {path.name for path in saved.iterdir()}
        assert found == {"model.json", "weights.safetensors"}, f"a saved model is two files, not {sorted(found)}"
        loaded = artifact.load(saved, classes=(type(estimator),))
        _same(expected, _results(loaded, images), "a loaded model")
        again = artifact.load(loaded.save(Path(folder) / "again"), classes=(type(estimator),))
        _same(expected, _results(again, images), "a model saved and loaded twice")
    assert repr(loaded) == repr(estimator), "a loaded model must have the same parameters"


def check_wrong_input(estimator: Any) -> None:
    """Input that is not a set of images is refused, in `fit` and in every verb."""
    images = _images()
    invalid: dict[str, Any] = {
        "a vector": np.zeros(8, np.uint8),
        "no images": images[:0],
        "a number": 3,
        "words": np.full((4, 16, 16, 1), "a"),
    }
    for what, wrong in invalid.items():
        _raised(functools.partial(clone(estimator).fit, wrong), (ValueError, TypeError), f"fit on {what}")
    estimator.fit(images)
    invalid["images of another depth"] = _images(channels=3, size=(20, 12), dtype="float32")
    for verb in _image_verbs(estimator):
        for what, wrong in invalid.items():
            call = getattr(estimator, verb)
            if what != "images of another depth" or hasattr(estimator, "module_"):
                _raised(functools.partial(call, wrong), (ValueError, TypeError), f"{verb} on {what}")
    if hasattr(estimator, "inverse_transform"):
        codes = estimator.transform(images)[:, :-1]
        _raised(
            functools.partial(estimator.inverse_transform, codes),
            ValueError,
            "inverse_transform on codes that are too short",
        )


def check_missing_pixels(estimator: Any) -> None:
    """Missing pixels, as NaN or by `mask`, are ignored: values under the mask have no effect."""
    if "mask" not in inspect.signature(estimator.fit).parameters:
        return
    images = _images(n=24)
    mask = np.random.default_rng(0).random(images.shape[:3]) < 0.3
    changed = np.where(mask[..., None], 255 - images, images).astype(np.uint8)
    first, second = clone(estimator).fit(images, mask=mask), clone(estimator).fit(changed, mask=mask)
    results = _results(first, images)
    _same(results, _results(second, images), "fits that differ only under the mask")
    if "sample" in results:
        assert results["sample"].dtype == images.dtype, "a mask must not change the dtype of samples"
    floats = images.astype(np.float32) / 255
    floats[mask] = np.nan
    model = clone(estimator).fit(floats)
    for verb, result in _results(model, floats).items():
        assert np.isfinite(result).all(), f"{verb} of images with NaN must be finite"


def check_gradients(estimator: Any) -> None:
    """Every weight of the network gets a gradient."""
    if not hasattr(estimator, "_losses"):
        return
    import torch

    from imatlas.training.batches import Data, make_batch

    images = _images()
    estimator.fit(images)
    module = copy.deepcopy(estimator.module_).train()
    data, _ = estimator._prepare(Data(images, estimator.spec_, images[:0]), 0)
    generator = torch.Generator().manual_seed(0)
    reached: set[str] = set()
    for _, loss, _ in estimator._losses(module, make_batch(data.pixels, data.spec), generator):
        assert loss.ndim == 0, "a loss must be a scalar"
        module.zero_grad()
        loss.backward()
        reached |= {name for name, p in module.named_parameters() if p.grad is not None and bool((p.grad != 0).any())}
    missing = {name for name, p in module.named_parameters() if p.requires_grad} - reached
    assert not missing, f"no gradient reaches {sorted(missing)}"


CHECKS: tuple[Callable[[Any], None], ...] = (
    check_constructor_only_stores,
    check_parameters_are_checked,
    check_needs_fit,
    check_fit,
    check_random_state,
    check_batch_independence,
    check_kinds_of_images,
    check_save_and_load,
    check_wrong_input,
    check_missing_pixels,
    check_gradients,
)
"""The checks of `check_image_estimator`, in order."""


def _images(n: int = 24, **kind: Any) -> np.ndarray:
    return synthetic_images(n, **kind)


def _verbs(estimator: Any) -> Iterator[str]:
    return (verb for verb in VERBS if hasattr(estimator, verb))


def _image_verbs(estimator: Any) -> Iterator[str]:
    return (verb for verb in IMAGE_VERBS if hasattr(estimator, verb))


def _results(model: Any, images: np.ndarray) -> dict[str, np.ndarray]:
    """Results of the verbs of a fitted model."""
    results = {verb: getattr(model, verb)(images) for verb in _image_verbs(model)}
    if hasattr(model, "inverse_transform"):
        results["inverse_transform"] = model.inverse_transform(results["transform"])
    if hasattr(model, "sample"):
        results["sample"] = model.sample(5, random_state=3)
    if hasattr(model, "compress"):
        data = model.compress(np.nan_to_num(images[:2]))
        results["compress"] = np.frombuffer(b"".join(data), np.uint8)
        results["decompress"] = np.stack(model.decompress(data))
        assert results["decompress"].shape == (2, *model.spec_.shape), "decompressed images must have their shape"
        assert results["decompress"].dtype == model.spec_.dtype, "decompressed images must have their dtype"
    return results


def _global_states() -> tuple[Any, ...]:
    """States of the global random generators of Python, NumPy and torch."""
    import torch

    numpy_state: Any = np.random.get_state()  # noqa: NPY002
    return random.getstate(), numpy_state[1].tolist(), torch.random.get_rng_state().tolist()


def _same(first: dict[str, np.ndarray], second: dict[str, np.ndarray], what: str) -> None:
    for verb, result in first.items():
        assert np.array_equal(result, second[verb]), f"{verb} differs: {what} must give the same result"


def _raised(call: Callable[[], Any], kind: type[BaseException] | tuple[type[BaseException], ...], what: str) -> str:
    """Message of the error that `call` must raise."""
    try:
        call()
    except kind as error:
        return str(error)
    except Exception as error:
        raise AssertionError(f"{what} must raise {kind}, not {type(error).__name__}: {error}") from error
    raise AssertionError(f"{what} must raise {kind}")
