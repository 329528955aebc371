"""The manifest of an atlas: `atlas.json`, the only commit point, with the lock and the sweep that belong to it.

Whatever a stage writes lands under a new name first and counts only once a new `atlas.json` names it. So a run that is
killed at any moment leaves the last committed atlas readable, and what the dead run left behind is swept by the next
writer.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from imatlas._version import __version__
from imatlas.disk import write_file
from imatlas.errors import ArtifactError, AtlasBusyError, SourceError

FORMAT = 1
KEPT = {"atlas.json", "cache", "metrics.jsonl", "skipped.csv", "report.html", ".lock"}


@dataclass
class Manifest:
    """All that an atlas commits to, as plain JSON values.

    Attributes
    ----------
    source : str
        Where the images came from, as given.
    settings : dict
        What the user asked for; the same again continues or updates the atlas.
    stages : dict
        For each finished stage: the fingerprint of the images it was done for, its seconds, and what it decided.
    table : dict
        Name and version of the images table that count.
    models : dict
        Role ("encoder", "map", "clusters", "generator") -> name of the folder that counts.
    metrics : dict
        Every number that the report shows, by stage.
    """

    source: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    table: dict[str, Any] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    finished: bool = False
    library: str = __version__
    format: int = FORMAT

    @classmethod
    def read(cls, folder: str | Path) -> Manifest:
        """The manifest of the atlas in `folder`.

        Raises
        ------
        SourceError
            If there is no atlas in `folder`.
        ArtifactError
            If it is damaged or of a newer format.
        """
        path = Path(folder) / "atlas.json"
        if not path.is_file():
            raise SourceError(
                f"There is no atlas in '{folder}': 'atlas.json' was not found; "
                f"make one with 'imatlas learn FOLDER -o {folder}'."
            )
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            version = int(values["format"])
            known = {k: v for k, v in values.items() if k in cls.__dataclass_fields__}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(f"'{path}' is damaged ({error}); learn the atlas again with --overwrite.") from error
        if version > FORMAT:
            raise ArtifactError(
                f"'{folder}' has format {version}; this imatlas {__version__} reads up to {FORMAT}: upgrade imatlas."
            )
        return cls(**known)

    def commit(self, folder: str | Path) -> None:
        """Make this manifest the one that counts."""
        self.library = __version__
        text = json.dumps(asdict(self), indent=1) + "\n"
        write_file(Path(folder) / "atlas.json", text.encode())

    def done(self, stage: str, fingerprint: str) -> bool:
        """Whether a stage is finished for just these images."""
        return self.stages.get(stage, {}).get("fingerprint") == fingerprint

    def new_name(self, folder: str | Path, role: str) -> str:
        """The next unused name for a model folder: "encoder-0002"."""
        taken = [int(p.name.rpartition("-")[2]) for p in Path(folder).glob(f"{role}-[0-9][0-9][0-9][0-9]")]
        return f"{role}-{max(taken, default=0) + 1:04d}"

    def sweep(self, folder: str | Path) -> None:
        """Remove what a killed run left in the folder and no manifest names. Only for a writer that holds the lock."""
        named = KEPT | set(self.models.values()) | {self.table.get("name", "images.lance")}
        for path in Path(folder).iterdir():
            if path.name in named or not _ours(path.name):
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _ours(name: str) -> bool:
    """Whether a file name is one that imatlas writes: a user's own file in the folder is left alone."""
    role, _, number = name.rpartition("-")
    return (role.isalpha() and len(number) == 4 and number.isdigit()) or (name[:1] == "." and ".new-" in name)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the write lock of an atlas.

    Raises
    ------
    AtlasBusyError
        If another process holds it.
    """
    lock = FileLock(str(folder / ".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise AtlasBusyError(
            f"Another process is writing '{folder}'; wait for it to end, or choose another name with -o."
        ) from None
    try:
        yield
    finally:
        lock.release()
