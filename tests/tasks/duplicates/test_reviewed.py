"""What was decided about duplicates holds in both searches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from imatlas.images.dataset import Images
from imatlas.tasks.duplicates.by_hash import duplicate_of
from imatlas.tasks.duplicates.gallery import Gallery
from imatlas.tasks.duplicates.groups import find_duplicates
from imatlas.tasks.duplicates.reviewed import Reviewed


def four(folder: Path) -> Images:
    """0 to 2 equal files, 3 a smaller copy; 4 and 5 other pictures."""
    cat = data.chelsea()[:240, :240]
    for i in range(3):
        Image.fromarray(cat).save(folder / f"{i}.png")
    Image.fromarray(cat).resize((120, 120), Image.Resampling.LANCZOS).save(folder / "3.png")
    Image.fromarray(data.coffee()[:240, :240]).save(folder / "4.png")
    Image.fromarray(data.astronaut()[:240, :240]).save(folder / "5.png")
    return Images(folder, progress=False)


def both(images: Images, reviewed: Reviewed) -> tuple[list[int], list[int]]:
    """The image that each is a duplicate of, or its own row, by the two searches."""
    gallery = Gallery.of(images)
    by_pairs = find_duplicates(Gallery(**{**vars(gallery), "reviewed": reviewed})).best_of
    by_hash = duplicate_of(images, reviewed=reviewed)
    return by_pairs.tolist(), np.where(by_hash < 0, np.arange(len(images)), by_hash).tolist()


def test_what_was_decided_holds_in_both_searches(tmp_path: Path) -> None:
    images = four(tmp_path)
    assert both(images, Reviewed()) == ([0, 0, 0, 0, 4, 5],) * 2
    assert both(images, Reviewed(chosen={3: 1})) == ([3, 3, 3, 3, 4, 5],) * 2
    assert both(images, Reviewed(chosen={3: 1, 2: 2})) == ([2, 2, 2, 2, 4, 5],) * 2
    alone = frozenset({0, 2, 3})
    without_1 = Reviewed({1: [alone], **{row: [frozenset({1})] for row in alone}})
    assert both(images, without_1) == ([0, 1, 0, 0, 4, 5],) * 2
    small = frozenset({0, 1, 2})
    without_3 = Reviewed({3: [small], **{row: [frozenset({3})] for row in small}})
    assert both(images, without_3) == ([0, 0, 0, 3, 4, 5],) * 2
    nothing = Reviewed({row: [frozenset(range(4))] for row in range(4)})
    assert both(images, nothing) == (list(range(6)),) * 2


def test_what_is_left_of_a_group() -> None:
    different = {1: [frozenset({0})], 0: [frozenset({1})]}
    assert Reviewed().group([0, 1, 2]) == [0, 1, 2]
    assert Reviewed(different).group([0, 1, 2]) == [0, 2]
    assert Reviewed(different, {1: 1}).group([0, 1, 2]) == [1, 2]
    assert Reviewed(different).group([0, 1]) == []
    assert Reviewed({}, {1: 1, 2: 2}).group([0, 1, 2]) == [2, 0, 1]
