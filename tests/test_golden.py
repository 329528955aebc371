"""Models in format 2 load and give the recorded results.

The folders under tests/golden were written by version 0.1.0; after a release they are never rewritten.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import imatlas as ia
from imatlas.metrics.restoration import psnr
from imatlas.models.codec import ImageCodec
from imatlas.models.lossless_codec import LosslessCodec
from imatlas.tasks.coded_file import CodedFile
from imatlas.testing import synthetic_images

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def rows() -> np.ndarray:
    return np.random.default_rng(0).random((60, 3)).astype(np.float32)


def test_som_of_format_2(rows):
    som = ia.load(GOLDEN / "som-2")
    assert (som.rows_, som.cols_, som.topology) == (3, 4, "hexagonal")
    assert som.predict(rows)[:12].tolist() == SOM_CELLS
    np.testing.assert_array_equal(som.cells_, np.stack(np.divmod(som.predict(rows), 4), axis=1))


def test_kmeans_of_format_2(rows):
    kmeans = ia.load(GOLDEN / "kmeans-2")
    assert kmeans.predict(rows)[:12].tolist() == KMEANS_LABELS
    assert kmeans.inertia_ == pytest.approx(KMEANS_INERTIA)


def test_autoencoder_of_format_2():
    images = synthetic_images(40, size=8, random_state=0)
    model = ia.load(GOLDEN / "autoencoder-2")
    np.testing.assert_allclose(model.transform(images)[:3], CODES, atol=1e-4)
    rebuilt = model.inverse_transform(model.transform(images)).astype(int)
    assert abs(rebuilt.mean() - MEAN) < 0.5
    assert model.spec_.shape == (8, 8, 1)
    assert model.n_steps_ == 40


def test_compressed_images_of_version_1():
    """Their coefficients are decoded to the last bit, or a checksum would be wrong, on whatever machine this is."""
    file, codec = CodedFile.open(GOLDEN / "images.imc"), ImageCodec.general()
    assert (file.is_complete, file.model) == (True, codec.identity())
    originals = {"color.png": noisy((37, 50), 3), "gray.png": noisy((64, 41), 1)}
    assert {entry.key for entry in file.entries} == set(originals)
    for entry in file.entries:
        decoded = codec.decoded(file.images(entry.place)[2])
        assert psnr(originals[entry.key], decoded, span=255) > 32


def test_images_without_loss_of_version_2():
    """Every value, on whatever machine this is."""
    file, codec = CodedFile.open(GOLDEN / "lossless.imc"), LosslessCodec.general()
    assert (file.is_complete, file.is_lossless, file.model) == (True, True, codec.identity())
    originals = {"color.png": noisy((37, 50), 3), "gray.png": noisy((64, 41), 1)}
    originals["deep.tif"] = noisy((30, 30), 1).astype(np.uint16) * 200 + 7
    assert {entry.key for entry in file.entries} == set(originals)
    for entry in file.entries:
        decoded = codec.decoded(file.images(entry.place)[2])
        assert decoded.dtype == originals[entry.key].dtype
        assert np.array_equal(decoded, originals[entry.key])


def noisy(size: tuple[int, int], channels: int) -> np.ndarray:
    """An image (1, H, W, C) of which no coefficient is certain."""
    noise = np.random.default_rng(0).normal(0, 25, (1, *size, channels))
    return (synthetic_images(1, size=size, channels=channels) + noise).clip(0, 255).astype(np.uint8)


SOM_CELLS = [9, 3, 5, 8, 0, 7, 10, 7, 2, 1, 9, 9]
KMEANS_LABELS = [2, 1, 1, 0, 2, 1, 0, 1, 1, 2, 2, 2]
KMEANS_INERTIA = 8.46465
CODES = [[-1.02315, 0.87653], [-1.46811, 1.28984], [-1.49811, 0.69702]]
MEAN = 68.04
