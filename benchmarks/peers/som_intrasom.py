"""IntraSOM; see `_som.py`.

Its feature scaling is off, so that the codebook is in the units of the data; its fast profile (fp32, wide blocks) is
on. The radius decays linearly in each of its two phases; half of the epochs in each, with the geometric mean of the two
radii between them, approximates an exponential decay.
"""

import contextlib
import io
import os
import tempfile

import numpy as np
from _som import run
from intrasom import SOMFactory


def fit(data, settings):
    np.random.seed(settings["seed"])  # noqa: NPY002 (it draws from the global state)
    n_epochs, first, last = settings["n_epochs"], settings["sigma"], settings["final_sigma"]
    rough = max(1, n_epochs // 2)
    middle = (first * last) ** 0.5
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        som = SOMFactory.build(
            data, mapsize=(settings["cols"], settings["rows"]), mapshape="planar", normalization="None",
            lattice="hexa" if settings["topology"] == "hexagonal" else "rect",
            initialization="pca" if settings["init"] == "pca" else "random", faster=True,
            faster_config={"blas_threads": settings["threads"], "verbose": False},
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)  # it writes its parameters there
            som.train(
                save=False, summary=False, n_job=settings["threads"], train_rough_len=rough,
                train_rough_radiusin=first, train_rough_radiusfin=middle, train_finetune_len=max(1, n_epochs - rough),
                train_finetune_radiusin=middle, train_finetune_radiusfin=last,
            )  # fmt: skip
            os.chdir("/")
    return som.codebook.matrix


if __name__ == "__main__":
    run("intrasom", fit)
