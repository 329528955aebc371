"""Weights of the general codecs: `python -m benchmarks codec_weights [--lossless] [--budget 1h] [--checkpoint FOLDER]`.

Learned from the photographs of BSDS500 (train and val), which are JPEGs of 481 x 321 pixels, and saved in half
precision in src/imatlas/models/parts, as codec_weights.safetensors and lossless_weights.safetensors. Kodak, on which
codecs are reported, is not seen.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

import imatlas as ia
from benchmarks._data import ROOT
from imatlas.images.spec import ImageSpec
from imatlas.models.codec import ImageCodec
from imatlas.models.lossless_codec import LosslessCodec
from imatlas.models.parts import published_weights
from imatlas.models.parts.codec_base import CodecBase
from imatlas.training.batches import Data

MOST_NOISE = 6.0
"""Standard deviation, where pixels span 255."""


class Unrounded(CodecBase):
    """A codec whose weights keep all their digits."""

    def _finish(self, data: Data) -> None:
        pass


class General(Unrounded, ImageCodec):
    """The codec with loss."""


class Lossless(Unrounded, LosslessCodec):
    """The codec without loss. Half of the crops get noise, of which JPEGs have little and other files much."""

    def _varied(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        x = super()._varied(x, generator)
        sigma = torch.rand(len(x), 1, 1, 1, generator=generator, device=generator.device).sub(0.5).clamp_min(0)
        noise = torch.randn(x.shape, generator=generator, device=generator.device)
        return (x + MOST_NOISE * 2 * sigma / 127.5 * noise).clamp(-1, 1)


class FilterOnly(General):
    """A codec whose predictions are given."""

    weights: dict[str, torch.Tensor]

    def _build(self, spec: ImageSpec) -> torch.nn.Module:
        networks: Any = super()._build(spec)
        given = {name: values.float() for name, values in self.weights.items() if name.startswith("coefficients")}
        networks.load_state_dict(given, strict=False)
        networks.coefficients.requires_grad_(False)
        return networks


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks codec_weights")
    parser.add_argument("--budget", default="1h")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--lossless", action="store_true")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--filter", type=Path, metavar="WEIGHTS", help="train only the filter, for these weights")
    options = parser.parse_args(argv)
    images = ia.Images(ROOT / "bsds500" / "images_train_val.tar")
    kind = Lossless if options.lossless else General
    codec: CodecBase = kind(start="nothing", budget=options.budget, learning_rate=2e-3, random_state=0)
    if options.filter:
        codec = FilterOnly(start="nothing", budget=options.budget, learning_rate=1e-3, random_state=0)
        codec.weights = load_file(options.filter)
    codec.fit(images, checkpoint=options.checkpoint)
    output = options.output or Path(published_weights.__file__).with_name(f"{kind._weights}.safetensors")
    weights = {name: values.to(torch.float16).contiguous() for name, values in codec.module_.state_dict().items()}
    save_file(weights, output)
    print(f"{codec.n_steps_:,} steps, held-out loss {codec.history_['held_out'][-1]:.4f}: {output}")
