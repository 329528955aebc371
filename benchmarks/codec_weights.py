"""Weights of the general `ImageCodec`: `python -m benchmarks codec_weights [--budget 1h] [--checkpoint FOLDER]`.

Learned from the photographs of BSDS500 (train and val), which are JPEGs of 481 x 321 pixels, and saved in half
precision as src/imatlas/models/parts/codec_weights.safetensors. Kodak, on which the codec is reported, is not seen.
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
from imatlas.models.parts import published_weights
from imatlas.training.batches import Data

WEIGHTS = "codec_weights.safetensors"


class General(ImageCodec):
    """A codec whose weights keep all their digits."""

    def _finish(self, data: Data) -> None:
        pass


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
    parser.add_argument("--output", type=Path, default=Path(published_weights.__file__).with_name(WEIGHTS))
    parser.add_argument("--filter", type=Path, metavar="WEIGHTS", help="train only the filter, for these weights")
    options = parser.parse_args(argv)
    images = ia.Images(ROOT / "bsds500" / "images_train_val.tar")
    codec = General(start="nothing", budget=options.budget, learning_rate=2e-3, random_state=0)
    if options.filter:
        codec = FilterOnly(start="nothing", budget=options.budget, learning_rate=1e-3, random_state=0)
        codec.weights = load_file(options.filter)
    codec.fit(images, checkpoint=options.checkpoint)
    save_file(
        {name: values.to(torch.float16).contiguous() for name, values in codec.module_.state_dict().items()},
        options.output,
    )
    print(f"{codec.n_steps_:,} steps, held-out loss {codec.history_['held_out'][-1]:.4f}: {options.output}")
