"""Hashes by imagehash: `hash_files.py LIST.txt OUT.npz [KIND ...]`; prints seconds as JSON.

Kinds: phash, dhash, whash. LIST.txt holds one path per line. Times: from files, and from decoded images (measured on
the first 1,000 and scaled to all).
"""

import json
import sys
import time
from importlib.metadata import version

import imagehash
import numpy as np
from PIL import Image

HASHES = {
    "phash": imagehash.phash,
    "dhash": imagehash.dhash,
    "whash": imagehash.whash,
}


def on_white(image):
    """An image as RGB, composited on white."""
    if image.mode in ("RGBA", "LA", "P"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


with open(sys.argv[1], encoding="utf-8") as file:
    paths = file.read().splitlines()
found, facts = {}, {}
for kind in sys.argv[3:]:
    hash_of = HASHES[kind]
    began = time.perf_counter()
    values = []
    for path in paths:
        with Image.open(path) as image:
            bits = hash_of(on_white(image)).hash.flatten()
            values.append(int("".join("1" if bit else "0" for bit in bits), 2))
    from_files = time.perf_counter() - began
    images = [on_white(Image.open(path)) for path in paths[:1000]]
    began = time.perf_counter()
    for image in images:
        hash_of(image)
    decoded = (time.perf_counter() - began) * len(paths) / len(images)
    found[kind] = np.array(values, np.uint64)
    facts[kind] = {
        "version": version("imagehash"),
        "from_files": from_files,
        "decoded": decoded,
    }
np.savez(sys.argv[2], **found)
print(json.dumps(facts), flush=True)
