"""The table of tasks: each is a function (models, images or embeddings, options) that gives a Result or plain arrays."""

from __future__ import annotations

TASKS: dict[str, str] = {
    "check": "check:check",
    "map": "map:fit_map",
    "cluster": "cluster:cluster",
    "search": "search:search",
    "duplicates": "duplicates:duplicates",
    "outliers": "outliers:outlier_scores",
    "sample": "sample:write_samples",
    "score": "score:score",
    "fit": "fit:fit_and_save",
}
