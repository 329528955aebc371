"""Runs inside pythae's own environment: pythae_vae.py PIXELS.npz EPOCHS LATENT_DIM -> one line of JSON.

Trains pythae's VAE with its default (multi-layer perceptron) encoder and decoder and its own trainer.
"""

import json
import sys
import tempfile
import time
from importlib.metadata import version

import numpy as np
import torch
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.trainers import BaseTrainer, BaseTrainerConfig

arrays = np.load(sys.argv[1])
n_epochs, latent_dim = int(sys.argv[2]), int(sys.argv[3])
train, test = (torch.from_numpy(arrays[name]).float().div(255)[:, None] for name in ("train", "test"))
torch.manual_seed(0)
model = VAE(VAEConfig(input_dim=(1, 28, 28), latent_dim=latent_dim))
with tempfile.TemporaryDirectory() as folder:
    settings = BaseTrainerConfig(
        output_dir=folder, num_epochs=n_epochs, learning_rate=1e-3, per_device_train_batch_size=64, no_cuda=True
    )
    dataset = BaseDataset(train, torch.zeros(len(train)))
    trainer = BaseTrainer(model=model, train_dataset=dataset, training_config=settings)
    began = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - began
model.eval()
with torch.no_grad():
    rebuilt = torch.cat([model.reconstruct(part) for part in test.split(500)])
described = {
    "version": version("pythae"),
    "seconds": seconds,
    "images": n_epochs * len(train),
    "mse": float((rebuilt.reshape(test.shape) - test).square().mean()),
    "weights": sum(p.numel() for p in model.parameters()),
}
print(json.dumps(described))
