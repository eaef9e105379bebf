"""The page and the service itself, together in a browser."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect
from stand_in import running
from test_page import LABEL, file, give, shows
from tiny_models import RED, add_classifier, add_segmenter

from surgery.artifact.passports import PAGE, passport_folder
from surgery.artifact.store import Store

pytestmark = pytest.mark.browser
Opener = Callable[..., Any]


def serving(root: Path, **settings: Any) -> Any:
    from service.app import build_service
    from service.settings import Settings

    return running(build_service(Settings(models=root, device="cpu", **settings)).to_asgi())


@pytest.fixture
def address(store: Store) -> Iterator[str]:
    add_classifier(store)
    add_segmenter(store)
    with serving(store.root) as url:
        yield url


def photo(width: int, height: int) -> bytes:
    """Return a JPEG of noise whose left quarter is red, stored lying on its side."""
    pixels = np.random.default_rng(0).integers(0, 60, (height, width, 3)).astype(np.uint8)
    pixels[:, : width // 4] = (220, 10, 10)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    data = io.BytesIO()
    Image.fromarray(pixels).rotate(90, expand=True).save(data, "JPEG", exif=exif)
    return data.getvalue()


def test_labels_and_their_explanation(visit: Opener) -> None:
    page = visit()
    give(page, file("red.png", RED))
    expect(page.locator(LABEL)).to_contain_text("red")
    expect(page.locator("#facts")).to_contain_text("fp32")
    page.locator("#show-heat").check()
    expect(page.locator("#heat-text")).to_contain_text("Explanation")


def test_a_photo_of_twelve_megapixels_is_turned_and_masked(visit: Opener) -> None:
    page = visit()
    give(page, file("photo.jpg", photo(4000, 3000), "image/jpeg"), model="cars")
    expect(page.locator("#legend, .legend").first).to_contain_text("car")
    shows(page, 0.1, 0.5, (217, 52, 5), tolerance=40)  # red, half covered by the car's colour
    shows(page, 0.6, 0.5, (30, 30, 30), tolerance=40)


def test_what_is_no_image_is_told_kindly(visit: Opener) -> None:
    page = visit()
    give(page, file("notes.png", b"no image at all"))
    expect(page.locator("main")).to_contain_text("400 bad_image")


@pytest.mark.parametrize("token", ["sesame"])
def test_a_token_opens(store: Store, browser: Any, token: str) -> None:
    add_classifier(store)
    with serving(store.root, tokens=(token,)) as url:
        page = browser.new_page()
        page.goto(url)
        page.locator("#token").fill(token)
        page.keyboard.press("Enter")
        give(page, file("red.png", RED))
        expect(page.locator(LABEL)).to_contain_text("red")
        page.close()


def test_the_passport_of_the_chosen_version_opens(visit: Opener, store: Store) -> None:
    page = visit()
    link = page.get_by_role("link", name="Passport of this version")
    expect(link).to_be_hidden()
    for name in store.list_names():
        folder = passport_folder(store.resolve(name))
        folder.mkdir(parents=True)
        (folder / PAGE).write_text(f"<style>h1 {{ color: rgb(1, 2, 3); }}</style><h1>{name}</h1>")
    page.reload()
    page.locator("#model").select_option("colours")
    link.click()
    expect(page.locator("h1")).to_have_text("colours")
    expect(page.locator("h1")).to_have_css("color", "rgb(1, 2, 3)")  # the policy lets its style in
