"""What an unfinished atlas holds so far: its stages, the losses of its networks, the map, and generated images.

All of it is read from files that `learn` writes: `atlas.json` and the table after each stage, and while a stage runs
`metrics.jsonl` and the previews.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, FiniteFloat, ValidationError

from imatlas.atlas.manifest import Manifest
from imatlas.atlas.previews import PREVIEWS, preview_file
from imatlas.atlas.stages import STAGES
from imatlas.atlas.store import Store
from imatlas.atlas.time_budget import SHARES
from imatlas.errors import ImatlasError
from imatlas.studio.tiles import CELLS, mosaic, squares
from imatlas.system.inventory import open_regular
from imatlas.tasks.wall import EMPTY, wall

MOST_POINTS = 400
"""Of a loss curve."""
MOST_ALONG, MOST_PIXELS, MOST_SQUARE = 32, 1024, 96
"""Images along a side of the picture of the map, its pixels along a side, and those of an image."""
MOST_BYTES = 2**24
"""Of the log that are read at once."""


class Loss(BaseModel):
    """A point of a loss curve."""

    step: int
    seconds: FiniteFloat
    train: FiniteFloat | None = None
    held_out: FiniteFloat | None = None


class Samples(BaseModel):
    """Generated images in one file."""

    number: int
    shown: int
    step: int | None = None
    seconds: FiniteFloat | None = None


@dataclass
class Network:
    """A model that is trained, or that generates images.

    Attributes
    ----------
    stage, model : str
        Where it is trained, and its class.
    losses : list of Loss
    samples : list of Samples
    """

    stage: str
    model: str
    losses: list[Loss] = field(default_factory=list)
    samples: list[Samples] = field(default_factory=list)

    def forget_after(self, step: int) -> None:
        """Take back what a stopped training did after its last checkpoint."""
        self.losses = [loss for loss in self.losses if loss.step <= step]
        self.samples = [each for each in self.samples if (each.step or 0) <= step]

    def event(self) -> dict[str, Any]:
        """As pages are told."""
        points = self.losses[:: 1 + len(self.losses) // MOST_POINTS]
        if self.losses and points[-1] is not self.losses[-1]:
            points = [*points, self.losses[-1]]
        return {
            "stage": self.stage,
            "model": self.model,
            **{name: [getattr(point, name) for point in points] for name in Loss.model_fields},
            "samples": [each.model_dump() for each in self.samples],
        }


class Log:
    """The events of `metrics.jsonl`, read as they are added; the file may be replaced by a new one.

    Parameters
    ----------
    path : Path

    Attributes
    ----------
    running : (str, float, float or None) or None
        The stage that was begun last and has not ended: its name, when it began, and the seconds it may take.
    networks : list of Network
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._forget()

    def _forget(self) -> None:
        self.running: tuple[str, float, float | None] | None = None
        self.networks: list[Network] = []
        self._file, self._offset, self._resumed = 0, 0, -1

    def read(self) -> None:
        """Read what was added."""
        for line in self._lines():
            with suppress(ValueError, TypeError, KeyError, ValidationError):
                self._heard(json.loads(line))

    def _lines(self) -> Iterator[bytes]:
        try:
            with open_regular(self.path) as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self._file or status.st_size < self._offset:
                    self._forget()
                    self._file = status.st_ino
                file.seek(self._offset)
                content = file.read(MOST_BYTES)
        except (OSError, ImatlasError):
            return
        whole = content[: content.rfind(b"\n") + 1]
        self._offset += len(whole)
        yield from whole.splitlines()

    def _heard(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "stage":
            self._stage(event)
        elif kind == "resume":
            self._resumed = int(event["step"])
        elif kind == "start":
            self._started(str(event["model"]))
        elif kind == "loss" and self.networks:
            self.networks[-1].losses.append(Loss.model_validate(event))
        elif kind == "samples":
            self._network(str(event["model"])).samples.append(Samples.model_validate(event))

    def _stage(self, event: dict[str, Any]) -> None:
        name = str(event["stage"])
        if event["state"] == "started":
            allowed = event.get("allowed")
            self.running = (name, float(event["time"]), None if allowed is None else float(allowed))
            self.networks = [one for one in self.networks if one.stage != name or one.losses]
        else:
            self.running = None

    def _started(self, model: str) -> None:
        """The training of a network begins, or goes on from its checkpoint."""
        resumed, self._resumed = self._resumed, -1
        network = self._network(model)
        self.networks.remove(network)
        self.networks.append(network)
        network.forget_after(resumed)

    def _network(self, model: str) -> Network:
        """The network of a class in the running stage."""
        stage = self.running[0] if self.running else ""
        found = next((one for one in self.networks if (one.stage, one.model) == (stage, model)), None)
        if found is None:
            found = Network(stage, model)
            self.networks.append(found)
        return found


class SoFar:
    """What lies in the folder of an atlas while it is learned; safe to use from several threads.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._log = Log(folder / "metrics.jsonl")
        self._read: tuple[tuple[int, ...], Manifest | None] = ((), None)
        self._map: tuple[str, bytes] = ("", b"")
        self._lock = threading.Lock()

    @property
    def manifest(self) -> Manifest | None:
        """The last commit; None before the first, or if it cannot be read."""
        try:
            status = os.stat(self.folder / "atlas.json")
        except OSError:
            return None
        seen = (status.st_ino, status.st_size, status.st_mtime_ns)
        if self._read[0] != seen:
            try:
                self._read = (seen, Manifest.read(self.folder))
            except (ImatlasError, OSError):
                self._read = (seen, None)
        return self._read[1]

    def event(self, *, learning: bool) -> dict[str, Any]:
        """As pages are told; `learning` if it goes on."""
        with self._lock:
            manifest = self.manifest
            self._log.read()
            done = manifest.stages if manifest else {}
            running = self._log.running if learning else None
            plan = _planned(done.get("intake", {}))
            stages = []
            for name in STAGES:
                state = "running" if running and running[0] == name else "done" if name in done else "waiting"
                seconds = done.get(name, {}).get("seconds") if state == "done" else None
                if running and state == "running":
                    seconds = max(0, round(time.time() - running[1]))
                allowed = running[2] if running and state == "running" else plan.get(name)
                summary = done.get(name, {}).get("summary", "") if state == "done" else ""
                stages.append(
                    {"name": name, "state": state, "seconds": seconds, "allowed": allowed, "summary": summary}
                )
            return {
                "stages": stages,
                "budget": done.get("intake", {}).get("budget"),
                "networks": [network.event() for network in self._log.networks],
                "map": manifest.models.get("map") if manifest else None,
            }

    def map_picture(self) -> bytes | None:
        """The images at their places on the map, as WebP; None if there is no map yet.

        Raises
        ------
        ArtifactError
            If the table is damaged.
        """
        with self._lock:
            manifest = self.manifest
            named = manifest.models.get("map", "") if manifest else ""
            if not named:
                return None
            if self._map[0] != named:
                self._map = (named, _drawn(Store(self.folder)))
            return self._map[1]

    def samples(self, number: int) -> bytes | None:
        """Generated images, as WebP; None if they are gone."""
        try:
            with open_regular(preview_file(self.folder / PREVIEWS, number)) as file:
                return file.read()
        except (OSError, ImatlasError):
            return None


def _planned(intake: dict[str, Any]) -> dict[str, float]:
    """The seconds that each stage may take, known after the intake."""
    if "budget" not in intake:
        return {}
    return {name: round(share * intake["budget"], 1) for name, share in SHARES[intake["encoder"]].items()}


def _drawn(store: Store) -> bytes:
    """The wall of the images by their places on the map; of many, each image stands for several."""
    read = store.table.read(["x", "y"])
    points = np.stack([read["x"].to_numpy(), read["y"].to_numpy()], 1)
    width, height = np.ptp(store.model("map").positions_, axis=0) + 1
    found = wall(points, np.arange(len(points)), cells=CELLS, shape=(float(width), float(height)))
    rows = max((level for level in found.levels if len(level) <= MOST_ALONG), key=len)
    used_y, used_x = np.nonzero(rows != EMPTY)
    rows = rows[: used_y.max() + 1, : used_x.max() + 1]
    side = min(MOST_SQUARE, MOST_PIXELS // max(rows.shape))
    return mosaic(rows, side, lambda numbers, inner: squares(store, numbers, inner))
