"""Invalid arguments are refused uniformly: what it is, what it must be, what was given."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from skimage import data
from sklearn.base import clone

import imatlas as ia
from imatlas.arguments import check_int, check_number, check_path, check_seed, shown
from imatlas.errors import ImatlasError, InputError, InputTypeError, ParameterError
from imatlas.images.dataset import Images
from imatlas.images.sources.user_input import as_one, as_several
from imatlas.tasks.classify import classify, labels_of

pytestmark = pytest.mark.usefixtures("one_thread")

NOT_COUNTS = (2.0, "2", True, np.True_, None, 2.5, np.float64(2.0), [2], np.array([2, 3]), b"2")


@pytest.mark.parametrize("value", [2, np.int64(2), np.uint8(2), np.array(2), torch.tensor(2)])
def test_integers_of_every_library_are_accepted(value: Any) -> None:
    got = check_int(value, "k", "search", low=1)
    assert type(got) is int
    assert got == 2


@pytest.mark.parametrize("value", NOT_COUNTS, ids=repr)
def test_other_types_are_not_integers(value: Any) -> None:
    with pytest.raises(
        ParameterError, match=r"The 'k' parameter of search must be an int in the range \[1, inf\)\. Got "
    ):
        check_int(value, "k", "search", low=1)


@pytest.mark.parametrize("value", [-0.1, 1.1, 2, "0.5", True, None, np.nan, np.inf, 10**400, [0.5]], ids=str)
def test_numbers_lie_in_their_range(value: Any) -> None:
    with pytest.raises(ParameterError, match=r"must be a number in the range \[0, 1\]"):
        check_number(value, "strength", "sample", low=0, high=1)
    assert check_number(np.float32(0.5), "strength", "sample", low=0, high=1) == 0.5


def test_a_seed_is_a_number_or_drawn_from_a_generator() -> None:
    assert check_seed(np.int64(7), "fit") == 7
    for make in (np.random.RandomState, np.random.default_rng):
        some = make(0)
        first, second = check_seed(some, "fit"), check_seed(some, "fit")
        assert first != second
        assert first == check_seed(make(0), "fit")
    assert 0 <= check_seed(None, "fit") < 2**31
    for wrong in (-1, 1.0, "0", True, 2**63):
        with pytest.raises(ParameterError, match="random_state"):
            check_seed(wrong, "fit")


def test_messages_contain_no_bytes_and_no_arrays() -> None:
    assert shown(b"\xff" * 5000) == "5,000 bytes"
    assert shown(np.zeros((300, 2))) == "an ndarray of shape (300, 2)"
    assert shown("a" * 500) == "a str"
    for wrong in (b"a.atlas", None, 3, ["a"]):
        with pytest.raises(InputTypeError, match="'folder' parameter of load must be a path"):
            check_path(wrong, "folder", "load")


def test_one_image_of_every_kind() -> None:
    array = np.zeros((9, 8, 3), np.uint8)
    picture = Image.fromarray(array)
    file = io.BytesIO()
    picture.save(file, "PNG")
    for image in (array, array[..., 0], torch.from_numpy(array), picture, file, file.getvalue(), bytearray(b"x")):
        assert len(as_one(image)) == 1
        assert len(as_several(image)) == len(as_several([image])) == 1
    assert as_several("a.png") == ["a.png"]
    assert as_several(np.array(["a.png", "b.png"])) == as_several(("a.png", "b.png")) == ["a.png", "b.png"]
    assert len(as_several(np.zeros((5, 9, 8, 3)))) == 5
    assert len(as_several(np.zeros((5, 9, 7)))) == 1  # one image of seven channels
    for wrong in ([array], ["ab"], 3, None, {"image": picture}, True, pa.array([1]), 2.5, np.int64(3)):
        with pytest.raises(InputTypeError, match="The 'query' must be one image"):
            as_one(wrong, "query")
    for shape in ((8,), (1, 9, 8, 3), ()):
        with pytest.raises((InputError, InputTypeError)):
            as_one(np.zeros(shape))


@pytest.mark.parametrize("make", [np.random.RandomState, np.random.default_rng])
@pytest.mark.parametrize("name", ["SOM", "KMeans", "ImageClusterer", "OutlierDetector", "Layout", "SOMClassifier"])
def test_models_draw_their_seed_from_a_generator(name: str, make: Callable[[int], Any], rng, tmp_path) -> None:
    X = rng.random((60, 4)).astype(np.float32)
    y = (X[:, 0] > 0.5).astype(int)
    given = make(0)
    model = getattr(ia, name)(random_state=given).fit(X, y)
    assert model.random_state is given
    seed = model._seed()
    model.save(tmp_path / "model")
    loaded = ia.load(tmp_path / "model")
    assert loaded.random_state == seed  # so that the same can be learned again
    assert model.fit(X, y)._seed() != seed
    assert clone(getattr(ia, name)(random_state=make(0))).fit(X, y)._seed() == seed


def test_two_fits_from_one_generator_differ_and_the_saved_seed_repeats_one(rng, tmp_path) -> None:
    X = rng.random((60, 4)).astype(np.float32)
    som = ia.SOM(rows=3, cols=3, init="random", random_state=np.random.RandomState(0))
    first, second = som.fit(X).codebook_.copy(), som.fit(X).codebook_.copy()
    assert not np.array_equal(first, second)
    som.save(tmp_path / "som")
    np.testing.assert_array_equal(clone(ia.load(tmp_path / "som")).fit(X).codebook_, second)


def test_networks_draw_their_seed_and_check_arguments(two_kinds, tmp_path) -> None:
    images, _ = two_kinds
    model = ia.Autoencoder(max_steps=2, latent_dim=4, progress=False, random_state=np.random.RandomState(0))
    model.fit(images)
    model.save(tmp_path / "model")
    assert ia.load(tmp_path / "model").random_state == model.seed_
    assert model.sample(2, random_state=np.random.default_rng(0)).shape == (2, 8, 8, 1)
    np.testing.assert_array_equal(model.sample(np.int64(2), random_state=np.int64(3)), model.sample(2, random_state=3))
    wrong: list[Callable[[], Any]] = [
        lambda: model.sample(2.0),
        lambda: model.sample("2"),
        lambda: model.sample(2, random_state=-1),
        lambda: model.vary(images[:2], strength="0.5"),
        lambda: model.morph(3.0, images=images[:2]),
        lambda: model.sliders(n_directions="2"),
        lambda: model.sliders(n_steps=2.0),
    ]
    for call in wrong:
        with pytest.raises(ParameterError, match="parameter of Autoencoder must be"):
            call()


@pytest.fixture(scope="module")
def learned(tmp_path_factory) -> tuple[Path, Path]:
    """A folder of 24 photographs and the atlas of it."""
    root = tmp_path_factory.mktemp("arguments")
    folder = root / "photos"
    folder.mkdir()
    rng, whole = np.random.default_rng(0), (data.chelsea(), data.coffee())
    for i in range(24):
        top, left = rng.integers(0, 200, 2)
        Image.fromarray(whole[i % 2][top : top + 90, left : left + 90]).resize((20, 20)).save(folder / f"{i:02d}.png")
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    ia.learn(folder, root / "a.atlas", budget="1s", encoder="own", image_size=16, clusters=2, progress=False)
    torch.set_num_threads(n_threads)
    return folder, root / "a.atlas"


@pytest.fixture
def atlas(learned) -> ia.Atlas:
    return ia.load(learned[1])


def test_every_method_accepts_every_form_of_an_image(atlas, learned) -> None:
    path = learned[0] / "03.png"
    content = path.read_bytes()
    array = np.array(Image.open(path))
    expected = atlas.search(str(path), k=3)["key"].to_pylist()
    with open(path, "rb") as file:
        for image in (path, content, io.BytesIO(content), file, Image.open(path), array, torch.from_numpy(array)):
            assert atlas.search(image, k=3)["key"].to_pylist() == expected
            assert atlas.explain(image=image, heat=False).data["cluster"] == atlas.store.rows["cluster"][3]
            assert atlas.sample(1, like=image).shape == (1, 16, 16, 3)
            assert len(atlas.outlier_heatmaps(image).rows) == len(atlas.thumbnails(image)) == 1
        assert atlas.morph(content, file, frames=2).shape == (2, 16, 16, 3)
    assert atlas.search("03.png", k=2, like="04.png").equals(atlas.search("03.png", k=2, like=["04.png"]))
    assert len(atlas.thumbnails("03.png")) == len(atlas.outlier_heatmaps("03.png").rows) == 1
    heat = atlas.explain(image=content).panels
    assert len(heat[0].rows) == 1
    assert "the image" not in heat[1].captions  # it is none of its own neighbors


def test_inputs_that_are_not_images_are_named(atlas) -> None:
    for wrong in (3, None, ["03.png"], {"image": 1}, True):
        with pytest.raises(InputTypeError, match="The 'query' must be one image"):
            atlas.search(wrong)
        with pytest.raises((InputTypeError, ParameterError)):
            atlas.explain(image=wrong)
        with pytest.raises(InputTypeError, match="must be one image"):
            atlas.morph(wrong, "03.png")
    with pytest.raises(InputTypeError, match="The 'like' must be one image"):
        atlas.search("03.png", like=3)
    with pytest.raises(InputError, match=r"no image 'none\.png', nor is there such a file"):
        atlas.explain(image="none.png")


WRONG: dict[str, Callable[[ia.Atlas], Any]] = {
    **{f"k {k!r}": lambda atlas, k=k: atlas.search("03.png", k) for k in (*NOT_COUNTS, 0, -1)},  # type: ignore[misc]
    "k of many": lambda atlas: atlas.kneighbors(k=2.0),
    "k of others": lambda atlas: atlas.kneighbors(np.zeros((1, 16, 16, 3), np.uint8), k="2"),
    "region of 3": lambda atlas: atlas.search("03.png", region=(1, 2, 3)),
    "region of floats": lambda atlas: atlas.search("03.png", region=(1.0, 2.0, 3.0, 4.0)),
    "region as text": lambda atlas: atlas.search("03.png", region="1,2,3,4"),
    "region of pictures": lambda atlas: atlas.thumbnails(["03.png"], region=(1, 2, 3)),
    "n": lambda atlas: atlas.sample(2.0),
    "no n": lambda atlas: atlas.sample(0),
    "n as text": lambda atlas: atlas.sample("2"),
    "cell": lambda atlas: atlas.sample(1, cell=(1.0, 1.0)),
    "cell as text": lambda atlas: atlas.sample(1, cell="1"),
    "cell of three": lambda atlas: atlas.sample(1, cell=(1, 1, 1)),
    "cluster": lambda atlas: atlas.sample(1, cluster="0"),
    "weights": lambda atlas: atlas.sample(1, cluster=[0, 1], weights="ab"),
    "strength": lambda atlas: atlas.sample(1, like="03.png", strength="0.5"),
    "strength of 2": lambda atlas: atlas.sample(1, like="03.png", strength=2),
    "seed below 0": lambda atlas: atlas.sample(1, random_state=-1),
    "seed of floats": lambda atlas: atlas.morph("03.png", "04.png", random_state=1.0),
    "seed of score": lambda atlas: atlas.score(random_state="a"),
    "frames": lambda atlas: atlas.morph("03.png", "04.png", frames=3.0),
    "one frame": lambda atlas: atlas.morph("03.png", "04.png", frames=1),
    "strength of a blend": lambda atlas: atlas.blend("03.png", "04.png", strength=2),
    "axis": lambda atlas: atlas.blend("03.png", "04.png", axis=1),
    "cells": lambda atlas: atlas.morph(cells=3),
    "directions": lambda atlas: atlas.sliders(directions=2.0),
    "steps": lambda atlas: atlas.sliders(steps="3"),
    "clusters": lambda atlas: atlas.clusters("2"),
    "no clusters": lambda atlas: atlas.clusters(0),
    "groups": lambda atlas: atlas.clusters(groups=2.0),
    "too many groups": lambda atlas: atlas.clusters(groups=99),
    "cluster to explain": lambda atlas: atlas.explain(cluster=1.0),
    "labels to come": lambda atlas: atlas.classify({"03.png": "a", "04.png": "b"}, n_next=2.0),
    "neighbors": lambda atlas: atlas.export("a.parquet", to="embedding-atlas", n_neighbors=2.0),
    "width": lambda atlas: atlas.map("map.png", width="500"),
    "quality": lambda atlas: atlas.map("map.jpg", quality=101),
    "path of a map": lambda atlas: atlas.map(b"map.png"),
    "path of a report": lambda atlas: atlas.report(b"report.html"),
    "path of an export": lambda atlas: atlas.export(None, to="numpy"),
    "path of a model": lambda atlas: atlas.model("map").save(None),
    "batch": lambda atlas: next(ia.Images(np.zeros((2, 4, 4))).batches(2.0)),
    "share": lambda atlas: ia.Images(np.zeros((2, 4, 4))).split("0.5"),
    "seed of a split": lambda atlas: ia.Images(np.zeros((2, 4, 4))).split(random_state=-1),
    "size": lambda atlas: ia.Images(np.zeros((2, 4, 4))).at_size("4"),
}


@pytest.mark.parametrize("name", WRONG)
def test_invalid_arguments_are_reported_in_one_line(name: str, atlas, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImatlasError) as caught:
        WRONG[name](atlas)
    assert "Got" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not os.listdir(tmp_path)


def test_errors_name_the_argument(atlas) -> None:
    with pytest.raises(ParameterError, match="The 'width' parameter of map"):
        atlas.map("map.png", width="500")
    with pytest.raises(ParameterError, match="The 'n_next' parameter of classify"):
        atlas.classify({"03.png": "a", "04.png": "b"}, n_next=2.0)
    with pytest.raises(InputError, match="Got groups=99"):
        atlas.clusters(groups=99)


@pytest.mark.parametrize("folder", [None, b"a.atlas", 3])
def test_an_atlas_is_a_folder(folder: Any) -> None:
    for opened in (ia.Atlas, ia.load, lambda folder: ia.learn(np.zeros((4, 8, 8), np.uint8), folder)):
        with pytest.raises(InputTypeError, match="must be a path or a str"):
            opened(folder)


@pytest.mark.parametrize(
    "options",
    [
        *({"budget": budget} for budget in ([], True, b"5m", {})),
        *({"clusters": clusters} for clusters in (2.0, True, "2", 0)),
        *({"image_size": size} for size in ("64", (64, 64), 4, 5000)),
        *({"random_state": seed} for seed in (-1, 1.0, "0", True)),
        *({name: []} for name in ("encoder", "fit", "device")),
    ],
    ids=str,
)
def test_learn_refuses_invalid_settings_before_writing(options, tmp_path) -> None:
    with pytest.raises(ParameterError):
        ia.learn(np.zeros((4, 8, 8), np.uint8), tmp_path / "a.atlas", progress=False, **options)
    assert not (tmp_path / "a.atlas").exists()


def test_learn_keeps_the_seed_that_it_drew(tmp_path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (9, 10, 10, 1)).astype(np.uint8)

    def seed(**options: Any) -> Any:
        atlas = ia.learn(images, tmp_path / "a.atlas", budget=0.5, progress=False, **options)
        return atlas.store.manifest.settings["random_state"]

    drawn = seed(random_state=np.random.RandomState(0), clusters=np.int64(2))
    assert drawn == np.random.RandomState(0).randint(2**31 - 1)
    assert seed(random_state=drawn, clusters=2) == drawn  # the same settings: it goes on
    assert seed(random_state=None, clusters=2) == drawn
    assert seed(random_state=np.int64(0), overwrite=True) == 0


def test_labels_in_common_containers(atlas, learned, tmp_path) -> None:
    folder = learned[0]
    plain = {f"{i:02d}.png": "ab"[i % 2] for i in range(6)}
    expected = atlas.classify(plain).labels
    keys, values = list(plain), list(plain.values())
    given: list[Any] = [
        {Path(key): label for key, label in plain.items()},
        {str(folder / key): label for key, label in plain.items()},
        {folder / key: label for key, label in plain.items()},
        {f"photos/{key}": label for key, label in plain.items()},
        {f"C:\\Users\\me\\photos\\{key}": label for key, label in plain.items()},
        {**plain, "07.png": float("nan"), "08.png": None, "09.png": "", "10.png": -1},
        pa.table({"Label": values, "key": keys, "note": values}),
        pa.table({"file": keys, "kind": values}),
    ]
    for labels in given:
        np.testing.assert_array_equal(atlas.classify(labels).labels, expected)
    numbers = atlas.classify({key: "ab".index(label) for key, label in plain.items()})
    np.testing.assert_array_equal(numbers.labels, np.where(expected == "a", "0", "1"))
    assert [row[1] for row in numbers.result.panels[0].rows] == [3, 3]
    with pytest.raises(InputError, match=r"'00\.png' is labeled both 'a' and 'c'"):
        atlas.classify({**plain, "photos/00.png": "c"})
    with pytest.raises(InputError, match="for unknown images"):
        atlas.classify({f"/elsewhere/{key}": label for key, label in plain.items()})


def test_labels_of_pandas(atlas) -> None:
    pd = pytest.importorskip("pandas")
    plain = {f"{i:02d}.png": "ab"[i % 2] for i in range(6)}
    assert labels_of(pd.Series(plain)) == plain
    assert labels_of(pd.Series(plain, dtype="category")) == plain
    assert labels_of(pd.DataFrame({"key": list(plain), "label": list(plain.values()), "x": 1})) == plain
    assert labels_of(pd.Series({"a.png": 1, "b.png": None})) == {"a.png": "1"}
    assert labels_of({"a.png": pd.NA, "b.png": pd.NaT, "c.png": "x"}) == {"c.png": "x"}
    with pytest.raises(InputError, match=r"'a\.png' is labeled both 'x' and 'y'"):
        labels_of(pd.Series(["x", "y"], index=["a.png"] * 2))
    with pytest.raises(InputError, match="must have the columns key and label"):
        labels_of(pd.DataFrame({"a": [1], "b": [2], "c": [3]}))


def test_invalid_labels_are_named(rng) -> None:
    for wrong in (None, ["a"], 3, np.zeros(3), {("a", 1)}):
        with pytest.raises(InputTypeError, match="Labels must be a dict"):
            labels_of(wrong)
    for wrong in ({0: "a", 1: "b"}, {None: "a"}, {b"a.png": "a"}):
        with pytest.raises(InputTypeError, match="Labels are given by the keys"):
            classify(rng.random((3, 2)), ["a", "b", "c"], wrong)
    with pytest.raises(InputTypeError, match="A label must be a text or a number"):
        labels_of({"a.png": ["x"]})


def test_files_of_a_list_are_found_by_their_paths(tmp_path, rng) -> None:
    keys = ["a/1.png", "b/2.png", "b/3.png", "a/4.png"]
    labels = {str(tmp_path / key): "xy"[i % 2] for i, key in enumerate(keys[:2])}
    found = classify(rng.random((4, 2)).astype(np.float32), keys, labels, roots=[tmp_path])
    assert found.labels[:2].tolist() == ["x", "y"]


@pytest.mark.parametrize("name", ["SOMClassifier", "FewLabelsClassifier"])
def test_unique_labels_cause_no_warning(name: str, rng, recwarn) -> None:
    X = rng.random((30, 3)).astype(np.float32)
    model = getattr(ia, name)().fit(X, [f"class {i}" for i in range(30)])
    assert len(model.classes_) == 30
    model.predict(X)
    assert not [w for w in recwarn if "unique classes" in str(w.message)]


def test_a_16_bit_query_equals_the_8_bit_one(atlas) -> None:
    light = (data.coffee()[100:164, 100:164] // 3 + 40).astype(np.uint8)
    deep = light.astype(np.uint16) * np.uint16(257)
    pair = [atlas.embed(image[None])[0] for image in (light, deep)]
    assert np.linalg.norm(pair[0] - pair[1]) < 0.1 * np.median(atlas.store.spread.pairs)
    found = [atlas.search(image, k=5)["key"].to_pylist() for image in (deep, light)]
    assert found[0][:3] == found[1][:3]
    assert len(set(found[0]) & set(found[1])) >= 4  # of two at nearly the same distance either may come first
    near = [atlas.kneighbors(image[None], 3)[1].tolist() for image in (light, deep)]
    assert near[0] == near[1]
    for made in (
        lambda image: atlas.sample(1, like=image, strength=0.0),
        lambda image: atlas.morph(image, "03.png", frames=2),
        lambda image: atlas.sliders(image, directions=1, steps=2),
    ):
        np.testing.assert_allclose(made(deep).astype(int), made(light).astype(int), atol=8)
    scores = [atlas.outliers(image[None]).outlier_scores[0] for image in (light, deep)]
    np.testing.assert_allclose(scores[0], scores[1], rtol=0.1)
    explained = [atlas.explain(image=image, heat=False).data for image in (light, deep)]
    assert explained[0]["nearest"] == explained[1]["nearest"]
    shown = [np.asarray(Image.open(io.BytesIO(atlas.thumbnails(image)[0]))).mean() for image in (light, deep)]
    assert shown[0] == pytest.approx(shown[1], abs=2)
    region = (0, 0, 20, 20)
    assert atlas.search(deep, k=3, region=region).equals(atlas.search(light, k=3, region=region))


def test_strings_are_not_booleans(tmp_path: Path, rng: np.random.Generator) -> None:
    """A string is neither True nor False: "no" would overwrite."""
    model = ia.KMeans(n_clusters=2).fit(rng.random((8, 3)))
    model.save(tmp_path / "m")
    for wrong in ("no", "yes", 1, None, np.int8(0)):
        with pytest.raises(ParameterError, match="'overwrite' parameter of save must be True or False"):
            model.save(tmp_path / "m", overwrite=wrong)
        with pytest.raises(ParameterError, match="'overwrite' parameter of learn must be True or False"):
            ia.learn(np.zeros((8, 16, 16), np.uint8), tmp_path / "x.atlas", overwrite=wrong)
        with pytest.raises(ParameterError, match="'progress' parameter of Images must be True or False"):
            Images(np.zeros((8, 16, 16), np.uint8), progress=wrong)
    assert not (tmp_path / "x.atlas").exists()
    model.save(tmp_path / "m", overwrite=np.True_)


def test_the_home_folder_is_expanded_in_every_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: Any) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    images = rng.integers(0, 256, (12, 16, 16, 3)).astype(np.uint8)
    atlas = ia.learn(images, "~/a.atlas", encoder="own", budget=0.5, progress=False)
    assert ia.load("~/a.atlas").folder == atlas.folder == tmp_path / "home" / "a.atlas"
    atlas.map("~/m.png")
    atlas.report("~/r.html")
    atlas.export("~/e.npz", to="numpy")
    ia.KMeans(n_clusters=2).fit(atlas.embedding).save("~/km")
    assert {p.name for p in (tmp_path / "home").iterdir()} >= {"a.atlas", "m.png", "r.html", "e.npz", "km"}
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize("model", [ia.SOM(rows=2, cols=2), ia.KMeans(), ia.OutlierDetector(), ia.Layout()])
def test_images_instead_of_vectors_need_an_encoder(model: Any, tmp_path: Path) -> None:
    pixels = np.zeros((8, 16, 16, 3), np.uint8)
    for given in (["a.png", "b.png"], [Path("a.png")] * 3, Images(pixels), pixels, list(pixels)):
        with pytest.raises(InputTypeError, match=rf"embed them first: {type(model).__name__}\(\)\.fit"):
            model.fit(given)


def test_invalid_arguments_of_an_atlas(tmp_path: Path, rng: Any) -> None:
    images = rng.integers(0, 256, (12, 16, 16, 3)).astype(np.uint8)
    atlas = ia.learn(images, tmp_path / "a.atlas", encoder="own", budget=0.5, progress=False)
    for wrong in (None, 2, np.int8(2), [-1], [10**9], [None], [np.nan], b"x", ["0"], [2.0], "2"):
        for verb in (atlas.store.thumbnails, atlas.store.pixels):
            with pytest.raises(ParameterError, match="'rows' parameter of Atlas must be"):
                verb(wrong)
    assert len(atlas.store.thumbnails(np.array([2, 0]))) == len(atlas.store.thumbnails([np.int8(1), 3])) == 2
    for wrong in ("foo", [1], None):
        with pytest.raises(ParameterError, match="'role' parameter of model must be one of 'encoder', 'map'"):
            atlas.model(wrong)
    invalid = {"callback": 3, "moved_from": 3, "device": "gpu"}
    for name, wrong in invalid.items():
        with pytest.raises(ImatlasError, match=name):
            ia.learn(images, tmp_path / "deep" / "b.atlas", **{name: wrong})
        assert not (tmp_path / "deep").exists()


def test_infinity_is_refused(tmp_path: Path, rng: Any) -> None:
    """Infinity is treated as a missing pixel, or it would spoil the sums of a whole set."""
    images = rng.random((12, 16, 16)).astype(np.float32)
    images[3, 2, 2], images[4, 5, 5], images[5, 1, 1] = np.inf, -np.inf, np.nan
    for given in (images, list(images), images.astype(np.float64)):
        pixels = Images(given).pixels[..., 0]
        np.testing.assert_array_equal(pixels, np.where(np.isfinite(images), images, np.nan))
    assert np.isinf(images).sum() == 2
    Image.fromarray(images[3]).save(tmp_path / "a.tif")
    assert np.isnan(Images(tmp_path / "a.tif").pixels[0, 2, 2, 0])
    assert np.shares_memory(Images(images[:3]).pixels, images)
    assert np.isnan(Images(np.full((2, 8, 8), 1e300)).pixels).all()
    ia.learn(images, tmp_path / "a.atlas", encoder="own", budget=0.5, progress=False)
