"""Clusters that were named and merged: they count as one, hold for an atlas learned again, and are split again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import imatlas as ia
from imatlas.atlas.decided_clusters import decided_clusters
from imatlas.atlas.decisions import Decisions
from imatlas.cli import main
from imatlas.errors import InputError, ParameterError
from imatlas.testing import synthetic_images


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("decided")
    images = synthetic_images(60, size=32, channels=3, random_state=0)
    (folder / "in").mkdir()
    for i, pixels in enumerate(images):
        Image.fromarray(pixels).save(folder / "in" / f"{i:02d}.png")
    ia.learn(folder / "in", folder / "a.atlas", clusters=4, encoder="pretrained", budget="20s", progress=False)
    return folder / "a.atlas"


@pytest.fixture
def atlas(learned: Path, tmp_path: Path) -> ia.Atlas:
    return ia.Atlas(shutil.copytree(learned, tmp_path / "a.atlas"))


def test_merges_add_up_and_are_taken_back(tmp_path: Path) -> None:
    decisions = Decisions(tmp_path)
    decisions.merge_clusters(["a", "b"])
    assert decisions.state.undo == "merge 2 clusters"
    decisions.merge_clusters(["c", "d"])
    ab, cd, abcd = (frozenset((key,) for key in keys) for keys in ("ab", "cd", "abcd"))
    assert set(decisions.merge_clusters(["b", "c"]).merges) == {abcd}
    assert decisions.undo().merges == (ab, cd)
    assert decisions.split_cluster(["a"]).merges == (cd,)
    assert Decisions(tmp_path).state.merges == (cd,)
    assert decisions.undo().merges == (ab, cd)
    several = decisions.merge_clusters([("x", "y", "z"), ("u", "v")])
    assert several.undo == "merge 2 clusters"
    assert several.merges[-1] == {("x", "y", "z"), ("u", "v")}
    assert Decisions(tmp_path).state.merges == several.merges
    with pytest.raises(InputError, match="not a merged one"):
        decisions.split_cluster(["e"])
    with pytest.raises(InputError, match="at least two"):
        decisions.merge_clusters(["a", "a"])


def test_a_merge_holds_for_the_clusters_that_its_images_are_in_now(tmp_path: Path) -> None:
    decisions = Decisions(tmp_path)
    decisions.name_cluster("a", "first")
    decisions.name_cluster("b", "second")
    state = decisions.merge_clusters(["b", "c", "gone"])
    found = decided_clusters(state, 4, {"a": 0, "b": 3, "c": 1})
    assert (found.merged.tolist(), found.given) == ([0, 1, 2, 1], {0: "first", 1: "second"})
    assert found.names == ["first", "second", "cluster 2", "second"]
    again = decided_clusters(state, 5, {"a": 2, "b": 2, "c": 4})  # as if learned again
    assert (again.merged.tolist(), again.given) == ([0, 1, 2, 3, 2], {2: "second"})  # the name given last
    assert not decided_clusters(state, 2, {"b": 1}).any_merged  # the others are gone


def test_a_cluster_is_known_by_most_of_the_images_that_are_left(tmp_path: Path) -> None:
    decisions = Decisions(tmp_path)
    decisions.name_cluster(["a", "b", "c"], "first")
    state = decisions.merge_clusters([("a", "b", "c"), ("d", "e")])
    for cluster_of, name, merged in (
        ({"a": 0, "b": 0, "c": 0, "d": 1, "e": 1}, 0, [0, 0, 2]),
        ({"b": 2, "c": 2, "d": 1}, 1, [0, 1, 1]),  # the most typical one is gone
        ({"a": 1, "b": 2, "c": 2, "e": 2}, 2, [0, 1, 2]),  # it went to another cluster
        ({"a": 1, "b": 2}, 1, [0, 1, 2]),  # of equally many the more typical one counts
    ):
        found = decided_clusters(state, 3, cluster_of)
        assert (found.given, found.merged.tolist()) == ({name: "first"}, merged)
    assert decided_clusters(state, 3, {}).given == {}
    assert decisions.name_cluster(["a", "b", "c", "d"], "").names == {}


def test_chains_of_merges_are_one(tmp_path: Path) -> None:
    decisions = Decisions(tmp_path)
    decisions.merge_clusters(["a", "b"])
    decisions.merge_clusters(["c", "d"])
    state = decisions.merge_clusters(["e", "f"])
    cluster_of = {"a": 4, "b": 3, "c": 3, "d": 1, "e": 1, "f": 0}  # b and c, d and e have come together
    assert decided_clusters(state, 5, cluster_of).merged.tolist() == [0, 0, 2, 0, 0]


def test_merged_clusters_count_as_one_everywhere(atlas: ia.Atlas) -> None:
    before, sizes = atlas.clusters(), np.bincount(atlas.clusters().labels)
    atlas.name_cluster(3, "pears")
    atlas.merge_clusters([3, 1])
    found = atlas.clusters()
    assert np.array_equal(found.labels, np.where(before.labels == 3, 1, before.labels))
    assert found.names == {1: "pears"}
    assert found.result.metrics["n_clusters"] == 3
    table = {row[0]: row for row in found.result.data["clusters"]}
    assert sorted(table) == [0, 1, 2]
    assert table[1][1:3] == ["pears", int(sizes[1] + sizes[3])]
    assert (found.confidence >= before.confidence - 1e-6).all()
    assert np.array_equal(atlas.table()["cluster"].to_numpy(), found.labels)
    assert np.allclose(atlas.table()["confidence"].to_numpy(), found.confidence)
    assert np.array_equal(atlas.clusters(as_decided=False).labels, before.labels)
    assert ia.Atlas(atlas.folder).clusters(2).names == {}  # others than those of the atlas
    explained = atlas.explain(cluster=3, heat=False)
    assert explained.title == "Cluster 1 (pears)"
    assert explained.data["size"] == sizes[1] + sizes[3]
    assert explained.data["nearest_cluster"] in (0, 2)
    assert {each["second_best"] for each in explained.data["border"]} <= {0, 2}
    inside = int(np.flatnonzero(before.labels == 3)[0])
    explained = atlas.explain(image=atlas.keys[inside], heat=False)
    assert (explained.data["cluster"], explained.data["second_best"] in (0, 2)) == (1, True)


def test_a_merged_cluster_is_split_and_keeps_what_it_was(atlas: ia.Atlas) -> None:
    before = atlas.clusters().labels
    atlas.name_cluster(0, "zero")
    atlas.merge_clusters([0, 1])
    atlas.merge_clusters([1, 2])  # 1 is 0 now
    assert sorted(set(atlas.clusters().labels.tolist())) == [0, 3]
    assert atlas.clusters().names == {0: "zero"}
    atlas.split_cluster(2)
    assert np.array_equal(atlas.clusters().labels, before)
    with pytest.raises(InputError, match="not a merged one"):
        atlas.split_cluster(2)
    atlas.decisions.undo()
    assert atlas.decided_clusters.parts(0) == [0, 1, 2]
    atlas.name_cluster(2, "")  # takes away the name of the merged one
    assert atlas.clusters().names == {}
    for wrong, error in (([0], InputError), ([0, 1], InputError), ([0, 9], ParameterError)):
        with pytest.raises(error):
            atlas.merge_clusters(wrong)
    with pytest.raises(InputError, match="no name"):
        atlas.name_cluster(3, "")


def test_a_merge_lasts_when_the_atlas_is_learned_again(learned: Path, tmp_path: Path) -> None:
    source = shutil.copytree(learned.parent / "in", tmp_path / "in")
    copy = shutil.copytree(learned, tmp_path / "a.atlas")
    atlas = ia.Atlas(copy)
    atlas.name_cluster(1, "pears")
    atlas.merge_clusters([1, 2])
    merged = {key for key, label in zip(atlas.keys, atlas.clusters().labels, strict=True) if label == 1}
    (gone, *others), *_ = (anchors for merge in atlas.decisions.state.merges for anchors in merge)
    assert len(others) == 4
    (source / gone).unlink()
    shutil.copy(source / min(merged - {gone}), source / "new.png")
    moved = {"moved_from": learned.parent / "in"}
    again = ia.learn(source, copy, clusters=4, encoder="pretrained", budget="20s", progress=False, **moved)
    assert again.clusters().names == {1: "pears"}
    found = {key for key, label in zip(again.keys, again.clusters().labels, strict=True) if label == 1}
    assert found == merged - {gone} | {"new.png"}


def test_names_merges_and_words_are_in_the_report(atlas: ia.Atlas, tmp_path: Path) -> None:
    atlas.name_cluster(1, "<b>pears</b>")
    atlas.merge_clusters([1, 2])
    page = atlas.report(tmp_path / "report.html").read_text()
    assert "Cluster 1 (&lt;b&gt;pears&lt;/b&gt;): " in page
    assert "<b>pears</b>" not in page
    assert "4 clusters were found, and some merged: 3 are left." in page
    assert "Cluster 2:" not in page
    assert "Words are proposed by a classifier that was trained with ImageNet" in page


def test_the_command_names_merges_splits_and_proposes_words(
    atlas: ia.Atlas, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "clusters.csv"
    asked = ["clusters", str(atlas.folder), "--merge", "3,1", "--name", "1=pears", "-o", str(table), "--json"]
    assert main(asked) == 0
    printed = json.loads(capsys.readouterr().out)
    assert len(printed["clusters"]) == 3
    row = next(row for row in printed["clusters"] if row[0] == 1)
    assert row[1] == "pears"
    assert any("ImageNet" in sentence for sentence in printed["sentences"])
    lines = table.read_text("utf-8-sig").replace('"', "").splitlines()
    assert lines[0] == "key,cluster,confidence,name"
    assert sum(line.endswith(",pears") for line in lines) == row[2]
    assert main(["clusters", str(atlas.folder), "--split", "1"]) == 0
    assert "pears" in capsys.readouterr().out
    assert len(set(atlas.clusters().labels.tolist())) == 4
    for wrong in (["--merge", "1"], ["--merge", "1;2"], ["--name", "pears"], ["--split", "99"], ["--split", "0"]):
        assert main(["clusters", str(atlas.folder), *wrong]) != 0
        assert capsys.readouterr().err


def test_an_encoder_of_its_own_proposes_no_words(tmp_path: Path) -> None:
    images = synthetic_images(30, size=16, channels=1, random_state=0)
    ia.learn(images, tmp_path / "own.atlas", encoder="own", budget="5s", clusters=2, progress=False)
    found = ia.Atlas(tmp_path / "own.atlas").clusters(words=True)
    assert "words" not in found.result.panels[0].columns
    assert not any("ImageNet" in sentence for sentence in found.result.sentences)


def test_folders_and_coco_follow_what_was_decided(
    atlas: ia.Atlas, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys, labels = atlas.keys, atlas.clusters().labels
    atlas.name_cluster(1, "pears")
    atlas.merge_clusters([1, 2])
    out = [int(np.flatnonzero(labels == label)[5]) for label in (0, 1)]
    atlas.decisions.leave_out([keys[row] for row in out])
    atlas.export(tmp_path / "folders", to="folders")
    n = int(np.isin(labels, (1, 2)).sum()) - 1
    assert (tmp_path / "folders" / f"cluster-001_pears_{n}-images").is_dir()
    assert len(list((tmp_path / "folders").rglob("*.png"))) == len(keys) - 2
    with pytest.raises(InputError, match="No image has a label"):
        atlas.export(tmp_path / "labels.json", to="coco")
    rows = {label: np.flatnonzero(labels == label)[:4] for label in (0, 3)}
    for label, some in rows.items():
        atlas.decisions.label([keys[row] for row in some], f"kind {label}")
    atlas.export(tmp_path / "labels.json", to="coco")
    found = json.loads((tmp_path / "labels.json").read_text())
    assert len(found["images"]) == len(keys) - 2
    assert len(found["annotations"]) == 8
    atlas.export(tmp_path / "labels.json", to="coco", propagate=True, overwrite=True)
    found = json.loads((tmp_path / "labels.json").read_text())
    assert len(found["annotations"]) == len(keys) - 2
    assert sum("score" in each for each in found["annotations"]) == len(keys) - 2 - 8
    assert all(0 < each.get("score", 1) <= 1 for each in found["annotations"])
    chosen = tmp_path / "keys.txt"
    chosen.write_text(f"{keys[3]}\n{keys[1]}\n", "utf-8-sig")
    command = ["export", str(atlas.folder), "-o", str(tmp_path / "some"), "--to", "folders", "--keys", str(chosen)]
    assert main(command) == 0
    assert sorted(path.name for path in (tmp_path / "some").rglob("*.png")) == sorted([keys[1], keys[3]])
    chosen.write_text("not.png\nnor.png\n")
    assert main([*command, "--overwrite"]) == 1
    assert "no image 'not.png', nor 1 others" in capsys.readouterr().err
    chosen.write_text("\n")
    assert main([*command, "--overwrite"]) == 1
    assert "No image was chosen" in capsys.readouterr().err
    with pytest.raises(InputError, match="only"):
        atlas.export(tmp_path / "e.npz", to="numpy", keys=keys[:1])
