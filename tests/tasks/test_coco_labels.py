"""COCO files of labels of whole images, as other programs read them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from imatlas.errors import ArtifactError, InputError
from imatlas.tasks.coco_labels import coco_labels, write_coco

NAMES, SIZES = ["a/1.png", "b.png", "ü.png"], [(30, 20), (10, 10), (7, 9)]


def test_every_label_is_an_object_as_large_as_its_image() -> None:
    found = coco_labels(NAMES, SIZES, ["dog", None, "cat"], [None, None, 0.75])
    assert found["images"][0] == {"id": 1, "file_name": "a/1.png", "width": 30, "height": 20}
    names = {each["id"]: each["name"] for each in found["categories"]}
    assert names == {1: "cat", 2: "dog"}
    first, last = found["annotations"]
    assert (first["image_id"], names[first["category_id"]]) == (1, "dog")
    assert (first["bbox"], first["area"]) == ([0, 0, 30, 20], 600)
    assert "score" not in first  # a person gave it
    assert (last["image_id"], names[last["category_id"]], last["score"]) == (3, "cat", 0.75)
    assert len({each["id"] for each in found["annotations"]}) == 2


def test_pycocotools_reads_it(tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    write_coco(coco_labels(NAMES, SIZES, ["dog", None, "cat"], [None, None, 0.75]), tmp_path / "labels.json")
    read = coco.COCO(str(tmp_path / "labels.json"))
    assert read.getImgIds(catIds=read.getCatIds(["cat"])) == [3]
    (annotation,) = read.loadAnns(read.getAnnIds(imgIds=[1]))
    assert (read.annToMask(annotation) == 1).all()
    assert read.annToMask(annotation).shape == (20, 30)


def test_files_are_written_whole_and_nothing_is_overwritten(tmp_path: Path) -> None:
    content = coco_labels(NAMES, SIZES, ["dog", "dog", None])
    path = tmp_path / "labels.json"
    done = write_coco(content, path)
    assert done.sentences == ["3 images, of which 2 have one of 1 label."]
    assert json.loads(path.read_text()) == content
    with pytest.raises(ArtifactError, match="already exists"):
        write_coco(content, path)
    write_coco(content, path, overwrite=True)
    with pytest.raises(InputError, match=r"\.json file"):
        write_coco(content, tmp_path / "labels.xml")
    with pytest.raises(InputError, match="No image has a label"):
        write_coco(coco_labels(NAMES, SIZES, [None] * 3), tmp_path / "none.json")
