"""Describe a set of images before learning: formats, sizes, unusable files, duplicates, suggested settings."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from imatlas.arguments import counted
from imatlas.images.dataset import Images
from imatlas.result import Curve, DataTable, FileList, ImageGrid, Panel, Result
from imatlas.tasks.duplicates.by_hash import duplicates
from imatlas.tasks.quality_flags import FLAGS, Flags, quality_flags

SHOWN = 24
"""Images shown in a panel."""


def check(images: Images, *, estimate: dict[str, Any] | None = None) -> Result:
    """Contents of a set of images, its faults, and suggested settings for learning.

    Parameters
    ----------
    images : Images
        Decoded here if they were not before.
    estimate : dict, optional
        What `learn` would need on this machine: `minutes`, `memory_gb`, `cache_gb`, `encoder` and `why`.

    Raises
    ------
    InputError
        If no image can be used.
    """
    n = len(images)
    records = images.records
    widths, heights = records["width"].astype(np.int64), records["height"].astype(np.int64)
    formats = Counter(records["format"].tolist())
    modes = Counter(records["mode"].tolist())
    notes = Counter(note for text in records["notes"].tolist() if text for note in text.split("; "))
    unusable = [(key, reason) for key, reason in images.skipped if not reason.startswith("no images: ")]
    found = duplicates(images, shown=SHOWN // 2)
    flags = quality_flags(images.thumbnails, widths, heights)
    suggestion = suggest(images, widths, heights)
    n_exact, n_near = found.metrics["n_exact"], found.metrics["n_near"]
    counts = {
        "n_images": n,
        "n_skipped": len(unusable),
        "n_exact_duplicates": n_exact,
        "n_near_duplicates": n_near,
        "n_flagged": len(flags.rows),
    }
    sentences = [_summary(images, formats, widths, heights), _skipped_sentence(images, unusable), *found.sentences]
    sentences += flags_in_words(flags, n)
    sentences += [f"{count:,} of them: {note}." for note, count in notes.most_common(5)]
    sentences += [suggestion["image_size_why"], suggestion["fit_why"]]
    if estimate is not None:
        sentences.append(_estimate_sentence(estimate))
    return Result(
        name="check",
        title="Contents of the set",
        sentences=[sentence for sentence in sentences if sentence],
        metrics=counts,
        panels=_panels(images, formats, modes, widths, heights) + _flagged(images, flags) + found.panels,
        data={
            "formats": dict(formats.most_common()),
            "modes": dict(modes.most_common()),
            "notes": dict(notes.most_common()),
            "width": _quantiles(widths),
            "height": _quantiles(heights),
            "spec": images.spec.to_json(),
            "suggested": {"image_size": suggestion["image_size"], "fit": suggestion["fit"]},
            "skipped": [{"key": key, "reason": reason} for key, reason in images.skipped],
            "flags": [{"key": images.keys[i], "flags": flags.of[i]} for i in flags.rows],
            **found.data,
            **({"estimate": estimate} if estimate is not None else {}),
        },
        protocol=found.protocol,
    )


def flags_in_words(flags: Flags, n: int) -> list[str]:
    """The flags of `n` images as sentences."""
    named = [f"{count:,} {name}" for name, count in flags.counts.items() if count]
    are = "is" if len(flags.rows) == 1 else "are"
    sentences = [f"{len(flags.rows):,} of {counted(n, 'image')} {are} flagged: {', '.join(named)}."] if named else []
    if flags.typical:
        sentences.append(f"Most images are {' and '.join(flags.typical)}, so none is flagged for that.")
    return sentences


def _flagged(images: Images, flags: Flags) -> list[Panel]:
    """Some of the flagged images, and a list of all."""
    if not len(flags.rows):
        return []
    rules = "; ".join(f"{name}: {FLAGS[name]}" for name, count in flags.counts.items() if count)
    shown = flags.rows[:SHOWN].tolist()
    files = [(images.keys[i], flags.of[i]) for i in flags.rows]
    return [
        ImageGrid(
            title="Flagged images",
            note=f"{rules[0].upper()}{rules[1:]}.",
            images=[images.thumbnails[i] for i in shown],
            captions=[f"{images.keys[i]}: {flags.of[i]}" for i in shown],
            alt=f"{counted(len(shown), 'flagged image')}.",
        ),
        FileList(title="All flagged images", files=files),
    ]


def suggest(images: Images, widths: np.ndarray, heights: np.ndarray) -> dict[str, Any]:
    """An image size and a fit for a set, each with the reason as a sentence.

    The size is that of `images`. 'crop' is suggested where the center square holds at least 70 % of the median picture,
    else 'pad'.
    """
    spec = images.spec
    shorter = np.minimum(widths, heights)
    size = f"{spec.height} px" if spec.height == spec.width else f"{spec.height} x {spec.width} px"
    source = "as requested" if images.image_size is not None else "chosen by the size and number of the images"
    size_why = f"Resolution: {size} ({source}); the median shorter side is {int(np.median(shorter))} px"
    double = max(spec.height, spec.width) * 2
    if images.image_size is None and np.median(shorter) >= double:
        size_why += f", so {double} px would show more detail at about four times the cost"
    smaller = int((shorter < min(spec.height, spec.width)).sum())
    if smaller:
        size_why += f"; {counted(smaller, 'smaller image')} will be enlarged"
    kept = float(np.median(shorter / np.maximum(widths, heights)))
    fit = "crop" if kept >= 0.7 else "pad"
    if fit == "crop":
        fit_why = f"Fit: crop; the center square holds {kept:.0%} of the median picture."
    else:
        fit_why = f"Fit: pad (--fit pad); a center square would hold only {kept:.0%} of the median picture."
    return {"image_size": [spec.height, spec.width], "image_size_why": size_why + ".", "fit": fit, "fit_why": fit_why}


def _summary(images: Images, formats: Counter[str], widths: np.ndarray, heights: np.ndarray) -> str:
    n, spec = len(images), images.spec
    sizes = f"{widths.min()} x {heights.min()}"
    if widths.min() != widths.max() or heights.min() != heights.max():
        sizes += f" to {widths.max()} x {heights.max()}"
    kinds = {1: "gray", 3: "color", 4: "color with alpha"}
    depth = {"uint8": "8-bit", "uint16": "16-bit", "float32": "float"}[spec.dtype]
    kind = kinds.get(spec.channels, f"{spec.channels}-channel")
    named = ", ".join(f"{count:,} {name}" for name, count in formats.most_common(4))
    return f"{counted(n, 'image')} of {sizes} pixels, {depth} {kind} ({named})."


def _skipped_sentence(images: Images, unusable: list[tuple[str, str]]) -> str:
    others = [(key, reason) for key, reason in images.skipped if reason.startswith("no images: ")]
    if unusable:
        key, reason = unusable[0]
        text = f"{counted(len(unusable), 'file')} cannot be used, such as {key}: {reason}"
    else:
        text = "All images can be used"
    if others:
        text += f"; ignored: {others[0][0].strip('()')} ({others[0][1]})"
    return f"{text}."


def _estimate_sentence(estimate: dict[str, Any]) -> str:
    text = (
        f"Learning would take about {estimate['minutes']:g} minutes and {estimate['memory_gb']:g} GB of memory on this "
        f"machine, and {estimate['cache_gb']:g} GB of disk space while it lasts."
    )
    encoder = estimate.get("why") or estimate.get("encoder")
    return f"{text} Encoder: {encoder}." if encoder else text


def _quantiles(values: np.ndarray) -> dict[str, int]:
    low, middle, high = np.percentile(values, (0, 50, 100))
    return {"min": int(low), "median": int(middle), "max": int(high)}


def _panels(
    images: Images, formats: Counter[str], modes: Counter[str], widths: np.ndarray, heights: np.ndarray
) -> list[Panel]:
    rows = np.unique(np.linspace(0, len(images) - 1, SHOWN).round().astype(int)).tolist()
    thumbnails = images.thumbnails
    panels: list[Panel] = [
        ImageGrid(
            title="Samples",
            images=[thumbnails[row] for row in rows],
            captions=[images.keys[row] for row in rows],
            alt=f"{counted(len(rows), 'image')} of the set.",
        ),
        DataTable(
            title="Formats and modes",
            columns=("kind", "name", "images"),
            rows=[("format", *pair) for pair in formats.most_common()] + [("mode", *p) for p in modes.most_common()],
        ),
    ]
    if widths.min() != widths.max() or heights.min() != heights.max():
        share = np.linspace(0, 100, 41)
        panels.append(
            Curve(
                title="Sizes",
                note="Percentage of the images up to each size.",
                series={
                    "width": (np.percentile(widths, share).tolist(), share.tolist()),
                    "height": (np.percentile(heights, share).tolist(), share.tolist()),
                },
                x_label="pixels",
                y_label="percent of the images",
                alt="Cumulative distribution of widths and heights.",
            )
        )
    if images.skipped:
        panels.append(FileList(title="Unused files", files=images.skipped))
    return panels
