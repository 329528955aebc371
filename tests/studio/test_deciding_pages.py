"""Deciding and exporting in a real Chromium, by mouse and by keyboard; see `test_pages` for pictures of the views."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import imatlas as ia
from tests.studio.browsing import PATIENCE, api, by, faults, needs_chromium, picture, seen
from tests.studio.conftest import Studio

pytestmark = needs_chromium


def present(studio: Studio) -> list[int]:
    return [cluster["id"] for cluster in studio.json("/api/atlas")["clusters"] if cluster["size"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_clusters_are_merged_and_split_by_keyboard(studio: Studio, visit: Callable[..., Any], scheme: str) -> None:
    studio.json("/api/decisions", {"kind": "name", "cluster": 0, "value": "<i>cat</i>"})
    first, second, *_ = present(studio)
    page = visit(studio, "decide", color_scheme=scheme)
    api.expect(by(page, "merge")).to_be_hidden()
    by(page, f"cluster-choose-{second}").focus()
    page.keyboard.press("Space")
    seen(page, "merge-names", "choose at least one more")
    api.expect(by(page, "merge")).to_be_disabled()
    by(page, f"cluster-choose-{first}").focus()
    page.keyboard.press("Space")
    seen(page, "merge-names", f"Merge <i>cat</i> and cluster {second}?")
    assert not faults(page)
    by(page, "merge").focus()
    page.keyboard.press("Enter")
    api.expect(by(page, f"cluster-choose-{second}")).to_have_count(0)
    api.expect(by(page, "merge")).to_be_hidden()
    api.expect(by(page, f"cluster-name-{first}")).to_have_value("<i>cat</i>")
    seen(page, "clusters", f"merged from {first} and {second}")
    assert ia.Atlas(studio.folder).decided_clusters.parts(first) == [first, second]
    picture(page, f"merged-{scheme}")
    by(page, f"cluster-split-{first}").focus()
    page.keyboard.press("Enter")
    api.expect(by(page, f"cluster-choose-{second}")).to_be_visible()
    by(page, "undo").click()
    api.expect(by(page, f"cluster-choose-{second}")).to_have_count(0)


def test_the_legend_and_the_gallery_show_merged_clusters_as_one(studio: Studio, visit: Callable[..., Any]) -> None:
    first, second, *others = present(studio)
    studio.json("/api/decisions", {"kind": "merge", "clusters": [first, second]})
    size = studio.json("/api/atlas")["clusters"][first]["size"]
    page = visit(studio)
    api.expect(by(page, "legend").locator("li")).to_have_count(1 + len(others))
    by(page, "legend").get_by_role("button", name=f"cluster {first}").click()
    seen(page, "selection-count", f"{size} images")
    by(page, "nav-gallery").click()
    options = by(page, "filter-cluster").locator("option").all_inner_texts()
    assert options == ["All clusters", *(f"cluster {i}" for i in (first, *others))]
    by(page, "filter-cluster").select_option(label=f"cluster {first}")
    seen(page, "gallery-total", f"{size} images")


def test_a_selection_and_a_filtered_list_are_exported(studio: Studio, visit: Callable[..., Any]) -> None:
    page = visit(studio, "gallery")
    by(page, "filter-text").fill("0.png")
    seen(page, "gallery-total", "6 images")
    by(page, "gallery-export").click()
    seen(page, "export-dialog", "Export 6 images")
    assert not faults(page)
    picture(page, "export")
    with page.expect_download() as waiting:
        by(page, "export-as-list").check()
        by(page, "export-download").click()
    assert waiting.value.suggested_filename == "photos0-images.txt"
    assert Path(waiting.value.path()).read_text().split() == [f"{i}0.png" for i in range(6)]
    api.expect(by(page, "export-dialog")).to_be_hidden()
    by(page, "gallery-grid").locator("input[type=checkbox]").first.check()
    by(page, "label-input").fill("cat")
    by(page, "label-input").press("Enter")
    page.wait_for_function("() => window.studio.state.atlas.labels.length === 1")
    for kind in ("coco", "zip"):
        by(page, "selection-export").click()
        by(page, f"export-as-{kind}").focus()
        page.keyboard.press("Space")
        with page.expect_download() as waiting:
            page.keyboard.press("Enter")
        content = Path(waiting.value.path()).read_bytes()
        if kind == "zip":
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                assert archive.namelist() == ["images/00.png", "images.csv", "labels.json"]
                content = archive.read("labels.json")
        assert [each["file_name"] for each in json.loads(content)["images"]] == ["00.png"]
        assert [each["name"] for each in json.loads(content)["categories"]] == ["cat"]
    by(page, "selection-export").click()
    page.keyboard.press("Escape")
    api.expect(by(page, "export-dialog")).to_be_hidden()
    seen(page, "selection-count", "1 image")  # Escape closed the dialog only


def test_what_is_unusual_in_outliers_is_shown(studio: Studio, visit: Callable[..., Any]) -> None:
    page = visit(studio, "decide")
    by(page, "tab-outliers").click()
    by(page, "outlier-rate").fill("-1")
    api.expect(by(page, "outliers").locator("li").first).to_be_visible()
    by(page, "outlier-heat").focus()
    page.keyboard.press("Space")
    heat = by(page, "heat").first
    page.wait_for_function("(image) => image.complete && image.naturalWidth > 100", arg=heat.element_handle())
    api.expect(by(page, "outliers").locator(".waits")).to_have_count(0, timeout=PATIENCE)
    assert not faults(page)
    picture(page, "outliers")
    by(page, "outlier-heat").uncheck()
    api.expect(by(page, "heat")).to_have_count(0)


def test_left_out_images_are_kept_again_and_a_new_atlas_is_shown(
    opened: Callable[..., Studio], folder: Path, tmp_path: Path, visit: Callable[..., Any]
) -> None:
    source, learned = shutil.copytree(folder, tmp_path / "photos"), tmp_path / "mine.atlas"
    options: dict[str, Any] = {"progress": False, "budget": "15s", "image_size": 32, "clusters": 3}
    ia.learn(source, learned, **options)
    studio = opened(learned)
    page = visit(studio, "decide?image=3")
    by(page, "image-close").click()
    by(page, "tab-left-out").click()
    api.expect(by(page, "left-out-none")).to_be_visible()
    studio.json("/api/decisions", {"kind": "leave_out", "rows": [5, 6, 7], "value": True})  # in another tab
    api.expect(by(page, "left-out-images").locator("li")).to_have_count(3)
    by(page, "left-out-images").get_by_role("button", name="Keep 07.png").click()
    api.expect(by(page, "left-out-images").locator("li")).to_have_count(2)
    Image.fromarray(np.asarray(Image.open(source / "00.png"))[::-1]).save(source / "0.png")
    api.expect(by(page, "learned-again")).to_be_hidden()
    ia.learn(source, learned, **options)
    seen(page, "learned-again", "learned again")
    assert not faults(page)
    picture(page, "learned-again")
    by(page, "learned-again-reload").click()
    page.wait_for_function("() => window.studio?.state?.atlas?.n_images === 59")
    api.expect(by(page, "learned-again")).to_be_hidden()
    by(page, "tab-left-out").click()
    seen(page, "left-out-gone", "05.png")
    assert not faults(page)
    picture(page, "left-out")
    by(page, "bring-back").first.click()
    api.expect(by(page, "left-out-gone").locator("li")).to_have_count(1)
    assert ia.Atlas(learned).decisions.state.left_out == {"06.png"}
    by(page, "undo").click()
    api.expect(by(page, "left-out-gone").locator("li")).to_have_count(2)
    by(page, "left-out-bring-all").click()
    api.expect(by(page, "left-out-none")).to_be_visible()
