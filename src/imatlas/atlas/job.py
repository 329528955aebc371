"""One call of `learn` while it runs: its settings, and everything its stages work with."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from imatlas.atlas.decided_duplicates import reviewed
from imatlas.atlas.decisions import Decisions, State
from imatlas.atlas.journal import Journal
from imatlas.atlas.manifest import Manifest
from imatlas.atlas.previews import PREVIEWS, Previews
from imatlas.atlas.table import ImagesTable
from imatlas.atlas.time_budget import TimeBudget
from imatlas.images.cuts import CUTS
from imatlas.images.dataset import Images
from imatlas.models import artifact
from imatlas.models.parts.feature_cache import MAX_BYTES, FeatureCache
from imatlas.system.inventory import Inventory
from imatlas.system.workers import Workers
from imatlas.tasks.conditions import MapConditions
from imatlas.tasks.duplicates.reviewed import Reviewed

EncoderKind = Literal["auto", "pretrained", "own", "self-supervised"]


@dataclass(frozen=True)
class Settings:
    """What the user asked for. The same settings continue or update an atlas; others are refused with the differences.

    Only `files`, which of the source's files were named, may change.
    """

    source: str = ""
    files: str = ""
    budget: float | None = None
    clusters: int | None = None
    encoder: EncoderKind = "auto"
    image_size: int | None = None
    fit: str = "crop"
    frames: str = "first"
    video: str = CUTS
    field: str | None = None
    random_state: int = 0
    device: str = "auto"


@dataclass(frozen=True)
class Known:
    """Which images of a job are rows of the table that an earlier run wrote. Their order is that of the table.

    Attributes
    ----------
    rows : ndarray (n_images,) int64
        Row of each image there; -1 where its content is new.
    fragments : ndarray (n_fragments,) of bool
        The fragments of that table whose files can stay: the first images are their rows.
    """

    rows: np.ndarray
    fragments: np.ndarray

    @property
    def fresh(self) -> np.ndarray:
        """The images that are new."""
        return np.flatnonzero(self.rows < 0)

    def of(self, old: np.ndarray, new: np.ndarray) -> np.ndarray:
        """A column (n_images, ...) from that of the earlier table and that of the new images."""
        values = old[np.maximum(self.rows, 0)]
        values[self.fresh] = new
        return values


@dataclass(frozen=True)
class Update:
    """An update of the table of an earlier run, which the encoder completes.

    Attributes
    ----------
    table : ImagesTable
        As the earlier run left it; its files were checked when this run began.
    known : Known
    n_in_place : int
        So many images, the first ones, stay where they are.
    """

    table: ImagesTable
    known: Known
    n_in_place: int

    def column(self, name: str) -> np.ndarray:
        """A column of the earlier table as an array (n_rows,)."""
        values = self.table.read([name])[name]
        return values.to_numpy() if values.null_count == 0 else np.array(values.to_pylist(), object)


@dataclass
class Job:
    """One call of `learn`.

    Attributes
    ----------
    folder : Path
    images : Images
    settings : Settings
    manifest : Manifest
        Changed by the stages; counts after `commit`.
    journal : Journal
    say : function of str
        Prints one line.
    emit : function of dict
        Logs one event.
    progress : bool
    learned : float
        Seconds of learning so far, from the moment the pixel cache exists.
    fingerprint : str
        Identifies the content of the usable images; a stage is done for one fingerprint.
    known : Known or None
        Which images an earlier run knows, if there is one.
    update : Update or None
        What the intake leaves to the encoder, if this run updates an atlas.
    of_rows : dict
        What the intake decided about each image: `held_out`, `duplicate_of`, `flags`.
    """

    folder: Path
    images: Images
    settings: Settings
    manifest: Manifest
    journal: Journal
    say: Callable[[str], None]
    emit: Callable[[dict[str, Any]], None]
    progress: bool
    fingerprint: str
    known: Known | None = None
    started: float = field(default_factory=time.perf_counter)
    learned: float = 0.0
    update: Update | None = None
    of_rows: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def _decided(self) -> State:
        """What was decided; read once, so that `reviewed_digest` names the decisions that `reviewed` holds."""
        return Decisions(self.folder).state

    @cached_property
    def reviewed(self) -> Reviewed:
        """What a person decided about duplicates."""
        return reviewed(self._decided, self.images.keys)

    @property
    def reviewed_digest(self) -> str:
        """Identifies these decisions; "" for none."""
        said = [[sorted(part) for part in pair] for pair in self._decided.different], self._decided.best
        return hashlib.sha256(json.dumps(said).encode()).hexdigest() if any(said) else ""

    @cached_property
    def inventory(self) -> Inventory:
        """The files of the atlas that count."""
        return self.manifest.inventory(self.folder)

    @property
    def table(self) -> ImagesTable:
        """The images table as it will be committed."""
        named = self.manifest.table
        return ImagesTable(self.folder / named["name"], named["version"], self.inventory)

    @property
    def train(self) -> np.ndarray:
        """Rows of the images that models may learn from."""
        return np.flatnonzero(~self._held_out)

    @property
    def held_out(self) -> np.ndarray:
        """Rows of the held-out images."""
        return np.flatnonzero(self._held_out)

    @property
    def validation(self) -> Images | None:
        """The held-out images, if there are any."""
        return self.images[self.held_out] if len(self.held_out) else None

    @cached_property
    def _held_out(self) -> np.ndarray:
        return self.table.read(["held_out"])["held_out"].to_numpy()

    @property
    def feature_cache(self) -> FeatureCache:
        """Features of the pretrained encoder from earlier runs, in the room that the pixels leave."""
        most, taken = self.images.cache_size, self.images.n_cached_bytes
        left = MAX_BYTES if most is None else max(0, min(MAX_BYTES, most - taken))
        return FeatureCache(self.folder / "cache" / "features", max_bytes=left)

    def model(self, role: str) -> Any:
        """The saved model of a role."""
        name = self.manifest.models[role]
        self.inventory.check(self.inventory.below(name))
        return artifact.load(self.folder / name)

    @cached_property
    def previews(self) -> Previews:
        """Images that the generator makes while it is learned."""
        return Previews(self.folder / PREVIEWS, self.images.spec, self.emit)

    @property
    def map_conditions(self) -> MapConditions:
        """The cell and cluster of every image, and the condition of each cell."""
        rows = self.table.read(["cell", "cluster"])
        return MapConditions.on(self.model("map"), rows["cell"].to_numpy(), rows["cluster"].to_numpy())

    @cached_property
    def budget(self) -> TimeBudget:
        """How the time for learning is split over the stages; known after the intake."""
        decided = self.manifest.stages["intake"]
        return TimeBudget(str(decided["encoder"]), float(decided["budget"]), len(self.images))

    @property
    def workers(self) -> Workers | None:
        """The workers of a cluster, if there is one."""
        return self.images.cluster_workers

    def seconds(self, stage: str) -> float:
        """Seconds that a stage may take from now."""
        return self.budget.allowance(stage, self.learned)

    def save_columns(self, **columns: Any) -> None:
        """Add or replace columns of the images table; they count after the next commit."""
        self.journal.writing_table(self.manifest.table["name"])
        self.manifest.table["version"] = self.table.set(**columns).version

    def save_model(self, role: str, model: Any, name: str | None = None) -> None:
        """Save a model under a new name; it counts after the next commit."""
        folder = self.manifest.new_name(self.folder, name or role)
        self.inventory.record(self.journal.save_model(folder, model.save))
        self.manifest.models[role] = folder

    def commit(self) -> None:
        """Make everything learned so far count."""
        with self.journal.replacing("atlas.json") as aside:
            self.manifest.commit(self.folder, aside)
