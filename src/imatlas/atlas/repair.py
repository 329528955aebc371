"""What `learn` does about an atlas that it finds damaged, or whose images are of another kind now.

Whatever cannot be used is taken out of the manifest, so that its stages are done again, and told in one line. Nothing
is deleted before what takes its place is committed. So the same command comes out with a sound atlas in one run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from imatlas.atlas.manifest import SKIPPED, Manifest
from imatlas.atlas.stages import STAGES, Job
from imatlas.atlas.store import misfit
from imatlas.atlas.table import ImagesTable
from imatlas.atlas.table_manifest import strangers
from imatlas.errors import ArtifactError, MissingExtraError, SourceError, UnsafePathError
from imatlas.images.dataset import Images
from imatlas.images.pixels import kind_of
from imatlas.images.spec import ImageSpec
from imatlas.models import artifact

RESTS_ON = {
    "encoder": ("encoder", "map", "clusters", "layout", "generator"),
    "map": ("map", "generator"),
    "clusters": ("clusters",),
    "layout": ("layout",),
    "generator": ("generator",),
}
"""Model -> the models that are learned again where it cannot be used."""

Say = Callable[[str], None]


def forget_damaged(folder: Path, manifest: Manifest, say: Say) -> None:
    """Take damaged parts out of the manifest, so that their stages are done again; nothing is deleted yet."""
    inventory = manifest.inventory(folder)
    damaged: dict[str, list[str]] = {}
    for name, reason in inventory.damaged().items():
        damaged.setdefault(name.partition("/")[0], []).append(f"'{folder / name}' is damaged ({reason})")
    for part, told in damaged.items():
        first = told[0] + (f" and {len(told) - 1} files more" if len(told) > 1 else "")
        role = next((role for role, model in manifest.models.items() if model == part), None)
        if role is not None:
            _forget_model(role, manifest, say, first)
            inventory.drop(inventory.below(part), damaged=True)
        elif part == manifest.table.get("name"):
            _forget_table(folder, manifest, say, first)
        elif part == SKIPPED:
            say(f"{first}: it is written again.")
            _again(manifest, STAGES)
            inventory.drop([part], damaged=True)
    _forget_unsound(folder, manifest, say)
    if manifest.finished and not (folder / "report.html").exists():
        say(f"'{folder / 'report.html'}' is gone: it is written again.")
        _again(manifest, ["report"])


def _forget_unsound(folder: Path, manifest: Manifest, say: Say) -> None:
    """The same for parts whose checksums agree, and that cannot be used."""
    table = None
    if manifest.table:
        try:
            table = ImagesTable(folder / manifest.table["name"], manifest.table["version"], manifest.inventory(folder))
            table.check()
        except (ArtifactError, UnsafePathError) as error:
            table = None
            _forget_table(folder, manifest, say, _fact(error))
    for role, name in list(manifest.models.items()):
        if role not in manifest.models:  # it rests on one before it
            continue
        try:
            model = artifact.load(folder / name)
        except MissingExtraError:
            continue
        except (ArtifactError, SourceError) as error:
            _forget_model(role, manifest, say, _fact(error))
            continue
        told = misfit(role, model, table) if table is not None else ""
        if told:  # nobody knows which of the two is wrong
            _forget_model(role, manifest, say, f"'{folder / name}' cannot be used ({told})")
            table = None
            _forget_table(folder, manifest, say, f"'{folder / manifest.table['name']}' does not go with it")


def _fact(error: Exception) -> str:
    """What an error says, without its advice."""
    return str(error).partition(";")[0].rstrip(".")


def _forget_model(role: str, manifest: Manifest, say: Say, told: str) -> None:
    again = RESTS_ON.get(role, (role,))
    say(f"{told}: learned again: {', '.join(again)}.")
    for name in again:
        manifest.models.pop(name, None)
    _again(manifest, (*again, "report"))


def _forget_table(folder: Path, manifest: Manifest, say: Say, told: str) -> None:
    say(f"{told}: the images table is made again.")
    inventory = manifest.inventory(folder)
    inventory.drop(inventory.below(manifest.table["name"]), damaged=True)
    manifest.table = {}
    _again(manifest, STAGES)


def _again(manifest: Manifest, stages: Iterable[str]) -> None:
    for stage in set(stages) & set(manifest.stages):
        manifest.stages[stage]["fingerprint"] = ""


def like_the_models(images: Images, manifest: Manifest, say: Say) -> Images:
    """The images as the models of an atlas see them; where they are of another kind, the models are learned again.

    Which size, depth and channels a set has depends on all of its images: a few that are added may change them.
    """
    if not manifest.models or not manifest.spec or not len(images):
        return images
    was, now = ImageSpec.from_json(manifest.spec), images.spec
    if kind_of(was) == kind_of(now):
        return images.at_size((was.height, was.width))
    kinds = " now and had ".join(f"{spec.channels} x {spec.dtype} a pixel" for spec in (now, was))
    say(f"The images have {kinds}: everything is learned again.")
    manifest.models.clear()
    _again(manifest, STAGES)
    return images


def use_clean_table(job: Job) -> None:
    """Copy the table to a new name where its folder holds versions of others: Lance reads them before it writes."""
    manifest = job.manifest
    name = manifest.table.get("name")
    if not name or not (found := strangers(job.folder / name, {manifest.table["version"]})):
        return
    new = manifest.new_table(job.folder)
    job.say(f"'{job.folder / name / found[0]}' is no version of this atlas: its images table is copied to '{new}'.")
    job.journal.writing_table(new)
    table = job.table.copied_to(job.folder / new)
    job.inventory.drop(job.inventory.below(name))
    manifest.table["name"] = new
    table.listed_in(job.inventory)
