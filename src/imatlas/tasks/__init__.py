"""The table of tasks: functions of models, images or embeddings, and options, that give a Result or plain arrays."""

from __future__ import annotations

TASKS: dict[str, str] = {
    "check": "check:check",
    "embed": "embed:choose_eyes",
    "map": "map:fit_map",
    "regions": "regions:regions",
    "cluster": "cluster:cluster",
    "search": "search:search",
    "classify": "classify:classify",
    "explain": "explain:explain_cluster",
    "duplicates": "duplicates:duplicates",
    "outliers": "outliers:outlier_scores",
    "sample": "sample:write_samples",
    "steer": "steer:sample_places",
    "morph": "morph:morph",
    "score": "score:score",
    "fit": "fit:fit_and_save",
    "export": "export:export_model",
}
