"""Runs a generator of imatlas; see _generate.py. Settings besides: latent_dim, autoencoder_share of the time."""

from _generate import count, run


def fit(images, settings):
    """The model of the table that `method` names, with its defaults."""
    from imatlas.models import model_class

    seconds, share = settings["seconds"], settings["autoencoder_share"]
    shared = {"budget": seconds, "random_state": settings["seed"], "device": "cpu", "progress": False}
    name = settings["method"]
    if name == "FlowMatching":
        autoencoder = model_class("Autoencoder")(
            **{**shared, "budget": share * seconds}, latent_dim=settings["latent_dim"]
        )
        model = model_class(name)(**shared, autoencoder=autoencoder)
    elif name == "Autoencoder":
        model = model_class(name)(**shared, latent_dim=settings["latent_dim"])
    else:
        model = model_class(name)(**shared)
    model.fit(images)
    seen = model.history_["images_seen"][-1]
    said = f"{model.n_steps_:,} steps, {seen:,} images, held-out loss {model.verdict_}"
    return lambda n, seed: model.sample(n, random_state=seed), count(model.module_), said


run("imatlas", fit)
