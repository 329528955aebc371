"""Exports of some images: tables, lists of names, COCO labels, and archives of the files.

Whatever is exported is a download: the server writes nothing to disk, so no name that a request gives can be a path.
"""

# no postponed annotations: FastAPI evaluates those of the functions below

import json
import zipfile
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query
from fastapi.responses import Response, StreamingResponse

from imatlas.errors import DecodeError, InputError, SourceError, UnsafePathError
from imatlas.images.keys import copy_name
from imatlas.studio.opened import Kept, Studio
from imatlas.studio.requests import Body, Id, Listed, Rows
from imatlas.studio.views import Views
from imatlas.system.atomic_io import relative
from imatlas.system.csv_files import csv_bytes
from imatlas.tasks.coco_labels import coco_labels

Format = Literal["csv", "list", "coco", "zip"]
FILES = {"csv": "images.csv", "list": "images.txt", "coco": "labels.json", "zip": "images.zip"}
TYPES = {"csv": "text/csv; charset=utf-8", "list": "text/plain; charset=utf-8"}
COLUMNS = ("key", "label", "left_out", "cluster", "outlier", "confidence", "width", "height")
MOST_KEPT = 16
"""Exports that were asked for and not yet downloaded."""


class Table(Listed):
    """All of a list."""

    format: Format = "csv"


class Exporting(Body):
    """Some images in this order, or a list of them."""

    rows: Rows | None = None
    filters: Listed = Listed()
    format: Format = "csv"


def export_routes(api: FastAPI, studio: Studio) -> None:
    """Downloads: of a list by its address, of some images in two steps, as their rows may be too many for one."""
    views, asked_for = studio.views, Kept("export", MOST_KEPT)

    @api.get("/api/export", response_class=Response)
    def export(query: Annotated[Table, Query()]) -> Response:
        return exported(views, studio.listed(query), query.format)

    @api.post("/api/export")
    def ask(asked: Exporting) -> dict[str, Any]:
        rows = studio.listed(asked.filters) if asked.rows is None else studio.known(asked.rows)
        checked(views, rows, asked.format)
        return {"id": asked_for.keep((rows, asked.format))}

    @api.get("/api/export/{id}", response_class=Response)
    def download(id: Id) -> Response:
        return exported(views, *asked_for.find(id))


def checked(views: Views, rows: list[int], format: Format) -> None:
    """Refuse what cannot be exported, in words.

    Raises
    ------
    InputError
        If there are no images, or none has a label.
    SourceError
        If their files are gone.
    """
    if not rows:
        raise InputError("There are no images to export; select some, or change the filters.")
    if format == "coco" and (views.labels(views.decisions.state)[0][rows] < 0).all():
        raise InputError("None of these images has a label, and COCO holds labels; label some first.")
    if format == "zip":
        views.store.originals.source([], [])


def exported(views: Views, rows: list[int], format: Format) -> Response:
    """Some images as a download."""
    checked(views, rows, format)
    name = f"{views.atlas.name}-{FILES[format]}"
    safe = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-._ ") else "_" for letter in name)
    headers = {"content-disposition": f'attachment; filename="{safe}"', "cache-control": "no-store"}
    if format == "zip":
        return StreamingResponse(_archive(views, rows), media_type="application/zip", headers=headers)
    made = {"csv": _csv, "list": _list, "coco": _coco}[format](views, rows)
    return Response(made, media_type=TYPES.get(format, "application/json"), headers=headers)


def _list(views: Views, rows: Iterable[int]) -> bytes:
    """The keys of images, one in each line."""
    return "".join(f"{views.keys[row]}\n" for row in rows).encode()


def _csv(views: Views, rows: Iterable[int]) -> bytes:
    """A table of images."""
    return csv_bytes(COLUMNS, ([image[name] for name in COLUMNS] for image in _described(views, rows)))


def _described(views: Views, rows: Iterable[int]) -> Iterator[dict[str, Any]]:
    """Images with the names of their clusters."""
    names = views.clustered(views.decisions.state).decided.names
    return ({**image, "cluster": names[image["cluster"]]} for image in views.images(rows))


def _coco(views: Views, rows: Iterable[int]) -> bytes:
    """The labels of images as COCO."""
    images = views.images(rows)
    sizes = [(image["width"], image["height"]) for image in images]
    made = coco_labels([image["key"] for image in images], sizes, [image["label"] for image in images])
    return json.dumps(made).encode()


class _Sink:
    """What an archive is written to: parts that are taken away while it grows."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, content: bytes) -> int:
        self._parts.append(bytes(content))
        return len(content)

    def flush(self) -> None:
        """Nothing is held back."""

    def taken(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


def _archive(views: Views, rows: list[int]) -> Iterator[bytes]:
    """A ZIP archive of the original files, image by image, then the table of them and their labels.

    An image whose original is gone, or has changed, is only in the table. Files are not compressed again.
    """
    sink, files = _Sink(), dict[int, str]()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload]
        for row in rows:
            name = f"images/{copy_name(views.keys[row])}"
            try:
                relative(views.keys[row])
                content = views.store.originals.copy(views.keys[row], views.texts(row)["sha256"])
            except (DecodeError, SourceError, UnsafePathError, OSError):
                continue
            if isinstance(content, bytes):  # others are pixels of an array
                archive.writestr(name, content)
                files[row] = name
                yield sink.taken()
        table = (
            [*(image[column] for column in COLUMNS), files.get(image["row"], "")] for image in _described(views, rows)
        )
        archive.writestr("images.csv", csv_bytes((*COLUMNS, "file"), table))
        if (views.labels(views.decisions.state)[0][rows] >= 0).any():
            archive.writestr("labels.json", _coco(views, rows))
    yield sink.taken()
