"""Working on one picture: its segments, restoring it, compressing it."""

# no postponed annotations: FastAPI evaluates those of the functions below

import struct
from typing import Annotated, Any

import numpy as np
from fastapi import Depends, FastAPI, Query
from fastapi.responses import Response
from PIL import Image, ImageDraw
from pydantic import Field

from imatlas.errors import DecodeError, InputError, SourceError
from imatlas.images.encode import encode
from imatlas.models.parts.salient_object import salient_object, soft_alpha
from imatlas.models.parts.scribbles import segment_by_strokes
from imatlas.studio.compressing import Compressing, compressed_piece
from imatlas.studio.opened import Kept, Studio
from imatlas.studio.requests import Body, Id, Row
from imatlas.studio.restoring import Restorers, Restoring, restored_piece
from imatlas.studio.workpiece import Workpiece
from imatlas.tasks.region_files import label_png

MOST_OPEN, MOST_FILES = 4, 24
"""Pictures that are worked on, and files that were made of them; older ones are forgotten."""
MOST_LABELS = 255

Coordinate = Annotated[float, Field(ge=-1e5, le=1e5)]


class Opening(Body):
    """Which picture is worked on: a row, or an upload and the name of its file."""

    row: Row | None = None
    upload: Id | None = None
    name: Annotated[str, Field(min_length=1, max_length=255)] = "picture"


class Stroke(Body):
    """A line of a label, or, of label 0, one that erases; in pixels."""

    label: Annotated[int, Field(ge=0, le=MOST_LABELS)]
    width: Annotated[float, Field(ge=1, le=1000)]
    points: Annotated[list[tuple[Coordinate, Coordinate]], Field(min_length=1, max_length=20_000)]


class Scribbling(Body):
    """All strokes, in their order."""

    strokes: Annotated[list[Stroke], Field(max_length=1000)]


class Made(Kept):
    """Files that were made, each as (bytes, media type)."""

    def keep_file(self, content: bytes, kind: str) -> str:
        """The address of a new file."""
        return f"/api/work/files/{self.keep((content, kind))}"


def work_routes(api: FastAPI, studio: Studio) -> None:
    """Opening a picture, restoring it and compressing it."""
    pieces, files = Kept("picture", MOST_OPEN), Made("file", MOST_FILES)
    restorers, jobs = Restorers(studio.views), studio.jobs

    def piece_of(id: Id) -> Workpiece:
        found: Workpiece = pieces.find(id)
        return found

    Piece = Annotated[Workpiece, Depends(piece_of)]

    @api.post("/api/work")
    def open_piece(asked: Opening) -> dict[str, Any]:
        piece = opened_piece(studio, asked)
        return {"id": pieces.keep(piece), "picture": files.keep_file(piece.shown(piece.view), "image/png")} | (
            piece.describe()
        )

    @api.get("/api/work/files/{id}", response_class=Response)
    def get_file(id: Id) -> Response:
        content, kind = files.find(id)
        return Response(content, media_type=kind, headers={"cache-control": "private, max-age=3600"})

    @api.post("/api/work/{id}/restore")
    def restore(piece: Piece, asked: Restoring) -> dict[str, Any]:
        line = f"Waiting to work on {piece.name}"
        job = jobs.begin(line, lambda job: restored_piece(piece, asked, restorers, files.keep_file, job), "long")
        return {"job": job.id}

    @api.post("/api/work/{id}/compress")
    def compress(piece: Piece, asked: Compressing) -> dict[str, Any]:
        return {"job": jobs.begin("Compressing", lambda job: compressed_piece(piece, asked, files.keep_file, job)).id}

    segment_routes(api, studio, piece_of)


def segment_routes(api: FastAPI, studio: Studio, piece_of: Any) -> None:
    """The parts of a picture, from fine to coarse, from strokes, and its salient object."""
    Piece = Annotated[Workpiece, Depends(piece_of)]

    @api.post("/api/work/{id}/segments")
    def find_segments(piece: Piece) -> dict[str, Any]:
        def work() -> dict[str, Any]:
            return {"n_regions": piece.graph.hierarchy.n_regions}

        return {"job": studio.jobs.start("Finding the parts of the picture", work).id}

    @api.get("/api/work/{id}/regions", response_class=Response)
    def get_regions(piece: Piece) -> Response:
        return Response(packed_regions(piece), media_type="application/octet-stream")

    @api.get("/api/work/{id}/labels", response_class=Response)
    def get_labels(piece: Piece, level: Annotated[float, Query(ge=0, le=1)]) -> Response:
        return Response(label_png(piece.graph.hierarchy.cut(level)), media_type="image/png")

    @api.post("/api/work/{id}/strokes", response_class=Response)
    def continue_strokes(piece: Piece, asked: Scribbling) -> Response:
        drawn = rasterized(asked.strokes, piece.pixels.shape[:2])
        if len(np.unique(drawn[drawn > 0])) < 2:
            return Response(status_code=204)
        labels = segment_by_strokes(piece.graph, drawn).labels.astype(np.uint8)
        return Response(encode(labels, compress_level=1), media_type="image/png")

    @api.get("/api/work/{id}/object", response_class=Response)
    def get_object(piece: Piece) -> Response:
        return Response(encode(cut_out_object(piece), compress_level=1), media_type="image/png")


def opened_piece(studio: Studio, asked: Opening) -> Workpiece:
    """The picture that was asked for.

    Raises
    ------
    InputError
        If neither or both of a row and an upload are given, or the picture cannot be read.
    HTTPException
        404, if it is not known.
    """
    if (asked.row is None) == (asked.upload is None):
        raise InputError("Give either a row or an upload.")
    if asked.upload is not None:
        return Workpiece(asked.name, studio.uploads.find(asked.upload))
    views, row = studio.views, studio.one(asked.row or 0)
    key = views.keys[row]
    try:
        content = views.store.originals.content(key, views.texts(row)["sha256"])
    except (DecodeError, SourceError, OSError) as error:
        raise InputError(
            f"The original of '{key}' cannot be read ({error}); put it back, or bring a picture of your own."
        ) from None
    return Workpiece(key, content)


def packed_regions(piece: Workpiece) -> bytes:
    """The hierarchy of a picture: n, width, height as uint32, 4 empty bytes; levels (2 n - 1) float64; parents
    (2 n - 1) int32; regions (H, W) uint16, or uint32 of more than 65,536."""
    tree = piece.graph.hierarchy
    height, width = tree.regions.shape
    head = struct.pack("<4I", tree.n_regions, width, height, 0)
    regions = tree.regions.astype("<u2" if tree.n_regions <= 2**16 else "<u4")
    return head + tree.levels.astype("<f8").tobytes() + tree.parents.astype("<i4").tobytes() + regions.tobytes()


def rasterized(strokes: list[Stroke], shape: tuple[int, ...]) -> np.ndarray:
    """Strokes as labels (H, W) uint8, 0 where nothing is drawn; later ones cover earlier ones."""
    image = Image.new("L", (shape[1], shape[0]))
    draw = ImageDraw.Draw(image)
    for stroke in strokes:
        draw.line(stroke.points, fill=stroke.label, width=max(1, round(stroke.width)))
        for x, y in stroke.points:  # round ends and corners
            draw.circle((x, y), stroke.width / 2, fill=stroke.label)
    return np.asarray(image)


def cut_out_object(piece: Workpiece) -> np.ndarray:
    """The picture (H, W, 4) uint8, transparent but for its salient object.

    Raises
    ------
    InputError
        If nothing stands out.
    """
    found = salient_object(piece.graph)
    if not found.mask.any():
        raise InputError("Nothing stands out: the whole picture is one part.")
    alpha = np.rint(255 * soft_alpha(piece.view, found.mask)).astype(np.uint8)[..., None]
    return np.concatenate([np.where(alpha > 0, piece.view, 0), alpha], axis=2)
