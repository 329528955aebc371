"""`check` describes a set of images before anything is learned."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from imatlas import Images
from imatlas.tasks.check import check


def test_check_describes_a_folder(mixed_folder: Path) -> None:
    images = Images(mixed_folder)
    result = check(
        images,
        estimate={
            "minutes": 4.5,
            "memory_gb": 1.2,
            "cache_gb": 0.3,
            "encoder": "own",
            "why": "own, because there are few images",
        },
    )
    text = " ".join(result.sentences)
    for words in (
        "7 images of 200 x 200 to 600 x 512 pixels, 8-bit color (5 PNG, 2 JPEG).",
        "1 file cannot be used, such as broken.jpg: ",
        "ignored: 1 other file (no images: 1 .txt)",
        "1 exact duplicate and 1 near-duplicate.",
        "64 px",
        "Fit: ",
        "about 4.5 minutes and 1.2 GB of memory on this machine, and 0.3 GB of disk space while it lasts.",
        "Encoder: own, because there are few images.",
    ):
        assert words in text, (words, text)
    values = json.loads(json.dumps(result.to_json()))
    counted = {"n_images": 7, "n_skipped": 1, "n_exact_duplicates": 1, "n_near_duplicates": 1, "n_flagged": 3}
    assert values["metrics"] == counted
    assert values["formats"] == {"PNG": 5, "JPEG": 2}
    assert values["suggested"] == {"image_size": [64, 64], "fit": "pad"}
    assert len(values["skipped"]) == 2


def test_check_of_clean_arrays(rng: np.random.Generator) -> None:
    result = check(Images(rng.integers(0, 256, (20, 28, 28), np.uint8)))
    assert result.sentences[0] == "20 images of 28 x 28 pixels, 8-bit gray (20 array)."
    assert result.sentences[1] == "All images can be used."
    assert result.data["suggested"]["fit"] == "crop"
