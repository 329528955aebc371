"""Search with faiss: `search_faiss.py VECTORS.npy QUERIES.npy SETTINGS.json FOUND.npy`; prints a line of JSON.

Settings: `model`, the string for `faiss.index_factory`; `do`, "build" or "search"; `folder`, the file of the index;
`tried`, a list of {parameter: value} to search with. Queries are timed one at a time after a warm-up.
"""

import json
import sys
import time

import faiss
import numpy as np

WARM_UP, ROWS = 50, 50_000

with open(sys.argv[3], encoding="utf-8") as file:
    settings = json.load(file)
faiss.omp_set_num_threads(settings["threads"])
facts = {"version": faiss.__version__}
if settings["do"] == "build":
    vectors = np.load(sys.argv[1], mmap_mode="r")
    began = time.perf_counter()
    index = faiss.index_factory(vectors.shape[1], settings["model"])
    if not index.is_trained:
        some = np.sort(np.random.default_rng(0).permutation(len(vectors))[:64_000])
        index.train(np.ascontiguousarray(vectors[some]))
    for start in range(0, len(vectors), ROWS):
        index.add(np.ascontiguousarray(vectors[start : start + ROWS]))
    facts["indexed"] = time.perf_counter() - began
    faiss.write_index(index, settings["folder"])
else:
    index, queries = faiss.read_index(settings["folder"]), np.load(sys.argv[2])[: settings["n_queries"]]
    found, facts["settings"] = [], []
    for chosen in settings["tried"]:
        for name, value in chosen.items():
            faiss.ParameterSpace().set_index_parameter(index, name, value)
        for query in queries[:WARM_UP]:
            index.search(query[None], 10)
        rows, seconds, used = [], [], time.process_time()
        for query in queries:
            began = time.perf_counter()
            rows.append(index.search(query[None], 10)[1][0])
            seconds.append(time.perf_counter() - began)
        used = (time.process_time() - used) / len(queries)
        found.append(rows)
        text = ", ".join(f"{name} {value}" for name, value in chosen.items()) or "all rows"
        facts["settings"].append({"name": text, "seconds": seconds, "cpu": used})
    np.save(sys.argv[4], np.array(found))
print(json.dumps(facts), flush=True)
