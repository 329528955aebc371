"""One call of `learn` while it runs: its settings, what it has to work with, and how it may spend its budget."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from imatlas.atlas.journal import Journal
from imatlas.atlas.manifest import Manifest
from imatlas.atlas.table import ImagesTable
from imatlas.images.dataset import Images
from imatlas.models import artifact
from imatlas.models.parts.feature_cache import FeatureCache
from imatlas.system.inventory import Inventory
from imatlas.tasks.conditions import MapConditions

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
"""Share of the budget of each stage, by encoder. Time that an early stage leaves goes to the generator, an autoencoder
with a mixture prior; if that is the encoder, too, only its prior is left to fit in the generator's stage."""

MIN_SHARE = (0.25, 0.5)
"""Part of its share that a stage gets even if earlier stages overran: any stage, and the generator."""

ROOM = 0.15
"""Share of the budget that clustering, or the layout, may take when it needs to: UMAP compiles on first use."""

REPORT_SECONDS = (3.0, 0.003)
"""Seconds to write the report: in any case, and per image. Measured: 3.7 s for 261 photographs, 6.7 s for 1,000."""

JUDGING, MIN_JUDGING = 0.6, 0.15
"""Share of the report's time for scoring new images: at most, and if writing the report leaves less."""

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
    field: str | None = None
    random_state: int = 0
    device: str = "auto"


@dataclass(frozen=True)
class Previous:
    """The images that an earlier run has embedded.

    Attributes
    ----------
    rows : dict
        Key -> (sha256, row).
    embedding : ndarray (n_rows, n_features) float32
    """

    rows: dict[str, tuple[str, int]]
    embedding: np.ndarray


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
    previous : Previous or None
        What an earlier run knows, if this one updates its atlas.
    """

    folder: Path
    images: Images
    settings: Settings
    manifest: Manifest
    journal: Journal
    say: Callable[[str], None]
    emit: Callable[[dict[str, Any]], None]
    progress: bool
    started: float = field(default_factory=time.perf_counter)
    learned: float = 0.0
    previous: Previous | None = None

    @property
    def fingerprint(self) -> str:
        """Identifies the content of the usable images; a stage is done for one fingerprint."""
        return str(self.images.fingerprint)

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
    def encoder_kind(self) -> str:
        """The encoder that was chosen at intake: "pretrained", "own" or "self-supervised"."""
        return str(self.manifest.stages["intake"]["encoder"])

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
        """Features of the pretrained encoder from earlier runs."""
        return FeatureCache(self.folder / "cache" / "features")

    def model(self, role: str) -> Any:
        """The saved model of a role."""
        name = self.manifest.models[role]
        self.inventory.check(self.inventory.below(name))
        return artifact.load(self.folder / name)

    @property
    def map_conditions(self) -> MapConditions:
        """The cell and cluster of every image, and the condition of each cell."""
        rows = self.table.read(["cell", "cluster"])
        return MapConditions.on(self.model("map"), rows["cell"].to_numpy(), rows["cluster"].to_numpy())

    @property
    def budget(self) -> float:
        """Seconds of learning in all."""
        return float(self.manifest.stages["intake"]["budget"])

    def allowance(self, stage: str) -> float:
        """Seconds that a stage may take: its share, and what earlier stages left."""
        shares = SHARES[self.encoder_kind]
        names = list(shares)
        due = sum(shares[name] for name in names[: names.index(stage) + 1]) * self.budget
        if stage == "generator" or (stage == "encoder" and self.encoder_kind == "own"):  # training fills its time
            due -= max(0.0, self.report_seconds - shares["report"] * self.budget)
        return max(MIN_SHARE[stage == "generator"] * shares[stage] * self.budget, due - self.learned)

    def room(self, stage: str) -> float:
        """`allowance` of a stage whose result suffers visibly below `ROOM` of the budget."""
        return max(self.allowance(stage), ROOM * self.budget)

    @property
    def report_seconds(self) -> float:
        """Estimated time to write the report, which may exceed its share of a short budget."""
        return REPORT_SECONDS[0] + REPORT_SECONDS[1] * len(self.images)

    @property
    def judging_seconds(self) -> float:
        """Seconds for scoring new images: what writing the report leaves, or a small part of its share."""
        allowed = self.allowance("report")
        return max(MIN_JUDGING * allowed, min(JUDGING * allowed, allowed - self.report_seconds))

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


def default_budget(n_images: int) -> float:
    """Seconds of learning by default: 90 up to 500 images, 180 to 5,000, 300 to 20,000, 600 above."""
    for most, seconds in ((500, 90.0), (5_000, 180.0), (20_000, 300.0)):
        if n_images <= most:
            return seconds
    return 600.0
