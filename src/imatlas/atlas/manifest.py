"""The manifest of an atlas: `atlas.json`, the only commit point, and the write lock.

A stage writes under new names, which count only once a new `atlas.json` lists them. So a run that is killed at any
moment leaves the last committed atlas readable. The next writer deletes what the killed run left, by the journal
(`imatlas.atlas.journal`) and the list `old`.

    files    every file that counts: name -> size and SHA-256, compared before the file is parsed
    old      files that counted once and may still exist, with their hashes; with the journal, all that is ever deleted
    digest   the hash of everything else in `atlas.json`
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from imatlas import __version__
from imatlas.atlas.journal import MODEL, MODEL_FILE, NAME, TABLE
from imatlas.atlas.table_manifest import FILES, files_on_disk, unknown_versions, version_file
from imatlas.errors import ArtifactError, SourceError
from imatlas.images.spec import ImageSpec
from imatlas.system import locks
from imatlas.system.atomic_io import write_file
from imatlas.system.inventory import Entry, Inventory, Old, read_json, seal
from imatlas.system.terminal import finite

FORMAT = 1

SKIPPED = "skipped.csv"

OURS = ("atlas.json", "metrics.jsonl", SKIPPED, "report.html", ".lock", NAME)
"""Files of an atlas besides models and table."""

REPAIR = "the same 'imatlas learn' command again repairs it"
"""Advice for a damaged file."""

_MARKS = ('"settings"', '"stages"', '"models"', '"metrics"', '"finished"', '"digest"', '"library"', '"format"')
"""Keys of every `atlas.json`; they distinguish a damaged one from a user's own file of that name."""


@dataclass
class Manifest:
    """The content of `atlas.json`, as plain JSON values.

    Attributes
    ----------
    source : str
        Where the images came from: `imatlas.images.sources.origin.Origin.place`.
    settings : dict
        What the user asked for; see `imatlas.atlas.job.Settings`. With an address, also the user's signature of it.
    stages : dict
        For each finished stage: the fingerprint of the images it was done for, its seconds, and its decisions.
    table : dict
        Name and version of the images table.
    models : dict
        Role ("encoder", "map", "clusters", "outliers", "layout", "generator") -> name of the folder.
    composed_of : dict
        The images that the generator is composed of, in its order: key -> SHA-256. Empty if it is a network.
    metrics : dict
        Words and numbers of the report, by stage.
    files : dict
        Name -> size and SHA-256 of every file that counts.
    old : list of Old
        Files of earlier commits, to be deleted if they are unchanged.
    """

    source: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    table: dict[str, Any] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    composed_of: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    finished: bool = False
    files: dict[str, Entry] = field(default_factory=dict)
    old: list[Old] = field(default_factory=list)
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
            If it is damaged, of another format, or no manifest of ours.
        """
        path = Path(folder) / "atlas.json"
        try:
            values = read_json(path)
        except (FileNotFoundError, NotADirectoryError):
            raise SourceError(
                f"There is no atlas in '{folder}': 'atlas.json' was not found; "
                f"make one with 'imatlas learn FOLDER -o {folder}'."
            ) from None
        except ArtifactError as error:
            raise _unreadable(path, str(error).rstrip(".")) from error
        version = values.get("format") if isinstance(values, dict) else None
        if isinstance(version, int) and version != FORMAT and not {"settings", "stages"} - set(values):
            raise ArtifactError(_of_another_format(folder, version))
        if not isinstance(values, dict) or values.pop("digest", None) != seal(values):
            raise _unreadable(path, f"'{path}' is damaged (its checksum differs)")
        try:
            _Schema.model_validate(values)
            files = {name: Entry(*entry) for name, entry in values["files"].items()}
            old = [Old(*file) for file in values["old"]]
            found = cls(**{**{f.name: values[f.name] for f in fields(cls)}, "files": files, "old": old})
            found._check()
        except (ValidationError, ValueError) as error:
            raise _unreadable(path, f"'{path}' is damaged ({_first(error)})") from error
        return found

    def _check(self) -> None:
        """Refuse parts that contradict each other.

        Raises
        ------
        ValueError
        """
        if self.spec:
            ImageSpec.from_json(self.spec)
        if (self.table or self.models) and "intake" not in self.stages:
            raise ValueError("it has a table but no intake stage")
        if self.table:
            named = f"{self.table['name']}/{version_file(self.table['version'])}"
            if named not in self.files or not self.spec:
                raise ValueError("its table is not among its files")
        for model in self.models.values():
            if f"{model}/model.json" not in self.files:
                raise ValueError(f"the model '{model}' is not among its files")
        for name in (*self.files, *(file.name for file in self.old)):
            if not _is_ours(name):
                raise ValueError(_foreign(name))

    def commit(self, folder: str | Path, path: Path | None = None) -> None:
        """Write `atlas.json`; or write to `path`, which the caller then moves into place."""
        self.library = __version__
        models = set(self.models.values())
        gone = [name for name in self.files if MODEL.fullmatch(head := name.partition("/")[0]) and head not in models]
        self.inventory(folder).drop(gone)
        if path is None:
            write_file(Path(folder) / "atlas.json", self.to_bytes())
        else:
            path.write_bytes(self.to_bytes())

    def to_bytes(self) -> bytes:
        """The content of `atlas.json`."""
        values = finite(asdict(self))
        return f"{json.dumps({**values, 'digest': seal(values)}, indent=1)}\n".encode()

    def inventory(self, folder: str | Path) -> Inventory:
        """The files that count, to check them and to record new ones."""
        return Inventory(folder, self.files, old=self.old, advice=REPAIR)

    @property
    def identity(self) -> str:
        """16 hexadecimal digits that stay until table, models or stages are others."""
        return seal({"table": self.table, "models": self.models, "stages": self.stages})[:16]

    def done(self, stage: str, fingerprint: str) -> bool:
        """Whether a stage is finished for exactly these images."""
        return self.stages.get(stage, {}).get("fingerprint") == fingerprint

    def new_name(self, folder: str | Path, role: str) -> str:
        """The next unused name for a model folder, such as "encoder-0002"; a user's own folders count as used."""
        pattern = re.compile(rf"{re.escape(role)}-(\d{{4}})(/.*)?")
        known = [*os.listdir(folder), *self.models.values(), *self.files, *(file.name for file in self.old)]
        taken = [int(match[1]) for name in known if (match := pattern.fullmatch(name))]
        return f"{role}-{max(taken, default=0) + 1:04d}"

    def new_table(self, folder: str | Path) -> str:
        """An unused name for a table: "images.lance", or "images-0002.lance" beside an unlisted one."""
        names = ["images.lance", *(f"images-{number:04d}.lance" for number in range(2, 10_000))]
        paths = (Path(folder) / name for name in names)
        return next(p.name for p in paths if not (os.path.lexists(p) and (files_on_disk(p) or unknown_versions(p, ()))))


def replaceable(folder: Path) -> tuple[Manifest, str]:
    """The manifest to be overwritten, and "" or the reason why it cannot be read; then it is an empty one.

    Raises
    ------
    ArtifactError
        If imatlas did not write `atlas.json`.
    """
    try:
        return Manifest.read(folder), ""
    except ForeignError:
        raise
    except ArtifactError as error:
        return Manifest(), str(error)


class ForeignError(ArtifactError):
    """An `atlas.json` that imatlas did not write."""


def _unreadable(path: Path, reason: str) -> ArtifactError:
    """The error for a manifest that cannot be read: damaged, or a user's own file of that name."""
    try:
        text = path.read_bytes()[: 2**20].decode("utf-8", "replace") if path.is_file() else ""
    except OSError:
        text = ""
    marks = sum(mark in text for mark in _MARKS)
    beside = (path.parent / ".lock").is_file() and any(p.is_dir() for p in path.parent.glob("images*.lance/_versions"))
    if marks >= 3 or beside:
        return ArtifactError(f"{reason}; learn the atlas again with --overwrite.")
    return ForeignError(f"'{path}' is not from imatlas ({reason}); choose another name with -o. Nothing was touched.")


def _of_another_format(folder: str | Path, version: int) -> str:
    return f"'{folder}' has format {version}; this imatlas {__version__} reads {FORMAT}: upgrade imatlas."


def _first(error: Exception) -> str:
    """The first fault, in words."""
    if isinstance(error, ValidationError):
        found = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(str(part)[:40] for part in found['loc'])}: {found['msg']}"
    return str(error)


def _foreign(name: str) -> str:
    return f"it names the file {name[:80]!r}, which is not one of an atlas"


def _is_ours(name: str) -> bool:
    """Whether an atlas has files of this name."""
    head, _, rest = name.partition("/")
    if MODEL.fullmatch(head):
        return MODEL_FILE.fullmatch(rest) is not None
    return name == SKIPPED or (TABLE.fullmatch(head) is not None and FILES.fullmatch(rest) is not None)


def _text(value: Any) -> str:
    """Any Python str, including file names that are not UTF-8, which pydantic's own `str` refuses."""
    if not isinstance(value, str) or len(value) > 20_000:
        raise ValueError("should be a text of at most 20,000 characters")
    return value


_Text = Annotated[Any, AfterValidator(_text)]
_Name = Annotated[str, Field(max_length=100)]
_Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Count = Annotated[int, Field(ge=0, le=2**40)]
_Seconds = Annotated[float, Field(ge=0, le=1e9)]


class _Settings(TypedDict):
    source: _Text
    files: _Text
    budget: Annotated[float, Field(gt=0, le=1e9)] | None
    clusters: Annotated[int, Field(ge=1, le=2**31)] | None
    encoder: _Name
    image_size: Annotated[int, Field(ge=8, le=2**16)] | None
    fit: Literal["crop", "pad", "stretch"]
    frames: Literal["first", "all"]
    video: NotRequired[_Name]  # not in atlases that are older than videos
    field: _Text | None
    random_state: Annotated[int, Field(ge=0)]
    device: _Name
    source_signature: NotRequired[_Name]


class _Stage(TypedDict):
    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    fingerprint: _Name
    seconds: _Seconds
    summary: _Text
    why: NotRequired[_Text | None]


class _Intake(_Stage):
    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    n_images: _Count
    n_skipped: _Count
    held_out: Annotated[float, Field(ge=0, le=1)]
    encoder: Literal["pretrained", "self-supervised", "own"]
    budget: Annotated[float, Field(gt=0, le=1e9)]


class _Table(TypedDict):
    name: Annotated[str, Field(pattern=f"^(?:{TABLE.pattern})$")]
    version: Annotated[int, Field(ge=1, le=2**62)]


class _Numbers(TypedDict):
    sentences: list[_Text]
    metrics: dict[_Name, float | int | _Text | list[Any] | dict[_Name, Any] | None]
    protocol: _Text


_INTAKE = TypeAdapter(_Intake)
_STAGE = TypeAdapter(_Stage)


class _Schema(BaseModel):
    """The schema of `atlas.json`; see `Manifest`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    source: _Text
    settings: _Settings | Annotated[dict[str, Any], Field(max_length=0)]
    stages: dict[Annotated[str, Field(pattern=r"^[a-z]{1,30}$")], dict[str, Any]]
    table: _Table | Annotated[dict[str, Any], Field(max_length=0)]
    models: dict[
        Annotated[str, Field(pattern=r"^[a-z]{1,30}$")], Annotated[str, Field(pattern=f"^(?:{MODEL.pattern})$")]
    ]
    composed_of: dict[_Text, _Hash]
    metrics: dict[Annotated[str, Field(pattern=r"^[a-z]{1,30}$")], _Numbers]
    spec: dict[str, Any]
    notes: list[_Text]
    finished: bool
    files: dict[_Text, Annotated[tuple[_Count, _Hash], Field(strict=False)]]
    old: list[Annotated[tuple[_Text, _Count, _Hash], Field(strict=False)]]
    library: _Name
    format: int

    def model_post_init(self, context: Any) -> None:
        for name, stage in self.stages.items():
            try:
                (_INTAKE if name == "intake" else _STAGE).validate_python(stage, strict=True)
            except ValidationError as error:
                raise ValueError(f"stages.{name}.{_first(error)}") from None


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the write lock of an atlas.

    Raises
    ------
    AtlasBusyError
        If another process holds it.
    """
    with locks.locked(folder / ".lock", folder):
        yield
