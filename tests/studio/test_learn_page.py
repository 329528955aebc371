"""The page of a folder without an atlas in a real Chromium: learning is begun, watched, stopped and gone on with."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.studio.browsing import api, by, faults, needs_chromium, picture
from tests.studio.conftest import Studio

pytestmark = needs_chromium

LONG = 240_000


def test_learning_is_begun_watched_stopped_and_gone_on_with(opening: Studio, open_page: Callable[..., Any]) -> None:
    page = open_page(opening.address)
    api.expect(by(page, "check")).to_contain_text("60 images", timeout=LONG)
    api.expect(by(page, "stages")).to_be_hidden()
    picture(page, "folder")
    assert not faults(page)
    by(page, "encoder").select_option("own")
    by(page, "budget").select_option("30s")
    by(page, "start").focus()
    page.keyboard.press("Enter")
    running = by(page, "stages").locator("[aria-current=step]")
    api.expect(running).to_contain_text("Encoder", timeout=LONG)
    api.expect(by(page, "start")).to_be_hidden()
    curve = by(page, "networks").get_by_role("img", name="Loss on held-out images")
    api.expect(curve).to_be_visible(timeout=LONG)
    assert page.locator(".curve polyline").count() == 2
    strip = by(page, "samples").first.locator("img")
    api.expect(strip).to_be_visible()
    page.wait_for_function("(image) => image.complete && image.naturalWidth > 500", arg=strip.element_handle())
    assert not faults(page)

    by(page, "stop").press("Enter")
    api.expect(by(page, "state")).to_contain_text("Stopped", timeout=LONG)
    api.expect(by(page, "start")).to_have_text("Go on")
    api.expect(by(page, "budget")).to_be_hidden()
    page.reload()
    api.expect(by(page, "state")).to_contain_text("Stopped")
    api.expect(curve).to_be_visible()
    assert not faults(page)

    by(page, "start").click()
    first_map = by(page, "first-map").locator("img")
    api.expect(first_map).to_be_visible(timeout=LONG)
    page.wait_for_function("(image) => image.complete && image.naturalWidth > 300", arg=first_map.element_handle())
    picture(page, "learning")
    page.wait_for_function("() => window.studio?.state?.atlas", timeout=LONG)
    assert page.evaluate("() => window.studio.state.atlas.n_images") == 60


def test_the_atlas_is_written_where_the_page_says(
    open_folder: Callable[..., Studio], open_page: Callable[..., Any], tmp_path: Path
) -> None:
    page = open_page(open_folder(may_choose=True).address)
    api.expect(by(page, "place")).to_have_value(str(tmp_path / "new.atlas"))
    assert not faults(page)
    picture(page, "place")
    (tmp_path / "other.atlas").mkdir()
    by(page, "place").fill(str(tmp_path / "other.atlas"))
    by(page, "budget").select_option("30s")
    by(page, "encoder").select_option("own")
    by(page, "start").click()
    api.expect(page.locator("#atlas")).to_have_text(str(tmp_path / "other.atlas"))
    api.expect(by(page, "place")).to_be_hidden()
    by(page, "stop").click()
    api.expect(by(page, "state")).to_contain_text("Stopped", timeout=LONG)
    assert not (tmp_path / "new.atlas").exists()


def test_names_of_files_are_only_text_and_failures_are_told(
    open_folder: Callable[..., Studio], open_page: Callable[..., Any], folder: Path, tmp_path: Path
) -> None:
    images = Path(shutil.copytree(folder, tmp_path / "images"))
    (images / "<img src=x onerror=fail()>.jpg").write_bytes(b"no image")
    studio = open_folder(images)
    page = open_page(studio.address, viewport={"width": 390, "height": 800}, color_scheme="dark")
    api.expect(by(page, "skipped")).to_contain_text("<img src=x onerror=fail()>.jpg not a picture", timeout=LONG)
    assert page.evaluate("() => document.documentElement.scrollWidth") == 390
    assert not faults(page)
    studio.folder.mkdir()
    (studio.folder / "mine.txt").write_text("mine")
    by(page, "start").click()
    api.expect(by(page, "state")).to_contain_text("is not an atlas", timeout=LONG)
    api.expect(by(page, "lines")).to_be_visible()
    api.expect(by(page, "start")).to_be_enabled()
