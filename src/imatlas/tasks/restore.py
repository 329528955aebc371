"""Restored copies of the images of a folder, each at its own size, in its own format, with its own metadata."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from imatlas.arguments import check_path, counted
from imatlas.errors import InputError
from imatlas.images.dataset import Images
from imatlas.images.decode import read_picture
from imatlas.images.encode import encode
from imatlas.images.encode_like import SUFFIXES, encode_like
from imatlas.images.sources.base import Source
from imatlas.images.sources.opening import open_source
from imatlas.images.spec import ImageSpec
from imatlas.models import artifact
from imatlas.models.restorer import Fact, Restoration, Restorer, SummarizedRestorer
from imatlas.result import Comparisons, DataTable, FileList, Result
from imatlas.system.atomic_io import check_free, output_path, write_file
from imatlas.system.csv_files import write_csv
from imatlas.tasks.mask_files import MaskFiles
from imatlas.tasks.restoration_views import View, contact_sheet, view_of
from imatlas.tasks.restored_kinds import restoration_as_fitted, restoration_by
from imatlas.tasks.restored_names import PART, name_like
from imatlas.tasks.source_pictures import Item, read_item, unfinished_items, upright
from imatlas.tasks.unfinished_folder import Done, Layout, UnfinishedFolder, folded, written_before

SETTINGS = "restored.json"
PARTS = {"denoise": "Denoising", "inpaint": "Inpainting", "upscale": "Upscaling", "enhance": "Enhancing"}
"""Commands, and what they do."""

N_VIEWS = 12
"""Images that are shown before and after."""

PART_SIZE, WHOLE_SIZE, PICTURE_QUALITY = 320, 520, 92
"""In the report: CSS pixels of parts and of whole images, and their WebP quality."""

N_ROWS = 200
"""Rows of the table of images in the report."""


class RestoredFile(Done):
    """One restored image.

    Attributes
    ----------
    files : list of str
        The image; then what else is written of it.
    width, height : int
        Of the restored image.
    format : str
    facts : dict
        What the model tells about it.
    notes : list of str
        How the file was read, and what differs in the new one.
    """

    width: int
    height: int
    format: str
    facts: dict[str, Fact] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)


Run = UnfinishedFolder[RestoredFile]


def layout_of(command: str) -> Layout[RestoredFile]:
    """What a command that restores images leaves in its folder."""
    return Layout(
        command=command,
        settings=SETTINGS,
        done=RestoredFile,
        folders=r"(images|maps|samples)(/[^/]+)*",
        files=rf"(images|skipped)\.csv|preview\.png|report\.html|(images|maps|samples)(/{PART})+",
    )


def restore_files(
    source: Any,
    output: str | Path,
    restorer: Restorer,
    *,
    command: str,
    masks: str | Path | None = None,
    preview: bool = False,
    write_report: Callable[[Result, Path], object] | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> Result:
    """Restore every image, and write it like its original: name, format, depth, colors, metadata.

    Until everything is done, the files are in the folder `OUTPUT.unfinished`. A run that was killed is continued by the
    same call: finished images stay, except those that have changed since.

    Parameters
    ----------
    source : folder, pattern, archive, array or list, as `Images` takes them
    output : path
        A new folder: `images/` with the restored images in the folders of the originals, `images.csv` with what is
        known of each, `skipped.csv`, and `maps/` and `samples/` if the model makes such. A model that was fitted by
        this call is in `model/`.
    restorer : model
        Fitted; or not, to be fitted to the images first.
    command : {"denoise", "inpaint", "upscale", "enhance"}
    masks : path, optional
        Missing pixels of each image, as `MaskFiles` takes them, for a model that fills these in.
    preview : bool
        Also write `preview.png`, a contact sheet before and after.
    write_report : callable, optional
        Writes `report.html` from a result with pictures before and after.
    overwrite : bool
        Replace the output of an earlier call, and begin a killed one anew if its settings differ.
    progress : bool

    Returns
    -------
    Result
        With the images that were skipped, and why.

    Raises
    ------
    InputError
        If no image can be read, or the masks cannot.
    ArtifactError
        If `output` already exists and is not to be replaced, or a killed run had other settings, which are listed.
    AtlasBusyError
        If another process writes the same output.
    """
    layout, mask_files = layout_of(command), None if masks is None else MaskFiles(masks)
    opened = open_source(source)
    output = output_path(check_path(output, "output", "restore_files"))
    check_free(output, written_before(output, overwrite, layout))
    settings = {"command": command, "source": opened.origin.place, **_settings_of(restorer)}
    settings |= {"masks": None if mask_files is None else mask_files.stamp()}
    skipped = list(opened.skipped)
    with UnfinishedFolder.opened(output, settings, opened, layout, overwrite=overwrite) as run:
        restorer = _fitted(restorer, run, source, opened, mask_files, progress)
        names = {folded(key) for key in opened.keys}
        for item in unfinished_items(opened, run, skipped, PARTS[command], progress=progress, own_colors=True):
            try:
                _restore(run, item, restorer, mask_files, names)
            except InputError as error:
                skipped.append((item.key, str(error)))
        if not len(run):
            run.discard()
            why = f" ({skipped[0][0]}: {skipped[0][1]})" if skipped else ""
            raise InputError(f"No image of {opened.name} can be restored{why}; nothing was written.")
        lines = list(run.lines())
        result = _result(output, command, restorer, lines, skipped)
        _write_tables(run, lines, skipped)
        if preview or write_report is not None:
            views = list(_views(run, opened, lines, mask_files))
            if preview:
                run.write("preview.png", encode(contact_sheet(views)))
            if write_report is not None:
                write_report(_report_of(result, views, lines), run.folder / "report.html")
        run.finish(overwrite)
    names_of_files = [(str(output / name), what) for name, what in WRITTEN.items() if (output / name).exists()]
    result.panels = [FileList(files=names_of_files)]
    return result


WRITTEN = {
    "images": "the restored images",
    "images.csv": "what is known of each",
    "report.html": "some of them before and after",
    "preview.png": "a contact sheet before and after",
    "maps": "how uncertain each pixel is, 32-bit TIFF",
    "samples": "further fills of each image",
    "model": "the model, for new images: imatlas.load",
    "skipped.csv": "the files that were skipped, and why",
}


def restore_file(
    source: Any, output: str | Path, restorer: Restorer, *, command: str, masks: str | Path | None = None
) -> Result:
    """Restore one image, and write it to a file, whose suffix selects the format; see `restore_files`.

    Raises
    ------
    InputError
        If there is not exactly one image, it cannot be read, or the format cannot hold it.
    """
    opened = open_source(source)
    output = output_path(check_path(output, "output", "restore_file"))
    if len(opened.keys) != 1:
        raise InputError(
            f"'{opened.name}' has {len(opened.keys)} items, so the output is a folder; omit the suffix of "
            f"'{output.name}'."
        )
    value = opened.read(0)
    item = Item(opened.keys[0], "", value if isinstance(value, bytes) else b"", read_item(opened, 0, own_colors=True))
    mask_files = None if masks is None else MaskFiles(masks)
    if _is_unfitted(restorer):
        restorer = fitted_to(restorer, Images(source), mask_files)
    made, _ = restored(item, restorer, mask_files)
    format = next(f for f in SUFFIXES if output.suffix.lower() in SUFFIXES[f])
    encoded = encode_like(made.pixels, item.picture, item.data, format=format)
    if encoded.format != format:
        raise InputError(
            f"A {format} file cannot hold {made.pixels.shape[2]} channels of {made.pixels.dtype}; end '{output.name}' "
            f"in {SUFFIXES[encoded.format][0]}."
        )
    write_file(output, encoded.content)
    height, width = made.pixels.shape[:2]
    done = RestoredFile(
        key=item.key, stamp="", files=[output.name], width=width, height=height, format=format, facts=dict(made.facts)
    )
    result = _result(output.parent, command, restorer, [done], [])
    result.metrics |= dict(made.facts)
    result.panels = [FileList(files=[(str(output), f"{width} x {height} pixels")])]
    result.data["files"] = [str(output)]
    return result


def restored(item: Item, restorer: Restorer, masks: MaskFiles | None) -> tuple[Restoration, ImageSpec]:
    """One image restored, with the facts that the model tells, and the spec of the image before.

    Raises
    ------
    InputError
        If its mask does not fit.
    """
    pixels, spec = upright(item.picture)
    options = {} if masks is None else {"missing": masks.of(item.key, pixels.shape[:2])}
    if getattr(restorer, "any_kind", False):
        made = restoration_by(restorer, pixels, spec, **options)
    else:
        made = restoration_as_fitted(restorer, pixels, spec, **options)
    height, width, channels = made.pixels.shape
    if made.pixels.dtype != pixels.dtype or channels != spec.channels or height % spec.height or width % spec.width:
        raise TypeError(
            f"{type(restorer).__name__} made {made.pixels.dtype} pixels of shape {made.pixels.shape} of {spec.dtype} "
            f"pixels of shape {pixels.shape}."
        )
    return made, spec


def _is_unfitted(restorer: Any) -> bool:
    """Whether a model is to be fitted first; not every one has something to learn."""
    return hasattr(restorer, "fit") and not restorer.__sklearn_is_fitted__()


def _settings_of(restorer: Any) -> dict[str, Any]:
    """The class of a model and its parameters."""
    parameters = restorer.get_params(deep=False) if hasattr(restorer, "get_params") else {}
    return {"model": type(restorer).__name__, **{name: str(value) for name, value in parameters.items()}}


def _fitted(
    restorer: Restorer, run: Run, source: Any, opened: Source, masks: MaskFiles | None, progress: bool
) -> Restorer:
    """The model, fitted to all images if it is not; that of a killed run that is continued."""
    if not _is_unfitted(restorer):
        return restorer
    if run.model:
        return artifact.load(run.model, classes=(type(restorer),))
    fitted = fitted_to(restorer, Images(opened if isinstance(source, str | Path) else source, progress=progress), masks)
    run.save_model(fitted)
    return fitted


def fitted_to(restorer: Any, images: Images, masks: MaskFiles | None) -> Any:
    """The model, fitted to the images without what the masks say is missing."""
    if masks is None:
        return restorer.fit(images)
    keys = images.keys

    def missing(row: int, size: tuple[int, int]) -> np.ndarray:
        try:
            return masks.of(keys[row], size)
        except InputError:  # told when the image is to be restored
            return np.ones(size, bool)

    return restorer.fit(images, mask=missing)


def _restore(run: Run, item: Item, restorer: Restorer, masks: MaskFiles | None, keys: set[str]) -> None:
    """Restore one image and write its files; raises InputError if its mask does not fit."""
    made, spec = restored(item, restorer, masks)
    encoded = encode_like(made.pixels, item.picture, item.data)
    height, width = made.pixels.shape[:2]
    facts = dict(made.facts)
    if (height, width) == (spec.height, spec.width):
        facts |= {"psnr_to_original": _psnr(item.picture.pixels(), made.pixels, spec)}
    name = name_like(item.key, encoded.format, keys, run.taken_files, run.taken_folders)
    files = [run.write(name, encoded.content)]
    stem = name.removeprefix("images/")
    for title, values in made.maps.items():
        content = encode(values[..., None].astype(np.float32), "tiff")
        files.append(run.write(f"maps/{stem}-{title}.tif", content))
    for number, pixels in enumerate(made.others, 2):
        other = encode_like(pixels, item.picture, item.data)
        files.append(run.write(f"samples/{stem}-{number}{Path(name).suffix}", other.content))
    run.add(
        RestoredFile(
            key=item.key,
            stamp=item.stamp,
            files=files,
            width=width,
            height=height,
            format=encoded.format,
            facts=facts,
            notes=[*item.picture.notes, *encoded.notes],
        )
    )


def _psnr(before: np.ndarray, after: np.ndarray, spec: ImageSpec) -> float | None:
    """Peak signal-to-noise ratio in dB of an image to its original, in rows; None if they are equal."""
    total, n = 0.0, 0
    span = spec.high - spec.low if spec.dtype == "float32" else float(np.iinfo(spec.dtype).max)
    for old, new in zip(before, after, strict=True):
        differences = (new.astype(np.float64) - old) / span
        known = np.isfinite(differences)
        total, n = total + float(np.square(differences[known]).sum()), n + int(known.sum())
    return None if total == 0 else round(float(-10 * np.log10(total / n)), 2)


def _write_tables(run: Run, lines: Sequence[RestoredFile], skipped: list[tuple[str, str]]) -> None:
    if skipped:
        write_csv(run.folder / "skipped.csv", ("key", "reason"), skipped)
    columns, rows = _table(lines)
    write_csv(run.folder / "images.csv", columns, rows)


def _table(lines: Sequence[RestoredFile]) -> tuple[list[str], list[list[Fact]]]:
    """Columns and rows of the table of images."""
    facts = list(dict.fromkeys(name for done in lines for name in done.facts))
    rows = [
        [
            done.key,
            done.files[0],
            done.width,
            done.height,
            done.format,
            *map(done.facts.get, facts),
            "; ".join(done.notes),
        ]
        for done in lines
    ]
    return ["key", "file", "width", "height", "format", *facts, "notes"], rows


def _result(
    output: Path, command: str, restorer: Restorer, lines: Sequence[RestoredFile], skipped: list[tuple[str, str]]
) -> Result:
    done = {"denoise": "denoised", "inpaint": "inpainted", "upscale": "upscaled", "enhance": "enhanced"}[command]
    sentences = [f"{counted(len(lines), 'image')} {done}."]
    sentences += restorer.summary() if isinstance(restorer, SummarizedRestorer) else []
    changed = [one for one in lines if any(" written as " in note for note in one.notes)]
    if changed:
        sentences.append(
            f"{counted(len(changed), 'image')} in another format than before, such as {changed[0].key}: "
            f"{changed[0].notes[-1]}."
        )
    if skipped:
        sentences.append(f"{counted(len(skipped), 'file')} skipped, such as {skipped[0][0]}: {skipped[0][1]}.")
    return Result(
        name=command,
        title=PARTS[command],
        sentences=sentences,
        metrics={"n_images": len(lines)},
        data={"files": [str(output)], "skipped": [list(pair) for pair in skipped]},
    )


def _views(run: Run, source: Source, lines: Sequence[RestoredFile], masks: MaskFiles | None) -> Iterator[View]:
    """Some images before and after, evenly spread."""
    items = {key: i for i, key in enumerate(source.keys)}
    for i in np.unique(np.linspace(0, len(lines) - 1, N_VIEWS).astype(int)).tolist():
        done = lines[i]
        before = read_item(source, items[done.key])
        after = read_picture((run.folder / done.files[0]).read_bytes(), name=done.files[0])
        missing = None if masks is None else masks.of(done.key, (before.height, before.width))
        yield view_of(before, after, done.key, missing)


def _report_of(result: Result, views: Sequence[View], lines: Sequence[RestoredFile]) -> Result:
    """The result with what a report shows."""
    columns, rows = _table(lines[:N_ROWS])
    note = "Drag, or use the arrow keys." + (
        f" {len(views)} of {len(lines):,} images." if len(views) < len(lines) else ""
    )
    panels = [
        Comparisons(
            title="A part of each at full size, where most has changed",
            names=("before", "after"),
            pairs=[_lightly_packed(view.part) for view in views],
            captions=[view.caption for view in views],
            size=PART_SIZE,
            note=note,
        ),
        Comparisons(
            title="Whole images",
            names=("before", "after"),
            pairs=[_lightly_packed(view.whole) for view in views],
            captions=[view.caption for view in views],
            size=WHOLE_SIZE,
        ),
        DataTable(title="All images" if len(rows) == len(lines) else f"The first {N_ROWS}", columns=columns, rows=rows),
    ]
    return replace(result, panels=panels)


def _lightly_packed(pair: tuple[np.ndarray, np.ndarray]) -> tuple[bytes, bytes]:
    """Pictures as files that keep noise and blur, which are compared here."""
    before, after = (encode(pixels, "webp", quality=PICTURE_QUALITY) for pixels in pair)
    return before, after
