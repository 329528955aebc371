"""Runs a generator of imatlas; see _generate.py. Further setting: latent_dim."""

from _generate import count, run


def fit(images, settings):
    """The model named by `method`, with its defaults except the latent dimension."""
    import imatlas as ia
    from imatlas.atlas.stages import SHARPENING, SHARPNESS
    from imatlas.models.autoencoder import FEW_IMAGES
    from imatlas.models.flow_matching import AUTOENCODER_SHARE

    shared = {"random_state": settings["seed"], "device": "cpu", "progress": False}
    width, seconds = settings["latent_dim"], settings["seconds"]

    def sharpened(model, seconds):
        model.set_params(budget=(1 - SHARPENING) * seconds, **shared).fit(images)
        return model.sharpen(images, weight=SHARPNESS, budget=max(SHARPENING * seconds, seconds - model.seconds_))

    method = settings["method"]
    autoencoder = ia.Autoencoder(latent_dim=width)
    if method == "sharpened" or (method == "default" and len(images) >= FEW_IMAGES):
        model = sharpened(autoencoder, seconds)
    elif method == "VAE mixture":
        model = sharpened(ia.VAE(), seconds)
    elif method == "FlowMatching":
        own = sharpened(autoencoder, AUTOENCODER_SHARE * seconds)
        model = ia.FlowMatching(autoencoder=own, budget=max(1.0, seconds - own.seconds_), **shared).fit(images)
    else:
        plain = {"default": autoencoder, "Autoencoder": autoencoder, "GAN": ia.GAN(), "VAE": ia.VAE(prior="normal")}
        model = plain[method].set_params(budget=seconds, **shared).fit(images)
    n_images = model.history_["images_seen"][-1]
    training = f"{model.n_steps_:,} steps, {n_images:,} images, held-out loss {model.verdict_}"
    return lambda n, seed: model.sample(n, random_state=seed), count(model.module_), training


run("imatlas", fit)
