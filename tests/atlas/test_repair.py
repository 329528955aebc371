"""The same `learn` command comes out with a sound atlas in one run: after damage, forgery, and other images."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from skimage import data

import imatlas as ia
from imatlas.atlas import learn
from imatlas.atlas.manifest import Manifest
from imatlas.atlas.table import ImagesTable
from imatlas.atlas.table_manifest import version_file
from imatlas.cli import main
from imatlas.errors import ArtifactError
from imatlas.system.inventory import seal
from imatlas.training import checkpoints

OPTIONS = {"budget": "1s", "encoder": "own", "clusters": 2, "progress": False}


def add(folder: Path, start: int, stop: int, *, mode: str = "L", size: int = 20) -> None:
    """Patches of a photograph, of any mode and size."""
    folder.mkdir(exist_ok=True)
    rng, whole = np.random.default_rng(start), data.chelsea()
    for i in range(start, stop):
        top, left = rng.integers(0, 200, 2)
        patch = Image.fromarray(whole[top : top + 90, left : left + 90]).resize((size, size))
        if mode == "I;16":
            patch = Image.fromarray(np.asarray(patch.convert("L")).astype(np.uint16) * 257)
        (patch if mode == "I;16" else patch.convert(mode)).save(folder / f"{i:02d}.png")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with `photos` and the finished `it.atlas` of them."""
    folder = tmp_path_factory.mktemp("made")
    add(folder / "photos", 0, 20)
    ia.learn(folder / "photos", folder / "it.atlas", **OPTIONS)
    return folder


@pytest.fixture
def copy(made, tmp_path) -> Path:
    """A copy of both, whose atlas names the copied photos."""
    folder = Path(shutil.copytree(made, tmp_path / "copy"))
    source = str(folder / "photos")
    reseal(
        folder / "it.atlas", source=source, settings={**Manifest.read(folder / "it.atlas").settings, "source": source}
    )
    return folder


@pytest.fixture
def few_stages(monkeypatch) -> None:
    """Without generator and report, which take the longest."""
    names = ("intake", "encoder", "map", "clusters", "outliers", "layout")
    monkeypatch.setattr(learn, "STAGES", {name: learn.STAGES[name] for name in names})


def reseal(atlas: Path, **values) -> None:
    found = json.loads((atlas / "atlas.json").read_text())
    found.pop("digest")
    found |= values
    (atlas / "atlas.json").write_text(json.dumps({**found, "digest": seal(found)}))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def forge(atlas: Path, **columns) -> None:
    """Change columns of the table, all checksums computed anew."""
    manifest = Manifest.read(atlas)
    named = manifest.table
    table = ImagesTable(atlas / named["name"], named["version"], manifest.inventory(atlas)).set(**columns)
    named["version"] = table.version
    manifest.commit(atlas)


def sound(atlas: ia.Atlas, n: int) -> None:
    """Whether all parts of an atlas agree."""
    assert len(atlas) == n
    assert not atlas.store.inventory.damaged()
    atlas.store.table.check()
    keys = atlas.keys
    source = Path(atlas.store.manifest.source)
    np.testing.assert_allclose(atlas.embed([source / key for key in keys]), atlas.embedding, atol=1e-4)
    np.testing.assert_array_equal(atlas.model("map").predict(atlas.embedding), atlas.store.rows["cell"])
    np.testing.assert_array_equal(atlas.model("clusters").predict(atlas.embedding), atlas.store.rows["cluster"])


@pytest.mark.parametrize("grown", [False, True])
@pytest.mark.parametrize("role", ["encoder", "map", "clusters", "outliers", "layout", "generator"])
def test_a_damaged_model_is_learned_again_also_where_images_came(copy, role, grown):
    folder = copy / "it.atlas"
    flip(folder / Manifest.read(folder).models[role] / "weights.safetensors")
    if grown:
        add(copy / "photos", 20, 22)
    atlas = ia.learn(copy / "photos", folder, **OPTIONS)
    sound(atlas, 22 if grown else 20)
    assert atlas.store.manifest.finished
    assert atlas.sample(2, cluster=0).shape[0] == 2
    assert (folder / "report.html").is_file()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (("L", 20), ("RGB", 20)),
        (("RGB", 48), ("L", 20)),
        (("I;16", 20), ("RGB", 20)),
    ],
)
def test_images_of_another_kind_do_not_bar_the_atlas(tmp_path, before, after):
    """First some are added, so that the set as a whole is another one; then only these are left."""
    photos, folder = tmp_path / "photos", tmp_path / "it.atlas"
    add(photos, 0, 10, mode=before[0], size=before[1])
    ia.learn(photos, folder, **OPTIONS)
    add(photos, 10, 22, mode=after[0], size=after[1])
    sound(ia.learn(photos, folder, **OPTIONS), 22)
    for i in range(10):
        (photos / f"{i:02d}.png").unlink()
    atlas = ia.learn(photos, folder, **OPTIONS)
    sound(atlas, 12)
    assert atlas.sample(2).shape[1:] == atlas.store.spec.shape


def test_added_images_of_another_size_leave_the_old_ones_in_their_places(copy):
    old = {row["key"]: row for row in ia.load(copy / "it.atlas").table().to_pylist()}
    add(copy / "photos", 20, 60, size=64)
    new = {row["key"]: row for row in ia.learn(copy / "photos", copy / "it.atlas", **OPTIONS).table().to_pylist()}
    assert len(new) == 60
    assert all((new[key]["cell"], new[key]["umap_x"]) == (old[key]["cell"], old[key]["umap_x"]) for key in old)


def test_a_report_that_is_gone_is_written_again(copy):
    (copy / "it.atlas" / "report.html").unlink()
    ia.learn(copy / "photos", copy / "it.atlas", **OPTIONS)
    assert (copy / "it.atlas" / "report.html").is_file()


@pytest.mark.parametrize("kind", ["of other images", "cut", "of another program", "a folder", "of a dead network"])
def test_an_old_checkpoint_never_stops_the_run(copy, kind, few_stages):
    folder = copy / "it.atlas"
    flip(folder / Manifest.read(folder).models["encoder"] / "weights.safetensors")
    path = folder / "cache" / "checkpoint" / checkpoints.NAME
    tensors, values = checkpoints.read(path.parent)
    path.unlink()
    if kind == "of other images":
        checkpoints.write(path.parent, tensors, values | {"identity": {**values["identity"], "images": "others"}})
    elif kind == "cut":
        path.write_bytes(b"")
    elif kind == "of another program":
        path.write_text("mine")
    elif kind == "a folder":
        path.mkdir()
    else:
        checkpoints.write(path.parent, {name: t * float("nan") for name, t in tensors.items()}, values)
    sound(ia.learn(copy / "photos", folder, **OPTIONS), 20)
    if kind == "of another program":
        (moved,) = path.parent.glob("*.before-*")
        assert moved.read_text() == "mine"


def test_a_generator_stopped_half_way_is_learned_for_the_images_of_now(tmp_path, capsys, monkeypatch):
    """Its checkpoint is of fewer images, other conditions and another budget."""
    monkeypatch.setattr("imatlas.atlas.learn_generator.MAX_COMPOSED", 0)  # trained for any number of images
    photos, folder = tmp_path / "photos", tmp_path / "it.atlas"
    add(photos, 0, 20)
    options = {**OPTIONS, "encoder": "self-supervised"}

    def stop(event: dict) -> None:
        if event["event"] == "checkpoint" and event["folder"].endswith("checkpoint-generator"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ia.learn(photos, folder, **options, callback=stop)
    assert (folder / "cache" / "checkpoint-generator" / checkpoints.NAME).is_file()
    assert "generator" not in Manifest.read(folder).models
    add(photos, 20, 21)
    events: list[dict] = []
    sound(ia.learn(photos, folder, **options, callback=events.append), 21)
    told = [event["message"] for event in events if event["event"] == "problem"]
    assert len(told) == 1
    assert "is of other images or settings" in told[0]
    assert "training starts over" in told[0]


def plant(folder: Path, version: int, kind: str) -> Path:
    """Put a version that no list names beside that of a table."""
    content = (folder / version_file(version)).read_bytes()
    path = folder / version_file(version + 1)
    if kind == "a name of old":
        path = path.with_name(f"{version + 1}.manifest")
    if kind == "a folder":
        path.mkdir()
    elif kind == "of another table":
        path.write_bytes(content)
    elif kind == "other folders":  # field 18 is a base path
        (start,) = np.frombuffer(content[-16:-8], "<u8")
        length = int.from_bytes(content[start : start + 4], "little")
        message = content[start + 4 : start + 4 + length] + b"\x92\x01\x0a\x22\x08s3://far"
        path.write_bytes(content[:start] + len(message).to_bytes(4, "little") + message + content[-16:])
    else:
        path.write_bytes(b"no manifest" * 300)
    return path


KINDS = ["garbage", "other folders", "a name of old", "of another table", "a folder"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_planted_version_of_the_table_is_not_built_upon(copy, kind, few_stages):
    folder = copy / "it.atlas"
    named = Manifest.read(folder).table
    path = plant(folder / named["name"], named["version"], kind)
    content = path.read_bytes() if path.is_file() else b""
    add(copy / "photos", 20, 21)
    for turn in range(2):
        atlas = ia.learn(copy / "photos", folder, **OPTIONS)
        sound(atlas, 21)
        assert atlas.store.manifest.table["name"] == "images-0002.lance"
        add(copy / "photos", 20 + turn, 21)
    assert not path.is_file() or path.read_bytes() == content
    assert all(b"s3://" not in p.read_bytes() for p in (folder / "images-0002.lance" / "_versions").iterdir())


def test_a_stage_that_only_adds_columns_leaves_a_planted_version_too(copy, few_stages):
    folder = copy / "it.atlas"
    manifest = Manifest.read(folder)
    plant(folder / manifest.table["name"], manifest.table["version"], "garbage")
    flip(folder / manifest.models["clusters"] / "weights.safetensors")
    sound(ia.learn(copy / "photos", folder, **OPTIONS), 20)


@pytest.mark.parametrize("kind", KINDS[:3])
def test_a_table_with_planted_versions_is_not_written_by_any_way(copy, kind):
    folder = copy / "it.atlas"
    table = ia.load(folder).store.table
    path = plant(table.path, table.version, kind)
    for write in (
        lambda: table.set(cell=np.zeros(20, np.int32)),
        lambda: table.index("embedding", np.zeros((1, table.n_features("embedding")))),
        lambda: ImagesTable.write(table.path, []),
    ):
        with pytest.raises(ArtifactError, match=f"{path.name}' is not a version that imatlas wrote"):
            write()


def first(values: list, value: object) -> list:
    return [value, *values[1:]]


NAN, INF = float("nan"), float("inf")
FORGED = {
    "key null": ("key", lambda v: first(v, None)),
    "key twice": ("key", lambda v: first(v, v[1])),
    "width null": ("width", lambda v: first(v, None)),
    "width negative": ("width", lambda v: first(v, -1)),
    "sha256 null": ("sha256", lambda v: first(v, None)),
    "sha256 other": ("sha256", lambda v: first(v, "x" * 64)),
    "held out null": ("held_out", lambda v: first(v, None)),
    "held out all": ("held_out", lambda v: [True] * len(v)),
    "double of none": ("duplicate_of", lambda v: first(v, "no such key")),
    "flag": ("flags", lambda v: first(v, "=cmd\x1b[31m")),
    "thumbnail null": ("thumbnail", lambda v: first(v, None)),
    "cell null": ("cell", lambda v: first(v, None)),
    "cell negative": ("cell", lambda v: first(v, -5)),
    "cell of no map": ("cell", lambda v: first(v, 10**6)),
    "cluster null": ("cluster", lambda v: first(v, None)),
    "cluster negative": ("cluster", lambda v: first(v, -7)),
    "cluster of no model": ("cluster", lambda v: first(v, 2 * 10**9)),
    "x": ("x", lambda v: first(v, NAN)),
    "umap": ("umap_y", lambda v: first(v, INF)),
    "outlier": ("outlier", lambda v: first(v, NAN)),
    "p-value": ("p_value", lambda v: first(v, -0.5)),
    "confidence": ("confidence", lambda v: first(v, 1.5)),
    "embedding NaN": ("embedding", lambda v: first(v, [NAN] * len(v[0]))),
    "embedding infinite": ("embedding", lambda v: first(v, [-INF] * len(v[0]))),
    "embedding large": ("embedding", lambda v: first(v, [3e38] * len(v[0]))),
    "embedding null": ("embedding", lambda v: first(v, None)),
    "embedding holes": ("embedding", lambda v: first(v, [None] * len(v[0]))),
    "embedding narrow": ("embedding", lambda v: [row[:3] for row in v]),
}


def forge_named(atlas: Path, name: str) -> str:
    column, change = FORGED[name]
    table = ia.load(atlas).store.table
    values = change(table.take(range(len(table)), [column])[column].to_pylist())
    kind = table._data.schema.field(column).type
    if name == "embedding narrow":
        kind = pa.list_(pa.float32(), 3)
    forge(atlas, **{column: pa.array(values, kind)})
    return column


@pytest.mark.parametrize("name", FORGED)
def test_forged_values_are_one_clear_line_for_every_verb(copy, name, capsys, monkeypatch):
    monkeypatch.chdir(copy)
    column = forge_named(Path("it.atlas"), name)
    Path("labels.csv").write_text("key,label\n01.png,A\n02.png,B\n03.png,A\n04.png,B\n")
    calls = [
        ("report", "-o", "r.html"),
        ("table", "-o", "t.csv"),
        ("clusters",),
        ("outliers",),
        ("search", "03.png"),
        ("explain", "--image", "03.png"),
        ("duplicates", "-o", "plan.csv"),
        ("map", "-o", "m.png", "--width", "100"),
        ("map", "-o", "h.png", "--width", "100", "--show", "hits"),
        ("export", "--to", "embedding-atlas", "-o", "e.parquet"),
        ("export", "--to", "folders", "-o", "f"),
        ("classify", "--labels", "labels.csv"),
        ("sample", "-n", "1", "-o", "s.png", "--cluster", "0"),
    ]
    told = 0
    for verb, *options in calls:
        code = main([verb, "it.atlas", *options])
        said = capsys.readouterr()
        lines = [line for line in said.err.splitlines() if line.startswith("Error: ")]
        assert "unexpected" not in said.err
        if code:
            (line,) = lines
            assert "damaged" in line
            assert "run the same 'imatlas learn' command again to rebuild it" in line
            told += column in line or "features" in line
    assert told


@pytest.mark.parametrize("name", FORGED)
def test_the_same_command_makes_a_forged_table_anew(copy, name, few_stages):
    folder = copy / "it.atlas"
    forge_named(folder, name)
    sound(ia.learn(copy / "photos", folder, **OPTIONS), 20)


def test_a_table_without_rows_is_damaged(copy, few_stages):
    folder = copy / "it.atlas"
    manifest = Manifest.read(folder)
    path = folder / manifest.table["name"]
    table = ImagesTable(path, manifest.table["version"])
    import lance

    empty = table._data.to_table(columns=table.columns).slice(0, 0)
    shutil.rmtree(path)
    version = lance.write_dataset(empty, os.fspath(path), enable_v2_manifest_paths=True).version
    for name in [name for name in manifest.files if name.startswith(path.name)]:
        del manifest.files[name]
    manifest.table["version"] = version
    names = [p.relative_to(folder).as_posix() for p in path.rglob("*") if p.suffix in (".manifest", ".txn", ".lance")]
    manifest.inventory(folder).record(name for name in names if (folder / name).is_file())
    manifest.commit(folder)
    with pytest.raises(ArtifactError, match="has no rows"):
        len(ia.load(folder))
    sound(ia.learn(copy / "photos", folder, **OPTIONS), 20)


def test_a_model_that_loads_not_or_is_of_another_atlas_is_learned_again(copy, few_stages):
    folder = copy / "it.atlas"
    manifest = Manifest.read(folder)
    ia.SOM(rows=2, cols=2).fit(np.eye(5, dtype=np.float32)).save(copy / "other")
    target = folder / manifest.models["map"]
    for file in (copy / "other").iterdir():
        shutil.copy(file, target / file.name)
    (folder / manifest.models["layout"] / "model.json").write_text("{}")
    manifest.inventory(folder).record(name for name in manifest.files if name.startswith(("map-", "layout-")))
    manifest.commit(folder)
    with pytest.raises(ArtifactError, match="it is for 5 features"):
        ia.load(folder).model("map")
    sound(ia.learn(copy / "photos", folder, **OPTIONS), 20)
