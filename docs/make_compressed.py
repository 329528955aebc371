"""The picture of docs/compression.md: parts of two Kodak photographs, compressed to about as many bytes.

python docs/make_compressed.py writes docs/pictures/compressed.webp: original, imatlas, AVIF and JPEG (the smallest file
there is, if that is larger). Images of Kodak are read from IMATLAS_DATA, or from `../shared/data` beside the checkout.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image

import imatlas as ia
from imatlas.images.spec import ImageSpec
from imatlas.metrics.restoration import psnr

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("IMATLAS_DATA", HERE.parents[1] / "shared" / "data"))
STEP = 52
PARTS = {"kodim23": (130, 60, 390, 300), "kodim05": (220, 120, 480, 360)}


def main() -> None:
    """Compress, and put parts side by side."""
    codec, rows = ia.ImageCodec.general(), []
    for name, box in PARTS.items():
        image = np.asarray(Image.open(DATA / "kodak" / f"{name}.png").convert("RGB"))
        coded, decoded = codec.coded_and_decoded(image[None], ImageSpec(*image.shape), STEP)
        n_bytes = len(coded.to_bytes())
        made = {"imatlas": (n_bytes, decoded[0]), **{one: _at_most(image, one, n_bytes) for one in ("AVIF", "JPEG")}}
        print(name, {one: (size, round(psnr(image[None], x[None], span=255), 1)) for one, (size, x) in made.items()})
        left, top, right, bottom = box
        rows.append(np.concatenate([x[top:bottom, left:right] for x in (image, *(x for _, x in made.values()))], 1))
    picture = HERE / "pictures" / "compressed.webp"
    Image.fromarray(np.concatenate(rows)).save(picture, "WEBP", quality=88, method=6)


def _at_most(image: np.ndarray, format: str, n_bytes: int) -> tuple[int, np.ndarray]:
    """The largest file that is not larger than some bytes by over 2 %, or the smallest there is."""
    best = None
    for quality in range(1, 100):
        out = io.BytesIO()
        Image.fromarray(image).save(out, format, quality=quality)
        if best is not None and len(out.getvalue()) > 1.02 * n_bytes:
            break
        best = out
    assert best is not None
    return len(best.getvalue()), np.asarray(Image.open(best).convert("RGB"))


if __name__ == "__main__":
    main()
