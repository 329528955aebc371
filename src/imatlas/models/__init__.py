"""Table of models. To add one, write its file and add its line here: the Python name, the command line, save and load,
and the contract tests follow."""

from __future__ import annotations

import importlib

MODELS: dict[str, str] = {
    "som": "som:SOM",
    "kmeans": "kmeans:KMeans",
    "image_clusterer": "image_clusterer:ImageClusterer",
    "outlier_detector": "outlier_detector:OutlierDetector",
    "som_classifier": "som_classifier:SOMClassifier",
    "few_labels": "few_labels:FewLabelsClassifier",
    "layout": "layout:Layout",
    "autoencoder": "autoencoder:Autoencoder",
    "vae": "vae:VAE",
    "gan": "gan:GAN",
    "flow_matching": "flow_matching:FlowMatching",
    "patch_diffusion": "patch_diffusion:PatchDiffusion",
    "self_supervised": "self_supervised:SelfSupervisedEncoder",
    "pretrained": "pretrained:PretrainedEncoder",
    "segmenter": "segmenter:Segmenter",
    "super_resolver": "super_resolver:SuperResolver",
    "denoiser": "denoiser:Denoiser",
    "enhancer": "enhancer:Enhancer",
    "inpainter": "inpainter:Inpainter",
    "codec": "codec:ImageCodec",
    "lossless_codec": "lossless_codec:LosslessCodec",
}


def class_names() -> dict[str, str]:
    """Class names and table names of all models: {"VAE": "vae", …}."""
    return {target.partition(":")[2]: name for name, target in MODELS.items()}


def model_class(name: str) -> type:
    """The class of a model by its table name ("vae") or class name ("VAE").

    Raises
    ------
    KeyError
        If there is no such model.
    """
    target = MODELS[class_names().get(name, name)]
    module, _, cls = target.partition(":")
    return getattr(importlib.import_module(f"imatlas.models.{module}"), cls)
