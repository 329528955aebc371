"""Damage saved models in many seeded ways and count the results of loading and using them.

    python tools/damage_models.py                       # 2,000 damages over all models
    python tools/damage_models.py -n 200 --seed 7       # fewer, with another seed
    python tools/damage_models.py --model vae --only 12 # one damage, with its full output

Damages and acceptable results are those of `damage_atlas.py`. In a third of them checksums are recomputed: JSON values,
or shapes, dtypes and values of the arrays are changed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import damage_atlas  # sets the number of threads
import numpy as np
from damage_atlas import ExpectedError, Outcome, Subject, faults, sweep

TINY: dict[str, Any] = {"max_steps": 2, "progress": False, "device": "cpu", "size": "small"}
LATENT: dict[str, Any] = {"latent_dim": 3, **TINY}


def rows() -> np.ndarray:
    """Three clusters of vectors (60, 5)."""
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(c, 0.3, (20, 5)) for c in (0, 2, 4)]).astype(np.float32)


def pictures() -> np.ndarray:
    """Gray pictures (16, 12, 12, 1)."""
    from imatlas.testing import synthetic_images

    return synthetic_images(16, size=12)


def labels() -> np.ndarray:
    """Classes for a quarter of the vectors, -1 for the others."""
    y = np.repeat([0, 1, 2], 20)
    return np.where(np.arange(60) % 4 == 0, y, -1)


def words() -> np.ndarray:
    """The same as strings."""
    return np.array(["left", "middle", "right", None], dtype=object)[labels()]


def fits() -> dict[str, Callable[[], Any]]:
    """Every model; several variants of those that store different things."""
    import imatlas as ia

    y = np.arange(16) % 3
    inner = partial(ia.Autoencoder, **LATENT)
    return {
        "som": lambda: ia.SOM(rows=3, cols=4, topology="hexagonal").fit(rows()),
        "kmeans": lambda: ia.KMeans(n_clusters=3).fit(rows()),
        "image_clusterer": lambda: ia.ImageClusterer(n_clusters=3).fit(rows()),
        "outlier_detector": lambda: ia.OutlierDetector(false_positive_rate=0.1).fit(rows()),
        "som_classifier": lambda: ia.SOMClassifier().fit(rows(), labels()),
        "few_labels": lambda: ia.FewLabelsClassifier().fit(rows(), words()),
        "layout": lambda: ia.Layout().fit(rows()[::8]),
        "autoencoder": lambda: ia.Autoencoder(sharpness=0.05, **LATENT).fit(pictures()),
        "vae": lambda: ia.VAE(**LATENT).fit(pictures(), y),
        "gan": lambda: ia.GAN(**LATENT).fit(pictures(), y),
        "gan of vectors": lambda: ia.GAN(**LATENT).fit(pictures(), np.random.default_rng(0).random((16, 2))),
        "flow_matching": lambda: ia.FlowMatching(autoencoder=inner(), n_steps=2, **TINY).fit(pictures(), y),
        "flow of pixels": lambda: ia.FlowMatching(autoencoder=None, n_steps=2, **TINY).fit(pictures()),
        "self_supervised": lambda: ia.SelfSupervisedEncoder(**TINY).fit(pictures()),
        "pretrained": lambda: ia.PretrainedEncoder(image_size=32, layers="many", n_components=2).fit(pictures()),
    }


def save(name: str, folder: Path) -> None:
    """Fit a model and save it."""
    warnings.simplefilter("ignore")
    fits()[name]().save(folder)


def use(vectors: bool, folder: Path) -> None:
    """Load a model and write the results of its methods."""
    from imatlas.errors import ImatlasError
    from imatlas.models import artifact

    warnings.simplefilter("ignore")
    try:
        model = artifact.load(folder)
        given = rows()[::7] if vectors else pictures()[:3]
        answers = {}
        for verb in ("transform", "predict", "predict_proba", "score_samples", "p_values", "confidence"):
            if hasattr(model, verb):
                answers[verb] = getattr(model, verb)(given)
        for verb, options in (("next_to_label", {"n": 3}), ("coarse", {"n_groups": 2}), ("project", {"X": given})):
            if hasattr(model, verb):
                answers[verb] = getattr(model, verb)(**options)
        for verb, options in (("sample", {"n_samples": 2}), ("sliders", {"n_directions": 2, "n_steps": 2})):
            if hasattr(model, verb):
                answers[verb] = getattr(model, verb)(**options)
        for verb in ("vary", "inverse_transform"):
            if hasattr(model, verb):
                wanted = given if verb == "vary" else answers.get("predict", answers.get("transform"))
                answers[verb] = getattr(model, verb)(wanted)
        fitted = {
            name: getattr(model, name, None) for name in ("history_", "labels_", "cells_", "n_steps_", "classes_")
        }
    except ImatlasError as error:
        print(f"Error: {error}", file=sys.stderr)
        raise ExpectedError from error
    for verb, answer in answers.items():
        np.save(f"out/{verb}.npy", answer, allow_pickle=answer.dtype == object)
    print(repr(fitted))


def seal_model(folder: Path, changed: Path) -> None:
    """Recompute the checksums of a model after a file was changed."""
    from imatlas.system.inventory import entry_of, seal

    path = folder / "model.json"
    values = json.loads(path.read_text())
    if not isinstance(values, dict):
        return
    values.pop("seal", None)
    if isinstance(values.get("files"), dict) and changed.name in values["files"]:
        values["files"][changed.name] = entry_of(changed)._asdict()
    path.write_text(json.dumps({**values, "seal": seal(values)}))


def damaged(folder: Path, rng: np.random.Generator, seal: Callable[[Path, Path], None] | None) -> tuple[str, bool]:
    """Damage a saved model once; returns a description, and whether checksums were recomputed."""
    if rng.random() > 0.2 or seal is None:
        return damage_atlas.damaged(folder, rng, seal)
    from safetensors.numpy import load_file, save_file

    path = folder / "weights.safetensors"
    arrays = load_file(path)
    name = sorted(arrays)[int(rng.integers(len(arrays)))]
    deed, arrays[name] = changed_array(arrays[name], rng)
    if deed == "gone":
        del arrays[name]
    save_file(arrays, path)
    seal(folder, path)
    return f"array {name} {deed}", True


def changed_array(array: np.ndarray, rng: np.random.Generator) -> tuple[str, np.ndarray]:
    """An array with another shape, dtype or values, and a description."""
    spoilt = np.array(array).reshape(-1)
    kind = str(rng.choice(["gone", "shorter", "longer", "flat", "turned", "type", "empty", "nasty", "nasty", "nasty"]))
    if kind == "shorter":
        return kind, array[: len(array) // 2] if array.ndim else array
    if kind == "longer":
        return kind, np.concatenate([array, array]) if array.ndim else array[None]
    if kind == "turned":
        return kind, np.ascontiguousarray(array.T)
    if kind == "type":
        dtype = str(rng.choice(["float64", "int64", "uint8", "float16", "bool", "int32", "float32"]))
        return f"as {dtype}", array.astype(dtype)
    if kind == "nasty" and spoilt.size:
        value = float(rng.choice([np.nan, np.inf, -1.0, -2.0, 0.0, 1e30, -1e30, 1e9, 100.0, 3.0]))
        places = rng.integers(0, spoilt.size, int(rng.choice([1, 3, spoilt.size])))
        with np.errstate(all="ignore"):
            spoilt[places] = np.array(value).astype(array.dtype)
        return f"holds {value}", spoilt.reshape(array.shape)
    return kind, {"flat": spoilt, "empty": array[:0] if array.ndim else array}.get(kind, array)


def subject(name: str) -> Subject:
    """A model to be damaged."""
    vectors = name in ("som", "kmeans", "image_clusterer", "outlier_detector", "som_classifier", "few_labels", "layout")
    return Subject(name, partial(save, name), {"use": partial(use, vectors)}, sealed=seal_model, damage=damaged)


def warm() -> None:
    """Import what models need without calling anything, as threads do not survive a fork."""
    import sklearn.decomposition
    import torch

    from imatlas import models
    from imatlas.models import artifact

    torch.set_num_threads(1)
    for name in models.MODELS:
        models.model_class(name)
    del sklearn, artifact


def main() -> int:
    """Run a sweep and print its counts; returns 1 if there were faults."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-n", type=int, default=2000, help="number of damages [default: 2000]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--model", choices=list(fits()), action="append", help="only these models")
    parser.add_argument("--only", type=int, help="only the damage with this number, with its full output")
    arguments = parser.parse_args()
    damage_atlas.MAX_BYTES, damage_atlas.MAX_SECONDS = 2**30, 30.0
    warm()
    names = arguments.model or list(fits())
    every: list[tuple[str, Outcome]] = []
    for place, name in enumerate(names):
        numbers = list(range(place, arguments.n, len(names))) if arguments.only is None else [arguments.only]
        with tempfile.TemporaryDirectory(prefix="damage-") as work:
            outcomes, asked = sweep(
                subject(name), numbers, seed=arguments.seed, workers=arguments.workers, work=Path(work)
            )
        assert asked, f"{name} is not deterministic"
        every += [(name, outcome) for outcome in outcomes]
        kinds = Counter(kind for outcome in outcomes for kind, _ in outcome.answers.values())
        print(f"{name}: {', '.join(f'{n} {kind}' for kind, n in sorted(kinds.items()))}", flush=True)
    for name, outcome in every if arguments.only is not None else ():
        print(name, outcome.number, outcome.damage, *(f"\n  {n}: {k} {s}" for n, (k, s) in outcome.answers.items()))
    wrong = [(name, *found) for name, outcome in every for found in faults([outcome])]
    for name, outcome, _, kind, text in wrong[:40]:
        print(f"  {name} {outcome.number} {outcome.damage[:200]!r}: {kind}: {text.strip()[-400:]}")
    for forged, title in ((False, "damages"), (True, "forged, with recomputed checksums")):
        some = [outcome for _, outcome in every if outcome.forged == forged]
        kinds = Counter(kind for outcome in some for kind, _ in outcome.answers.values())
        print(f"{len(some):,} {title}: {', '.join(f'{n} {kind}' for kind, n in sorted(kinds.items()))}")
    print(json.dumps(Counter(kind for _, outcome in every for kind, _ in outcome.answers.values())))
    print(f"{len(wrong):,} faults")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
