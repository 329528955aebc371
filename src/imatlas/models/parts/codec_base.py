"""Base class of codecs: learning from crops of images, and models as few bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from imatlas import seeding
from imatlas.images.dataset import images_of
from imatlas.images.pixels import kind_of
from imatlas.images.spec import ImageSpec
from imatlas.models.base import estimator
from imatlas.models.image_estimator import ImageEstimator
from imatlas.models.parts.coded_image import CodedImages, Effort
from imatlas.models.parts.originals import originals_of, random_crops, split_crops
from imatlas.models.parts.packed_networks import load_general, pack, round_to_packed, unpack
from imatlas.nn.coefficient_network import Adapt
from imatlas.nn.exact import exact_copy
from imatlas.system.threads import sharing_cores
from imatlas.training import checkpoints, schedule
from imatlas.training.batches import Data
from imatlas.training.progress import Callback

CROP, MAX_CROP_VALUES, HELD_OUT = 128, 4e8, 64
"""Side of the crops that are learned from, in pixels, their values at most, and how many are held out at most."""
CROPS_EACH = 2.0
"""Crops for each that would cover the images once."""
GRAY = 0.06
"""Share of the training steps in which images of three channels are gray."""
MAX_IMAGES = 20_000
"""Images that are learned from, at most."""


@estimator
class CodecBase(ImageEstimator):
    """Base class of codecs, whose network that predicts is `module_.coefficients`.

    A codec implements `_networks`, `coded_and_decoded`, `decoded`, and what an `ImageEstimator` does besides `_build`.
    """

    start: Annotated[
        Literal["general", "nothing"],
        Field(description="'general' to continue from what was learned from photographs, 'nothing' to learn all anew"),
    ] = "general"
    adapts: Annotated[
        Literal["little", "much"],
        Field(
            description="what of the general codec is adapted: 'little' for a small model, 'much' for one of 150 kB, "
            "which pays for thousands of images"
        ),
    ] = "little"
    budget: Annotated[
        float | str | None,
        Field(description="training time: seconds, or a text such as '90s', '5m', '1h'; None for no limit"),
    ] = "10m"
    batch_size: Annotated[int, Field(ge=1, description="crops per training step")] = 8
    learning_rate: Annotated[float, Field(gt=0, description="highest learning rate of the run")] = 1e-3

    is_lossless: ClassVar[bool]

    _stops_early = True  # small folders are learned by heart
    _places: ClassVar[dict[Adapt, int]]
    """Binary places of what weights differ by: with more, images take a little less, and the model a quarter more."""
    _weights: ClassVar[str]
    """Name of the file of the general weights."""

    @classmethod
    def _networks(cls) -> nn.Module:
        """New networks."""
        raise NotImplementedError

    def coded_and_decoded(
        self, pixels: np.ndarray, spec: ImageSpec, step: int, effort: Effort = "normal"
    ) -> tuple[CodedImages, np.ndarray]:
        """Images (N, H, W, C) of one size, coded, and as they will be decoded."""
        raise NotImplementedError

    def decoded(self, coded: CodedImages) -> np.ndarray:
        """Images (N, H, W, C) of their dtype.

        Raises
        ------
        InputError
            If the data is damaged, or was written by another model.
        """
        raise NotImplementedError

    @classmethod
    def general(cls) -> Self:
        """The codec that has learned from photographs, without your images."""
        codec = cls()
        codec.module_ = cls._networks()
        load_general(codec.module_, cls._weights)
        codec.spec_ = ImageSpec(CROP, CROP, 3)
        codec.history_ = {name: [] for name in ("step", "images_seen", "seconds", "train", "held_out")}
        codec.decisions_, codec.verdict_, codec.fingerprint_ = [], "too short to tell", ""
        codec.n_steps_, codec.seconds_, codec.interrupted_, codec.n_held_out_, codec.seed_ = 0, 0.0, False, 0, 0
        return codec

    @sharing_cores()
    def fit(  # type: ignore[override]  # crops are held out, never images
        self,
        images: Any,
        y: Any = None,
        *,
        mask: np.ndarray | None = None,
        checkpoint: str | Path | checkpoints.Checkpoint | None = None,
        replay: list[dict[str, Any]] | None = None,
        callback: Callback | None = None,
    ) -> Self:
        """Learn to predict images like these.

        Parameters
        ----------
        images : Images, array (N, H, W[, C]) or any source that `Images` takes
            uint8, uint16, or float; at least 8 x 8 pixels each, at their own sizes. NaN is filled with the middle of
            the range. Of more than 20,000, as many are drawn.
        y : None
            Ignored.
        mask : array (N, H, W) of bool, optional
            True where a pixel is missing.
        checkpoint, replay, callback
            As for every `ImageEstimator`.

        Raises
        ------
        ParameterError, InputError, TrainingError, ArtifactError, KeyboardInterrupt
            As for every `ImageEstimator`.
        """
        self._check_parameters()
        schedule.parse_budget(self.budget)
        seed = self._seed_to_fit(checkpoint)
        originals, spec = originals_of(images, mask, seed, f"A codec ({type(self).__name__})", MAX_IMAGES)
        data = self._crops([pixels[..., : kind_of(spec).colors] for pixels in originals], spec, seed)
        self._fit_data(data, seed, checkpoint=checkpoint, replay=replay, callback=callback)
        self.spec_ = spec
        return self

    def _crops(self, images: list[np.ndarray], spec: ImageSpec, seed: int) -> Data:
        """Crops of images (H, W, C) at places drawn by the seed; of images that are no larger than a crop, all."""
        side = min(CROP, *(side for pixels in images for side in pixels.shape[:2]))
        rng = seeding.rng(seed, "crops")
        if all(pixels.shape[:2] == (side, side) for pixels in images):
            crops = np.stack(images)
        else:
            area = sum(pixels.shape[0] * pixels.shape[1] for pixels in images)
            most = MAX_CROP_VALUES / (side**2 * images[0].shape[2])
            n = int(min(most, max(CROPS_EACH * area / side**2, 2 * len(images))))
            crops = np.stack(list(random_crops(images, side, n, rng)))
        crop_spec = ImageSpec(side, side, crops.shape[3], spec.dtype, spec.low, spec.high, alpha=False)
        return split_crops(crops, crop_spec, min(HELD_OUT, len(crops) // 10), rng)

    def _coded_each(self, images: Any, step: int, effort: Effort = "normal") -> list[bytes]:
        self._check_fitted()
        opened = images_of(images)
        return [
            self.coded_and_decoded(pixels[None], opened.spec, step, effort)[0].to_bytes()
            for part in opened.batches(16)
            for pixels in part
        ]

    @sharing_cores()
    def decompress(self, data: Sequence[bytes]) -> list[np.ndarray]:
        """The images (H, W, C) that `compress` wrote.

        Raises
        ------
        InputError
            If the data is damaged, or was written by another model.
        """
        self._check_fitted()
        return [pixels for each in data for pixels in self.decoded(CodedImages.from_bytes(each))]

    def identity(self) -> bytes:
        """Eight bytes that differ among models that cannot read each other's data."""
        digest = hashlib.blake2b(digest_size=8)
        for parameter in self._exact().parameters():
            digest.update(parameter.numpy().tobytes())
        return digest.digest()

    def packed_weights(self) -> bytes:
        """The networks as bytes for `from_weights`."""
        self._check_fitted()
        return pack(self.module_.cpu(), self._weights, self._places[self.adapts])

    @classmethod
    def from_weights(cls, packed: bytes) -> Self:
        """The codec whose `packed_weights` these are; of none, the general one.

        Raises
        ------
        InputError
            If they are damaged.
        """
        codec = cls.general()
        if packed:
            places = unpack(codec.module_, packed, cls._weights)
            codec.adapts = "much" if places == cls._places["much"] else "little"
        return codec

    def _exact(self) -> Any:
        """The network that predicts, in exact arithmetic; made once for each network."""
        self._check_fitted()
        made = getattr(self, "_made_exact", None)
        if made is None or made[0] is not self.module_:
            networks: Any = self.module_
            made = self._made_exact = (networks, exact_copy(networks.coefficients))
        return made[1]

    def _finish(self, data: Data) -> None:
        round_to_packed(self.module_.cpu(), self._weights, self._places[self.adapts])

    def _build(self, spec: ImageSpec) -> nn.Module:
        networks: Any = self._networks()
        if self.start == "general" and not next(networks.parameters()).is_meta:  # which a saved model is loaded to
            load_general(networks, self._weights)
        n_planes = 3 if spec.channels == 3 else 1
        networks.coefficients.train_for(
            n_planes, (spec.height, spec.width), "all" if self.start == "nothing" else self.adapts
        )
        return networks

    def _varied(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Images (N, C, H, W) to learn from: if not only these count, also mirrored, turned and in gray."""
        if self.start == "general":
            return x
        draws = torch.rand(4, generator=generator, device=generator.device).tolist()
        x = x.flip(2) if draws[0] < 0.5 else x
        x = x.flip(3) if draws[1] < 0.5 else x
        x = x.transpose(2, 3) if draws[2] < 0.5 else x
        return x[:, 1:2].expand(-1, 3, -1, -1) if x.shape[1] == 3 and draws[3] < GRAY else x
