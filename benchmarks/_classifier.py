"""Plain CNN classifier of a labeled set, whose features are the space in which generators are compared.

Features are the input of its last layer. It is trained once per set with fixed settings and stored under
benchmarks/.data/classifier with its test accuracy.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from benchmarks._data import SCRATCH, Labeled, labeled
from imatlas import seeding

FOLDER = SCRATCH / "classifier"
CHUNK = 250

N_FEATURES = {"fashion_mnist": 128, "eurosat": 64, "noto_emoji": 64, "grocery_photos": 64}
"""Fewer for small test parts: a Fréchet distance needs two images per feature."""

EPOCHS = {"fashion_mnist": 2, "eurosat": 25, "noto_emoji": 25, "grocery_photos": 40}


class Network(nn.Module):
    """Convolutions with batch normalization, global average pooling to `n_features`, one linear layer."""

    def __init__(self, n_channels: int, side: int, n_features: int, n_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        widths = (n_channels, 32, 64, 128, n_features)
        for i, (before, after) in enumerate(itertools.pairwise(widths)):
            stride = 2 if i == 0 and side > 32 else 1
            layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] if i < 3 else []
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(n_features, n_classes)

    def features(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] -> (N, n_features)."""
        return self.body(x).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class Classifier:
    """The trained classifier of one set.

    Attributes
    ----------
    accuracy : float
        Test accuracy.
    """

    def __init__(self, network: Network, accuracy: float) -> None:
        self.network, self.accuracy = network.eval(), accuracy

    def features(self, images: np.ndarray) -> np.ndarray:
        """Features (n, n_features) float32 of images (n, H, W, C) uint8."""
        with torch.no_grad():
            parts = [self.network.features(as_input(images[i : i + CHUNK])) for i in range(0, len(images), CHUNK)]
        return torch.cat(parts).numpy()

    def accuracy_on(self, images: np.ndarray, labels: np.ndarray) -> float:
        """Share of images classified correctly."""
        with torch.no_grad():
            scores = self.network.head(torch.from_numpy(self.features(images)))
        return float((scores.argmax(1).numpy() == labels).mean())


def as_input(images: np.ndarray) -> Tensor:
    """Images (n, H, W, C) uint8 as (n, C, H, W) in [-1, 1]; color is multiplied by alpha."""
    x = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
    if x.shape[1] == 4:
        x = torch.cat([x[:, :3] * x[:, 3:], x[:, 3:]], dim=1)
    return x * 2 - 1


def classifier(name: str) -> Classifier:
    """The classifier of a set of `benchmarks._data.labeled`, loaded or trained."""
    path = FOLDER / f"{name}.safetensors"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _train(name, path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    network = Network(*(int(metadata[key]) for key in ("n_channels", "side", "n_features", "n_classes")))
    network.load_state_dict(load_file(path))
    return Classifier(network, float(metadata["accuracy"]))


def _train(name: str, path: Path) -> None:
    data = labeled(name)
    n_classes = int(data.train_labels.max()) + 1
    sizes = {"n_channels": data.train.shape[3], "side": data.train.shape[1], "n_features": N_FEATURES[name]}
    with seeding.seeded_init(0):
        network = Network(**sizes, n_classes=n_classes)
    _fit(network, data, EPOCHS[name])
    accuracy = Classifier(network, 0.0).accuracy_on(data.test, data.test_labels)
    metadata = {**sizes, "n_classes": n_classes, "accuracy": accuracy}
    save_file(network.state_dict(), path, {key: str(value) for key, value in metadata.items()})


def _fit(network: Network, data: Labeled, n_epochs: int, batch_size: int = 128) -> None:
    """AdamW with a one-cycle learning rate; random shifts by up to an eighth of the side, and random mirroring."""
    labels = torch.from_numpy(data.train_labels)
    n_batches = len(labels) // batch_size
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.05)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=n_epochs * n_batches)
    generator = seeding.generator(0, "judge")
    network.train()
    for _ in range(n_epochs):
        order = torch.randperm(len(labels), generator=generator)[: n_batches * batch_size]
        for rows in order.split(batch_size):
            x = as_input(data.train[rows.numpy()])
            max_shift = x.shape[2] // 8
            shift = torch.randint(-max_shift, max_shift + 1, (2,), generator=generator).tolist()
            x = torch.roll(x, shift, dims=(2, 3))
            mirrored = torch.rand(len(x), generator=generator) < 0.5
            x[mirrored] = x[mirrored].flip(3)
            loss = functional.cross_entropy(network(x), labels[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cycle.step()
