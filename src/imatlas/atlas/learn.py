"""learn: from a source of images to an atlas, stage by stage, each committed when it is done.

    intake -> encoder -> map -> clusters -> outliers -> layout -> generator -> report

A stage is done for one fingerprint of the images. The same call again therefore continues a stopped run, does nothing
if nothing has changed, and updates a finished atlas if images were added or removed: the learned models stay, so every
old image keeps its place, and only new images are embedded. Damaged parts are learned again, with the stages that
depend on them (`imatlas.atlas.repair`).
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from imatlas.arguments import (
    RandomState,
    check_int,
    check_path,
    check_seed,
    counted,
    is_address,
    refused,
    shown,
    strict_yes,
)
from imatlas.atlas.atlas import Atlas
from imatlas.atlas.decisions import Decisions
from imatlas.atlas.growth import in_table_order
from imatlas.atlas.home import Folder, home_of
from imatlas.atlas.job import EncoderKind, Job, Settings
from imatlas.atlas.journal import NAME, OWN_FOLDER, Journal
from imatlas.atlas.learn_encoder import CHOOSING, encoder_kind_for
from imatlas.atlas.manifest import OURS, Manifest, locked, replaceable
from imatlas.atlas.originals import signed_text
from imatlas.atlas.previews import PREVIEWS, known_previews
from imatlas.atlas.repair import forget_damaged, like_the_models, use_clean_table
from imatlas.atlas.stages import STAGES, mark_duplicates
from imatlas.atlas.table import THUMBNAIL, address
from imatlas.atlas.time_budget import TimeBudget, default_budget
from imatlas.errors import ArtifactError, ParameterError
from imatlas.images.cache import holds_only_caches
from imatlas.images.cuts import CUTS, checked_video
from imatlas.images.dataset import Images
from imatlas.images.sources.origin import place_of, same_place
from imatlas.images.spec import MAX_IMAGE_SIDE
from imatlas.models.parts.feature_cache import MAX_BYTES as FEATURE_CACHE
from imatlas.models.pretrained import PretrainedEncoder
from imatlas.nn.backbones import N_FEATURES
from imatlas.scale.ray_cluster import check_address, connected
from imatlas.system import processes
from imatlas.system.atomic_io import is_link, make_folder, refuse_links, remove_listed
from imatlas.system.terminal import say
from imatlas.system.threads import sharing_cores, usable_cores
from imatlas.tasks.choose_encoder import COMBINED_OPTIONS, embedding_seconds, max_views, within_time
from imatlas.tasks.duplicates.signature import sign
from imatlas.training import checkpoints
from imatlas.training.devices import pick_device
from imatlas.training.progress import JsonLines
from imatlas.training.schedule import parse_budget

BASE_MEMORY_GB = 1.2
"""Peak memory of a run on a few images: libraries, one training batch, and the table. Measured."""

MEMORY_PER_IMAGE, MEMORY_PER_FURTHER, MANY = 13_000, 1_700, 100_000
"""Bytes that each image adds to it, most of them in the report, and each beyond `MANY`: key, hash and record. Measured:
2.5 GB of 100,000 images, 4.0 GB of a million, without mapped files."""

SECONDS_PER_IMAGE = 0.0008
"""Of one core for all of each image but intake and encoder: flags, cell, cluster, outlier score, position. Measured."""

OVERRUN = (1.2, 1.0)
"""A stage overran if it took more than its time by this factor and this many seconds."""


@sharing_cores()
@strict_yes
def learn(
    images: Any,
    path: str | Path,
    *,
    budget: str | float | None = None,
    clusters: int | None = None,
    encoder: EncoderKind = "auto",
    image_size: int | None = None,
    fit: Literal["crop", "pad", "stretch"] = "crop",
    frames: Literal["first", "all"] = "first",
    video: str | float = CUTS,
    field: str | None = None,
    random_state: RandomState = 0,
    device: str = "auto",
    overwrite: bool = False,
    moved_from: str | Path | None = None,
    cache_size: int | str | None = None,
    cluster: str | None = None,
    progress: bool = True,
    callback: Callable[[dict[str, Any]], None] | None = None,
) -> Atlas:
    """Learn an atlas from images, save it as it grows, and open it.

    Parameters
    ----------
    images : Images, or anything that `Images` takes
        At least 2 usable ones; of 8 and more some are held out, to measure the generator with.
    path : path or str
        The atlas folder, or an address such as "s3://bucket/photos.atlas" (docs/object_store.md). An unfinished atlas
        of the same source and settings is continued, a finished one updated.
    budget : str or float, optional
        Time for learning after the pixel cache exists: "90s", "5m", "1h" or seconds. Default: 90 s up to 500
        images, 3 minutes up to 5,000, 5 minutes up to 20,000, 10 minutes above.
    clusters : int, optional
        The number of clusters. Default: chosen by the rule of `imatlas.tasks.cluster`.
    encoder : {'auto', 'pretrained', 'own', 'self-supervised'}
        'pretrained' is EfficientNet-Lite0, trained with ImageNet's labels; 'own' is an autoencoder trained on these
        images alone; 'self-supervised', also trained on these alone, clusters better and leaves less time for the
        generator (`imatlas.SelfSupervisedEncoder`). 'auto' is 'pretrained' for 8-bit color, 'own' for all others.
    image_size : int, optional
        Side in pixels at which the models see the images. Default: chosen by `Images`.
    fit : {'crop', 'pad', 'stretch'}
        How images of other aspect ratios become square.
    frames : {'first', 'all'}
        What to read from animations and stacks of pages; the frames of one file are held out together or not at all.
        Given `Images` have their own setting.
    video : str or float
        What to read from videos: 'cuts', or the time between two frames, as in '2s'; see `Images`, and as for `frames`.
    field : str, optional
        Column of a table, or field of a dataset's items, that holds the images.
    random_state : int, RandomState, Generator or None
        Seed, or the generator that it is drawn from; the number is saved with the settings. None keeps the seed of an
        existing atlas, and draws one for a new atlas.
    device : str
        'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'.
    overwrite : bool
        Replace an existing atlas that was learned with other settings.
    moved_from : path, optional
        Where the images were when the atlas was learned, if they lie elsewhere now. Not needed if they are all
        unchanged and nothing is left at the old place.
    cache_size : int or str, optional
        Most bytes, such as "20G", for the pixels and the encoder's features that are kept below `path` while it is
        learned. By default as many as the pixels need, and 2 GB of features. Given `Images` have their own size.
    cluster : str, optional
        Decode, embed, and learn the map and clusters on a Ray cluster: 'ray://host:10001' is one that runs, 'local'
        one on this machine for this run alone. The atlas is the same. Needs `imatlas[ray]`; see docs/cluster.md.
    progress : bool
        Print progress.
    callback : callable, optional
        Called with every event as a dict; the same events are written to `metrics.jsonl`.

    Raises
    ------
    SourceError, InputError
        If there are no images, or too few, or their pixels take more than `cache_size`.
    ArtifactError
        If `path` holds something else, or an atlas of other settings; the message lists the differences.
    AtlasBusyError
        If another process is writing this atlas.
    ParameterError
        If an option is invalid; or under torchrun, which trains single networks (`imatlas fit`).
    """
    processes.check_alone("learn")
    home = home_of(path)
    settings = Settings(
        budget=None if budget is None else parse_budget(budget),
        clusters=_count(clusters, "clusters", 1),
        encoder=encoder,
        image_size=_count(image_size, "image_size", 8, MAX_IMAGE_SIDE),
        fit=fit,
        frames=images.frames if isinstance(images, Images) else frames,
        video=images.video if isinstance(images, Images) else checked_video(video, "learn"),
        field=None if field is None else str(field),
        random_state=check_seed(random_state, "learn"),
        device=device,
    )
    _check(settings)
    pick_device(device)
    if callback is not None and not callable(callback):
        raise refused("callback", "learn", "a function of one event, or None", callback)
    if moved_from is not None:
        check_path(moved_from, "moved_from", "learn")
    if cluster is not None:
        check_address(cluster, "learn")
    given = isinstance(images, Images)
    if not given:  # before anything is created: a wrong name leaves nothing behind
        images = Images(
            images,
            image_size=image_size,
            fit=fit,
            frames=frames,
            video=settings.video,
            field=field,
            thumbnail_size=THUMBNAIL,
            cache_size=cache_size,
            progress=progress,
        )
    settings = replace(settings, source=images.origin.place, files=images.origin.files)
    report = (lambda line: say(home.shown(line))) if progress else _silent
    with home.writing(report) as folder:
        folder = _claim(folder)
        if not given:
            images.cache_dir = folder / "cache"
        if random_state is None and not overwrite and (folder / "atlas.json").exists():
            known = Manifest.read(folder).settings
            settings = replace(settings, random_state=known.get("random_state", settings.random_state))
        with locked(folder), _with_workers(images, cluster, report) as images:
            journal = Journal(folder, home.publish)
            manifest = _open(folder, settings, overwrite, journal, report, _Moved(images, moved_from))
            _sign(manifest, journal)
            log = JsonLines(folder / "metrics.jsonl")

            def emit(event: dict[str, Any]) -> None:
                log(event)
                if callback is not None:
                    callback(event)

            images = _without_left_out(like_the_models(images, manifest, report), folder, report)
            fingerprint = images.fingerprint
            images, earlier = in_table_order(images, folder, manifest)
            job = Job(folder, images, settings, manifest, journal, report, emit, progress, fingerprint, earlier)
            _run(job)
    return Atlas(folder if isinstance(home, Folder) else home.place)


@contextmanager
def _with_workers(images: Images, cluster: str | None, say: Callable[[str], None]) -> Iterator[Images]:
    """The images, decoded and embedded by the workers of a cluster while the block lasts."""
    if cluster is None:
        yield images
        return
    with connected(cluster) as workers:
        before, images.workers = images.workers, workers
        try:
            yield images
        finally:
            images.workers = before
        say(f"Cluster: {workers.in_words()}")


def _without_left_out(images: Images, folder: Path, say: Callable[[str], None]) -> Images:
    """The images without those that a person decided to leave out."""
    left_out = Decisions(folder).state.left_out
    kept = [row for row, key in enumerate(images.keys) if key not in left_out]
    if len(kept) == len(images):
        return images
    say(f"{counted(len(images) - len(kept), 'image')} left out, as was decided.")
    return images[kept]


def _run(job: Job) -> None:
    """Run the stages that are not done for these images, and commit after each."""
    manifest = job.manifest
    if manifest.finished and all(manifest.done(name, job.fingerprint) for name in STAGES):
        if manifest.stages["intake"].get("reviewed", "") != job.reviewed_digest:
            use_clean_table(job)
            mark_duplicates(job)
            job.say("The duplicates are marked as they were reviewed.")
            _sweep(job.journal, manifest)
            return
        job.say(f"Nothing has changed since '{job.folder}' was learned: {len(job.images):,} images.")
        return
    use_clean_table(job)
    manifest.finished = news = False
    for number, (name, stage) in enumerate(STAGES.items(), start=1):
        began = time.perf_counter()
        allowed = job.seconds(name) if name != "intake" else math.inf
        if not manifest.done(name, job.fingerprint) or (name == "report" and news):
            news = True
            due = None if allowed == math.inf else round(allowed, 1)
            job.emit({"event": "stage", "stage": name, "state": "started", "time": time.time(), "allowed": due})
            decided = stage(job)
            seconds = time.perf_counter() - began
            manifest.stages[name] = {"fingerprint": job.fingerprint, "seconds": round(seconds, 2), **decided}
            job.emit({"event": "stage", "stage": name, "state": "done", "seconds": round(seconds, 2)})
            job.say(
                f"{number}/{len(STAGES)} {name:<10} {seconds:6.1f} s  {decided['summary']}{_overrun(seconds, allowed)}"
            )
            manifest.finished = name == "report"
            # An update replaces the rows before it embeds the new ones. Both are committed together, so that a kill
            # between them loses no features.
            if not (name == "intake" and job.update is not None):
                job.commit()
        if name == "intake":
            _print_plan(job)
        else:
            job.learned += float(manifest.stages[name]["seconds"])
    _sweep(job.journal, manifest)
    if job.learned > OVERRUN[0] * job.budget.seconds + OVERRUN[1]:
        job.say(
            f"Learning took {job.learned:.0f} s, more than its budget of {job.budget.seconds:.0f} s; the stages that "
            "overran are marked above."
        )
    job.say(f"Atlas: {job.folder} ({time.perf_counter() - job.started:.0f} s)")


def _overrun(seconds: float, allowed: float) -> str:
    """A remark on a stage that took clearly more than its time; "" on others."""
    if seconds <= OVERRUN[0] * allowed + OVERRUN[1]:
        return ""
    return f" ({seconds - allowed:.0f} s over its share of the budget)"


def _seconds(seconds: float) -> str:
    """Seconds of a plan, short ones with two digits."""
    return f"{seconds:.0f}" if seconds >= 10 else f"{seconds:.2g}"


def _print_plan(job: Job) -> None:
    """Print which encoder was chosen and why, and how the budget will be spent."""
    total, shares = job.budget.seconds, job.budget.shares
    plan = ", ".join(f"{stage} {_seconds(share * total)} s" for stage, share in shares.items() if share)
    job.say(f"     encoder: {job.manifest.stages['intake']['why']}")
    job.say(f"     budget:  {_seconds(total)} s of learning, at most: {plan}")


def _check(settings: Settings) -> None:
    """Refuse invalid options before anything is read."""
    if not isinstance(settings.device, str):
        raise refused("device", "learn", "a str, such as 'auto' or 'cpu'", settings.device)
    allowed = {"encoder": get_args(EncoderKind), "fit": ("crop", "pad", "stretch"), "frames": ("first", "all")}
    for name, choices in allowed.items():
        if not isinstance(getattr(settings, name), str) or getattr(settings, name) not in choices:
            listed = ", ".join(repr(c) for c in choices)
            raise ParameterError(
                f"The '{name}' of learn must be one of {listed}. Got {shown(getattr(settings, name))} instead."
            )


def _count(value: Any, name: str, low: int, high: int | None = None) -> int | None:
    return None if value is None else check_int(value, name, "learn", low=low, high=high)


def _claim(folder: Path) -> Path:
    """Create the atlas folder; refuse one that holds something else, or links and pipes under the names of our files.

    A link is resolved first, because nothing is ever deleted behind one.
    """
    if is_link(folder):
        folder = Path(os.path.realpath(folder))
    address(folder)
    if os.path.lexists(folder) and not folder.is_dir():
        raise ArtifactError(f"'{folder}' is not a folder; choose another name for the atlas with -o.")
    if folder.exists() and not os.path.lexists(folder / "atlas.json"):
        others = [name for name in os.listdir(folder) if name not in (".lock", NAME) and not OWN_FOLDER.fullmatch(name)]
        if others and not (others == ["cache"] and holds_only_caches(folder / "cache")):
            raise ArtifactError(
                f"'{folder}' exists and is not an atlas; choose another name with -o. Nothing in it was touched."
            )
    make_folder(folder)
    refuse_links(folder, [*OURS, "cache/", *(f"{path.name}/" for path in folder.glob("images*.lance"))])
    return folder


@dataclass(frozen=True)
class _Moved:
    """Whether the images of an atlas have moved since they were learned from."""

    images: Images
    moved_from: str | Path | None

    def explains(self, manifest: Manifest) -> bool:
        """Whether the user says so, or nothing is left at the old place and the images are unchanged."""
        was = str(manifest.settings.get("source"))
        if self.moved_from is not None:
            return same_place(was, place_of(self.moved_from))
        if not was or is_address(was) or os.path.lexists(was):
            return False
        return bool(manifest.stages) and manifest.done("intake", str(self.images.fingerprint))


def _open(
    folder: Path,
    settings: Settings,
    overwrite: bool,
    journal: Journal,
    say: Callable[[str], None],
    moved: _Moved,
) -> Manifest:
    """The manifest to go on with: that of the existing atlas if the settings agree, otherwise a new one.

    Raises
    ------
    ArtifactError
        If the existing atlas has other settings; the message lists the differences.
    """
    asked = asdict(settings)
    if (folder / "atlas.json").exists() and not overwrite:
        manifest = Manifest.read(folder)
        known = {"video": settings.video, **manifest.settings}  # an atlas that is older than videos has none
        if same_place(str(known.get("source")), settings.source):
            known["source"] = settings.source
        changed = [name for name, value in asked.items() if known.get(name) != value and name != "files"]
        if changed == ["source"] and moved.explains(manifest):
            say(f"The images have moved from '{known['source']}' to '{settings.source}'.")
            manifest.source, manifest.settings["source"] = settings.source, settings.source
            with journal.replacing("atlas.json") as aside:
                manifest.commit(folder, aside)
            changed = []
        if changed and manifest.stages:  # else nothing was learned with them
            differences = [f"{name} was {known.get(name)!r} and is now {asked[name]!r}" for name in changed]
            advice = " If the images lie elsewhere now, say so by --moved-from." if changed == ["source"] else ""
            raise ArtifactError(
                f"'{folder}' was learned with other settings: {'; '.join(differences)}. "
                f"Use the same settings to continue it, another name with -o, or --overwrite to learn anew.{advice}"
            )
        manifest.source, manifest.settings = settings.source, {**manifest.settings, **asked}
        _sweep(journal, manifest)
        forget_damaged(folder, manifest, say)
        return manifest
    manifest = Manifest(source=settings.source, settings=asked)
    if (folder / "atlas.json").exists():
        previous, reason = replaceable(folder)
        everything = previous.inventory(folder)
        everything.drop(everything.damaged(), damaged=True)
        everything.drop(list(previous.files))
        manifest.old = previous.old
        if reason:
            say(f"{reason.partition(';')[0]}. The atlas is learned again; files that imatlas did not list are kept.")
    with journal.replacing("atlas.json") as aside:
        manifest.commit(folder, aside)  # from here on the old atlas does not count, and its files are deleted
    for name in ("metrics.jsonl", "skipped.csv", "report.html"):
        (folder / name).unlink(missing_ok=True)
    for name in ("checkpoint", "checkpoint-generator"):
        remove_listed(folder, [f"cache/{name}/{checkpoints.NAME}"])
    remove_listed(folder, [f"{PREVIEWS}/{name}" for name in known_previews(folder / PREVIEWS)])
    _sweep(journal, manifest)
    return manifest


def _sign(manifest: Manifest, journal: Journal) -> None:
    """Note that this user has given the address of the images, so that originals may be read from there."""
    if not is_address(manifest.source):
        return
    signature = sign(signed_text(manifest.source))
    if signature and manifest.settings.get("source_signature") != signature:
        manifest.settings["source_signature"] = signature
        with journal.replacing("atlas.json") as aside:
            manifest.commit(journal.folder, aside)


def _sweep(journal: Journal, manifest: Manifest) -> None:
    """Delete files of earlier runs that nothing names any more."""
    journal.sweep(manifest.files, manifest.old)
    if manifest.old:
        manifest.old.clear()
        with journal.replacing("atlas.json") as aside:
            manifest.commit(journal.folder, aside)
        journal.sweep(manifest.files)


def _silent(line: str) -> None:
    return None


def estimate(images: Images, *, budget: str | float | None = None) -> dict[str, Any]:
    """What `learn` would take on this machine, estimated from forward passes of a few images.

    Returns
    -------
    dict
        `encoder`, `why`, `images_per_second` of the pretrained encoder, `minutes` in all, peak `memory_gb`, and
        `cache_gb` on the disk while it is learned.
    """
    began = time.perf_counter()
    n = len(images)  # decodes, unless that was done
    intake_seconds = time.perf_counter() - began
    kind, why = encoder_kind_for(images, "auto")
    time_budget = TimeBudget(kind, parse_budget(budget) or default_budget(n), n)
    spent, rate = time_budget.shares["encoder"] * time_budget.seconds, None
    if kind == "pretrained":
        choosing = CHOOSING * time_budget.seconds
        asked = PretrainedEncoder(**{**COMBINED_OPTIONS, "views": min(COMBINED_OPTIONS["views"], max_views(n))})
        model, _ = within_time(asked, images, seconds=spent - choosing)
        embedding = embedding_seconds(model, images)
        spent, rate = max(spent, choosing + embedding), n / embedding
    spent += n * SECONDS_PER_IMAGE / usable_cores()
    report = time_budget.shares["report"] * time_budget.seconds
    seconds = max(time_budget.seconds, spent + time_budget.allowance("generator", spent) + report)
    features = min(FEATURE_CACHE, n * 4 * N_FEATURES) if kind == "pretrained" else 0
    # While the pixel cache is written, the parts that it is copied from are there as well; features come afterwards.
    cached = images.n_cached_bytes + max(images.n_cached_bytes, features)
    return {
        "encoder": kind,
        "why": why,
        "images_per_second": None if rate is None else round(rate, 1),
        "minutes": round((seconds + intake_seconds) / 60 + 0.5, 1),
        "memory_gb": round(
            BASE_MEMORY_GB + (min(n, MANY) * MEMORY_PER_IMAGE + max(0, n - MANY) * MEMORY_PER_FURTHER) / 1e9, 1
        ),
        "cache_gb": round(cached / 1e9, 2),
    }
