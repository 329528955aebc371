"""What may be asked of the studio."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field

from imatlas.atlas.decisions import MOST_LETTERS

Row = Annotated[int, Field(ge=0, lt=2**31)]
Rows = Annotated[list[Row], Field(max_length=2_000_000)]
Label = Annotated[str, Field(max_length=MOST_LETTERS)]
Id = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Labeling(_Body):
    """Give images a label; null takes it away."""

    kind: Literal["label"]
    rows: Rows
    value: Label | None


class LeavingOut(_Body):
    """Mark images to be left out, or not."""

    kind: Literal["leave_out"]
    rows: Rows
    value: bool


class Naming(_Body):
    """Name a cluster; an empty name takes it away."""

    kind: Literal["name"]
    cluster: Row
    value: Label


class Moving(_Body):
    """Duplicates whose files are moved to the trash."""

    rows: Rows


class Searched(_Body):
    """What is searched for: a row or an upload, or a region of it in pixels; and further examples."""

    row: Row | None = None
    upload: Id | None = None
    region: tuple[int, int, int, int] | None = None
    like: Annotated[list[Row], Field(max_length=100)] = []
    unlike: Annotated[list[Row], Field(max_length=100)] = []
    k: Annotated[int, Field(ge=1, le=1000)] = 60


class Propagating(_Body):
    """Spread the labels over all images."""

    n_next: Annotated[int, Field(ge=0, le=1000)] = 24


class Exporting(_Body):
    """A table of some images, or a list of their keys."""

    rows: Rows
    format: Literal["csv", "list"] = "csv"


class Finding(_Body):
    """Images by a word."""

    word: Annotated[str, Field(min_length=1, max_length=MOST_LETTERS)]
    k: Annotated[int, Field(ge=1, le=1000)] = 60


class Creating(_Body):
    """New images of the place of a row, or of a cell of the map."""

    row: Row | None = None
    cell: Row | None = None
    n: Annotated[int, Field(ge=1, le=64)] = 8
    novelty: Annotated[float, Field(ge=0, le=1)] | None = None
    strength: Annotated[float, Field(ge=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


class Listed(BaseModel):
    """Which images, and in which order."""

    sort: Literal["key", "cluster", "outlier", "confidence", "width", "height"] = "key"
    descending: bool = False
    cluster: int | None = None
    label: Label | None = None
    flag: Label | None = None
    text: Label | None = None
    left_out: bool | None = None
    rows: list[int] | None = None


def listed_by(
    sort: Literal["key", "cluster", "outlier", "confidence", "width", "height"] = "key",
    descending: bool = False,
    cluster: int | None = None,
    label: Label | None = None,
    flag: Label | None = None,
    text: Label | None = None,
    left_out: bool | None = None,
    rows: Annotated[str | None, Query(pattern=r"^\d{1,9}(,\d{1,9})*$", description="numbers of images")] = None,
) -> Listed:
    """The query of a list, of which `rows` is a text of numbers."""
    numbers = None if rows is None else [int(row) for row in rows.split(",")]
    return Listed(
        sort=sort, descending=descending, cluster=cluster, label=label, flag=flag, text=text, left_out=left_out,
        rows=numbers,
    )  # fmt: skip
