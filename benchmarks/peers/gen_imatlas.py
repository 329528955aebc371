"""Runs a generator of imatlas; see _generate.py. Settings besides: latent_dim."""

from _generate import count, run


def fit(images, settings):
    """The model that `method` names, with its defaults but for the length of its vectors."""
    import imatlas as ia
    from imatlas.atlas.stages import SHARPNESS
    from imatlas.models.autoencoder import FEW_IMAGES

    shared = {"budget": settings["seconds"], "random_state": settings["seed"], "device": "cpu", "progress": False}
    width = settings["latent_dim"]
    sharp = ia.Autoencoder(latent_dim=width, sharpness=SHARPNESS)
    model = {
        "default": sharp if len(images) >= FEW_IMAGES else ia.Autoencoder(latent_dim=width),
        "sharpened": sharp,
        "Autoencoder": ia.Autoencoder(latent_dim=width),
        "FlowMatching": ia.FlowMatching(autoencoder=sharp),
        "GAN": ia.GAN(),
        "VAE": ia.VAE(prior="normal"),
        "VAE mixture": ia.VAE(sharpness=SHARPNESS),
    }[settings["method"]]
    model.set_params(**shared).fit(images)
    seen = model.history_["images_seen"][-1]
    said = f"{model.n_steps_:,} steps, {seen:,} images, held-out loss {model.verdict_}"
    return lambda n, seed: model.sample(n, random_state=seed), count(model.module_), said


run("imatlas", fit)
