"""torchsom; see `_som.py`.

Mini-batches with a learning rate. Its schedules end at a radius of 1 or a third of the first one, so its table of radii
per epoch is replaced by the requested exponential decay, and its learning rate decays linearly to a tenth. Its
hexagonal lattice shifts every other row down by half a row, not right by half a cell: it is used as it is.
"""

import torch
from _som import run
from torchsom.core.som import SOM


def fit(data, settings):
    torch.set_num_threads(settings["threads"])
    rows, cols, n_epochs = settings["rows"], settings["cols"], settings["n_epochs"]
    first, last = settings["sigma"], settings["final_sigma"]
    rate = settings.get("learning_rate", 0.5)
    som = SOM(
        rows, cols, data.shape[1], epochs=n_epochs, batch_size=settings.get("batch_size", 256), sigma=first,
        learning_rate=rate, topology=settings["topology"], device="cpu", random_seed=settings["seed"],
    )  # fmt: skip
    share = torch.arange(n_epochs) / max(1, n_epochs - 1)
    som.sigma_schedule = first * (last / first) ** share
    som.lr_schedule = rate * (1 - 0.9 * share)
    x = torch.from_numpy(data)
    som.initialize_weights(x, "pca" if settings["init"] == "pca" else "random")
    som.fit(x, verbose=False)
    return som.weights.detach().numpy().reshape(rows * cols, -1)


if __name__ == "__main__":
    run("torchsom", fit)
