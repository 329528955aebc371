"""Speed of perceptual hashes and near-duplicate detection: `python -m benchmarks duplicates_speed hashes|scale`.

`hashes`: hashes per second; `scale`: time and memory for up to 100,000 images. Peer environment: imagehash (see
`benchmarks._peers`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks._data import fashion_mnist
from benchmarks._edits import edited_copy
from benchmarks._memory import run_measured
from benchmarks._peers import PEERS, last_json
from benchmarks._table import save_table
from benchmarks.duplicates import HASHES, PYTHON, files
from imatlas import Images
from imatlas.images import decode, hashing
from imatlas.tasks.duplicates.by_hash import near_pairs
from imatlas.tasks.duplicates.features import Features
from imatlas.tasks.duplicates.gallery import Gallery
from imatlas.tasks.duplicates.groups import find_duplicates


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks duplicates_speed")
    parser.add_argument("part", choices=["hashes", "scale", "one"])
    parser.add_argument("--images", type=int, nargs="+", default=[25_000, 50_000, 100_000])
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    if options.part == "hashes":
        hashes_per_second()
    elif options.part == "scale":
        scale(options.images)
    else:
        one(options.images[0])


def hashes_per_second() -> None:
    """Hashes per second on one core, from files and from decoded pixels."""
    paths = files("grocery_photos")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "list.txt").write_text("\n".join(map(str, paths)))
        arguments = [str(PYTHON), str(PEERS / "hash_files.py"), f"{folder}/list.txt", f"{folder}/out.npz", *HASHES]
        for _ in range(3):
            peer = last_json(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout)
            began = time.perf_counter()
            assert len(Images(paths, image_size=64, fit="stretch", workers=1).records) == len(paths)
            read = time.perf_counter() - began
            pictures = [decode.read_picture(path.read_bytes()) for path in paths]
            began = time.perf_counter()
            hashing.hash_bits(np.stack([hashing.amplitudes(picture.gray()) for picture in pictures]))
            own = time.perf_counter() - began
            gallery = Gallery.of(paths)
            began = time.perf_counter()
            Features.of(gallery.pixels_of, len(gallery))
            features = time.perf_counter() - began
            rows.append(
                [read, own, features, *(peer[kind][way] for kind in HASHES for way in ("from_files", "decoded"))]
            )
    rate = len(paths) / np.median(rows, axis=0)
    table = [["imatlas, hash", rate[0], rate[1], None], ["imatlas, features at 64 px", None, rate[2], None]]
    for i, kind in enumerate(HASHES):
        table.append(
            [f"imagehash {peer[kind]['version']}, {kind}", *rate[3 + 2 * i : 5 + 2 * i], rate[1] / rate[4 + 2 * i]]
        )
    save_table(
        "duplicates_speed",
        f"Hashes per second: {len(paths):,} images of Grocery photos, 348 px, one core",
        ["method", "from files", "from decoded images", "imatlas / method, decoded"],
        table,
        ["Medians of 3 interleaved runs. From files, imatlas also makes the SHA-256, pixels of 64 px and the cache."],
    )


def scale(sizes: list[int]) -> None:
    """Time and memory of near-duplicate detection, one process per size."""
    rows = []
    for n in sizes:
        run = run_measured([sys.executable, "-m", "benchmarks", "duplicates_speed", "one", "--images", str(n)])
        facts = last_json(run.output)
        rows.append(
            [
                n,
                facts["seconds"],
                1e3 * facts["seconds"] / n,
                run.peak_mb,
                facts["recall"],
                facts["extra"],
                facts["hash"],
            ]
        )
        print(rows[-1], flush=True)
    columns = ["images", "seconds", "ms per image", "peak PSS MB", "recall of planted copies", "other duplicates"]
    save_table(
        "duplicates_scale",
        "Near-duplicates among many similar images: Fashion-MNIST with recompressed copies, one core",
        [*columns, "hash search s"],
        rows,
        ["3 % of the n images are recompressed copies; more beyond the 70,000 of the set: 30,000 of 100,000."],
    )


def one(n: int) -> None:
    """One size; prints a line of JSON."""
    pixels = np.concatenate([fashion_mnist(part)[0] for part in ("train", "t10k")])
    originals = min(len(pixels), round(0.97 * n))
    rng = np.random.default_rng(0)
    true = rng.permutation(originals)[: n - originals]
    images = np.empty((n, 28, 28), np.uint8)
    images[:originals] = pixels[:originals]
    for row, source in zip(range(originals, n), true.tolist()):
        images[row] = np.asarray(Image.open(BytesIO(edited_copy(Image.fromarray(pixels[source]), "recompressed", rng))))
    del pixels
    opened = Images(images)
    began = time.perf_counter()
    near_pairs(np.unique(opened.records["phash"]), 3)
    hashed = time.perf_counter() - began
    began = time.perf_counter()
    found = find_duplicates(opened)
    seconds = time.perf_counter() - began
    right = float((found.group[originals:] == found.group[true])[found.group[true] >= 0].sum() / max(1, len(true)))
    extra = int(found.result.metrics["n_duplicates"] - right * len(true))
    print(json.dumps({"seconds": seconds, "recall": right, "extra": extra, "hash": hashed}), flush=True)
