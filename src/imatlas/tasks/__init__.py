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
    "doubles": "doubles:find_duplicates",
    "tidy": "tidy:apply_plan",
    "outliers": "outliers:outliers",
    "why_odd": "why_odd:heat_map",
    "flags": "flags:quality_flags",
    "sample": "sample:write_samples",
    "steer": "steer:sample_places",
    "morph": "morph:morph",
    "score": "score:score",
    "fit": "fit:fit_and_save",
    "export": "export:export_model",
    "handover": "handover:write_embedding_atlas",
}
