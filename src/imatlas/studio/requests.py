"""What may be asked of the studio."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from imatlas.atlas.decisions import MOST_LETTERS

Row = Annotated[int, Field(ge=0, lt=2**31)]
Rows = Annotated[list[Row], Field(max_length=2_000_000)]
Label = Annotated[str, Field(max_length=MOST_LETTERS)]
Id = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]

NUMBERS = r"^\d{1,9}(,\d{1,9})*$"


class Body(BaseModel):
    """Of a request; nothing unknown is in it."""

    model_config = ConfigDict(extra="forbid")


def _numbers(given: object) -> object:
    text = given[0] if isinstance(given, list) and len(given) == 1 else given  # as FastAPI gives what is a list
    return [int(row) for row in text.split(",")] if isinstance(text, str) and re.fullmatch(NUMBERS, text) else given


class Listed(Body):
    """Which images, and in which order; `rows` as "1,2,3"."""

    sort: Literal["key", "cluster", "outlier", "confidence", "width", "height"] = "key"
    descending: bool = False
    cluster: int | None = None
    label: Label | None = None
    flag: Label | None = None
    text: Label | None = None
    left_out: bool | None = None
    rows: Annotated[Rows | None, BeforeValidator(_numbers), WithJsonSchema({"type": "string", "pattern": NUMBERS})] = (
        None
    )
