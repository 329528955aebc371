"""Restoration without clean targets: `python -m benchmarks restoration [--only PARTS]`.

`denoise`: noise of known kind added to photographs; learned from noisy images alone, beside BM3D and scikit-image.
Peer environment: denoise, with benchmarks/peers/denoise.txt (see `benchmarks._peers`); bm3d is for research only.
`gate`: whether the Denoiser chooses rightly among its ways, and leaves good images alone.
`enhance`: known faults of exposure, contrast and color, undone. `inpaint`: scattered pixels and blocks of held-out
photographs. `upscale`: photographs scaled down and up again. Their protocols are in the files of the parts
(`benchmarks._enhance` …).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch

from benchmarks import _enhance, _gate, _inpaint, _upscale
from benchmarks._denoise import KINDS, METHODS, denoise
from benchmarks._peers import add_prefix_option

PARTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "denoise": denoise,
    "enhance": _enhance.main,
    "gate": _gate.main,
    "inpaint": _inpaint.main,
    "upscale": _upscale.main,
}


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks restoration")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS), help="denoise: kinds of noise")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS), help="denoise")
    parser.add_argument("--minutes", type=float, default=10.0, help="denoise, inpaint: training time")
    parser.add_argument("--n", type=int, help="only so many images; no table (denoise: of 100, and a table)")
    parser.add_argument("--missing", nargs="+", choices=_inpaint.MISSING, default=_inpaint.MISSING, help="inpaint")
    parser.add_argument("--threads", type=int, default=2)
    add_prefix_option(parser, default=())
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    for part in options.only:
        PARTS[part](options)
