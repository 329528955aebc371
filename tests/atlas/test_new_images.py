"""New images and edits from the generator of an atlas that composes images of patches."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import imatlas as ia
from imatlas.atlas import new_images
from imatlas.atlas.atlas import Atlas
from imatlas.atlas.manifest import Manifest
from imatlas.atlas.recipes import cannot
from imatlas.errors import ArtifactError, InputError, ParameterError
from tests.atlas.test_learn import write_patches

pytestmark = pytest.mark.usefixtures("one_thread")


def with_patches(folder: Path) -> Path:
    """An atlas whose generator becomes a PatchDiffusion, as `learn` fits it."""
    store = ia.load(folder).store
    train = np.flatnonzero(~store.rows["held_out"])
    model = ia.PatchDiffusion(novelty=0.6, n_steps=6).fit(store.pixels(train), y=store.embedding[train])
    manifest = Manifest.read(folder)
    name = manifest.new_name(folder, "generator")
    model.save(folder / name)
    inventory = manifest.inventory(folder)
    inventory.record([f"{name}/{path.name}" for path in sorted((folder / name).iterdir())])
    manifest.models["generator"] = name
    known = [str(key) for key in store.rows["key"][train]]
    manifest.composed_of = dict(zip(known, store.rows["sha256"][train].tolist(), strict=True))
    manifest.commit(folder)
    return folder


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    root = tmp_path_factory.mktemp("new images")
    photos = write_patches(root / "photos", 60)
    ia.learn(photos, root / "photos.atlas", budget="3s", progress=False)
    return Atlas(with_patches(root / "photos.atlas"))


@pytest.fixture
def trained(atlas: Atlas) -> Atlas:
    """The atlas with a generator that composes nothing: the autoencoder that is its encoder."""
    other = Atlas(atlas.folder)
    other.store._models["generator"] = other.model("encoder")
    return other


def test_a_generator_that_makes_images_from_noise_only_says_so(atlas: Atlas) -> None:
    other, store = Atlas(atlas.folder), atlas.store
    y = store.map_conditions.prototypes[store.map_conditions.cells]
    other.store._models["generator"] = ia.GAN(max_steps=2, random_state=0).fit(store.pixels(np.arange(len(y))), y=y)
    keys = other.keys
    assert other.sample(2, like=keys[0], strength=1).shape == other.sample(2, cell=1).shape
    for ask in (
        lambda: other.sample(1, like=keys[0], strength=0.5),
        lambda: other.morph(keys[0], keys[1], frames=3),
        lambda: other.morph(cells=[0, 1], frames=3),
    ):
        with pytest.raises(InputError, match="a GAN, makes images from noise only"):
            ask()
    assert {"strength", "morph"} <= cannot(other.store).keys()
    assert "place" not in cannot(other.store)


def test_samples_take_novelty_a_shape_and_tiling(atlas: Atlas) -> None:
    model, prototypes = atlas.model("generator"), atlas.store.map_conditions.prototypes
    np.testing.assert_array_equal(atlas.sample(2, random_state=1), model.sample(2, random_state=1))
    options = {"novelty": 0.3, "shape": (20, 41), "tile": True}
    made = atlas.sample(1, cell=(0, 1), random_state=1, **options)
    assert made.shape == (1, 20, 41, 1)
    np.testing.assert_array_equal(made, model.sample(1, y=prototypes[1], random_state=1, **options))
    varied = atlas.sample(1, like=atlas.keys[0], strength=0.3, novelty=0.2)
    assert varied.shape == (1, 28, 28, 1)


def test_provenance_names_images_of_the_atlas_that_are_not_held_out(atlas: Atlas) -> None:
    made, found = atlas.sample(2, shape=(28, 40), return_provenance=True)
    np.testing.assert_array_equal(made, atlas.sample(2, shape=(28, 40)))
    assert found.rows.shape == (2, 28, 40)
    held_out = atlas.store.rows["held_out"].astype(bool)
    assert held_out.any()
    assert not held_out[found.rows].any()
    for rows, sources in zip(found.rows, found.sources, strict=True):
        numbers, counts = np.unique(rows, return_counts=True)
        shares = {atlas.keys[row]: count / rows.size for row, count in zip(numbers, counts, strict=True)}
        assert sources == pytest.approx(shares)
        assert list(sources.values()) == sorted(sources.values(), reverse=True)
    table = found.table().to_pylist()
    assert table[0] == {"image": 0, "key": next(iter(found.sources[0])), "share": max(found.sources[0].values())}
    assert len(table) == sum(map(len, found.sources))


def test_provenance_keeps_the_keys_of_the_fit_when_images_are_removed_added_and_changed(
    atlas: Atlas, tmp_path: Path
) -> None:
    photos = Path(shutil.copytree(atlas.folder.parent / "photos", tmp_path / "photos"))
    folder = Path(shutil.copytree(atlas.folder, tmp_path / "photos.atlas"))
    known = [key for key, aside in zip(atlas.keys, atlas.store.rows["held_out"], strict=True) if not aside]
    model = atlas.model("generator")
    _, of_model = model.sample(4, return_provenance=True)
    gone, changed = known[0], known[int(of_model.rows[0, 0, 0])]
    assert gone != changed
    (photos / gone).unlink()
    write_patches(photos, 1, start=1001)  # brick-1001.png
    with Image.open(photos / changed) as picture:
        picture.rotate(180).save(photos / changed)
    updated = ia.learn(photos, folder, budget="3s", progress=False, moved_from=atlas.folder.parent / "photos")
    assert updated.store.manifest.models["generator"] == atlas.store.manifest.models["generator"]
    now = updated.table().to_pydict()
    assert len(known) == len(now["key"]) - sum(now["held_out"])  # the number alone would say that nothing has changed
    assert "brick-1001.png" in now["key"]
    _, found = updated.sample(4, return_provenance=True)
    for sources, rows in zip(found.sources, of_model.sources, strict=True):
        assert sources == {known[row]: share for row, share in rows.items()}
    keys = [None if key in (gone, changed) else key for key in known]
    expected = [now["key"].index(key) if key else -1 for key in keys]
    np.testing.assert_array_equal(found.rows, np.array(expected)[of_model.rows])
    assert found.rows[0, 0, 0] == -1


def test_a_list_of_sources_of_another_length_is_damage(atlas: Atlas) -> None:
    other = Atlas(atlas.folder)
    other.store.manifest.composed_of.popitem()
    with pytest.raises(ArtifactError, match="learn the atlas again with --overwrite"):
        other.sample(1, return_provenance=True)


def test_a_panorama_leads_through_images_or_cells(atlas: Atlas) -> None:
    key, other = atlas.keys[:2]
    model = atlas.model("generator")
    made = atlas.panorama(key, other, novelty=0.5, random_state=2)
    expected = model.panorama(atlas.embedding[:2], shape=(28, 3 * 28), novelty=0.5, random_state=2)
    np.testing.assert_array_equal(made, expected)
    assert atlas.panorama(cells=[(0, 0), (1, 1), 0]).shape == (28, 5 * 28, 1)
    assert atlas.panorama(cells=[3], shape=(40, 30)).shape == (40, 30, 1)
    with pytest.raises(InputError, match="Got 0 images and 0 cells"):
        atlas.panorama()
    with pytest.raises(InputError, match="Got 1 images and 1 cells"):
        atlas.panorama(key, cells=[0])


def test_inpainting_fills_in_what_a_mask_a_file_or_transparency_marks(atlas: Atlas, tmp_path: Path) -> None:
    whole = atlas.store.pixels([0])[0]
    hole = np.zeros((28, 28), bool)
    hole[10:18, 10:18] = True
    made = atlas.inpaint(atlas.keys[0], hole, random_state=1)
    assert made.shape == (1, 28, 28, 1)
    np.testing.assert_array_equal(made[0][~hole], whole[~hole])
    broken = np.where(hole[..., None], 0, whole).astype(np.uint8)
    np.testing.assert_array_equal(atlas.inpaint([broken, broken], np.stack([hole, hole]), random_state=1)[:1], made)
    mask = tmp_path / "mask.png"
    Image.fromarray(np.where(hole, 255, 0).astype(np.uint8)).save(mask)
    np.testing.assert_array_equal(atlas.inpaint(atlas.keys[0], mask, random_state=1), made)
    clear = tmp_path / "clear.png"
    opacity = np.where(hole, 0, 255).astype(np.uint8)
    Image.merge("LA", [Image.fromarray(whole[..., 0]), Image.fromarray(opacity)]).save(clear)
    np.testing.assert_array_equal(atlas.inpaint(clear, random_state=1), made)
    masked = np.ma.MaskedArray(whole, hole[..., None])
    np.testing.assert_array_equal(atlas.inpaint(masked, random_state=1)[0][~hole], whole[~hole])


def test_a_mask_of_a_large_image_is_cropped_and_reduced_as_the_image(atlas: Atlas) -> None:
    large = np.full((56, 80, 1), 90, np.uint8)
    large[20:36, 32:48] = 255
    made = atlas.inpaint(large, large[..., 0] == 255)[0]
    # Columns 12 to 68 are kept, at half the size, where the hole spreads by the width of the filter.
    far = np.ones((28, 28), bool)
    far[7:21, 7:21] = False
    assert np.abs(made[far].astype(int) - 90).max() <= 4
    assert (made[10:18, 10:18] < 255).any()


def test_the_mask_of_a_padded_image_is_padded_with_known_pixels(atlas: Atlas, monkeypatch) -> None:
    monkeypatch.setitem(atlas.store.manifest.settings, "fit", "pad")
    mask = np.zeros((28, 56), bool)
    mask[:, 20:36] = True
    found = new_images._resized(atlas.store, atlas.keys[0], mask)
    assert found[8:20, 11:17].all()
    assert not found[:5].any()
    assert not found[:, :7].any()


def test_what_cannot_be_filled_in_is_refused(atlas: Atlas) -> None:
    key = atlas.keys[0]
    for mask, message in (
        (None, "Image 0 has no missing pixels"),
        (np.zeros((28, 28), bool), "Image 0 has no missing pixels"),
        (np.ones((28, 28), bool), "Image 0 has only missing pixels"),
        (np.ones((28, 28)), "Got float64 of shape (28, 28) for 1 images"),
        (np.ones((2, 28, 28), bool), "Got bool of shape (2, 28, 28) for 1 images"),
        (np.ones((9, 30), bool), "must have the size of the image, 28 x 28 pixels. Got 30 x 9"),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            atlas.inpaint(key, mask)


def test_an_extended_image_is_kept_where_it_lies(atlas: Atlas) -> None:
    whole = atlas.store.pixels([0])[0]
    np.testing.assert_array_equal(atlas.extend(atlas.keys[0], (28, 40))[:, 6:34], whole)
    np.testing.assert_array_equal(atlas.extend(whole, (36, 28), at=(8, 0), novelty=0.2)[8:], whole)
    with pytest.raises(InputError, match="The canvas must hold the image"):
        atlas.extend(whole, (20, 40))
    for shape, at in (((28,), None), ("28x40", None), ((28, 0), None), ((28, 40), (-1, 0)), ((28, 40), 3)):
        with pytest.raises(ParameterError, match="must be two ints"):
            atlas.extend(whole, shape, at=at)


def test_a_blend_is_the_first_image_where_a_mask_is_0_and_the_second_where_it_is_1(
    atlas: Atlas, tmp_path: Path
) -> None:
    first, second = atlas.keys[:2]
    a, b = atlas.store.pixels([0, 1])
    model = atlas.model("generator")
    ramp = np.broadcast_to(np.linspace(0, 1, 28, dtype=np.float32), (28, 28))
    for axis, mask in (("horizontal", ramp), ("vertical", ramp.T)):
        made = atlas.blend(first, second, axis=axis, strength=0.3, novelty=0.2, random_state=4)
        expected = model.blend(a[None], b[None], mask, strength=0.3, novelty=0.2, random_state=4)
        np.testing.assert_array_equal(made, expected[0])
    faded = atlas.blend(first, b, strength=0)
    np.testing.assert_allclose(faded, (a.astype(float) + b) / 2, atol=0.51)
    np.testing.assert_array_equal(atlas.blend(first, second, 1, strength=0), b)
    half = np.arange(28) < 14
    file = tmp_path / "mask.png"
    Image.fromarray(np.tile(np.where(half, 0, 255), (28, 1)).astype(np.uint8)).save(file)
    by_file = atlas.blend(first, second, file, strength=0)
    np.testing.assert_array_equal(by_file, np.where(half[:, None], a, b))
    np.testing.assert_array_equal(atlas.blend(first, second, np.tile(~half, (28, 1)), strength=0), by_file)


def test_the_mask_of_a_blend_is_cropped_and_reduced_as_the_first_image(atlas: Atlas) -> None:
    large = np.full((56, 80, 1), 90, np.uint8)
    mask = np.zeros((56, 80))
    mask[:, 40:] = 1  # the middle of the columns 12 to 68 that are kept
    made = atlas.blend(large, np.full((28, 28, 1), 200, np.uint8), mask, strength=0)
    np.testing.assert_array_equal(made[:, :12], 90)
    np.testing.assert_array_equal(made[:, 16:], 200)


def test_a_mask_that_does_not_fit_a_blend_is_refused(atlas: Atlas) -> None:
    first, second = atlas.keys[:2]
    for mask, message in (
        (1.5, "Got float64 of shape ()"),
        (np.full((28, 28), np.nan), "Got float64 of shape (28, 28)"),
        (np.full((28, 28), 255, np.uint8), "Got uint8 of shape (28, 28)"),
        (np.zeros((1, 28, 28)), "Got float64 of shape (1, 28, 28)"),
        (np.zeros((9, 30)), "must have the size of the image, 28 x 28 pixels. Got 30 x 9"),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            atlas.blend(first, second, mask)
    with pytest.raises(InputError, match="either a 'mask' or an 'axis'"):
        atlas.blend(first, second, 0.5, axis="vertical")
    with pytest.raises(ParameterError, match="'axis'"):
        atlas.blend(first, second, axis="diagonal")


def test_a_morph_takes_novelty(atlas: Atlas) -> None:
    pixels = atlas.store.pixels([0, 1])
    model = atlas.model("generator")
    made = atlas.morph(*atlas.keys[:2], frames=3, novelty=0.9, random_state=1)
    np.testing.assert_array_equal(made, model.morph(3, images=pixels, novelty=0.9, random_state=1))
    assert (made != atlas.morph(*atlas.keys[:2], frames=3, novelty=0.0, random_state=1)).any()


def test_options_that_variations_do_not_have_are_refused(atlas: Atlas) -> None:
    for options in ({"shape": (28, 40)}, {"tile": True}, {"return_provenance": True}):
        with pytest.raises(InputError, match=f"take no '{next(iter(options))}'"):
            atlas.sample(1, like=atlas.keys[0], **options)
    assert atlas.sample(1, like=atlas.keys[0], strength=1, shape=(28, 40)).shape == (1, 28, 40, 1)
    with pytest.raises(ParameterError, match="'novelty'"):
        atlas.sample(1, novelty=2.0)
    with pytest.raises(ParameterError, match="'shape'"):
        atlas.sample(1, shape=28)


def test_a_generator_that_composes_nothing_says_so(trained: Atlas) -> None:
    key, hole = trained.keys[0], np.eye(28, dtype=bool)
    for asked, call in (
        ("'novelty'", lambda: trained.sample(1, novelty=0.5)),
        ("'shape' and 'tile'", lambda: trained.sample(1, shape=(28, 40), tile=True)),
        ("'return_provenance'", lambda: trained.sample(1, return_provenance=True)),
        ("panorama", lambda: trained.panorama(key)),
        ("inpaint", lambda: trained.inpaint(key, hole)),
        ("extend", lambda: trained.extend(key, (28, 40))),
        ("blend", lambda: trained.blend(key, key)),
        ("'novelty'", lambda: trained.morph(key, key, novelty=0.5)),
    ):
        with pytest.raises(InputError, match=f"is an Autoencoder, which does not support {asked}; a PatchDiffusion"):
            call()
