"""The commands in detail, in process, and once from an installed wheel; `test_every_command` sweeps over all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer.main
from PIL import Image
from pyarrow.parquet import read_table

import imatlas as ia
from imatlas.atlas.store import misfit
from imatlas.cli import main, program
from imatlas.errors import InputError, ParameterError
from imatlas.system.csv_files import read_csv
from tests.atlas.test_learn import write_patches


def test_help_lists_every_command_and_imports_nothing_heavy():
    code = (
        "import sys; from imatlas.cli import main; main(['--help']); main(['learn']); "
        "heavy = {'torch', 'sklearn', 'lance', 'numpy', 'PIL'} & set(sys.modules); sys.exit(3 if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(f" {name} " in done.stdout for name in typer.main.get_command(program.app).commands)


def test_wrong_usage_exits_with_2(capsys):
    assert main(["learn"]) == 2
    assert main(["nosuchverb"]) == 2
    assert main(["search"]) == 2
    assert "Missing argument" in capsys.readouterr().err


def test_a_failure_is_one_line_with_exit_code_1(tmp_path, capsys):
    assert main(["info", str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert err.startswith("Error: There is no atlas in")
    assert err.count("\n") == 1


def test_check_prints_text_and_json(atlas, capsys):
    photos = str(atlas.parent / "photos")
    assert main(["check", photos]) == 0
    out = capsys.readouterr().out
    assert "60" in out
    assert f"imatlas learn {photos} -o photos.atlas" in out
    assert main(["check", photos, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "check"


def test_info_table_and_search(atlas, tmp_path, capsys):
    assert main(["info", str(atlas), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["finished"] is True
    for ending in ("csv", "parquet", "json"):
        assert main(["table", str(atlas), "-o", str(tmp_path / f"rows.{ending}")]) == 0
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 61
    assert main(["table", str(atlas), "-o", str(tmp_path / "rows.csv")]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert main(["search", str(atlas), "coins-0001.png", "-k", "4", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 4


def test_search_by_several_by_a_region_and_as_a_sheet(atlas, tmp_path, capsys):
    first, second, third = ia.load(atlas).store.rows["key"][:3]
    sheet, table = tmp_path / "found.png", tmp_path / "found.csv"
    search = ["search", str(atlas), first, second, "--less", third, "--region", "2,2,20,20", "-k", "6"]
    assert main([*search, "-o", str(sheet)]) == 0
    out = capsys.readouterr().out
    assert "vs. all pairs" in out
    with Image.open(sheet) as picture:
        assert picture.size == (3 * 130 + 2, 3 * 130 + 2)  # two queries, six results
    assert main([*search, "-o", str(table), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [row["rank"] for row in printed] == [1, 2, 3, 4, 5, 6]
    assert not {first, second, third} & {row["key"] for row in printed}
    assert len(table.read_text().splitlines()) == 7
    assert main([*search, "-o", str(table)]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert main(["search", str(atlas), first, "--region", "1,2,3"]) == 2
    assert main(["search", str(atlas), first, "--region", "20,20,20,20"]) == 1
    assert "28 x 28 pixels" in capsys.readouterr().err


def test_search_in_parts_and_segments_of_an_atlas(atlas, tmp_path, capsys):
    first = ia.load(atlas).keys[0]
    sheet, table = tmp_path / "found.png", tmp_path / "found.csv"
    search = ["search", str(atlas), first, "--regions", "-k", "5"]
    assert main([*search, "-o", str(sheet)]) == 0
    assert "Looked for the part at left" in capsys.readouterr().out
    with Image.open(sheet) as picture:
        assert picture.size == (3 * 130 + 2, 2 * 130 + 2)  # the query and five results
    assert main([*search, "--point", "14,14", "-o", str(table), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert set(printed[0]) == {"rank", "key", "distance", "left", "top", "width", "height"}
    assert len(table.read_text().splitlines()) == 6
    assert main([*search, "--point", "14"]) == 2
    assert main(["search", str(atlas), first, "--point", "14,14"]) == 1
    assert "--regions" in capsys.readouterr().err
    out = tmp_path / "segments"
    assert main(["segment", str(atlas), "-o", str(out), "--method", "superpixels", "--segments", "4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["n_images"] == 60


def test_an_atlas_is_exported(atlas, tmp_path, capsys):
    assert main(["export", str(atlas), "--to", "folders", "-o", str(tmp_path / "clusters")]) == 0
    assert "60 images in" in capsys.readouterr().out
    assert sum(path.is_symlink() for path in (tmp_path / "clusters").rglob("*")) == 60
    assert main(["export", str(atlas), "--to", "numpy", "-o", str(tmp_path / "e.npz"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"] == [str(tmp_path / "e.npz")]
    parquet = tmp_path / "atlas.parquet"
    assert main(["export", str(atlas), "--to", "embedding-atlas", "-o", str(parquet), "--neighbors", "4"]) == 0
    assert f"embedding-atlas {parquet} --x x --y y" in capsys.readouterr().out
    rows = read_table(parquet).to_pylist()
    opened = ia.load(atlas)
    assert [row["key"] for row in rows] == opened.keys
    np.testing.assert_allclose([[row["x"], row["y"]] for row in rows], opened.layout)
    assert rows[5]["neighbors"]["ids"] == opened.kneighbors(k=4)[1][5].tolist()
    assert rows[5]["image"]["bytes"] == opened.store.thumbnails([5])[0]
    assert main(["export", str(atlas), "-o", str(tmp_path / "x")]) == 1
    assert "choose a format with --to" in capsys.readouterr().err
    model = str(atlas / opened.store.manifest.models["map"])
    assert main(["export", model, "--to", "folders", "-o", str(tmp_path / "x")]) == 1
    assert "is a model" in capsys.readouterr().err


def test_clusters_are_listed_written_and_regrouped(atlas, tmp_path, capsys):
    opened = ia.load(atlas)
    table = tmp_path / "clusters.csv"
    assert main(["clusters", str(atlas), "--groups", "1", "-o", str(table)]) == 0
    out = capsys.readouterr().out
    assert "most typical" in out
    assert "group" in out
    rows = table.read_text().splitlines()
    assert rows[0].replace('"', "") == "key,cluster,confidence"
    assert [int(row.split(",")[1]) for row in rows[1:]] == opened.store.rows["cluster"].tolist()
    assert [float(row.split(",")[2]) for row in rows[1:]] == pytest.approx(
        opened.store.rows["confidence"].tolist(), abs=1e-6
    )
    assert main(["clusters", str(atlas), "--clusters", "3", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [row[1] for row in printed["clusters"]] == sorted((row[1] for row in printed["clusters"]), reverse=True)
    assert (len(printed["clusters"]), sum(row[1] for row in printed["clusters"])) == (3, len(opened))
    assert (
        opened.store.rows["key"][opened.clusters().medoids[0]]
        in opened.store.rows["key"][opened.store.rows["cluster"] == 0]
    )
    assert main(["clusters", str(atlas), "--groups", "999"]) == 1
    assert "clusters to merge" in capsys.readouterr().err


def test_outliers_are_listed_written_and_shown(atlas, tmp_path, capsys):
    opened = ia.load(atlas)
    table, page = tmp_path / "outliers.csv", tmp_path / "outliers.html"
    assert main(["outliers", str(atlas), "--false-positive-rate", "20%", "-o", str(table), "--page", str(page)]) == 0
    assert "called outliers, with 95% confidence" in capsys.readouterr().out
    rows = table.read_text().replace('"', "").splitlines()
    assert rows[0] == "key,outlier_score,p_value,is_outlier,flags"
    assert len(rows) == len(opened) + 1
    n_outliers = sum(row.split(",")[3] == "true" for row in rows)
    assert 0 < n_outliers <= 0.2 * len(opened)
    assert "nearest ordinary" in page.read_text()
    new = tmp_path / "new"
    new.mkdir()
    shutil.copy(next(Path(opened.store.manifest.source).glob("coins*")), new / "a.png")
    Image.fromarray(np.full((64, 64, 3), (255, 0, 255), np.uint8)).save(new / "b.png")
    assert main(["outliers", str(atlas), "--images", str(new), "--false-positive-rate", "0.05", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["metrics"]["n_images"] == 2
    assert "a.png" not in [row["key"] for row in printed["outliers"]]
    assert main(["outliers", str(atlas), "--false-positive-rate", "many"]) == 2
    assert "such as 1% or 0.01" in capsys.readouterr().err
    assert main(["outliers", str(atlas)]) == 0
    assert "--page outliers.html" in capsys.readouterr().out


def test_labels_are_propagated_to_all_and_to_new_images(atlas, tmp_path, capsys):
    opened = ia.load(atlas)
    keys = opened.keys
    classes = {key: key.partition("-")[0] for key in keys}
    few = [key for name in sorted(set(classes.values())) for key in [k for k in keys if classes[k] == name][:4]]
    labels, table = tmp_path / "labels.csv", tmp_path / "all.csv"
    labels.write_text("key,label\n" + "".join(f"{key},{classes[key]}\n" for key in few))
    assert main(["classify", str(atlas), "--labels", str(labels), "-o", str(table)]) == 0
    out = capsys.readouterr().out
    assert "Label these next" in out
    rows = [line.replace('"', "").split(",") for line in table.read_text().splitlines()[1:]]
    assert np.mean([classes[key] == label for key, label, _ in rows]) > 0.4
    photos = str(atlas.parent / "photos" / "c*.png")
    new = tmp_path / "new.json"
    assert main(["classify", str(atlas), "--labels", str(labels), "--images", photos, "-o", str(new), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["labeled"] == len(few)
    made = json.loads(new.read_text())
    assert {row["label"] for row in made} <= set(classes.values())
    assert np.mean([row["label"] == row["key"].partition("-")[0] for row in made]) > 0.4
    assert main(["classify", str(atlas), "--labels", str(tmp_path / "none.csv")]) == 1


def test_a_cluster_and_an_image_are_explained(atlas, tmp_path, capsys):
    page = tmp_path / "explain.html"
    assert main(["explain", str(atlas), "--cluster", "0", "-o", str(page)]) == 0
    assert "Its nearest cluster is" in capsys.readouterr().out
    assert "Heat maps" in page.read_text()
    key = str(ia.load(atlas).store.rows["key"][0])
    assert main(["explain", str(atlas), "--image", key, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["cluster"] == ia.load(atlas).store.rows["cluster"][0]
    assert (
        printed["cell"][0] * ia.load(atlas).model("map").cols_ + printed["cell"][1]
        == ia.load(atlas).store.rows["cell"][0]
    )
    for wrong in ([], ["--cluster", "0", "--image", key], ["--image", "none.png"], ["--cluster", "99"]):
        assert main(["explain", str(atlas), *wrong]) == 1
    assert main(["explain", str(atlas), "--cluster", "0", "-o", str(page)]) == 1
    assert "--overwrite" in capsys.readouterr().err


def test_a_model_of_another_class_than_its_role_needs_is_refused(atlas):
    store = ia.load(atlas).store
    assert misfit("clusters", store.model("clusters"), store.table) == ""
    other = ia.KMeans(n_clusters=2).fit(store.embedding)
    assert misfit("clusters", other, store.table) == "it is of the class KMeans instead of ImageClusterer"


def test_new_images_carry_their_recipe_and_nothing_is_overwritten(atlas, tmp_path, capsys):
    sheet = tmp_path / "new.png"
    assert main(["sample", str(atlas), "-n", "5", "--seed", "2", "-o", str(sheet)]) == 0
    recipe = json.loads(Image.open(sheet).text["imatlas"])
    assert (recipe["n"], recipe["seed"]) == (5, 2)
    before = sheet.read_bytes()
    assert main(["sample", str(atlas), "-o", str(sheet)]) == 1
    assert sheet.read_bytes() == before
    assert main(["sample", str(atlas), "-n", "3", "--seed", "2", "-o", str(tmp_path / "singles")]) == 0
    singles = [np.asarray(Image.open(p)) for p in sorted((tmp_path / "singles").iterdir())]
    np.testing.assert_array_equal(np.stack(singles), ia.load(atlas).sample(3, random_state=2)[..., 0])
    capsys.readouterr()


def test_samples_of_a_cell_and_variations_of_an_image(atlas, tmp_path, capsys):
    opened = ia.load(atlas)
    key = opened.store.rows["key"][4]
    target = tmp_path / "new.png"
    arguments = ["--cell", "0,1", "--cluster", "0", "--weights", "2,1", "--json"]
    assert main(["sample", str(atlas), "-o", str(target), "-n", "4", *arguments]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["cell"], printed["cluster"], printed["weights"]) == ([[0, 1]], [0], [2.0, 1.0])
    assert json.loads(Image.open(target).text["imatlas"])["cell"] == [[0, 1]]
    photo = str(atlas.parent / "photos" / key)
    for like in (key, photo):
        assert main(["sample", str(atlas), "-o", str(tmp_path / "like"), "-n", "2", "--like", like, "--overwrite"]) == 0
    same = opened.sample(2, like=key, random_state=0)[..., 0]
    np.testing.assert_array_equal(same, opened.sample(2, like=photo, random_state=0)[..., 0])
    assert main(["sample", str(atlas), "-o", str(tmp_path / "x.png"), "--cell", "99,0"]) == 1
    assert "The map has" in capsys.readouterr().err
    assert main(["sample", str(atlas), "-o", str(tmp_path / "x.png"), "--cell", "nine"]) == 2


def test_sliders_show_a_row_for_each_direction(atlas, tmp_path):
    sheet = tmp_path / "sliders.png"
    key = str(ia.load(atlas).store.rows["key"][0])
    assert main(["sliders", str(atlas), "-o", str(sheet), "--like", key, "-n", "3", "--steps", "5"]) == 0
    with Image.open(sheet) as picture:
        assert json.loads(picture.text["imatlas"])["like"] == key
        spec = ia.load(atlas).store.spec
        assert picture.size == (5 * (spec.width + 2) + 2, 3 * (spec.height + 2) + 2)
    assert main(["sliders", str(atlas), "-o", str(sheet)]) == 1


def test_a_morph_of_images_and_of_cells(atlas, tmp_path, capsys):
    keys = [str(key) for key in ia.load(atlas).store.rows["key"][:2]]
    video = tmp_path / "morph.gif"
    assert main(["morph", str(atlas), *keys, "-o", str(video), "--frames", "5"]) == 0
    with Image.open(video) as image:
        assert image.n_frames == 5
        assert json.loads(image.info["comment"])["images"] == keys
    path = ["--cells", "0,0", "--cells", "1,1", "--frames", "4", "--json"]
    assert main(["morph", str(atlas), "-o", str(tmp_path / "walk.webp"), *path]) == 0
    assert main(["morph", str(atlas), keys[0], "-o", str(tmp_path / "one.gif")]) == 1
    assert "two or more" in capsys.readouterr().err
    assert main(["morph", str(atlas), *keys, "-o", str(tmp_path / "morph.txt")]) == 1
    assert "no suffix of a video format" in capsys.readouterr().err


def test_new_images_of_another_size_name_their_sources(composed, tmp_path, capsys):
    sheet, table = tmp_path / "new.png", tmp_path / "sources.csv"
    options = ["--shape", "28x50", "--tile", "--novelty", "0.4", "--provenance", str(table), "--json"]
    assert main(["sample", str(composed), "-n", "1", "-o", str(sheet), *options]) == 0
    printed = json.loads(capsys.readouterr().out)
    with Image.open(sheet) as picture:
        assert picture.size == (50, 28)
        recipe = json.loads(picture.text["imatlas"])
        made = np.asarray(picture)
    assert (recipe["shape"], recipe["tile"], recipe["novelty"]) == ([28, 50], True, 0.4)
    assert recipe["sources"] == printed["sources"]
    opened = ia.load(composed)
    same = opened.sample(1, shape=(28, 50), tile=True, novelty=0.4)
    np.testing.assert_array_equal(made, same[0, ..., 0])
    rows = [(int(row["image"]), row["key"], float(row["share"])) for row in read_csv(table, ["share"], what="sources")]
    assert {image for image, _, _ in rows} == {0}
    assert {key for _, key, _ in rows} <= set(opened.keys)
    assert sum(share for _, _, share in rows) == pytest.approx(1)
    first = [key for _, key, _ in rows[:5]]
    assert list(recipe["sources"][0]) == first
    folder = tmp_path / "singles"
    assert main(["sample", str(composed), "-n", "2", "-o", str(folder)]) == 0
    with Image.open(folder / "00001.png") as picture:
        assert 0 < sum(json.loads(picture.text["imatlas"])["sources"].values()) < 1.001


def test_wrong_sizes_and_outputs_of_new_images(composed, tmp_path, capsys):
    where = ["-o", str(tmp_path / "new.png")]
    assert main(["sample", str(composed), *where, "--shape", "28"]) == 2
    assert "A size is a height and a width" in capsys.readouterr().err
    assert main(["sample", str(composed), *where, "--provenance", str(tmp_path / "sources.txt")]) == 1
    assert "must be a .csv file" in capsys.readouterr().err
    key = ia.load(composed).keys[0]
    for words in (["panorama", key], ["inpaint", key], ["extend", key, "--shape", "40x40"], ["blend", key, key]):
        assert main([words[0], str(composed), *words[1:], "-o", str(tmp_path / "new.gif")]) == 1
        assert "must be a .png file" in capsys.readouterr().err
    assert main(["inpaint", str(composed), key, *where]) == 1
    assert "no missing pixels" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_panorama_and_edits_carry_their_recipe(composed, tmp_path):
    key = ia.load(composed).keys[0]
    out, photo = tmp_path / "out.png", tmp_path / "hole.png"
    arguments = ["--cells", "0,0", "--cells", "1,1", "--novelty", "0.7"]
    assert main(["panorama", str(composed), *arguments, "-o", str(out)]) == 0
    with Image.open(out) as picture:
        assert picture.size == (3 * 28, 28)
        recipe = json.loads(picture.text["imatlas"])
    assert (recipe["cells"], recipe["shape"], recipe["novelty"]) == ([[0, 0], [1, 1]], [28, 84], 0.7)
    with Image.open(composed.parent / "photos" / key) as picture:
        whole = np.asarray(picture)
    opacity = np.full_like(whole, 255)
    opacity[10:18, 10:18] = 0
    Image.merge("LA", [Image.fromarray(whole), Image.fromarray(opacity)]).save(photo)
    assert main(["inpaint", str(composed), str(photo), "-o", str(out), "--overwrite"]) == 0
    with Image.open(out) as picture:
        np.testing.assert_array_equal(np.asarray(picture)[opacity > 0], whole[opacity > 0])
        assert json.loads(picture.text["imatlas"])["image"] == str(photo)
    assert main(["extend", str(composed), key, "--shape", "28x40", "--at", "0,12", "-o", str(out), "--overwrite"]) == 0
    with Image.open(out) as picture:
        np.testing.assert_array_equal(np.asarray(picture)[:, 12:], whole)
        assert json.loads(picture.text["imatlas"])["at"] == [0, 12]


def test_a_blend_by_a_mask_and_a_morph_take_novelty(composed, tmp_path, capsys):
    keys = ia.load(composed).keys[:2]
    out, mask = tmp_path / "out.png", tmp_path / "mask.png"
    values = np.zeros((28, 28), np.uint8)
    values[:, 10:] = np.linspace(0, 255, 18)
    Image.fromarray(values).save(mask)
    arguments = ["--mask", str(mask), "--strength", "0.4", "--novelty", "0.2", "--seed", "3"]
    assert main(["blend", str(composed), *keys, *arguments, "-o", str(out)]) == 0
    with Image.open(out) as picture:
        recipe = json.loads(picture.text["imatlas"])
        made = np.asarray(picture)
    assert recipe.pop("imatlas") == ia.__version__
    asked = {"images": keys, "mask": "mask.png", "strength": 0.4, "novelty": 0.2, "seed": 3}
    assert recipe == {"atlas": composed.name, **asked}
    options = {"strength": 0.4, "novelty": 0.2, "random_state": 3}
    np.testing.assert_array_equal(made, ia.load(composed).blend(*keys, values / 255, **options)[..., 0])
    assert main(["blend", str(composed), *keys, "-o", str(out), "--overwrite", "--axis", "across"]) == 2
    assert main(["blend", str(composed), *keys, "-o", str(out), "--overwrite", "--axis", "vertical", *arguments]) == 1
    assert "either a 'mask' or an 'axis'" in capsys.readouterr().err
    video = tmp_path / "morph.gif"
    assert main(["morph", str(composed), *keys, "-o", str(video), "--frames", "3", "--novelty", "0.9"]) == 0
    with Image.open(video) as image:
        assert json.loads(image.info["comment"])["novelty"] == 0.9


def test_the_map_as_a_picture(atlas, tmp_path, capsys):
    target = tmp_path / "map.png"
    assert main(["map", str(atlas), "-o", str(target), "--width", "700"]) == 0
    assert str(target) in capsys.readouterr().out
    with Image.open(target) as image:
        assert image.width == 700
    before = target.read_bytes()
    assert main(["map", str(atlas), "-o", str(target)]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert target.read_bytes() == before
    plain = ["map", str(atlas), "-o", str(target), "--width", "700", "--overwrite"]
    assert main([*plain, "--outline", "none", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["file"], printed["show"], printed["width"]) == (str(target), "exemplar", 700)
    assert target.read_bytes() != before
    assert main([*plain, "--outline", "regions"]) == 0
    opened = ia.load(atlas)
    out = capsys.readouterr().out
    assert all(opened.store.rows["key"][row] in out for row in opened.regions.medoids)
    for show in ("mean", "prototype", "u-matrix", "u-matrix-between", "hits"):
        assert main([*plain, "--show", show]) == 0
        assert target.read_bytes() != before
        before = target.read_bytes()
    assert main(["map", str(atlas), "-o", str(tmp_path / "map.svg")]) == 0
    assert main(["map", str(atlas), "-o", str(tmp_path / "map.txt")]) == 1
    assert "change its ending" in capsys.readouterr().err
    assert main(["map", str(atlas), "-o", str(target), "--show", "nothing"]) == 2


def test_prototypes_that_cannot_be_decoded_are_refused(atlas, tmp_path):
    opened = ia.load(atlas)
    opened.store._models["encoder"] = ia.PretrainedEncoder()
    with pytest.raises(InputError, match="features of a PretrainedEncoder, which cannot be decoded"):
        opened.map(tmp_path / "map.png", "prototype")
    with pytest.raises(ParameterError, match="must be one of exemplar, mean"):
        opened.map(tmp_path / "map.png", "best")
    assert not list(tmp_path.iterdir())


def test_report_and_score(atlas, tmp_path, capsys):
    assert main(["report", str(atlas), "-o", str(tmp_path / "r.html")]) == 0
    assert (tmp_path / "r.html").stat().st_size > 50_000
    capsys.readouterr()
    assert main(["score", str(atlas), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["kernel_distance"] < 1e6
    assert main(["score", str(atlas), "--images", "photos"]) == 1
    assert "omit --images" in capsys.readouterr().err


def test_score_of_a_saved_model(atlas, tmp_path, capsys):
    photos, model = str(atlas.parent / "photos"), str(tmp_path / "ae")
    assert main(["fit", "autoencoder", photos, "-o", model, "--max-steps", "5", "--no-progress"]) == 0
    capsys.readouterr()
    assert main(["score", model, "--images", photos, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["metrics"]["near_copies"] >= 0
    assert any("Not measured with" in sentence for sentence in printed["sentences"])
    assert main(["score", model]) == 1
    assert "--images" in capsys.readouterr().err
    assert main(["score", model, "--images", photos, "--held-out", photos]) == 1
    assert "and no others" in capsys.readouterr().err


def test_score_of_a_saved_model_that_holds_no_images_out(atlas, tmp_path, capsys):
    photos, model = str(atlas.parent / "photos"), str(tmp_path / "patches")
    assert main(["fit", "patch_diffusion", photos, "-o", model, "--n-steps", "3", "--novelty", "0.6"]) == 0
    capsys.readouterr()
    others = write_patches(tmp_path / "others", 12, start=500)
    assert main(["score", model, "--held-out", str(others), "--json"]) == 0
    assert "12 held-out and 60 training images" in json.loads(capsys.readouterr().out)["protocol"]
    assert main(["score", model, "--images", photos]) == 1
    assert "(--held-out)" in capsys.readouterr().err
    assert main(["score", model, "--held-out", photos]) == 1
    assert "Got 60 of 60 that are" in capsys.readouterr().err


def test_augmented_views_are_previewed(atlas, tmp_path, capsys):
    photos, sheet = str(atlas.parent / "photos"), tmp_path / "views.png"
    assert main(["fit", "self_supervised", photos, "-o", str(sheet), "--preview"]) == 0
    assert "mirrored" in capsys.readouterr().out
    with Image.open(sheet) as picture:
        assert picture.width == 8 * (28 + 2) + 2
    assert main(["fit", "self_supervised", photos, "-o", str(sheet), "--preview"]) == 1
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("vae", ["--latent-dim", "4", "--max-steps", "5", "--no-progress"]),
        ("kmeans", ["--n-clusters", "3"]),
        ("som", ["--rows", "3", "--cols", "3", "--topology", "hexagonal"]),
    ],
)
def test_fit_takes_the_options_that_the_model_declares(atlas, tmp_path, model, options, capsys):
    folder = tmp_path / model
    assert main(["fit", model, str(atlas.parent / "photos"), "-o", str(folder), *options]) == 0
    loaded = ia.load(folder)
    for option, value in zip(options[::2], options[1::2], strict=False):
        assert str(loaded.get_params()[option[2:].replace("-", "_")]) == value
    assert main(["fit", model, str(atlas.parent / "photos"), "-o", str(folder)]) == 1
    assert "already exists" in capsys.readouterr().err


def test_fit_reports_a_wrong_value_in_one_line(atlas, tmp_path, capsys):
    assert main(["fit", "vae", str(atlas.parent / "photos"), "-o", str(tmp_path / "x"), "--latent-dim", "0"]) == 1
    assert "'latent_dim' parameter of VAE must be" in capsys.readouterr().err


def test_an_installed_wheel_works_away_from_the_checkout(tmp_path):
    root = Path(__file__).parents[2]
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(root)]
    subprocess.run(build, check=True, capture_output=True, timeout=120)
    wheel = next(tmp_path.glob("imatlas-*.whl"))
    target = tmp_path / "site"
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--target",
        str(target),
        str(wheel),
    ]
    subprocess.run(install, check=True, capture_output=True, timeout=120)
    env = {**os.environ, "PYTHONPATH": str(target)}
    photos = write_patches(tmp_path / "photos", 40)

    def imatlas(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "imatlas", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=180)

    where = [sys.executable, "-c", "import imatlas; print(imatlas.__file__)"]
    assert (
        str(target) in subprocess.run(where, cwd=tmp_path, env=env, capture_output=True, text=True, check=True).stdout
    )
    done = imatlas("learn", str(photos), "-o", "photos.atlas", "--budget", "3s")
    assert done.returncode == 0, done.stderr
    assert "Next:" in done.stdout
    assert (tmp_path / "photos.atlas" / "report.html").stat().st_size > 50_000


def test_no_command_overwrites_through_a_path_with_dots(atlas, tmp_path, capsys):
    """`x/../NAME` does not exist while there is no `x`, but NAME would be written."""
    photos, key = str(atlas.parent / "photos"), ia.load(atlas).keys[0]
    commands = [
        ("t.csv", "table", atlas),
        ("c.csv", "clusters", atlas),
        ("o.csv", "outliers", atlas),
        ("f.json", "search", atlas, key),
        ("e.html", "explain", atlas, "--cluster", "0"),
        ("r.html", "report", atlas),
        ("m.png", "map", atlas),
        ("s.png", "sample", atlas),
        ("samples", "sample", atlas),
        ("l.png", "sliders", atlas),
        ("m.gif", "morph", atlas, key, key),
        ("p.png", "panorama", atlas, key),
        ("i.png", "inpaint", atlas, key),
        ("w.png", "extend", atlas, key, "--shape", "40x40"),
        ("n.npz", "export", atlas, "--to", "numpy"),
        ("n.npy", "export", atlas, "--to", "numpy"),
        ("e.parquet", "export", atlas, "--to", "embedding-atlas"),
        ("folders", "export", atlas, "--to", "folders"),
        ("plan.csv", "duplicates", photos),
        ("segments", "segment", photos),
        ("kmeans", "fit", "kmeans", photos),
        ("demo", "demo"),
        ("a.atlas", "learn", photos),
    ]
    for name, *words in commands:
        mine = tmp_path / "keep" / name
        (mine if mine.suffix in ("", ".atlas") else mine.parent).mkdir(parents=True, exist_ok=True)
        mine = mine / "report.html" if mine.is_dir() else mine
        mine.write_text("mine")
        assert main([*map(str, words), "-o", str(tmp_path / "keep" / "x" / ".." / name)]) == 1, words
        err = capsys.readouterr().err
        assert any(message in err for message in ("already exists", "exists and is not an atlas")), err
        assert mine.read_text() == "mine"
    assert sorted(path.name for path in (tmp_path / "keep").iterdir()) == sorted(name for name, *_ in commands)
