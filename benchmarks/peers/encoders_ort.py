"""EfficientNet-Lite0 from JPEG files by ONNX Runtime and Pillow: `encoders_ort.py MODEL FILES OUT`, one thread, fp32.

MODEL: an exported `PretrainedEncoder`; FILES: a text file of paths; OUT: features and seconds, .npz.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

SIDE, BATCH = 224, 8


def center_crop(path: str | Path) -> np.ndarray:
    """Center crop of an image, (3, SIDE, SIDE) float32 in [-1, 1]."""
    image = Image.open(path).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    small = image.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))
    return np.asarray(small, np.float32).transpose(2, 0, 1) / 127.5 - 1


def main() -> None:
    import onnxruntime  # of the peer's environment; `center_crop` is used without it

    model, files, out = sys.argv[1:]
    paths = Path(files).read_text(encoding="utf-8").splitlines()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    session.run(None, {name: np.stack([center_crop(path) for path in paths[:BATCH]])})
    began = time.process_time()
    parts = [np.stack([center_crop(path) for path in paths[i : i + BATCH]]) for i in range(0, len(paths), BATCH)]
    features = np.concatenate([session.run(None, {name: part})[0] for part in parts])
    np.savez(out, features=features, seconds=time.process_time() - began, version=onnxruntime.__version__)


if __name__ == "__main__":
    main()
