"""imatlas.SOM; see `_som.py`. Settings that are None keep the default of `SOM`."""

import torch
from _som import run

import imatlas as ia


def fit(data, settings):
    torch.set_num_threads(settings["threads"])
    names = ("rows", "cols", "topology", "n_epochs", "sigma", "final_sigma")
    given = {name: settings[name] for name in names if settings.get(name) is not None}
    som = ia.SOM(**given, random_state=settings["seed"]).fit(data)
    return som.codebook_, {"schedule": [[float(sigma), int(n_rows)] for sigma, n_rows in som.schedule_]}


if __name__ == "__main__":
    run("imatlas", fit)
