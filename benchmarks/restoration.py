"""Restoration without clean targets: `python -m benchmarks restoration [--only PARTS]`.

`enhance`: known faults of exposure, contrast and color, undone. `inpaint`: scattered pixels and blocks of held-out
photographs. `upscale`: photographs scaled down and up again. The protocols are in the files of the parts
(`benchmarks._enhance` …).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch

from benchmarks import _enhance, _inpaint, _upscale

PARTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "enhance": _enhance.main,
    "inpaint": _inpaint.main,
    "upscale": _upscale.main,
}


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks restoration")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--n", type=int, help="only the first images; saves no table")
    parser.add_argument("--budget", default="10m", help="training time of models")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    for part in options.only:
        PARTS[part](options)
