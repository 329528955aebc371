"""Runs a generator of imatlas; see _generate.py. Further setting: latent_dim."""

from _generate import count, run


def fit(images, settings):
    """The model named by `method`, with its defaults except the latent dimension."""
    import imatlas as ia
    from imatlas.atlas.learn_generator import SHARPENING, SHARPNESS
    from imatlas.models.autoencoder import FEW_IMAGES
    from imatlas.models.flow_matching import AUTOENCODER_SHARE

    shared = {"random_state": settings["seed"], "device": "cpu", "progress": False}
    width, seconds = settings["latent_dim"], settings["seconds"]

    def sharpened(model, seconds):
        model.set_params(budget=(1 - SHARPENING) * seconds, **shared).fit(images)
        return model.sharpen(images, weight=SHARPNESS, budget=max(SHARPENING * seconds, seconds - model.seconds_))

    method = settings["method"]
    if method == "PatchDiffusion":
        return patch_diffusion(images, shared["random_state"])
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


def patch_diffusion(images, seed):
    """PatchDiffusion as `learn` makes it: the space is that of the pretrained encoder for color, its own for gray."""
    import imatlas as ia

    if images.shape[3] == 1:
        model = ia.PatchDiffusion(device="cpu", random_state=seed).fit(images)
    else:
        import numpy as np

        order = np.random.default_rng(seed).permutation(len(images))
        held_out, train = np.sort(order[: len(order) // 10]), np.sort(order[len(order) // 10 :])
        encoder = ia.PretrainedEncoder(device="cpu", random_state=seed)
        vectors = encoder.fit_transform(images)
        shared = {"device": "cpu", "random_state": seed}
        audited = ia.PatchDiffusion(novelty=0.5, **shared).fit(images[train], y=vectors[train])
        audited.calibrate(images[held_out], encoder.transform, known=vectors[train])
        model = ia.PatchDiffusion(novelty=audited.novelty_, **shared).fit(images, y=vectors)
    facts = f"novelty {model.novelty_:g}, mirrored images {'take part' if model.mirrored_ else 'do not take part'}"
    return lambda n, seed: model.sample(n, random_state=seed), 0, facts


run("imatlas", fit)
