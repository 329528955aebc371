"""The stages of learning an atlas: intake, encoder, map, clusters, layout, generator, report.

Each is a function of a `Job`. It does its part for all images of the job, keeps what an earlier run learned where that
still holds, hands new columns and models to the job, and returns what it decided, as JSON values for the manifest.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from imatlas.arguments import counted as number_of
from imatlas.atlas.atlas import Atlas
from imatlas.atlas.journal import Journal
from imatlas.atlas.manifest import SKIPPED, Manifest
from imatlas.atlas.table import ROWS, SCHEMA, ImagesTable
from imatlas.errors import InputError
from imatlas.images.dataset import Images
from imatlas.models import artifact
from imatlas.models.autoencoder import FEW_IMAGES, Autoencoder
from imatlas.models.layout import MAX_ROWS, MIN_ROWS, Layout
from imatlas.models.parts.feature_cache import FeatureCache
from imatlas.models.pretrained import PretrainedEncoder
from imatlas.models.self_supervised import SelfSupervisedEncoder
from imatlas.neighbors import all_alike
from imatlas.result import Result
from imatlas.system.csv_files import write_csv
from imatlas.system.inventory import Inventory
from imatlas.system.threads import slowdown
from imatlas.tasks.choose_encoder import encoder_for, within_time
from imatlas.tasks.cluster import cluster, limits, sizes_in_words
from imatlas.tasks.conditions import MapConditions, sample_from_map
from imatlas.tasks.duplicates.by_hash import duplicate_of
from imatlas.tasks.map import fit_map
from imatlas.tasks.outliers import outlier_scores
from imatlas.tasks.quality_flags import Flags, quality_flags
from imatlas.tasks.score import MOST_TRAIN, NOT_MEASURED, encoder_in_words, score
from imatlas.tasks.search import EXACT, index_centers
from imatlas.training.checkpoints import Checkpoint

FEWEST = 2
"""Images below which there is nothing to learn a map from."""

HELD_OUT, MOST_HELD_OUT = 0.1, 1000
"""The share of images that no model learns from, and the number that is enough to measure with."""

FEWEST_TO_HOLD_OUT = 8
"""Images below which all are learned from: one held-out image of so few would cost much and measure nothing."""

CHOOSING = 0.1
"""The share of the budget that a comparison of pretrained eyes may take."""

FROM_RECORDS = ("key", "width", "height", "sha256")
"""Columns of the table that are copied from what the intake recorded."""

SHARES = {
    "pretrained": {"encoder": 0.25, "map": 0.04, "clusters": 0.06, "layout": 0.04, "generator": 0.51, "report": 0.10},
    "self-supervised": {
        "encoder": 0.35,
        "map": 0.04,
        "clusters": 0.06,
        "layout": 0.04,
        "generator": 0.41,
        "report": 0.10,
    },
    "own": {"encoder": 0.74, "map": 0.04, "clusters": 0.06, "layout": 0.04, "generator": 0.02, "report": 0.10},
}
"""How the budget is meant to be spent. What an early stage leaves goes to the generator, an autoencoder with a mixture
over its vectors; where that is also the encoder, only the mixture is left for the generator's stage."""

LEAST = (0.25, 0.5)
"""Of its share of the budget, what a stage gets however long those before it took; and what the generator gets."""

ROOM = 0.15
"""Share of the budget that grouping, or the layout, may take where it takes so long: UMAP compiles its parts once."""

JUDGING, LEAST_JUDGING = 0.6, 0.15
"""Of the time of the report, for judging new images: at most, and where writing it takes longer than that; the rest is
for what else it tells."""

REPORT = (3.0, 0.003)
"""Seconds that writing the report takes, and those for each image: 3.7 for 261 photographs and 6.7 for 1,000, measured
on two quiet cores."""

SHARPNESS, SHARPENING = 0.05, 0.33
"""How much the autoencoder's decoder is sharpened, and the share of its time for that. Rebuilt clothes lay at a Fréchet
distance of 2.3 without, 0.9 with it. Of 950 photographs a discriminator made a pattern of dots, and their error rose
from 0.83 to 1.02 times that of PCA: so few images are not sharpened."""


EncoderKind = Literal["auto", "pretrained", "own", "self-supervised"]


@dataclass(frozen=True)
class Settings:
    """What the user asked for. The same again continues or updates an atlas; a difference stops with a list.

    But for `files`, which of those at the source were named: these may change as they come and go.
    """

    source: str = ""
    files: str = ""
    budget: float | None = None
    clusters: int | None = None
    encoder: EncoderKind = "auto"
    image_size: int | None = None
    fit: str = "crop"
    frames: str = "first"
    field: str | None = None
    random_state: int = 0
    device: str = "auto"


@dataclass(frozen=True)
class Previous:
    """The images that an earlier run has embedded: key -> (sha256, row), and the embedding by row."""

    rows: dict[str, tuple[str, int]]
    embedding: np.ndarray


@dataclass
class Job:
    """One call of `learn` while it runs."""

    folder: Path
    images: Images
    settings: Settings
    manifest: Manifest
    journal: Journal
    say: Callable[[str], None]
    emit: Callable[[dict[str, Any]], None]
    progress: bool
    started: float = field(default_factory=time.perf_counter)
    learned: float = 0.0  # seconds of learning, after the pixel cache exists
    previous: Previous | None = None  # what an earlier run knows, where this one updates its atlas

    @property
    def fingerprint(self) -> str:
        """What the stages are done for: the content of the usable images, and nothing else."""
        return str(self.images.fingerprint)

    @cached_property
    def inventory(self) -> Inventory:
        """The files of the atlas that count."""
        return self.manifest.inventory(self.folder)

    @property
    def table(self) -> ImagesTable:
        """The committed images table."""
        named = self.manifest.table
        return ImagesTable(self.folder / named["name"], named["version"], self.inventory)

    @property
    def kind(self) -> str:
        """The kind of encoder that was chosen at intake: "pretrained", "own" or "self-supervised"."""
        return str(self.manifest.stages["intake"]["encoder"])

    @property
    def budget(self) -> float:
        """Seconds of learning in all."""
        return float(self.manifest.stages["intake"]["budget"])

    @property
    def train(self) -> np.ndarray:
        """Rows of the images that models may learn from."""
        return np.flatnonzero(~self._held_out)

    @property
    def held_out(self) -> np.ndarray:
        """Rows of the images that are kept for measuring."""
        return np.flatnonzero(self._held_out)

    @property
    def validation(self) -> Images | None:
        """The held-out images, where there are any."""
        return self.images[self.held_out] if len(self.held_out) else None

    @cached_property
    def _held_out(self) -> np.ndarray:
        return self.table.read(["held_out"])["held_out"].to_numpy()

    @property
    def feature_cache(self) -> FeatureCache:
        """Features that the pretrained encoder gave before."""
        return FeatureCache(self.folder / "cache" / "features")

    def model(self, role: str) -> Any:
        """The saved model of a role."""
        name = self.manifest.models[role]
        self.inventory.check(self.inventory.below(name))
        return artifact.load(self.folder / name)

    @property
    def map_conditions(self) -> MapConditions:
        """Where all images lie on the map."""
        rows = self.table.read(["cell", "cluster"])
        return MapConditions.on(self.model("map"), rows["cell"].to_numpy(), rows["cluster"].to_numpy())

    def allowance(self, stage: str) -> float:
        """Seconds that a stage may take: its share, and what earlier stages left over."""
        shares = SHARES[self.kind]
        names = list(shares)
        due = sum(shares[name] for name in names[: names.index(stage) + 1]) * self.budget
        if stage == "generator" or (stage == "encoder" and self.kind == "own"):  # what learns until it is stopped
            due -= max(0.0, self.report_seconds - shares["report"] * self.budget)
        return max(LEAST[stage == "generator"] * shares[stage] * self.budget, due - self.learned)

    @property
    def report_seconds(self) -> float:
        """What writing the report takes, about: a short budget leaves it more than its share."""
        return REPORT[0] + REPORT[1] * len(self.images)

    def room(self, stage: str) -> float:
        """`allowance` of a stage that cannot do with less than `ROOM` of the budget without a loss that shows."""
        return max(self.allowance(stage), ROOM * self.budget)

    def save_columns(self, **columns: Any) -> None:
        """Add or replace columns of the images table; they count from the next commit on."""
        self.journal.writing_table(self.manifest.table["name"])
        self.manifest.table["version"] = self.table.set(**columns).version

    def save_model(self, role: str, model: Any, name: str | None = None) -> None:
        """Save a model under a new name; it counts from the next commit on."""
        folder = self.manifest.new_name(self.folder, name or role)
        self.inventory.record(self.journal.save_model(folder, model.save))
        self.manifest.models[role] = folder

    def commit(self) -> None:
        """Make what was learned until now count."""
        with self.journal.replacing("atlas.json") as aside:
            self.manifest.commit(self.folder, aside)


def intake(job: Job) -> dict[str, Any]:
    """Decode every image once, find duplicates, hold some out, and write the table and the list of what was skipped."""
    images, manifest = job.images, job.manifest
    n = len(images)
    if n < FEWEST:
        reasons = "; ".join(f"{key}: {reason}" for key, reason in images.skipped[:3])
        raise InputError(
            f"Learning needs at least {FEWEST} usable images. Got {n}{' (' + reasons + ')' if reasons else ''}; "
            "'imatlas check' and 'imatlas duplicates' work with any number."
        )
    before = manifest.stages.get("intake", {})
    if "embedding" in (job.table.columns if manifest.table else ()):
        job.previous = _previous(job.table)
    double = duplicate_of(images)
    usual_share = min(HELD_OUT, MOST_HELD_OUT / n) if n >= FEWEST_TO_HOLD_OUT else 0.0
    share = before.get("held_out", usual_share)
    held_out = held_out_rows(images.records["sha256"].tolist(), double, share, job.settings.random_state)
    manifest.spec = images.spec.to_json()
    manifest.table = {"name": manifest.table.get("name") or manifest.new_table(job.folder)}
    flags = quality_flags(images.thumbnails, images.records["width"], images.records["height"])
    job.journal.writing_table(manifest.table["name"])
    table = ImagesTable.write(
        job.folder / manifest.table["name"],
        _table_batches(images, held_out, double, flags),
        (images.thumbnails[start : start + ROWS] for start in range(0, n, ROWS)),
        job.inventory,
    )
    manifest.table["version"] = table.version
    with job.journal.replacing(SKIPPED) as aside:
        _write_skipped(aside, images.skipped)
    job.inventory.record([SKIPPED])
    kind, why = choose_encoder(images, job.settings.encoder)
    kind = before.get("encoder", kind)
    budget = job.settings.budget or default_budget(n)
    kept_back = f"{held_out.sum():,} held out" if held_out.any() else "too few to hold any out"
    said = (
        f"{number_of(n, 'image')}, {len(images.skipped):,} skipped, {(double >= 0).sum():,} duplicates, "
        f"{len(flags.rows):,} flagged, {kept_back}"
    )
    return {
        "n_images": n,
        "n_skipped": len(images.skipped),
        "held_out": share,
        "encoder": kind,
        "why": why,
        "budget": budget,
        "said": said,
    }


def encoder(job: Job) -> dict[str, Any]:
    """Learn or load the eyes, and embed every image that has no place yet."""
    known = "encoder" in job.manifest.models
    # What another encoder made of an image is in another space: with a new one, every image is embedded.
    old = _rows_known_before(job) if known else np.full(len(job.images), -1)
    fresh = np.flatnonzero(old < 0)
    decided = {key: job.manifest.stages.get("encoder", {}).get(key) for key in ("preset", "why")}
    if known:
        model = job.model("encoder")
        options = {"cache": job.feature_cache} if model.pretrained else {}
        vectors = np.asarray(model.transform(job.images[fresh], **options)) if len(fresh) else np.empty((0, 0))
    elif job.kind == "pretrained":
        model, vectors, decided = _embed_with_pretrained(job)
        job.save_model("encoder", model)
    elif job.kind == "self-supervised":
        model = _learn_self_supervised(job, job.allowance("encoder"))
        vectors = model.transform(job.images)
        job.save_model("encoder", model)
    else:
        model = _learn_autoencoder(job, job.allowance("encoder"), "checkpoint")
        vectors = model.transform(job.images)
        job.save_model("encoder", model, "autoencoder")
    n_features = vectors.shape[1] if len(fresh) or job.previous is None else job.previous.embedding.shape[1]
    embedding = np.empty((len(job.images), n_features), np.float32)
    if len(fresh):
        embedding[fresh] = vectors
    if job.previous is not None and len(fresh) < len(embedding):
        embedding[old >= 0] = job.previous.embedding[old[old >= 0]]
    job.save_columns(embedding=embedding)
    if len(embedding) > EXACT:
        centers = index_centers(embedding, random_state=job.settings.random_state)
        del embedding, vectors  # the index reads the table, and needs the room
        job.manifest.table["version"] = job.table.index("embedding", centers).version
    new = f"{len(fresh):,} of {number_of(len(embedding), 'image')}" if known else number_of(len(fresh), "image")
    said = f"{new} embedded in {number_of(n_features, 'dimension')} by {encoder_in_words(model)}"
    if known:
        said += "; the others keep their places" if len(fresh) else "; all keep their places"
    if decided["why"] is None:
        return {"said": said}
    return {"said": f"{said}; {decided['why']}", **decided}


def map_(job: Job) -> dict[str, Any]:
    """Lay the embedding out on a lattice; an update keeps the lattice and places the new images on it."""
    embedding = job.table.vectors("embedding")
    known = job.model("map") if "map" in job.manifest.models else None
    placed = fit_map(
        embedding[job.train], held_out=embedding[job.held_out], som=known, random_state=job.settings.random_state
    )
    if known is None:
        job.save_model("map", placed.som)
    cells = placed.som.predict(embedding)
    x, y = placed.som.project(embedding).T
    job.save_columns(cell=cells.astype(np.int32), x=x.astype(np.float32), y=y.astype(np.float32))
    job.manifest.metrics["map"] = _numbers(placed.result)
    return {"said": placed.result.sentences[0]}


def clusters(job: Job) -> dict[str, Any]:
    """Group the embedding, and score how odd each image is."""
    embedding = job.table.vectors("embedding")
    seed = job.settings.random_state
    model = job.model("clusters") if "clusters" in job.manifest.models else None
    if model is not None and hasattr(model, "confidence"):
        said = job.manifest.metrics["clusters"]
    else:  # nothing was grouped yet, or by what tells no confidence
        asked, seconds = job.settings.clusters, job.room("clusters")
        found = cluster(embedding[job.train], n_clusters=asked, random_state=seed, seconds=seconds)
        model, said = found.model, _numbers(found.result)
        job.save_model("clusters", model)
    labels, sure = model.predict(embedding), model.confidence(embedding)
    sizes = np.bincount(labels, minlength=model.n_clusters_)  # with those that were held out, or came later
    said["sentences"][0] = f"{sizes_in_words(model.n_clusters_, sizes)}."
    said["metrics"] |= {"smallest": int(sizes.min()), "largest": int(sizes.max())}
    job.manifest.metrics["clusters"] = said
    scores = outlier_scores(embedding, random_state=seed)
    job.save_columns(cluster=labels.astype(np.int32), confidence=sure, outlier=scores.astype(np.float32))
    return {"said": " ".join([said["sentences"][0], *limits(said["sentences"])])}


def layout(job: Job) -> dict[str, Any]:
    """Lay the images out in the plane; an update keeps all old places and finds some for the new images."""
    embedding = job.table.vectors("embedding")
    known = "layout" in job.manifest.models
    if known:
        model = job.model("layout")
    else:
        model = Layout(random_state=job.settings.random_state).fit(embedding[job.train], seconds=job.room("layout"))
        job.save_model("layout", model)
    x, y = model.transform(embedding).T
    job.save_columns(umap_x=x, umap_y=y)
    n = len(model.references_)
    said = (
        "the layout is kept from before"
        if known
        else f"UMAP of {n:,} images"
        if model.by_umap_
        else "two principal components"
    )
    if not known and (
        n < min(len(job.train), MAX_ROWS) or (n >= MIN_ROWS and not model.by_umap_ and not all_alike(model.references_))
    ):
        said += ", because there is no time for more (--budget gives more)"
    others = f"; all others are placed by their neighbors among {n:,}" if n < len(embedding) else ""
    return {"said": f"{said}{others}"}


def generator(job: Job) -> dict[str, Any]:
    """Learn to make images, told of the cell of each, unless an earlier run has learned it."""
    if "generator" not in job.manifest.models:
        job.save_model("generator", _learn_generator(job, job.allowance("generator")))
    model = job.model("generator")
    verdict = f", held-out loss {model.verdict_}" if len(job.held_out) else ""
    return {"said": f"{type(model).__name__}, {model.n_steps_:,} steps{verdict}"}


def report(job: Job) -> dict[str, Any]:
    """Measure on the held-out images and write the report."""
    seed = job.settings.random_state
    train = job.train
    if len(train) > MOST_TRAIN:
        train = np.sort(np.random.default_rng(seed).choice(train, MOST_TRAIN, replace=False))
    eyes, embedding = job.model("encoder"), job.table.vectors("embedding")
    model, map_conditions = job.model("generator"), job.map_conditions
    result = (
        NOT_MEASURED
        if not len(job.held_out)
        else score(
            model,
            np.asarray(job.images.pixels[train]),
            np.asarray(job.images.pixels[job.held_out]),
            spec=job.images.spec,
            embed=eyes.transform,
            encoder=encoder_in_words(eyes),
            features=(embedding[train], embedding[job.held_out]),
            sample=lambda n, seed: sample_from_map(model, map_conditions, n, random_state=seed),
            random_state=seed,
            seconds=_for_judging(job),
        )
    )
    job.manifest.metrics["quality"] = _numbers(result)
    job.commit()  # the report reads what counts
    with job.journal.replacing("report.html") as aside:
        Atlas(job.folder).report(aside)
    return {"said": f"{job.folder / 'report.html'}"}


def _for_judging(job: Job) -> float:
    """Seconds to measure new images in: what writing the report leaves, or a small part of its share."""
    allowed = job.allowance("report")
    return max(LEAST_JUDGING * allowed, min(JUDGING * allowed, allowed - job.report_seconds))


STAGES: dict[str, Callable[[Job], dict[str, Any]]] = {
    "intake": intake,
    "encoder": encoder,
    "map": map_,
    "clusters": clusters,
    "layout": layout,
    "generator": generator,
    "report": report,
}


def default_budget(n_images: int) -> float:
    """Seconds of learning where the user names none: 90 up to 500 images, 180 to 5,000, 300 to 20,000, 600 above."""
    for most, seconds in ((500, 90.0), (5_000, 180.0), (20_000, 300.0)):
        if n_images <= most:
            return seconds
    return 600.0


def choose_encoder(images: Images, asked: str) -> tuple[str, str]:
    """The eyes to use, and the reason in words.

    Photographs (8-bit color without alpha, 32 px and more) get the pretrained network, everything else an
    autoencoder of its own: ImageNet has no gray, 16-bit or many-channel pictures.
    """
    spec = images.spec
    side = float(np.median(np.minimum(images.records["width"], images.records["height"])))
    if asked != "auto":
        return asked, f"{asked}, as asked"
    if spec.channels == 3 and spec.dtype == "uint8" and side >= 32:
        return "pretrained", (
            "pretrained EfficientNet-Lite0 (learned with ImageNet's labels), because these are 8-bit color pictures; "
            "--encoder own uses no labels at all"
        )
    return "own", (
        f"an autoencoder learned from these images alone, because they are not 8-bit color photographs "
        f"({spec.channels} channels, {spec.dtype}, {side:.0f} px); --encoder pretrained forces the other"
    )


def held_out_rows(hashes: list[str], double: np.ndarray, share: float, random_state: int) -> np.ndarray:
    """Which images no model may learn from: decided by content, so that it holds when the folder grows.

    An image is held out where a hash of its content and the seed falls into the lowest `share` of all hashes. Doubles
    go where the image goes that they double, so that no held-out picture is also learned from; but where all images
    are one picture, one copy of it is held out. A share of 0 holds none out.
    """
    if share <= 0:
        return np.zeros(len(hashes), dtype=bool)
    root = [hashes[d] if d >= 0 else h for h, d in zip(hashes, double.tolist(), strict=True)]
    draws = [hashlib.sha256(f"{random_state}:{h}".encode()).digest()[:8] for h in root]
    held_out = np.array([int.from_bytes(d, "big") < share * 2**64 for d in draws], dtype=bool)
    if held_out.all() or not held_out.any():  # tiny sets: exactly the lowest draw
        held_out[:] = False
        held_out[np.argmin([int.from_bytes(d, "big") for d in draws])] = True
    return held_out


def _embed_with_pretrained(job: Job) -> tuple[PretrainedEncoder, np.ndarray, dict[str, Any]]:
    """The pretrained eyes that suit the images, their components learned from the training images, the place of every
    image, and what was chosen and why."""
    began = time.perf_counter()
    train = job.images[job.train]
    chosen = encoder_for(
        train,
        n_all=len(job.images),
        seconds=CHOOSING * job.budget / slowdown(),
        device=job.settings.device,
        random_state=job.settings.random_state,
    )
    left = job.allowance("encoder") - (time.perf_counter() - began)
    model, reduced = within_time(chosen.encoder, job.images, seconds=max(0.0, left), cache=job.feature_cache)
    learned = model.fit_transform(train, cache=job.feature_cache)
    vectors = np.empty((len(job.images), learned.shape[1]), np.float32)
    vectors[job.train] = learned
    if len(job.held_out):
        vectors[job.held_out] = model.transform(job.images[job.held_out], cache=job.feature_cache)
    return model, vectors, {"preset": chosen.name, "why": "; ".join(filter(None, (chosen.why, reduced)))}


def _learn_generator(job: Job, seconds: float) -> Autoencoder:
    """The autoencoder that images are made with, told the cell of each; learned here where it is not the encoder."""
    encoder, told = job.model("encoder"), job.map_conditions.prototypes[job.map_conditions.cells]
    if hasattr(encoder, "fit_prior"):
        return encoder.fit_prior(job.images[job.train], told[job.train])
    return _learn_autoencoder(job, seconds, "checkpoint-generator", told)


def _learn_autoencoder(job: Job, seconds: float, checkpoint: str, told: np.ndarray | None = None) -> Autoencoder:
    """An autoencoder of the training images, sharpened where they are enough for a discriminator."""
    images, sharp = job.images[job.train], len(job.train) >= FEW_IMAGES
    place = Checkpoint(job.folder / "cache" / checkpoint, disposable=True)
    model: Autoencoder = (
        _autoencoder(job)
        .set_params(budget=round((1 - SHARPENING) * seconds if sharp else seconds, 1))
        .fit(
            images,
            None if told is None else told[job.train],
            validation=job.validation,
            validation_y=told[job.held_out] if told is not None and len(job.held_out) else None,
            checkpoint=place,
            callback=job.emit,
        )
    )
    if sharp:
        model.sharpen(
            images,
            weight=SHARPNESS,
            validation=job.validation,
            budget=round(max(SHARPENING * seconds, seconds - model.seconds_), 1),
            checkpoint=place.below("sharpening"),
            callback=job.emit,
        )
    return model


def _autoencoder(job: Job) -> Autoencoder:
    """The autoencoder for images of this size, not fitted."""
    size = max(job.images.spec.height, job.images.spec.width)
    return Autoencoder(
        latent_dim=64 if size <= 32 else 128,
        random_state=job.settings.random_state,
        device=job.settings.device,
        progress=job.progress,
    )


def _learn_self_supervised(job: Job, seconds: float) -> SelfSupervisedEncoder:
    """An encoder of these images alone, from its checkpoint where an earlier run was killed."""
    settings = job.settings
    return SelfSupervisedEncoder(
        budget=round(seconds, 1),
        random_state=settings.random_state,
        device=settings.device,
        progress=job.progress,
    ).fit(
        job.images[job.train],
        validation=job.validation,
        checkpoint=Checkpoint(job.folder / "cache" / "checkpoint", disposable=True),
        callback=job.emit,
    )


def _previous(table: ImagesTable) -> Previous:
    known = table.read(["key", "sha256"])
    keys, hashes = known["key"].to_pylist(), known["sha256"].to_pylist()
    rows = {key: (sha, row) for row, (key, sha) in enumerate(zip(keys, hashes, strict=True))}
    return Previous(rows, table.vectors("embedding"))


def _rows_known_before(job: Job) -> np.ndarray:
    """For each image its row in the table of an earlier run, or -1 where its content is new."""
    if job.previous is None:
        return np.full(len(job.images), -1)
    known = [job.previous.rows.get(key, ("", -1)) for key in job.images.keys]
    hashes = job.images.records["sha256"].tolist()
    return np.array([row if sha == now else -1 for (sha, row), now in zip(known, hashes, strict=True)])


def _table_batches(images: Images, held_out: np.ndarray, double: np.ndarray, flags: Flags) -> Iterator[pa.RecordBatch]:
    """The rows that the intake knows, in batches that bound memory."""
    for start in range(0, len(images), ROWS):
        some = range(start, min(start + ROWS, len(images)))
        known = {name: pa.array(images.records[start : some.stop].table[name].to_pylist()) for name in FROM_RECORDS}
        columns = {
            **{name: known[name].cast(SCHEMA.field(name).type) for name in FROM_RECORDS},
            "held_out": held_out[start : some.stop],
            "duplicate_of": [images.keys[double[i]] if double[i] >= 0 else None for i in some],
            "flags": flags.of[start : some.stop],
        }
        yield pa.record_batch(columns, schema=SCHEMA)


def _write_skipped(path: Path, skipped: list[tuple[str, str]]) -> None:
    write_csv(path, ("key", "reason"), skipped)


def _numbers(result: Result) -> dict[str, Any]:
    """What the manifest keeps of a Result: its words and numbers."""
    plain = result.to_json()
    return {key: plain[key] for key in ("sentences", "metrics", "protocol")}
