"""Labels of whole images as COCO JSON, for programs that read object annotations.

COCO has no annotation of a whole image, so each label is an object whose box is the image: pycocotools, FiftyOne and
labeling programs read it, and what is trained on it learns the label.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from imatlas.arguments import counted
from imatlas.errors import InputError
from imatlas.result import FileList, Result
from imatlas.system.atomic_io import write_file
from imatlas.tasks.export import new_file


def coco_labels(
    names: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    labels: Sequence[str | None],
    confidence: Sequence[float | None] | None = None,
) -> dict[str, Any]:
    """The content of a COCO JSON file.

    Parameters
    ----------
    names : sequence of str
        The file name of each image.
    sizes : sequence of (width, height)
    labels : sequence of str or None
        None for an image without a label; it has no annotation.
    confidence : sequence of float or None, optional
        Of labels that were predicted, written as `score`; None for those that a person gave.

    Returns
    -------
    dict
        `images`, `annotations` and `categories`, numbered from 1; categories in order of their names.
    """
    categories = {name: i for i, name in enumerate(sorted({label for label in labels if label is not None}), 1)}
    scores = [None] * len(names) if confidence is None else confidence
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for i, (name, (width, height), label, score) in enumerate(zip(names, sizes, labels, scores, strict=True), 1):
        images.append({"id": i, "file_name": name, "width": width, "height": height})
        if label is not None:
            outline = [[0, 0, width, 0, width, height, 0, height]]
            whole = {"bbox": [0, 0, width, height], "area": width * height, "segmentation": outline, "iscrowd": 0}
            annotation = {"id": len(annotations) + 1, "image_id": i, "category_id": categories[label], **whole}
            annotations.append(annotation if score is None else annotation | {"score": round(float(score), 4)})
    return {
        "info": {"description": "Labels of whole images, written by imatlas; each box is its image."},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i, "name": name, "supercategory": ""} for name, i in categories.items()],
    }


def write_coco(content: dict[str, Any], output: str | Path, *, overwrite: bool = False) -> Result:
    """Write what `coco_labels` returned.

    Parameters
    ----------
    content : dict
    output : path
        Ends in .json.
    overwrite : bool

    Raises
    ------
    InputError
        If the output has another ending, or no image has a label.
    ArtifactError
        If `output` already exists.
    """
    output = new_file(output, (".json",), overwrite)
    images, annotations = content["images"], content["annotations"]
    if not annotations:
        raise InputError(
            "No image has a label, so there is nothing to write; give labels in 'imatlas studio', or in Python with "
            "atlas.decisions.label(keys, label)."
        )
    write_file(output, json.dumps(content).encode())
    n_predicted = sum("score" in annotation for annotation in annotations)
    predicted = f", {n_predicted:,} of them predicted, with their confidence as 'score'" if n_predicted else ""
    return Result(
        name="export",
        title="Export as COCO",
        sentences=[
            f"{counted(len(images), 'image')}, of which {len(annotations):,} have one of "
            f"{counted(len(content['categories']), 'label')}{predicted}."
        ],
        panels=[FileList(files=[(str(output), f"{output.stat().st_size / 1e6:.1f} MB")])],
        data={"files": [str(output)]},
    )
