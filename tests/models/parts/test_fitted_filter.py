"""The filter that is fitted to each image: it finds what is missing, and never harms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from imatlas.errors import InputError
from imatlas.images.spec import ImageSpec
from imatlas.models.codec import ImageCodec, step_of
from imatlas.models.parts.coded_image import CodedGroup, CodedImages, Filtering
from imatlas.models.parts.fitted_filter import N_WEIGHTS, applied, fitted
from imatlas.testing import synthetic_images


def test_weights_are_found_again() -> None:
    """What a network adds is too much in one plane and of the wrong sign in the other, which is too smooth, besides."""
    generator = torch.Generator().manual_seed(0)
    decoded, added = (torch.randn(2, 2, 24, 30, generator=generator) for _ in range(2))
    expected = torch.tensor([[32, 0, 0, 0, 0, 0], [-16, 10, -20, 5, 0, 3]], dtype=torch.int8).numpy().tobytes()
    original = applied(expected, decoded, decoded + added)
    assert fitted(decoded, decoded + added, original) == expected
    assert torch.allclose(original[:, 0], decoded[:, 0] + 0.5 * added[:, 0], atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (40, 50)])
def test_images_without_differences_have_finite_weights(size: tuple[int, int]) -> None:
    flat = torch.full((1, 3, *size), 7.0)
    weights = fitted(flat, flat, flat + 1)
    assert len(weights) == 3 * N_WEIGHTS
    assert torch.isfinite(applied(weights, flat, flat)).all()


def test_filtered_images_are_nearer_to_the_original(rng: np.random.Generator) -> None:
    """Noise is what the network removes as if it were an error: its weight must be less than 1."""
    codec, spec = ImageCodec.general(), ImageSpec(96, 96, 1)
    smooth = synthetic_images(1, size=96).astype(float)
    image = np.clip(smooth + rng.normal(0, 25, smooth.shape), 0, 255).astype(np.uint8)
    coded, decoded = codec.coded_and_decoded(image, spec, step_of(40))
    filtering = coded.groups[0].filtering
    assert np.frombuffer(filtering.weights, np.int8)[0] < 64
    for other in (Filtering(), Filtering(1)):
        group = CodedGroup(coded.groups[0].data, coded.groups[0].checksum, other)
        as_before = codec.decoded(CodedImages(1, coded.spec, coded.step, (group,)))
        assert _error(as_before, image) > _error(decoded, image)


def test_high_effort_is_nearer_in_as_many_bytes() -> None:
    codec, spec = ImageCodec.general(), ImageSpec(96, 96, 3)
    image = synthetic_images(1, size=96, channels=3)
    (normal, first), (high, second) = (
        codec.coded_and_decoded(image, spec, step_of(30), effort=effort) for effort in ("normal", "high")
    )
    assert high.groups[0].filtering.n_views == 4
    assert abs(len(high.to_bytes()) - len(normal.to_bytes())) <= 3 * N_WEIGHTS
    assert _error(second, image) < _error(first, image)
    again = codec.decoded(CodedImages.from_bytes(high.to_bytes()))
    assert np.abs(again.astype(int) - second).max() <= 1


@pytest.mark.parametrize("filtering", [Filtering(), Filtering(1), Filtering(4), Filtering(4, bytes(range(18)))])
def test_how_images_are_filtered_is_written(filtering: Filtering) -> None:
    coded = CodedImages(1, ImageSpec(4, 5, 3), 20, (CodedGroup(b"data", 7, filtering),))
    assert CodedImages.from_bytes(coded.to_bytes()) == coded


@pytest.mark.parametrize("flags", [2, 4, 8, 255])
def test_unknown_filters_are_refused(flags: int) -> None:
    data = CodedImages(1, ImageSpec(4, 5, 3), 20, (CodedGroup(b"data", 7),)).to_bytes()
    place = len(data) - len(b"data") - 1 - 4 - 1
    assert data[place] == 0
    with pytest.raises(InputError, match="unknown filter"):
        CodedImages.from_bytes(data[:place] + bytes([flags]) + data[place + 1 :])


def _error(made: np.ndarray, image: np.ndarray) -> float:
    return float(np.square(made.astype(float) - image).mean())
