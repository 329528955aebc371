"""Search: by images of the atlas and others, by regions of them, and by words."""

# no postponed annotations: FastAPI evaluates those of the functions below

import asyncio
from typing import Annotated, Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from pydantic import Field

from imatlas.atlas.decisions import MOST_LETTERS
from imatlas.atlas.words import words
from imatlas.errors import InputError
from imatlas.studio.jobs import Job
from imatlas.studio.opened import Studio
from imatlas.studio.pages import picture
from imatlas.studio.pictures import as_webp, upload_size
from imatlas.studio.requests import Body, Id, Row
from imatlas.studio.views import Views
from imatlas.tasks.words import LEARNED_WITH, Words, matching, names


class Searched(Body):
    """What is searched for: a row or an upload, or a region of it in pixels; and further examples."""

    row: Row | None = None
    upload: Id | None = None
    region: tuple[int, int, int, int] | None = None
    like: Annotated[list[Row], Field(max_length=100, default_factory=list)]
    unlike: Annotated[list[Row], Field(max_length=100, default_factory=list)]
    k: Annotated[int, Field(ge=1, le=1000)] = 60


class Finding(Body):
    """Images by a word."""

    word: Annotated[str, Field(min_length=1, max_length=MOST_LETTERS)]
    k: Annotated[int, Field(ge=1, le=1000)] = 60


class Named:
    """Words for the images of an atlas."""

    def __init__(self, views: Views) -> None:
        self.views = views
        self._words: Words | None = None

    def words(self, job: Job) -> Words:
        """Words for all images; slow at first."""
        if self._words is None:
            self._words = words(
                self.views.store, tell=lambda done, n: job.tell(f"Looking at image {done + 1:,} of {n:,}", done / n)
            )
        return self._words

    def clusters(self, job: Job) -> dict[str, Any]:
        """Words that stand out in each cluster."""
        labels = self.views.clustered(self.views.decisions.state).labels
        found = self.words(job).of_clusters(labels, len(self.views.typical))
        return {
            "clusters": [[{"word": word, "share": round(share, 3)} for word, share in each] for each in found],
            "note": f"Proposed {LEARNED_WITH}.",
        }

    def images(self, word: str, k: int, job: Job) -> dict[str, Any]:
        """The images that a word fits best."""
        names_with_it = [names()[i] for i in matching(word)]  # before the images are looked at
        words = self.words(job)
        rows, probability = words.nearest(word, k)
        found = zip(rows.tolist(), probability.tolist(), words.best_of(word, rows), strict=True)
        keys = self.views.keys
        return {
            "names": names_with_it,
            "results": [
                {"row": row, "key": keys[row], "probability": round(p, 3), "name": name} for row, p, name in found
            ],
        }


def search_routes(api: FastAPI, studio: Studio) -> None:
    """Search by images, and by words."""
    views, named, jobs = studio.views, Named(studio.views), studio.jobs

    @api.post("/api/search")
    def search(query: Searched) -> dict[str, Any]:
        if (query.row is None) == (query.upload is None):
            if query.row is not None or not query.like:
                raise InputError("Give either a row or an upload, or examples.")
            query.row, query.like = query.like[0], query.like[1:]
        given = studio.uploads.find(str(query.upload)) if query.row is None else studio.one(query.row)
        examples = {"like": studio.keys(query.like), "unlike": studio.keys(query.unlike)}
        return {"results": views.nearest(given, query.k, region=query.region, **examples)}

    @api.post("/api/uploads", openapi_extra={"requestBody": {"content": {"application/octet-stream": {}}}})
    async def upload(request: Request) -> dict[str, Any]:
        content = await request.body()
        width, height = await asyncio.to_thread(upload_size, content)
        return {"id": studio.uploads.keep(content), "width": width, "height": height}

    @api.get("/api/uploads/{id}", response_class=Response)
    def get_upload(id: Id) -> Response:
        return picture(as_webp(studio.uploads.find(id), 1600))

    @api.get("/api/words")
    def get_words() -> dict[str, Any]:
        return {"job": jobs.begin("Looking for names", named.clusters, "long").id}

    @api.post("/api/find")
    def find(asked: Finding) -> dict[str, Any]:
        line = f"Looking for '{asked.word}'"
        return {"job": jobs.begin(line, lambda job: named.images(asked.word, asked.k, job), "long").id}
