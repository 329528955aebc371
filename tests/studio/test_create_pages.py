"""The view Create in a real Chromium: what a person makes, sees of it, keeps and finds again."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.studio.browsing import LOADED, PATIENCE, api, by, faults, needs_chromium, on_page, picture, seen, settled
from tests.studio.conftest import Studio

pytestmark = needs_chromium


def to_be(page: Any, name: str) -> Any:
    return api.expect(by(page, name))


def add_open(page: Any, studio: Studio, row: int) -> None:
    """Choose an image for the view Create by opening it."""
    page.goto(f"{studio.address}/#create?image={row}")
    page.wait_for_function("(row) => window.studio.state.route.image === row", arg=row)
    by(page, "create-open").click()


def choose(page: Any, kind: str) -> None:
    by(page, f"tool-of-{kind}").check()


def make(page: Any, title: str) -> None:
    by(page, "create-make").click()
    seen(page, "create-title", title)


def shown(page: Any) -> np.ndarray:
    """The pixels of the image in large."""
    source = page.locator("#create-picture img").first.get_attribute("src")
    return np.asarray(Image.open(io.BytesIO(page.request.get(page.url.partition("#")[0].rstrip("/") + source).body())))


def test_a_click_on_the_map_makes_new_images_there(studio: Studio, visit: Callable[..., Any]) -> None:
    page = visit(studio)
    settled(page)
    by(page, "tool-create").click()
    page.mouse.click(*on_page(page, 4))
    images = by(page, "place-images").locator("img")
    api.expect(images).to_have_count(4, timeout=PATIENCE)
    first = images.first.get_attribute("src")
    picture(page, "place")
    by(page, "place-others").click()
    page.wait_for_function(
        "(first) => document.querySelector('[data-testid=place-images] img')?.getAttribute('src') !== first "
        "&& document.querySelector('[data-testid=place-images] img')",
        arg=first,
    )
    by(page, "place-open").click()
    to_be(page, "made-image").to_have_count(4, timeout=PATIENCE)
    seen(page, "create-title", "near 04.png")
    assert [one["recipe"]["seed"] for one in studio.json("/api/creations")["creations"]] == [4, 0]


def test_the_map_makes_new_images_by_keyboard_alone(studio: Studio, visit: Callable[..., Any]) -> None:
    page = visit(studio)
    settled(page)
    by(page, "map-canvas").focus()
    page.keyboard.press("n")
    page.keyboard.press("Enter")
    api.expect(by(page, "place-images").locator("img")).to_have_count(4, timeout=PATIENCE)
    api.expect(by(page, "place-others")).to_be_focused()
    page.keyboard.press("Escape")
    to_be(page, "place-card").to_be_hidden()
    api.expect(by(page, "map-canvas")).to_be_focused()


def test_pixels_tell_their_source_to_pointer_and_keyboard(studio: Studio, visit: Callable[..., Any]) -> None:
    page = visit(studio, "create")
    by(page, "create-n").fill("2")
    make(page, "2 images from anywhere")
    (made,) = studio.json("/api/creations")["creations"]
    numbers = np.frombuffer(studio.ask(f"/api/creations/{made['id']}/0/sources")[1], np.uint8).reshape(32, 32)
    sources = studio.json(f"/api/creations/{made['id']}", {})["result"]["sources"][0]
    box = by(page, "traced").bounding_box()
    for row, column in ((16, 16), (3, 28)):
        page.mouse.move(box["x"] + box["width"] * (column + 0.5) / 32, box["y"] + box["height"] * (row + 0.5) / 32)
        seen(page, "source-tip", sources[numbers[row, column]]["key"])
    picture(page, "provenance")
    lit = "() => Array.from(document.querySelector('.traced .veil').getContext('2d').getImageData(0, 0, 32, 32).data)"
    page.mouse.move(5, 5)
    to_be(page, "source-tip").to_be_hidden()
    first = by(page, "sources").locator("button").first
    first.focus()
    page.wait_for_function("() => !document.querySelector('.traced .veil').hidden")
    page.wait_for_timeout(300)
    opacity = np.array(page.evaluate(lit)).reshape(32, 32, 4)[..., 3]
    assert np.array_equal(opacity == 0, numbers == 0)
    page.keyboard.press("Enter")
    seen(page, "image-panel", sources[0]["key"])


def test_one_drags_through_a_morph(studio: Studio, visit: Callable[..., Any]) -> None:
    page = visit(studio, "create")
    add_open(page, studio, 4)
    choose(page, "morph")
    seen(page, "create-lacking", "one more")
    to_be(page, "create-make").to_be_disabled()
    page.evaluate("() => window.studio.state.selection.change([5])")
    page.locator("#create-selection").click()
    by(page, "create-frames").fill("6")
    make(page, "Morph of 04.png and 05.png")
    slider = by(page, "create-frame")
    before = shown(page)
    slider.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    seen(page, "made-place", "Frame 4 of 6")
    api.expect(slider).to_be_focused()
    assert not np.array_equal(before, shown(page))
    picture(page, "morph")
    by(page, "create-play").click()
    api.expect(by(page, "create-play")).to_have_text("Pause")
    page.wait_for_function("() => !/Frame 4/.test(document.querySelector('[data-testid=made-place]').textContent)")
    by(page, "create-play").click()
    with page.expect_download() as download:
        by(page, "made-video").click()
    with Image.open(download.value.path()) as video:
        assert video.n_frames == 6


def test_a_mask_is_painted_undone_and_filled_in(studio: Studio, visit: Callable[..., Any]) -> None:
    page = visit(studio, "create")
    add_open(page, studio, 4)
    page.goto(f"{studio.address}/#create")
    choose(page, "inpaint")
    seen(page, "create-lacking", "Paint over")
    box = by(page, "painter").bounding_box()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 0.6 * box["height"], steps=4)
    page.mouse.up()
    to_be(page, "create-make").to_be_enabled()
    picture(page, "painted")
    by(page, "brush-size").focus()
    page.keyboard.press("Control+z")
    to_be(page, "create-make").to_be_disabled()
    page.locator("#create-painter summary").press("Enter")
    numbers = page.locator("#create-painter .fields input")
    for i, value in enumerate((4, 6, 10, 8)):
        numbers.nth(i).fill(str(value))
    by(page, "mask-rectangle").press("Enter")
    by(page, "create-n").fill("2")
    make(page, "04.png filled in")
    given = np.asarray(Image.open(io.BytesIO(studio.ask("/api/generator/images/4")[1])))
    changed = (shown(page) != given).any(-1)
    mask = np.zeros((32, 32), bool)
    mask[6:14, 4:14] = True
    assert changed.any()
    assert not changed[~mask].any()
    to_be(page, "made-image").to_have_count(2)


def test_the_canvas_shows_where_an_image_is_extended(studio: Studio, visit: Callable[..., Any]) -> None:
    page = visit(studio, "create")
    add_open(page, studio, 4)
    choose(page, "extend")
    by(page, "create-left").fill("0")
    by(page, "create-right").fill("0")
    seen(page, "create-lacking", "on one side")
    by(page, "create-right").fill("16")
    by(page, "create-n").fill("1")
    box = page.locator("#create-canvas-box").bounding_box()
    assert box["width"] / box["height"] == pytest.approx(48 / 32, rel=0.02)
    make(page, "04.png extended")
    assert shown(page).shape == (32, 48, 3)


def test_images_are_kept_compared_tiled_and_saved_with_their_recipe(studio: Studio, visit: Callable[..., Any]) -> None:
    page = visit(studio, "create")
    by(page, "create-n").fill("3")
    make(page, "3 images from anywhere")
    by(page, "made-keep").click()
    to_be(page, "kept-image").to_have_count(1, timeout=PATIENCE)
    by(page, "made-compare").click()
    by(page, "made-image").nth(1).locator("button").click()
    to_be(page, "create-compare").to_contain_text("number 1 of 3")
    to_be(page, "create-compare").to_contain_text("number 2 of 3")
    picture(page, "compared")
    by(page, "made-tile").click()
    to_be(page, "nine").to_be_visible()
    by(page, "made-tile").click()
    with page.expect_download() as download:
        by(page, "made-download").click()
    content = Path(download.value.path()).read_bytes()
    saved = Image.open(io.BytesIO(content))
    recipe = json.loads(saved.text["imatlas"])
    assert recipe["image"] == 1
    assert np.array_equal(np.asarray(saved), shown(page))
    with page.expect_download() as download:
        by(page, "made-recipe").click()
    text = Path(download.value.path()).read_text()
    assert json.loads(text).items() <= recipe.items()
    for name, given in (("a.png", content), ("a.json", text.encode())):
        by(page, "create-n").fill("1")
        by(page, "create-saved").set_input_files({"name": name, "mimeType": "", "buffer": given})
        api.expect(by(page, "create-n")).to_have_value("3", timeout=PATIENCE)
        seen(page, "made-place", "Image 2 of 3")
        assert np.array_equal(np.asarray(saved), shown(page))
    by(page, "create-saved").set_input_files({"name": "b.png", "mimeType": "", "buffer": b"no recipe"})
    seen(page, "toast", "holds no recipe")


def test_history_brings_results_back_after_a_restart(
    studio: Studio, opened: Callable[..., Studio], visit: Callable[..., Any]
) -> None:
    page = visit(studio, "create")
    add_open(page, studio, 4)
    by(page, "create-n").fill("2")
    by(page, "create-seed").fill("12")
    make(page, "2 images near 04.png")
    by(page, "made-image").nth(1).locator("button").click()
    by(page, "made-keep").click()
    to_be(page, "kept-image").to_have_count(1, timeout=PATIENCE)
    before = shown(page)
    by(page, "create-seed").fill("13")
    make(page, "seed 13")
    to_be(page, "earlier").to_have_count(2, timeout=PATIENCE)
    picture(page, "history")
    again = visit(opened(studio.folder), "create")
    by(again, "earlier").nth(1).click()
    seen(again, "create-title", "seed 12")
    assert by(again, "create-seed").input_value() == "12"
    to_be(again, "create-images").to_contain_text("04.png")
    by(again, "earlier").nth(0).click()
    seen(again, "create-title", "seed 13")
    by(again, "kept-image").click()
    seen(again, "create-title", "seed 12")
    seen(again, "made-place", "Image 2 of 2")
    assert np.array_equal(shown(again), before)


def test_images_are_chosen_on_the_map_and_what_is_impossible_is_told(studio: Studio, visit: Callable[..., Any]) -> None:
    page = visit(studio, "create")
    to_be(page, "tool-of-sliders").to_have_count(0)
    by(page, "create-cannot").locator("summary").click()
    to_be(page, "create-cannot").to_contain_text("no latent vectors")
    by(page, "create-pick").click()
    page.wait_for_function(LOADED)
    settled(page)
    for row in (4, 5):
        page.mouse.click(*on_page(page, row))
        to_be(page, "place-card").to_contain_text("Chosen")
    by(page, "place-back").click()
    to_be(page, "create-images").to_contain_text("05.png")
    assert by(page, "create-images").locator("li").count() == 2
    assert studio.json("/api/creations")["total"] == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_fault_of_accessibility_where_images_were_made(
    studio: Studio, visit: Callable[..., Any], scheme: str
) -> None:
    page = visit(studio, "create", color_scheme=scheme)
    add_open(page, studio, 4)
    by(page, "create-n").fill("2")
    make(page, "2 images near")
    by(page, "made-keep").click()
    to_be(page, "kept-image").to_have_count(1, timeout=PATIENCE)
    choose(page, "inpaint")
    assert not faults(page)
