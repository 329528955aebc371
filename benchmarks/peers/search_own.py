"""Search with imatlas or scikit-learn: `search_own.py VECTORS.npy QUERIES.npy SETTINGS.json FOUND.npy`; prints JSON.

Settings: `model`, "imatlas index", "imatlas exact" or "scikit-learn brute"; `do`, "build" or "search"; `folder`, of the
table of "imatlas index"; `tried`, a list of [probes, refine] to search with. Queries are timed one at a time after a
warm-up, for each setting.
"""

import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from imatlas.atlas import table
from imatlas.atlas.store import Indexed
from imatlas.atlas.table import SCHEMA, ImagesTable, files_on_disk
from imatlas.tasks.search import InMemory, index_centers

WARM_UP = 50
Search = Callable[[np.ndarray], np.ndarray]


def build(vectors: Path, folder: Path) -> dict[str, float]:
    """Write the table as `learn` does, and its index; the seconds of both."""
    embedding = np.load(vectors)
    began = time.perf_counter()
    written = ImagesTable.write(folder, _rows(len(embedding))).set(embedding=embedding)
    stored = time.perf_counter() - began
    centers = index_centers(embedding)
    del embedding
    written.index("embedding", centers).clean(files_on_disk(folder))
    return {"stored": stored, "indexed": time.perf_counter() - began - stored}


def _rows(n: int) -> Any:
    for start in range(0, n, table.ROWS):
        keys = [f"{i:08d}.jpg" for i in range(start, min(start + table.ROWS, n))]
        empty = {"sha256": [""], "held_out": [False], "duplicate_of": [None], "flags": [""]}
        columns = {name: values * len(keys) for name, values in empty.items()}
        sizes = {name: pa.array([224] * len(keys), pa.int32()) for name in ("width", "height")}
        yield pa.record_batch({"key": keys, **sizes, **columns}, schema=SCHEMA)


def searches(settings: dict[str, Any], vectors: Path) -> list[tuple[str, Search]]:
    """Each setting in words, and how it is searched: queries (n, n_features) -> rows (n, 10)."""
    if settings["model"] == "imatlas index":
        indexed = Indexed(ImagesTable(settings["folder"]))

        def probing(probes: int, refine: int) -> Search:
            def search(queries: np.ndarray) -> np.ndarray:
                table.PROBES, table.REFINE = probes, refine
                return indexed.nearest(queries, 10)[0]

            return search

        return [(f"{p} lists, refined {r} times", probing(p, r)) for p, r in settings["tried"]]
    embedding = np.load(vectors)
    if settings["model"] == "imatlas exact":
        return [("all rows", lambda queries: InMemory(embedding).nearest(queries, 10)[0])]
    from sklearn.neighbors import NearestNeighbors

    model = NearestNeighbors(n_neighbors=10, algorithm="brute").fit(embedding)
    return [("all rows", lambda queries: model.kneighbors(queries, return_distance=False))]


def timed(search: Search, queries: np.ndarray) -> tuple[np.ndarray, list[float], float]:
    """The rows found (n, 10), the seconds of each query asked alone, and the mean seconds of processor a query."""
    for query in queries[:WARM_UP]:
        search(query[None])
    rows, seconds, used = [], [], time.process_time()
    for query in queries:
        began = time.perf_counter()
        rows.append(search(query[None])[0])
        seconds.append(time.perf_counter() - began)
    return np.array(rows), seconds, (time.process_time() - used) / len(queries)


def main() -> None:
    vectors, queries = Path(sys.argv[1]), np.load(sys.argv[2])
    settings = json.loads(Path(sys.argv[3]).read_text())
    told: dict[str, Any] = {"version": version("scikit-learn" if settings["model"].startswith("scikit") else "imatlas")}
    if settings["do"] == "build":
        print(json.dumps(told | build(vectors, Path(settings["folder"]))), flush=True)
        return
    found = []
    for name, search in searches(settings, vectors):
        rows, seconds, used = timed(search, queries[: settings["n_queries"]])
        found.append(rows)
        told.setdefault("settings", []).append({"name": name, "seconds": seconds, "cpu": used})
    np.save(sys.argv[4], np.stack(found))
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
