# Made by tools/make_stub.py; run it again after a change.
from imatlas.atlas.atlas import Atlas as Atlas
from imatlas.atlas.atlas import load as load
from imatlas.atlas.learn import learn as learn
from imatlas.images.dataset import Images as Images
from imatlas.images.spec import ImageSpec as ImageSpec
from imatlas.models.autoencoder import Autoencoder as Autoencoder
from imatlas.models.codec import ImageCodec as ImageCodec
from imatlas.models.denoiser import Denoiser as Denoiser
from imatlas.models.enhancer import Enhancer as Enhancer
from imatlas.models.few_labels import FewLabelsClassifier as FewLabelsClassifier
from imatlas.models.flow_matching import FlowMatching as FlowMatching
from imatlas.models.gan import GAN as GAN
from imatlas.models.image_clusterer import ImageClusterer as ImageClusterer
from imatlas.models.inpainter import Inpainter as Inpainter
from imatlas.models.kmeans import KMeans as KMeans
from imatlas.models.layout import Layout as Layout
from imatlas.models.lossless_codec import LosslessCodec as LosslessCodec
from imatlas.models.onnx import export_onnx as export_onnx
from imatlas.models.outlier_detector import OutlierDetector as OutlierDetector
from imatlas.models.patch_diffusion import PatchDiffusion as PatchDiffusion
from imatlas.models.pretrained import PretrainedEncoder as PretrainedEncoder
from imatlas.models.segmenter import Segmenter as Segmenter
from imatlas.models.self_supervised import SelfSupervisedEncoder as SelfSupervisedEncoder
from imatlas.models.som import SOM as SOM
from imatlas.models.som_classifier import SOMClassifier as SOMClassifier
from imatlas.models.super_resolver import SuperResolver as SuperResolver
from imatlas.models.vae import VAE as VAE

__version__: str
__all__ = [  # noqa: RUF022 - in the order of the package
    "Atlas",
    "Autoencoder",
    "Denoiser",
    "Enhancer",
    "FewLabelsClassifier",
    "FlowMatching",
    "GAN",
    "ImageClusterer",
    "ImageCodec",
    "ImageSpec",
    "Images",
    "Inpainter",
    "KMeans",
    "Layout",
    "LosslessCodec",
    "OutlierDetector",
    "PatchDiffusion",
    "PretrainedEncoder",
    "SOM",
    "SOMClassifier",
    "Segmenter",
    "SelfSupervisedEncoder",
    "SuperResolver",
    "VAE",
    "__version__",
    "export_onnx",
    "learn",
    "load",
]
