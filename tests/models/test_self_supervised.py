import numpy as np
import pytest
import torch

from imatlas.models.kmeans import KMeans
from imatlas.models.self_supervised import SelfSupervisedEncoder
from imatlas.nn.losses import nt_xent, vicreg
from imatlas.nn.pooled_encoder import PooledEncoder
from imatlas.testing import synthetic_images

pytestmark = pytest.mark.usefixtures("one_thread")


def test_vicreg_is_minimal_for_equal_views_of_decorrelated_features():
    generator = torch.Generator().manual_seed(0)
    z = torch.linalg.qr(torch.randn(64, 4, generator=generator) - 0.0)[0]
    z = (z - z.mean(0)) / (z - z.mean(0)).std(0) * 1.01
    invariance, variance, _ = vicreg(z, z)
    assert float(invariance) == 0
    assert float(variance) == pytest.approx(0, abs=1e-6)
    collapsed = torch.ones(64, 4)
    assert float(vicreg(collapsed, collapsed)[1]) == pytest.approx(0.99, abs=1e-3)
    copied = z[:, :1].repeat(1, 4)
    assert float(vicreg(copied, copied)[2]) > 10 * float(vicreg(z, z)[2])


def test_nt_xent_equals_a_sum_over_all_pairs():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 5, 3, generator=generator).unbind()
    z = torch.nn.functional.normalize(torch.cat([a, b]), dim=1).numpy()
    total = 0.0
    for i in range(10):
        near = np.exp(z @ z[i] / 0.2)
        total -= np.log(near[(i + 5) % 10] / (near.sum() - near[i]))
    assert float(nt_xent(a, b)) == pytest.approx(total / 10, rel=1e-5)


@pytest.mark.parametrize(("shape", "grid"), [((8, 8, 1), 2), ((28, 28, 1), 4), ((64, 48, 3), 3), ((128, 128, 4), 4)])
def test_the_network_takes_every_size(shape, grid):
    module = PooledEncoder(shape, 32)
    height, width, channels = shape
    assert module(torch.zeros(2, channels, height, width)).shape == (2, 32)
    assert min(module.layers(torch.zeros(1, channels, *module.padded)).shape[2:]) == grid


@pytest.mark.parametrize("method", ["vicreg", "simclr"])
def test_features_cluster_fashion_better_than_pixels(fashion, method):
    images, labels = fashion[0][:3000], fashion[1][:3000]
    kept = np.isin(labels, [1, 2, 7, 8])  # trousers, pullovers, sneakers, bags
    images, labels = images[kept], labels[kept]
    model = SelfSupervisedEncoder(
        method=method, size="small", max_steps=60, batch_size=128, progress=False, random_state=0
    ).fit(images)
    moved = np.roll(images, (3, -3), axis=(1, 2))

    def purity(rows):
        found = KMeans(n_clusters=4, n_init=10, random_state=0).fit_predict(rows)
        return sum(np.bincount(labels[found == i]).max() for i in range(4)) / len(labels)

    def distance(rows, others):
        return np.linalg.norm(rows - others, axis=1).mean() / np.linalg.norm(rows - rows[::-1], axis=1).mean()

    features, pixels = model.transform(images), images.reshape(len(images), -1) / 255.0
    assert features.min() >= 0
    assert features.std(0).max() > 0.05  # not collapsed
    assert distance(features, model.transform(moved)) < 0.6 * distance(pixels, moved.reshape(len(images), -1) / 255.0)
    assert purity(features) > purity(pixels)


def test_the_preview_shows_each_image_and_its_views():
    images = synthetic_images(20, size=16, channels=3, random_state=0)
    model = SelfSupervisedEncoder(random_state=0)
    pictures, why = model.preview(images, n_images=3, n_views=4)
    assert pictures.shape == (3, 5, 16, 16, 3)
    assert pictures.dtype == np.uint8
    assert all((images == first).all((1, 2, 3)).any() for first in pictures[:, 0])
    assert "mirrored" in why
    why = SelfSupervisedEncoder(random_state=0, rotation_invariant=True).preview(images)[1]
    assert "no preferred orientation (as requested)" in why
