"""Every kind of picture through every verb of an atlas: 1, 2, 3, 4 and 7 channels, 8 and 16 bits and floats, files and
arrays, on the command line and in Python."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

import imatlas as ia
from imatlas.cli import main
from imatlas.errors import InputError
from imatlas.images.dataset import Images
from imatlas.images.hashing import hamming, perceptual_hash
from imatlas.images.pixels import conformed, rgb_view
from imatlas.images.spec import ImageSpec
from imatlas.images.tensors import to_tensor
from imatlas.images.thumbnails import thumbnail_pixels
from imatlas.tasks import score

SIDE, N = 12, 26
DTYPES = ("uint8", "uint16", "float32")
CHANNELS = (1, 2, 3, 4, 7)
TOPS = {"uint8": 255, "uint16": 65535, "float32": 1.0}


def picture(seed: int, channels: int, dtype: str, side: int = SIDE) -> np.ndarray:
    """A disc or a square (side, side, channels) of any dtype; with 2 or 4 channels the ground is transparent."""
    rng = np.random.default_rng(seed)
    down, across = np.mgrid[:side, :side] + 0.5
    middle = side / 2 + rng.uniform(-1.5, 1.5, 2)
    gaps = np.abs(down - middle[0]), np.abs(across - middle[1])
    inside = np.hypot(*gaps) < side / 3 if seed % 2 else np.maximum(*gaps) < side / 4
    levels = rng.uniform(0.2, 0.9, channels)
    values = np.where(inside[..., None], levels, 0.05) + rng.normal(0, 0.02, (side, side, channels))
    if channels in (2, 4):
        values[..., -1] = inside
    values = np.clip(values, 0, 1) * TOPS[dtype]
    return values.astype(np.float32) if dtype == "float32" else np.rint(values).astype(dtype)


def png16(pixels: np.ndarray) -> bytes:
    """A PNG of 16 bits per sample, with alpha for 2 or 4 channels; Pillow writes only gray ones."""
    height, width, channels = pixels.shape
    rows = pixels.astype(">u2").reshape(height, -1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    color = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, color, 0, 0, 0)),
        (b"IDAT", zlib.compress(raw)),
        (b"IEND", b""),
    )
    chunks = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def as_file(folder: Path, name: str, pixels: np.ndarray, format: str) -> Path:
    """Pixels (H, W, C) as a PNG or a TIFF."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.{format}"
    if format == "tif":
        one = pixels.shape[2] == 1
        planar = None if one else "contig"
        tifffile.imwrite(path, pixels[..., 0] if one else pixels, photometric="minisblack", planarconfig=planar)
    elif pixels.dtype == np.uint16:
        path.write_bytes(png16(pixels))
    else:
        Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(path)
    return path


@dataclass
class Case:
    """One kind of picture, the atlas of a set of it, and the requests to it."""

    channels: int
    dtype: str
    format: str
    root: Path
    source: Any = None
    keys: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.root / "set.atlas"

    @property
    def atlas(self) -> Any:
        return ia.load(self.folder)

    @property
    def query(self) -> np.ndarray:
        return picture(999, self.channels, self.dtype)

    @property
    def query_path(self) -> Path:
        format = "tif" if self.format == "npy" or self.dtype == "float32" or self.channels > 4 else "png"
        return as_file(self.root / "query", "query", self.query, format)

    @property
    def n_out(self) -> int:
        """Channels of generated images."""
        return self.atlas.store.spec.channels

    def cli(self, *words: Any, code: int = 0) -> None:
        assert main([str(word) for word in words]) == code, words


def make(root: Path, channels: int, dtype: str, format: str) -> Case:
    case = Case(channels, dtype, format, root)
    pictures = [picture(i if i < N - 1 else 0, channels, dtype) for i in range(N)]  # the last doubles the first
    if format in ("png", "tif"):
        for i, pixels in enumerate(pictures):
            as_file(root / "pictures", f"{i:02d}", pixels, format)
        case.source = root / "pictures"
    elif format == "npy":
        np.save(root / "set.npy", np.stack(pictures))
        case.source = root / "set.npy"
    else:
        case.source = np.stack(pictures)
    atlas = ia.learn(case.source, case.folder, budget=1.0, progress=False, image_size=SIDE)
    case.keys = atlas.table()["key"].to_pylist()
    return case


def out(case: Case, name: str) -> Path:
    folder = case.root / "out"
    folder.mkdir(exist_ok=True)
    return folder / name


def made(case: Case, images: np.ndarray, n: int) -> None:
    assert images.shape == (n, SIDE, SIDE, case.n_out)
    assert images.dtype == np.uint8


def labels(case: Case) -> Path:
    path = out(case, "labels.csv")
    path.write_text("key,label\n" + "".join(f"{key},{'ab'[i % 2]}\n" for i, key in enumerate(case.keys[:8])))
    return path


def video(case: Case, ending: str) -> None:
    if ending == "mp4":
        pytest.importorskip("av")
    path = out(case, f"morph.{ending}")
    case.cli("morph", case.folder, case.keys[0], case.query_path, "-o", path, "--frames", 4, "--overwrite")
    assert path.stat().st_size


def drawn(case: Case, show: str, ending: str) -> None:
    pytest.importorskip("matplotlib")
    path = out(case, f"map-{show}.{ending}")
    case.cli("map", case.folder, "-o", path, "--show", show, "--width", 300, "--overwrite")
    assert path.stat().st_size


def exported(case: Case, to: str, name: str) -> None:
    path = out(case, name)
    words = ["export", case.folder, "-o", path, "--to", to, "--overwrite"]
    if to == "folders" and case.format in ("npy", "array"):
        case.cli(*words, code=1)  # there are no files to link to
        return
    case.cli(*words)
    assert path.exists()


def onnx(case: Case) -> None:
    pytest.importorskip("onnx")
    for role in ("encoder", "generator"):
        if not hasattr(case.atlas.model(role), "module_"):  # composed of images: there is no network to write
            continue
        case.cli(
            "export",
            case.folder / case.atlas.store.manifest.models[role],
            "-o",
            out(case, f"onnx-{role}"),
            "--overwrite",
        )


def explained(case: Case, name: str, value: Any) -> None:
    case.cli("explain", case.folder, name, value, "-o", out(case, "explain.html"), "--overwrite")


def searched(case: Case, query: Any, **options: Any) -> None:
    found = case.atlas.search(query, 4, **options)
    assert len(found) == 4
    assert np.isfinite(found["distance"].to_numpy()).all()


def reported(case: Case) -> None:
    path = case.atlas.report(out(case, "report.html"))
    assert path.read_text().count("data:image/") > 10


VERBS: dict[str, Callable[[Case], Any]] = {
    "check": lambda c: c.cli("check", c.source) if not isinstance(c.source, np.ndarray) else None,
    "info": lambda c: c.cli("info", c.folder),
    "table": lambda c: c.cli("table", c.folder, "-o", out(c, "table.csv"), "--overwrite"),
    "search key": lambda c: searched(c, c.keys[0]),
    "search path": lambda c: searched(c, c.query_path),
    "search array": lambda c: searched(c, c.query),
    "search several": lambda c: searched(c, c.keys[0], like=[c.query], unlike=[c.query_path]),
    "search region of a key": lambda c: searched(c, c.keys[0], region=(1, 1, 8, 8)) if c.format != "array" else None,
    "search region of a path": lambda c: searched(c, c.query_path, region=(1, 1, 8, 8)),
    "search region of an array": lambda c: searched(c, c.query, region=(1, 1, 8, 8)),
    "search sheet": lambda c: c.cli(
        "search", c.folder, c.query_path, c.keys[1], "-k", 3, "-o", out(c, "found.png"), "--overwrite"
    ),
    "kneighbors": lambda c: c.atlas.kneighbors(c.source, 3),
    "clusters": lambda c: c.cli("clusters", c.folder, "-o", out(c, "clusters.csv"), "--overwrite"),
    "clusters anew": lambda c: c.cli("clusters", c.folder, "--clusters", 3, "--groups", 2),
    "classify": lambda c: c.cli("classify", c.folder, "--labels", labels(c), "-o", out(c, "all.csv"), "--overwrite"),
    "classify others": lambda c: c.cli("classify", c.folder, "--labels", labels(c), "--images", c.query_path),
    "explain cluster": lambda c: explained(c, "--cluster", 0),
    "explain image": lambda c: explained(c, "--image", c.keys[2]),
    "outliers page": lambda c: c.cli("outliers", c.folder, "--page", out(c, "outliers.html"), "--overwrite"),
    "outliers of others": lambda c: c.cli(
        "outliers", c.folder, "--images", c.query_path.parent, "--page", out(c, "odd2.html"), "--overwrite"
    ),
    "why odd of an array": lambda c: c.atlas.outlier_heatmaps([c.query]),
    "duplicates": lambda c: c.cli("duplicates", c.folder),
    "duplicates of the source": lambda c: ia.load(c.folder) and find(c),
    "duplicates against": lambda c: c.cli("duplicates", c.folder, "--against", c.query_path.parent),
    "duplicates plan": lambda c: (
        c.cli("duplicates", c.source, "-o", out(c, "plan.csv"), "--overwrite") if c.format in ("png", "tif") else None
    ),
    **{
        f"map {show} {ending}": (lambda c, show=show, ending=ending: drawn(c, show, ending))
        for show, ending in (
            ("exemplar", "png"),
            ("exemplar", "svg"),
            ("exemplar", "pdf"),
            ("mean", "png"),
            ("mean", "svg"),
            ("prototype", "png"),
            ("u-matrix", "svg"),
            ("u-matrix-between", "png"),
            ("hits", "png"),
        )
    },
    "map regions": lambda c: c.cli("map", c.folder, "-o", out(c, "r.png"), "--outline", "regions", "--overwrite"),
    "report": reported,
    "sample": lambda c: made(c, c.atlas.sample(3), 3),
    "sample cell": lambda c: made(c, c.atlas.sample(2, cell=(0, 0)), 2),
    "sample cluster": lambda c: made(c, c.atlas.sample(2, cluster=0), 2),
    "sample like key": lambda c: made(c, c.atlas.sample(2, like=c.keys[0], strength=0.3), 2),
    "sample like path": lambda c: made(c, c.atlas.sample(2, like=c.query_path, strength=1.0), 2),
    "sample like array": lambda c: made(c, c.atlas.sample(2, like=c.query), 2),
    "sample weights": lambda c: made(c, c.atlas.sample(4, cell=0, cluster=0, like=c.keys[1], weights=[2, 1, 1]), 4),
    "sample sheet": lambda c: c.cli("sample", c.folder, "-n", 4, "-o", out(c, "new.png"), "--overwrite"),
    "sample folder": lambda c: c.cli("sample", c.folder, "-n", 2, "-o", out(c, "new"), "--overwrite"),
    "morph keys": lambda c: made(c, c.atlas.morph(*c.keys[:2], frames=3), 3),
    "morph arrays": lambda c: made(c, c.atlas.morph(c.query, c.keys[0], frames=3), 3),
    "morph cells": lambda c: made(c, c.atlas.morph(cells=[0, 1], frames=3), 3),
    **{f"morph {ending}": (lambda c, ending=ending: video(c, ending)) for ending in ("gif", "webp", "mp4")},
    "sliders": lambda c: made(c, c.atlas.sliders(directions=2, steps=3).reshape(6, SIDE, SIDE, -1), 6),
    "sliders like": lambda c: c.cli("sliders", c.folder, "--like", c.query_path, "-o", out(c, "s.png"), "--overwrite"),
    "score": lambda c: c.cli("score", c.folder),
    "pixels": lambda c: c.atlas.store.pixels([0, 1]),
    "export embedding-atlas": lambda c: exported(c, "embedding-atlas", "e.parquet"),
    "export numpy": lambda c: exported(c, "numpy", "e.npz"),
    "export folders": lambda c: exported(c, "folders", "groups"),
    "export onnx": onnx,
}


def find(case: Case) -> None:
    from imatlas.tasks.duplicates.gallery import Gallery
    from imatlas.tasks.duplicates.groups import find_duplicates

    found = find_duplicates(Gallery.of(case.source, progress=False))
    assert found.result.metrics["n_duplicates"] >= 1


IN_MEMORY = (
    *("search key", "search path", "search array", "search several", "search region of an array", "kneighbors"),
    *(
        "classify others",
        "explain image",
        "outliers page",
        "duplicates of the source",
        "map exemplar png",
        "map mean png",
    ),
    *("sample", "sample like array", "sample folder", "morph arrays", "sliders", "score", "pixels", "export folders"),
)
"""Methods in which an array, or an .npy file, could differ from a folder."""


QUICK = {(2, "uint8", "png"), (7, "uint16", "tif")}
"""Kinds that go through every method within a minute; all others take several minutes more."""


def questions() -> list[Any]:
    """Every kind from files through every method, and from arrays and .npy files through some; most are slow."""
    found = []
    for channels in CHANNELS:
        for depth, dtype in enumerate(DTYPES):
            on_disk = (channels, dtype, "png" if channels <= 4 and dtype != "float32" else "tif")
            in_memory = (channels, dtype, ("array", "npy")[(channels + depth) % 2])
            slow = set() if (channels, depth) == (7, 0) else {"export onnx"}
            found += [(on_disk, verb) for verb in VERBS if verb not in slow]
            found += [(in_memory, verb) for verb in IN_MEMORY]
    slow = [pytest.mark.slow]
    return [
        pytest.param(
            kind,
            verb,
            id=f"{'-'.join(map(str, kind))}-{verb}",
            marks=[] if kind in QUICK and verb != "export onnx" else slow,
        )
        for kind, verb in found
    ]


@pytest.fixture(autouse=True)
def few_new_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """`score` makes 200, which takes several minutes for all kinds."""
    monkeypatch.setattr(score, "FEWEST_MADE", 40)


@pytest.fixture(scope="module")
def learned() -> dict[Any, Case]:
    """The cases created so far."""
    return {}


@pytest.fixture
def case(request: Any, learned: dict[Any, Case], tmp_path_factory: Any, one_thread: None) -> Case:
    if request.param not in learned:
        learned[request.param] = make(tmp_path_factory.mktemp("kind"), *request.param)
    return learned[request.param]


@pytest.mark.parametrize(("case", "verb"), questions(), indirect=["case"])
def test_every_method_accepts_every_kind(case: Case, verb: str) -> None:
    VERBS[verb](case)


@pytest.mark.parametrize("have", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("want", [1, 2, 3, 4, 7])
def test_one_table_of_channels(have, want):
    pixels = picture(1, have, "uint8")[None]
    spec, to = (ImageSpec(SIDE, SIDE, channels) for channels in (have, want))
    if (have == 7) != (want == 7):
        with pytest.raises(InputError, match=rf"Images with {have} channels? cannot be converted to {want} channel"):
            conformed(pixels, spec, to)
        return
    found = conformed(pixels, spec, to)
    assert found.shape == (1, SIDE, SIDE, want)
    assert found.dtype == np.uint8
    if have == want:
        np.testing.assert_array_equal(found, pixels)
    elif have in (2, 4) and want in (1, 3):  # what is clear is white, not black
        np.testing.assert_array_equal(found[pixels[..., -1] == 0], 255)
    elif want in (2, 4):
        opacity = pixels[..., -1] if have in (2, 4) else np.full(pixels.shape[:3], 255)
        np.testing.assert_array_equal(found[..., -1], opacity)
    elif have == 1:
        np.testing.assert_array_equal(found, np.repeat(pixels, 3, axis=3))
    else:
        np.testing.assert_allclose(found[..., 0], pixels @ np.array([0.299, 0.587, 0.114]), atol=0.51)


@pytest.mark.parametrize(("channels", "dtype"), [(2, "uint8"), (4, "uint16"), (7, "uint8"), (7, "float32")])
def test_a_thumbnail_of_a_stack_contains_all_channels(channels, dtype):
    pixels = np.stack([picture(i, channels, dtype) for i in range(3)])
    images = Images(pixels)
    thumbnail = images.thumbnails[1]
    assert np.asarray(Image.open(io.BytesIO(thumbnail))).shape[2:] == (() if channels == 2 else (3,))
    error = thumbnail_pixels(thumbnail, images.spec).astype(float) - pixels[1]
    assert np.abs(error).max() <= (images.spec.high - images.spec.low) / 500 + np.ptp(pixels) * 0.05 * (
        dtype != "uint8"
    )


def test_four_channels_without_alpha_are_not_rgba(tmp_path):
    for i in range(3):
        as_file(tmp_path, str(i), picture(i, 4, "uint8"), "tif")
    spec = Images(tmp_path).spec
    assert (spec.channels, spec.has_alpha) == (4, False)
    assert ImageSpec.from_json(spec.to_json()) == spec
    assert ImageSpec(8, 8, 4).to_json()["alpha"] is None  # goes without saying
    np.testing.assert_array_equal(Images(tmp_path).pixels[1], picture(1, 4, "uint8"))


def test_transparent_pixels_are_displayed_white(tmp_path):
    for i in range(3):
        as_file(tmp_path, str(i), picture(i, 2, "uint8"), "png")
    images = Images(tmp_path)
    seen = rgb_view(images.pixels, images.spec)
    assert (seen[images.pixels[..., -1] == 0] == 255).all()


def test_missing_and_infinite_values_are_ignored(rng):
    whole = rng.uniform(0, 1, (1, 16, 16)).astype(np.float32)
    holed = whole.copy()
    holed[0, 3, 3], holed[0, 5, 5], holed[0, 7, 7] = np.nan, np.inf, -np.inf
    assert hamming(perceptual_hash(whole), perceptual_hash(holed))[0] <= 8
    tensor = to_tensor(holed[..., None], ImageSpec(16, 16, 1, "float32", 0.0, 1.0))
    assert int(tensor.isnan().sum()) == 3
    assert not tensor.isinf().any()


def test_queries_of_other_kinds_in_an_atlas_of_photographs(tmp_path, capsys, one_thread):
    photos = np.stack([picture(i, 3, "uint8", 34) for i in range(10)])
    atlas = ia.learn(photos, tmp_path / "a.atlas", budget=0.5, encoder="pretrained", progress=False)
    for channels, dtype in ((3, "uint16"), (1, "uint16"), (2, "uint8"), (4, "float32"), (4, "uint8"), (1, "float32")):
        assert len(atlas.search(picture(1, channels, dtype, 34), 3)) == 3
    with pytest.raises(InputError, match="Images with 7 channels cannot be converted to 3 channels"):
        atlas.search(picture(1, 7, "uint8", 34))
    as_file(tmp_path, "seven", picture(1, 7, "uint8", 34), "tif")
    assert main(["search", str(tmp_path / "a.atlas"), str(tmp_path / "seven.tif")]) == 1
    assert capsys.readouterr().err.startswith("Error: Images with 7 channels cannot be converted")


def test_images_generated_from_gray_with_alpha_are_gray(tmp_path: Path) -> None:
    """A network that generates three colors freely makes green and violet tints."""
    for i in range(12):
        Image.fromarray(picture(i, 2, "uint8")).save(tmp_path / f"{i}.png")
    images = Images(tmp_path)
    assert (images.spec.channels, images.spec.has_alpha) == (2, True)
    made = ia.Autoencoder(latent_dim=4, max_steps=10).fit(images).sample(3)
    assert made.shape[-1] == 2
    Image.fromarray(picture(99, 4, "uint8")).save(tmp_path / "color.png")
    assert Images(tmp_path).spec.channels == 4
