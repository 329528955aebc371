"""An atlas as a service for programs: features, search, clusters, labels and outlier scores of images sent to it.

The body of a request is one image file. Images that arrive together are embedded together. Nothing is written.
"""

# no postponed annotations: FastAPI evaluates those of the functions below

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Request
from pydantic import Field

from imatlas import __version__
from imatlas.atlas.atlas import Atlas
from imatlas.errors import ImatlasError, InputError
from imatlas.images.decode import fitted_to, read_picture
from imatlas.images.picture import Aim
from imatlas.images.spec import ImageSpec
from imatlas.models.outlier_detector import MIN_ROWS, OutlierDetector
from imatlas.studio.batching import Batcher
from imatlas.studio.pages import tell_errors
from imatlas.tasks.search import search

BATCH, WAIT = 32, 0.003
"""Most images that are embedded together, and the seconds that one waits for others."""
FILE = {"requestBody": {"required": True, "content": {"application/octet-stream": {}}}}


class Judge:
    """All that is known of an atlas to judge images by.

    Parameters
    ----------
    atlas : Atlas
    """

    def __init__(self, atlas: Atlas) -> None:
        self.atlas, self.store = atlas, atlas.store
        self.encoder, self.clusters = atlas.model("encoder"), atlas.model("clusters")
        spec, self.fit = self.encoder.spec_, atlas.store.manifest.settings.get("fit", "crop")
        side = self.encoder.source_side if self.encoder.pretrained else None
        self.spec: ImageSpec = spec if side is None else replace(spec, height=side, width=side)
        self.names, self.merged = atlas.decided_clusters.given, atlas.decided_clusters.merged
        self.outliers: OutlierDetector | None = atlas.model("outliers") if len(atlas) >= MIN_ROWS else None
        labels = atlas.decisions.state.labels
        self.labels = atlas.classify(labels, n_next=0).model if len(set(labels.values())) > 1 else None
        self.measures = self.store.spread

    def embed(self, contents: Sequence[bytes]) -> list[np.ndarray | Exception]:
        """Features (n_features,) of each image file, or why there are none."""
        found: list[np.ndarray | Exception] = []
        pixels: list[np.ndarray] = []
        for content in contents:
            try:
                pixels.append(self._pixels(content))
                found.append(pixels[-1])
            except ImatlasError as error:
                found.append(InputError(f"This is no image that can be used ({error})."))
        features = iter(self.encoder.transform(np.stack(pixels)) if pixels else ())
        return [each if isinstance(each, Exception) else next(features) for each in found]

    def _pixels(self, content: bytes) -> np.ndarray:
        """An image file as the encoder sees it (H, W, C)."""
        aim = Aim(self.spec.height, self.spec.width, self.fit)
        return fitted_to(read_picture(content, aim=aim), self.spec, self.fit, quick=True)

    def nearest(self, features: np.ndarray, k: int) -> dict[str, Any]:
        """The nearest images of the atlas."""
        found = search(self.store.vectors, features[None], k=min(k, len(self.store)), measures=self.measures)
        rows = found.indices[0].tolist()
        values = zip(rows, found.distances[0].tolist(), found.closer_than[0].tolist(), strict=True)
        keys = self.atlas.keys
        return {"images": [{"key": keys[row], "distance": d, "closer_than": share} for row, d, share in values]}

    def classified(self, features: np.ndarray) -> dict[str, Any]:
        """The cluster, as decided in the studio, and the label, if labels of two classes were given."""
        cluster = int(self.merged[self.clusters.predict(features[None])[0]])
        confidence = float(self.clusters.confidence(features[None], groups=self.merged)[0])
        found: dict[str, Any] = {
            "cluster": cluster, "cluster_name": self.names.get(cluster), "cluster_confidence": confidence,
            "label": None, "label_confidence": None,
        }  # fmt: skip
        if self.labels is not None:
            probability = self.labels.predict_proba(features[None])[0]
            best = int(probability.argmax())
            found |= {"label": str(self.labels.classes_[best]), "label_confidence": float(probability[best])}
        return found

    def outlier(self, features: np.ndarray, false_positive_rate: float) -> dict[str, Any]:
        """How unusual an image is beside those of the atlas."""
        if self.outliers is None:
            raise InputError(f"The atlas has fewer than {MIN_ROWS} images, too few to tell what is unusual.")
        score = -self.outliers.score_samples(features[None])
        p_value = float(self.outliers.p_values_of(score)[0])
        return {"outlier_score": float(score[0]), "p_value": p_value, "is_outlier": p_value <= false_positive_rate}


def service_api(atlas: Atlas) -> FastAPI:
    """The service of an atlas as an ASGI application, for whoever asks.

    Raises
    ------
    ArtifactError
        If the atlas is not learned far enough.
    """
    judge = Judge(atlas)
    batcher: list[Batcher] = []

    @contextlib.asynccontextmanager
    async def living(_: FastAPI) -> AsyncIterator[None]:
        batcher.append(Batcher(judge.embed, most=BATCH, wait=WAIT))
        working = asyncio.create_task(batcher[0].run())
        yield
        working.cancel()

    api = FastAPI(title="imatlas service", version=__version__, docs_url=None, redoc_url=None, lifespan=living)
    tell_errors(api)

    async def features_of(request: Request) -> np.ndarray:
        features: np.ndarray = await batcher[0].ask(await request.body())
        return features

    @api.get("/health")
    def health() -> dict[str, Any]:
        store = judge.store
        return {
            "atlas": atlas.name, "n_images": len(store), "n_features": store.table.n_features("embedding"),
            "encoder": type(judge.encoder).__name__, "has_labels": judge.labels is not None,
        }  # fmt: skip

    @api.post("/embed", openapi_extra=FILE)
    async def embed(request: Request) -> dict[str, Any]:
        return {"features": (await features_of(request)).tolist()}

    @api.post("/search", openapi_extra=FILE)
    async def nearest(request: Request, k: Annotated[int, Field(ge=1, le=1000)] = 10) -> dict[str, Any]:
        return await asyncio.to_thread(judge.nearest, await features_of(request), k)

    @api.post("/classify", openapi_extra=FILE)
    async def classify(request: Request) -> dict[str, Any]:
        return await asyncio.to_thread(judge.classified, await features_of(request))

    @api.post("/outlier", openapi_extra=FILE)
    async def outlier(
        request: Request, false_positive_rate: Annotated[float, Field(gt=0, le=0.5)] = 0.01
    ) -> dict[str, Any]:
        return await asyncio.to_thread(judge.outlier, await features_of(request), false_positive_rate)

    return api
