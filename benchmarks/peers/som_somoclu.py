"""Somoclu; see `_som.py`.

By default its neighborhood is cut off at the radius and halved (compactsupport, std_coeff=0.5); off and 1 make the
radius a standard deviation. With scale 1 each epoch moves a prototype all the way, as a batch SOM does.

To install: NumPy and setuptools first, then `pip install --no-build-isolation somoclu==1.7.6`, with a C++ compiler and
no `nvcc` on PATH; a build that fails installs the package without its library, in silence.
"""

import numpy as np
from _som import run
from somoclu import Somoclu


def fit(data, settings):
    np.random.seed(settings["seed"])  # noqa: NPY002 (it draws from the global state)
    rows, cols, n_epochs = settings["rows"], settings["cols"], settings["n_epochs"]
    first, last = settings["sigma"], settings["final_sigma"]
    beyond = first * (last / first) ** (n_epochs / max(1, n_epochs - 1))  # its fall ends one epoch after the last
    som = Somoclu(
        cols, rows, gridtype=settings["topology"], compactsupport=False, std_coeff=1.0,
        initialization="pca" if settings["init"] == "pca" else "random",
    )  # fmt: skip
    som.train(
        data, epochs=n_epochs, radius0=first, radiusN=beyond,
        radiuscooling="exponential", scale0=1.0, scaleN=1.0,
    )  # fmt: skip
    return som.codebook.reshape(rows * cols, -1)


if __name__ == "__main__":
    run("somoclu", fit)
