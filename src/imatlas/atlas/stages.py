"""The stages of learning an atlas: intake, encoder, map, clusters, outliers, layout, generator, report.

Each is a function of a `Job`: it processes all images, keeps what an earlier run learned if that still holds, hands new
columns and models to the job, and returns its decisions as JSON values for the manifest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from imatlas.arguments import counted
from imatlas.atlas.atlas import Atlas
from imatlas.atlas.growth import flags_of, predicted, table_batches, thumbnail_batches, update_of, write_update
from imatlas.atlas.job import Job
from imatlas.atlas.learn_encoder import embed_with_pretrained, encoder_kind_for, features_of, learn_self_supervised
from imatlas.atlas.learn_generator import chosen_generator, learn_autoencoder
from imatlas.atlas.manifest import SKIPPED
from imatlas.atlas.table import ImagesTable
from imatlas.atlas.time_budget import default_budget
from imatlas.errors import InputError
from imatlas.images.dataset import Images
from imatlas.models.layout import MAX_ROWS, MIN_ROWS, Layout
from imatlas.models.outlier_detector import MIN_ROWS as MIN_TO_DETECT
from imatlas.models.outlier_detector import OutlierDetector
from imatlas.neighbors import all_alike
from imatlas.result import Result
from imatlas.system.csv_files import write_csv
from imatlas.tasks.cluster import cluster, limits, sizes_in_words
from imatlas.tasks.conditions import composes
from imatlas.tasks.duplicates.by_hash import duplicate_of
from imatlas.tasks.map import fit_map
from imatlas.tasks.outliers import FALSE_POSITIVE_RATE, count_in_words
from imatlas.tasks.score import NOT_MEASURED, encoder_in_words, score_on_map
from imatlas.tasks.search import EXACT, index_centers

MIN_IMAGES = 2
"""Fewest images that a map can be learned from."""

HELD_OUT, MAX_HELD_OUT = 0.1, 1000
"""Share of images that no model learns from, and their largest number."""

MIN_TO_HOLD_OUT = 8
"""Fewest images of a set from which some are held out."""

MOST_GROWN = 2
"""Number of images, as a multiple of those that the outlier detector was fitted to, from which it is fitted again."""

MOST_OF_ONE = 0.25
"""Largest share of the images that is held out because one content has it."""


def intake(job: Job) -> dict[str, Any]:
    """Decode every image once, find duplicates, hold some out, and write the table and the list of skipped files."""
    images, manifest = job.images, job.manifest
    n = len(images)
    if n < MIN_IMAGES:
        reasons = "; ".join(f"{key}: {reason}" for key, reason in images.skipped[:3])
        raise InputError(
            f"Learning needs at least {MIN_IMAGES} usable images. Got {n}{' (' + reasons + ')' if reasons else ''}; "
            "'imatlas check' and 'imatlas duplicates' work with any number."
        )
    before = manifest.stages.get("intake", {})
    job.update = update_of(job)
    duplicates = duplicate_of(images, reviewed=job.reviewed)
    default_share = min(HELD_OUT, MAX_HELD_OUT / n) if n >= MIN_TO_HOLD_OUT else 0.0
    share = before.get("held_out", default_share)
    held_out = held_out_rows(images.records["sha256"].tolist(), duplicates, share, job.settings.random_state)
    flags = flags_of(job)
    job.of_rows = {"held_out": held_out, "duplicate_of": _keys_of(images, duplicates), "flags": flags}
    manifest.spec = images.spec.to_json()
    if job.update is None:
        manifest.table = {"name": manifest.table.get("name") or manifest.new_table(job.folder)}
        job.journal.writing_table(manifest.table["name"])
        table = ImagesTable.write(
            job.folder / manifest.table["name"],
            table_batches(images, 0, **job.of_rows),
            thumbnail_batches(images, 0),
            job.inventory,
        )
        manifest.table["version"] = table.version
    with job.journal.replacing(SKIPPED) as aside:
        write_csv(aside, ("key", "reason"), images.skipped)
    job.inventory.record([SKIPPED])
    kind, why = encoder_kind_for(images, job.settings.encoder)
    in_words = f"{held_out.sum():,} held out" if held_out.any() else "none held out of so few"
    return {
        "n_images": n,
        "n_skipped": len(images.skipped),
        "held_out": share,
        "encoder": before.get("encoder", kind),
        "why": why,
        "reviewed": job.reviewed_digest,
        "budget": job.settings.budget or default_budget(n),
        "summary": f"{counted(n, 'image')}, {len(images.skipped):,} skipped, "
        f"{counted((duplicates >= 0).sum(), 'duplicate')}, {sum(map(bool, flags)):,} flagged, {in_words}",
    }


def encoder(job: Job) -> dict[str, Any]:
    """Fit or load the encoder, and embed every new image."""
    known = job.update is not None or "encoder" in job.manifest.models
    fresh = job.update.known.fresh if job.update is not None else np.arange(len(job.images))
    decided = {key: job.manifest.stages.get("encoder", {}).get(key) for key in ("preset", "why")}
    if known:
        model = job.model("encoder")
        vectors = features_of(job, model, job.images[fresh]) if len(fresh) else np.empty((0, 0))
    elif job.budget.encoder == "pretrained":
        model, vectors, decided = embed_with_pretrained(job)
        job.save_model("encoder", model)
    elif job.budget.encoder == "self-supervised":
        model = learn_self_supervised(job, job.seconds("encoder"))
        vectors = features_of(job, model, job.images)
        job.save_model("encoder", model)
    else:
        model = learn_autoencoder(job, job.seconds("encoder"), "checkpoint")
        vectors = features_of(job, model, job.images)
        job.save_model("encoder", model, "autoencoder")
    if job.update is not None:
        write_update(job, job.update, vectors)
    else:
        job.save_columns(embedding=vectors)
    del vectors  # the index reads the table and needs the memory
    n_features = job.table.n_features("embedding") or 0
    if len(job.images) > EXACT:
        centers = index_centers(job.table.vectors("embedding"), random_state=job.settings.random_state)
        job.manifest.table["version"] = job.table.index("embedding", centers).version
    new = f"{len(fresh):,} of {counted(len(job.images), 'image')}" if known else counted(len(fresh), "image")
    summary = f"{new} embedded in {counted(n_features, 'dimension')} by {encoder_in_words(model)}"
    if known:
        summary += "; the others keep their features" if len(fresh) else "; all keep their features"
    if decided["why"] is None:
        return {"summary": summary}
    return {"summary": f"{summary}; {decided['why']}", **decided}


def map_(job: Job) -> dict[str, Any]:
    """Fit the map on the embedding; an update keeps the map and places the new images on it."""
    known = "map" in job.manifest.models
    if known:
        som, measured = job.model("map"), job.manifest.metrics["map"]
    else:
        placed = fit_map(
            job.table.vectors("embedding", job.train),
            held_out=job.table.vectors("embedding", job.held_out),
            random_state=job.settings.random_state,
            workers=job.workers,
        )
        som, measured = placed.som, _words_and_numbers(placed.result)
        job.save_model("map", som)

    def predict(vectors: np.ndarray) -> tuple[np.ndarray, ...]:
        x, y = som.project(vectors).T
        return som.predict(vectors).astype(np.int32), x.astype(np.float32), y.astype(np.float32)

    job.save_columns(**predicted(job, known, ("cell", "x", "y"), predict))
    job.manifest.metrics["map"] = measured
    return {"summary": measured["sentences"][0]}


def clusters(job: Job) -> dict[str, Any]:
    """Cluster the embedding; an update keeps the clusters."""
    seed, known = job.settings.random_state, "clusters" in job.manifest.models
    if known:
        model, measured = job.model("clusters"), job.manifest.metrics["clusters"]
    else:
        found = cluster(
            job.table.vectors("embedding", job.train),
            n_clusters=job.settings.clusters,
            random_state=seed,
            seconds=job.seconds("clusters"),
            workers=job.workers,
        )
        model, measured = found.model, _words_and_numbers(found.result)
        job.save_model("clusters", model)

    def predict(vectors: np.ndarray) -> tuple[np.ndarray, ...]:
        return model.predict(vectors).astype(np.int32), model.confidence(vectors)

    columns = predicted(job, known, ("cluster", "confidence"), predict)
    sizes = np.bincount(columns["cluster"], minlength=model.n_clusters_)  # of all images, also held-out and new ones
    measured["sentences"][0] = f"{sizes_in_words(model.n_clusters_, sizes)}."
    measured["metrics"] |= {"smallest": int(sizes.min()), "largest": int(sizes.max())}
    job.manifest.metrics["clusters"] = measured
    job.save_columns(**columns)
    return {"summary": " ".join([measured["sentences"][0], *limits(measured["sentences"])])}


def outliers(job: Job) -> dict[str, Any]:
    """Score how unusual each image is; an update keeps the detector until the images have doubled."""
    n, names = len(job.images), ("outlier", "p_value")
    known = job.model("outliers") if job.update is not None and "outliers" in job.manifest.models else None
    if known is not None and n <= MOST_GROWN * len(known.outlier_scores_):

        def predict(vectors: np.ndarray) -> tuple[np.ndarray, ...]:
            scores = -known.score_samples(vectors)
            return scores.astype(np.float32), known.p_values_of(scores).astype(np.float32)

        columns = predicted(job, True, names, predict)
    elif n < MIN_TO_DETECT:
        columns = dict.fromkeys(names, np.ones(n, np.float32))
    else:
        model = OutlierDetector(false_positive_rate=FALSE_POSITIVE_RATE, random_state=job.settings.random_state)
        model.fit(job.table.vectors("embedding"), workers=job.workers)
        columns = dict(zip(names, (model.outlier_scores_, model.p_values_), strict=True))
        job.save_model("outliers", model)
    job.save_columns(**columns)
    return {"summary": count_in_words(int((columns["p_value"] <= FALSE_POSITIVE_RATE).sum()), n)}


def layout(job: Job) -> dict[str, Any]:
    """Lay the images out in the plane; an update keeps old coordinates and adds those of new images."""
    known = "layout" in job.manifest.models
    if known:
        model = job.model("layout")
    else:
        model = Layout(random_state=job.settings.random_state)
        model.fit(job.table.vectors("embedding", job.train), seconds=job.seconds("layout"))
        job.save_model("layout", model)
    job.save_columns(**predicted(job, known, ("umap_x", "umap_y"), lambda vectors: model.transform(vectors).T))
    n = len(model.references_)
    others = f"; the others are placed among the most similar of these {n:,}" if n < len(job.images) else ""
    if known:
        return {"summary": f"the layout is kept{others}"}
    method = f"UMAP of {n:,} images" if model.by_umap_ else "two principal components"
    in_full = n == min(len(job.train), MAX_ROWS) and (model.by_umap_ or n < MIN_ROWS or all_alike(model.references_))
    reason = "" if in_full else ", because there is no time for more (--budget gives more)"
    return {"summary": f"{method}{reason}{others}"}


def generator(job: Job) -> dict[str, Any]:
    """Train the generator, conditioned on the cell of each image, unless an earlier run has."""
    before = job.manifest.stages.get("generator", {})
    why = before.get("why", "")
    if "generator" not in job.manifest.models:
        model, why = chosen_generator(job, job.seconds("generator"))
        job.save_model("generator", model)
        job.manifest.metrics.pop("quality", None)
        keys, hashes = job.images.keys, job.images.records["sha256"].tolist()
        job.manifest.composed_of = {keys[row]: hashes[row] for row in job.train} if composes(model) else {}
    model = job.model("generator")
    if composes(model):
        summary = f"{type(model).__name__}, composed of {counted(len(model.images_), 'image')}"
        summary += f" with novelty {model.novelty_:g}"
    else:
        verdict = f", held-out loss {model.verdict_}" if len(job.held_out) else ""
        summary = f"{type(model).__name__}, {counted(model.n_steps_, 'step')}{verdict}"
    return {"summary": f"{summary}; {why}" if why else summary, "why": why}


def report(job: Job) -> dict[str, Any]:
    """Score the generator on the held-out images, unless an update keeps it, and write the report."""
    if job.update is None or "quality" not in job.manifest.metrics:
        job.manifest.metrics["quality"] = _words_and_numbers(_score(job) if len(job.held_out) else NOT_MEASURED)
    job.commit()  # the report reads what is committed
    with job.journal.replacing("report.html") as aside:
        Atlas(job.folder).report(aside)
    return {"summary": f"{job.folder / 'report.html'}"}


def _score(job: Job) -> Result:
    """How good the generator is, from the pixel cache."""
    encoder = job.model("encoder")
    return score_on_map(
        job.model("generator"),
        job.map_conditions,
        job.images.pixel_rows.__getitem__,
        train=job.train,
        held_out=job.held_out,
        embedding=job.table.vectors("embedding"),
        spec=job.images.spec,
        encoder=encoder,
        embed=encoder.transform,
        random_state=job.settings.random_state,
        seconds=job.budget.judging_seconds(job.learned),
    )


STAGES: dict[str, Callable[[Job], dict[str, Any]]] = {
    "intake": intake,
    "encoder": encoder,
    "map": map_,
    "clusters": clusters,
    "outliers": outliers,
    "layout": layout,
    "generator": generator,
    "report": report,
}


def held_out_rows(hashes: list[str], duplicates: np.ndarray, share: float, random_state: int) -> np.ndarray:
    """Which images no model may learn from, (n,) bool; decided by content, so that it stays the same as a folder grows.

    An image is held out if the hash of its content and the seed is in the lowest `share` of all hashes. A duplicate
    follows the image that it duplicates, so that no held-out picture is also learned from. If that holds out nothing or
    everything, it is the content with the lowest hash; and where this has more than a quarter of the images, such as
    the frames of the only video, one of them alone.
    """
    if share <= 0:
        return np.zeros(len(hashes), dtype=bool)
    roots = [hashes[d] if d >= 0 else h for h, d in zip(hashes, duplicates.tolist(), strict=True)]
    draws = [int.from_bytes(hashlib.sha256(f"{random_state}:{h}".encode()).digest()[:8], "big") for h in roots]
    held_out = np.array([draw < share * 2**64 for draw in draws], dtype=bool)
    if held_out.all() or not held_out.any():  # tiny sets: the lowest draw alone
        held_out = np.array([draw == min(draws) for draw in draws])
        if held_out.mean() > MOST_OF_ONE:
            held_out[np.argmin(draws) + 1 :] = False
    return held_out


def mark_duplicates(job: Job) -> None:
    """Mark the duplicates of the table again, after they were reviewed; held-out images stay so."""
    originals = duplicate_of(job.images, reviewed=job.reviewed)
    job.save_columns(duplicate_of=pa.array(_keys_of(job.images, originals), pa.string()))
    job.manifest.stages["intake"]["reviewed"] = job.reviewed_digest
    job.commit()


def _keys_of(images: Images, rows: np.ndarray) -> list[str | None]:
    """The keys of rows, None for -1."""
    return [images.keys[row] if row >= 0 else None for row in rows.tolist()]


def _words_and_numbers(result: Result) -> dict[str, Any]:
    """What the manifest keeps of a Result: its words and numbers."""
    plain = result.to_json()
    return {key: plain[key] for key in ("sentences", "metrics", "protocol")}
