"""How `learn` repairs a damaged atlas, or one whose images have another depth or number of channels now.

Unusable parts are removed from the manifest, with one line printed for each, so that their stages run again. Nothing is
deleted before its replacement is committed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from imatlas.atlas.manifest import SKIPPED, Manifest
from imatlas.atlas.stages import STAGES, Job
from imatlas.atlas.store import misfit
from imatlas.atlas.table import ImagesTable
from imatlas.atlas.table_manifest import unknown_versions
from imatlas.errors import ArtifactError, MissingExtraError, SourceError, UnsafePathError
from imatlas.images.dataset import Images
from imatlas.images.pixels import kind_of
from imatlas.images.spec import ImageSpec
from imatlas.models import artifact

DEPENDENTS = {
    "encoder": ("encoder", "map", "clusters", "outliers", "layout", "generator"),
    "map": ("map", "generator"),
    "clusters": ("clusters",),
    "outliers": ("outliers",),
    "layout": ("layout",),
    "generator": ("generator",),
}
"""Model -> the models to learn again if it cannot be used."""

Say = Callable[[str], None]


def forget_damaged(folder: Path, manifest: Manifest, say: Say) -> None:
    """Remove damaged parts from the manifest, so that their stages run again; nothing is deleted yet."""
    inventory = manifest.inventory(folder)
    damaged: dict[str, list[str]] = {}
    for name, reason in inventory.damaged().items():
        damaged.setdefault(name.partition("/")[0], []).append(f"'{folder / name}' is damaged ({reason})")
    for part, reasons in damaged.items():
        first = reasons[0] + (f" and {len(reasons) - 1} more files" if len(reasons) > 1 else "")
        role = next((role for role, model in manifest.models.items() if model == part), None)
        if role is not None:
            _forget_model(role, manifest, say, first)
            inventory.drop(inventory.below(part), damaged=True)
        elif part == manifest.table.get("name"):
            _forget_table(folder, manifest, say, first)
        elif part == SKIPPED:
            say(f"{first}; it is written again.")
            _again(manifest, STAGES)
            inventory.drop([part], damaged=True)
    _forget_unsound(folder, manifest, say)
    if manifest.finished and not (folder / "report.html").exists():
        say(f"'{folder / 'report.html'}' is missing; it is written again.")
        _again(manifest, ["report"])


def _forget_unsound(folder: Path, manifest: Manifest, say: Say) -> None:
    """The same for parts that cannot be used although their checksums agree."""
    table = None
    if manifest.table:
        try:
            table = ImagesTable(folder / manifest.table["name"], manifest.table["version"], manifest.inventory(folder))
            table.check()
        except (ArtifactError, UnsafePathError) as error:
            table = None
            _forget_table(folder, manifest, say, _fact(error))
    for role, name in list(manifest.models.items()):
        if role not in manifest.models:  # removed with one it depends on
            continue
        try:
            model = artifact.load(folder / name)
        except MissingExtraError:
            continue
        except (ArtifactError, SourceError) as error:
            _forget_model(role, manifest, say, _fact(error))
            continue
        reason = misfit(role, model, table) if table is not None else ""
        if reason:  # either may be the wrong one
            _forget_model(role, manifest, say, f"'{folder / name}' cannot be used ({reason})")
            table = None
            _forget_table(folder, manifest, say, f"'{folder / manifest.table['name']}' does not match it")


def _fact(error: Exception) -> str:
    """An error without its advice."""
    return str(error).partition(";")[0].rstrip(".")


def _forget_model(role: str, manifest: Manifest, say: Say, fact: str) -> None:
    again = DEPENDENTS.get(role, (role,))
    say(f"{fact}; learned again: {', '.join(again)}.")
    for name in again:
        manifest.models.pop(name, None)
    _again(manifest, (*again, "report"))


def _forget_table(folder: Path, manifest: Manifest, say: Say, fact: str) -> None:
    say(f"{fact}; the images table is written again.")
    inventory = manifest.inventory(folder)
    inventory.drop(inventory.below(manifest.table["name"]), damaged=True)
    manifest.table = {}
    _again(manifest, STAGES)


def _again(manifest: Manifest, stages: Iterable[str]) -> None:
    for stage in set(stages) & set(manifest.stages):
        manifest.stages[stage]["fingerprint"] = ""


def like_the_models(images: Images, manifest: Manifest, say: Say) -> Images:
    """The images at the size that the models of an atlas take; with another depth or channels, all models are dropped.

    Size, depth and channels of a set depend on all of its images, so a few added ones may change them.
    """
    if not manifest.models or not manifest.spec or not len(images):
        return images
    was, now = ImageSpec.from_json(manifest.spec), images.spec
    if kind_of(was) == kind_of(now):
        return images.at_size((was.height, was.width))
    kinds = "; before, they had ".join(f"{spec.channels} x {spec.dtype} per pixel" for spec in (now, was))
    say(f"The images have {kinds}. Everything is learned again.")
    manifest.models.clear()
    _again(manifest, STAGES)
    return images


def use_clean_table(job: Job) -> None:
    """Copy the table to a new name if its folder holds foreign versions, which Lance would read before it writes."""
    manifest = job.manifest
    name = manifest.table.get("name")
    if not name or not (found := unknown_versions(job.folder / name, {manifest.table["version"]})):
        return
    new = manifest.new_table(job.folder)
    job.say(f"'{job.folder / name / found[0]}' is no version of this atlas: its images table is copied to '{new}'.")
    job.journal.writing_table(new)
    table = job.table.copied_to(job.folder / new)
    job.inventory.drop(job.inventory.below(name))
    manifest.table["name"] = new
    table.listed_in(job.inventory)
