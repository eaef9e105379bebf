"""The page at /, used as a person would: in a browser, with a mouse or with keys alone."""

from __future__ import annotations

import base64
import io
import json
import shlex
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, FileChooser, Page, Route, expect
from stand_in import LIMITS, MODELS, STREET, TIMES, running
from tiny_models import RED, plain, png

pytestmark = pytest.mark.browser
expect.set_options(timeout=20_000)  # a busy machine takes seconds for a large photo
Opener = Callable[..., Page]
RED_HUE, GREEN_HUE = (213, 94, 0), (86, 180, 233)
LABEL = ".bars li:first-child"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The address of a service with a classifier `colours` and a segmenter `street`."""
    with running() as url:
        yield url


def file(name: str, data: bytes, kind: str = "image/png") -> Any:
    return {"name": name, "mimeType": kind, "buffer": data}


def give(page: Page, *files: Any, model: str = "colours") -> None:
    expect(page.locator("#drop")).to_be_visible()
    page.select_option("#model", model)
    page.set_input_files("#files", list(files))


def street(width: int = 400, height: int = 300) -> bytes:
    """Return a photo whose left quarter is red and right quarter green, the rest nearly black."""
    pixels = np.full((height, width, 3), 20, np.uint8)
    pixels[:, : width // 4] = (255, 0, 0)
    pixels[:, -(width // 4) :] = (0, 255, 0)
    return png(pixels)


def pixel(page: Page, x: float, y: float) -> tuple[int, ...]:
    """Return what the canvas shows at x and y, shares of its width and height."""
    code = """([x, y]) => { const c = document.getElementById("view");
        return [...c.getContext("2d").getImageData(x * c.width, y * c.height, 1, 1).data].slice(0, 3); }"""
    return tuple(page.evaluate(code, [x, y]))


def shows(page: Page, x: float, y: float, colour: tuple[int, ...], tolerance: int = 3) -> None:
    """Wait until the canvas shows a colour at a place."""
    code = """([x, y, colour, tolerance]) => { const c = document.getElementById("view");
        const found = c.getContext("2d").getImageData(x * c.width, y * c.height, 1, 1).data;
        return colour.every((part, i) => Math.abs(part - found[i]) <= tolerance); }"""
    try:
        page.wait_for_function(code, arg=[x, y, list(colour), tolerance], timeout=20_000)
    except Exception:
        raise AssertionError(f"{pixel(page, x, y)} is shown, not {colour}") from None


def blend(photo: tuple[int, ...], hue: tuple[int, ...], opacity: float) -> tuple[int, ...]:
    return tuple(round(p * (1 - opacity) + h * opacity) for p, h in zip(photo, hue, strict=True))


def test_labels_are_shown_with_bars_the_most_probable_first(visit: Opener) -> None:
    page = visit()
    give(page, file("red.png", RED))
    expect(page.locator(LABEL)).to_contain_text("red")
    expect(page.locator(LABEL)).to_contain_text("89.3 %")
    assert page.locator(".bars i b").first.evaluate("bar => parseFloat(bar.style.width)") == pytest.approx(
        89.3, abs=0.1
    )
    expect(page.locator(".bars li")).to_have_count(5)
    page.get_by_role("button", name="Show all 9").click()
    expect(page.locator(".bars li")).to_have_count(9)
    expect(page.get_by_role("button", name="Show the first 5")).to_be_focused()
    expect(page.get_by_role("status")).to_have_text("red.png: red 89.3 %")
    times = page.locator("#times").inner_text()
    for milliseconds in TIMES.values():
        assert f"{milliseconds} ms" in times
    assert "Round trip" in times
    facts = page.locator("#facts").inner_text().split("\n")
    assert {"colours", "2", "fp32", "2a2a2a2a2a2a"} <= set(facts)


def test_a_mask_is_drawn_as_opaque_and_with_the_classes_that_are_wanted(visit: Opener) -> None:
    page = visit()
    give(page, file("street.png", street()), model="street")
    red, green, dark = (0.1, 0.5), (0.9, 0.5), (0.5, 0.5)
    shows(page, *red, blend((255, 0, 0), RED_HUE, 0.55))
    shows(page, *green, blend((0, 255, 0), GREEN_HUE, 0.55))
    shows(page, *dark, (20, 20, 20))
    slider = page.get_by_role("slider", name="Opacity")
    slider.press("End")
    expect(page.locator("#opacity-value")).to_have_text("100 %")
    shows(page, *red, RED_HUE)
    legend = page.locator(".legend li")
    assert legend.all_inner_texts() == ["rest\n50.0 %", "red\n25.0 %", "green\n25.0 %"]
    assert page.locator(".legend .swatch").nth(1).evaluate("s => s.style.background") == "rgb(213, 94, 0)"
    page.get_by_role("checkbox", name="red").uncheck()
    shows(page, *red, (255, 0, 0))
    shows(page, *green, GREEN_HUE)
    page.get_by_role("checkbox", name="rest").check()
    shows(page, *dark, (128, 128, 128))
    slider.press("Home")
    shows(page, *green, (0, 255, 0))
    page.get_by_role("button", name="Show 1 absent class").click()
    expect(legend).to_have_count(4)
    slider.press("End")
    page.get_by_role("checkbox", name="Mask").uncheck()
    shows(page, *green, (0, 255, 0))
    page.get_by_role("checkbox", name="Boxes").check()
    shows(page, 0.75, 0.5, GREEN_HUE, 110)  # a thin line's edge, half over its dark border
    page.locator("#view").hover(position={"x": 10, "y": 100})
    expect(page.locator("#under")).to_have_text("under the pointer: red")


@pytest.mark.parametrize(
    ("model", "line"),
    [
        ("colours", "Like the training images (novelty p = 0.42)"),
        ("street", "Unlike the training images (novelty p = 0.004)"),
    ],
)
def test_a_line_says_whether_the_image_is_like_the_training_images(
    visit: Opener, model: str, line: str
) -> None:
    page = visit()
    give(page, file("red.png", RED), model=model)
    expect(page.locator("#answer-body > p")).to_have_text(line)


def test_an_explanation_is_asked_for_once_and_laid_over_the_image(visit: Opener) -> None:
    page = visit()
    give(page, file("street.png", street()))
    expect(page.locator(LABEL)).to_be_visible()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    box = page.get_by_role("checkbox", name="Explain")
    box.press("Space")
    expect(page.locator("#heat-text")).to_have_text("Explanation: what speaks for red")
    page.get_by_role("slider").press("End")
    shows(page, 0.9975, 0.5, (252, 255, 165), 6)  # the stand-in is surest at the right
    page.locator("#show-heat").uncheck()
    shows(page, 0.9975, 0.5, (0, 255, 0))
    page.locator("#show-heat").check()
    shows(page, 0.9975, 0.5, (252, 255, 165), 6)
    assert len(asked) == 1
    expect(page.locator("#curl")).to_contain_text("-F explain=true")


def told(status: int, body: Any, **headers: str) -> Callable[[Route], None]:
    kind = "application/json" if isinstance(body, dict) else "text/html"
    text = body if isinstance(body, str) else json.dumps(body)
    return lambda route: route.fulfill(status=status, body=text, headers={"Content-Type": kind, **headers})


def error(code: str, message: str, hint: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "hint": hint}}


@pytest.mark.parametrize(
    ("answer", "title", "hint", "code"),
    [
        (
            told(413, error("body_too_large", "the body is larger than 32 MiB", "Send a smaller image.")),
            "The body is larger than 32 MiB.",
            "Send a smaller image.",
            "413 body_too_large",
        ),
        (
            told(429, error("too_many_requests", "64 are at work", "Try later."), **{"Retry-After": "3"}),
            "64 are at work.",
            "It asks to come back in 3 seconds. Try later.",
            "429 too_many_requests",
        ),
        (told(502, "<h1>Bad Gateway</h1>"), "The service behind the proxy is down.", "", "502"),
        (told(200, "<h1>Welcome</h1>"), "The answer broke off or is none of this service's.", None, ""),
        (lambda route: route.abort(), "The service could not be reached.", None, ""),
    ],
    ids=["413", "429", "proxy", "no-json", "network"],
)
def test_an_error_is_told_in_words_and_can_be_tried_again(
    visit: Opener, answer: Callable[[Route], None], title: str, hint: str | None, code: str
) -> None:
    page = visit()
    page.route("**/predict", answer)
    give(page, file("red.png", RED))
    expect(page.locator("#wrong-title")).to_have_text(title)
    if hint is not None:
        expect(page.locator("#wrong-hint")).to_have_text(hint)
    expect(page.locator("#wrong-code")).to_have_text(code)
    assert not set("{}<>[]") & set(page.locator("#wrong").inner_text())
    expect(page.get_by_role("status")).to_contain_text(title)
    page.unroute("**/predict")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(LABEL)).to_contain_text("red")
    expect(page.locator("#wrong")).to_be_hidden()


def test_what_the_service_cannot_read_is_told_by_its_own_words(visit: Opener) -> None:
    page = visit()
    give(page, file("notes.txt", b"hello", "text/plain"))
    expect(page.locator("#wrong-title")).to_have_text("Image: not an image.")
    expect(page.locator("#wrong-hint")).to_have_text("Send a JPEG or a PNG.")
    expect(page.locator("#answer")).to_be_hidden()


def test_an_explanation_that_fails_leaves_the_answer(visit: Opener) -> None:
    page = visit()
    give(page, file("red.png", RED))
    expect(page.locator(LABEL)).to_be_visible()
    page.route("**/predict", told(422, error("no_explanation", "this model explains nothing", "")))
    page.locator("#show-heat").press("Space")
    expect(page.locator("#wrong-title")).to_have_text("This model explains nothing.")
    expect(page.locator(LABEL)).to_contain_text("red")
    expect(page.locator("#show-heat")).not_to_be_checked()


def test_an_image_over_the_limit_is_not_sent(visit: Opener) -> None:
    listed = {"ready": True, "models": MODELS, "problems": [], "limits": {**LIMITS, "max_body_mib": 0.01}}
    page = visit(lambda page: page.route("**/models", lambda route: route.fulfill(json=listed)))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    give(page, file("large.png", RED + bytes(20_000)))
    expect(page.locator("#wrong-title")).to_have_text(
        "The image has 20 KiB; the service takes 0.01 MiB at most."
    )
    assert not [url for url in asked if url.endswith("/predict")]


def test_a_photo_of_12_megapixels_stands_upright_under_its_mask(visit: Opener) -> None:
    upright = np.full((4000, 3000, 3), 20, np.uint8)
    upright[:1000] = (255, 0, 0)
    upright[:, :300] = (0, 255, 0)
    data = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side: a viewer turns it by 90 degrees clockwise
    Image.fromarray(np.rot90(upright)).save(data, "JPEG", quality=90, exif=exif)
    page = visit()
    give(page, file("photo.jpg", data.getvalue(), "image/jpeg"), model="street")
    expect(page.locator("#caption")).to_contain_text("3000 × 4000")
    expect(page.locator(".legend li")).to_have_count(3, timeout=60_000)
    page.wait_for_function("document.getElementById('view').height === 1600")
    assert page.evaluate("document.getElementById('view').width") == 1200
    page.get_by_role("slider").press("Home")
    for place, photo in (((0.5, 0.1), (255, 0, 0)), ((0.05, 0.9), (0, 255, 0)), ((0.5, 0.9), (20, 20, 20))):
        shows(page, *place, photo, 12)
    page.get_by_role("slider").press("End")
    shows(page, 0.5, 0.1, RED_HUE)
    shows(page, 0.05, 0.9, GREEN_HUE)
    shows(page, 0.5, 0.26, (20, 20, 20), 12)
    expect(page.locator("#times")).to_contain_text("Round trip")


def test_several_images_have_an_answer_each(visit: Opener) -> None:
    page = visit()
    shades = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
    files = [file(f"{name}.png", plain(colour)) for name, colour in shades.items()]
    give(page, files[0], file("bad.png", b"no"), *files[1:])
    thumbs = page.locator("#strip button")
    expect(thumbs).to_have_count(4)
    for n, words in enumerate(("red 89.", "failed", "green 89.", "blue 89.")):
        expect(thumbs.nth(n)).to_contain_text(words)
    thumbs.nth(3).click()
    expect(thumbs.nth(3)).to_have_attribute("aria-pressed", "true")
    expect(thumbs.nth(3)).to_be_focused()
    expect(page.locator(LABEL)).to_contain_text("blue")
    shows(page, 0.5, 0.5, (0, 0, 255))
    thumbs.nth(1).press("Enter")
    expect(page.locator("#wrong")).to_be_visible()
    page.select_option("#model", "street")
    page.get_by_role("button", name="Ask again").click()
    expect(thumbs.nth(0)).to_contain_text("red 100 %")
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#strip button")).to_have_count(0)
    expect(page.locator("#right section:visible")).to_have_count(1)


def test_what_is_cleared_while_it_is_asked_says_nothing_more(visit: Opener) -> None:
    page = visit()
    page.route("**/predict", lambda route: None)  # never answered
    give(page, file("red.png", RED))
    expect(page.locator("#answer-title")).to_have_text("Asking…")
    page.get_by_role("button", name="Clear").click()
    page.wait_for_timeout(300)
    expect(page.get_by_role("status")).to_have_text("The images are cleared.")
    expect(page.locator("#wrong")).to_be_hidden()
    page.unroute("**/predict")
    give(page, file("green.png", plain((0, 255, 0))))
    expect(page.get_by_role("status")).to_have_text("green.png: green 89.3 %")


def test_images_can_be_dropped_and_pasted(visit: Opener) -> None:
    page = visit()
    expect(page.locator("#drop")).to_be_visible()
    code = """([kind, text]) => {
        const data = new DataTransfer(), bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0));
        data.items.add(new File([bytes], `${kind}.png`, { type: "image/png" }));
        const options = { bubbles: true, cancelable: true, dataTransfer: data, clipboardData: data };
        const event = kind === "drop" ? new DragEvent("drop", options) : new ClipboardEvent("paste", options);
        document.body.dispatchEvent(event);
    }"""
    for kind in ("drop", "paste"):
        page.evaluate(code, [kind, base64.b64encode(RED).decode()])
        expect(page.get_by_role("status")).to_have_text(f"{kind}.png: red 89.3 %")
    expect(page.locator("#strip button")).to_have_count(2)


def test_the_curl_line_is_the_same_request_and_can_be_copied(visit: Opener, address: str) -> None:
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    give(page, file('it\'s; "so".png', RED))
    expect(page.locator(LABEL)).to_be_visible()
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    field = 'image=@"it\'s; \\"so\\".png"'
    assert shlex.split(copied) == ["curl", "-F", field, "-F", "model=colours", f"{address}/predict"]


def test_the_keyboard_is_enough(visit: Opener) -> None:
    page = visit()
    # Listened for from now on: the browser would not yet know of a listener that is added just before the key.
    choosers: list[FileChooser] = []
    page.on("filechooser", lambda chooser: choosers.append(chooser))
    expect(page.locator("#drop")).to_be_visible()

    def tab_to(name: str) -> None:
        for _ in range(20):
            page.keyboard.press("Tab")
            at = page.evaluate("document.activeElement.id")
            outline = "e => getComputedStyle(e.closest('.drop') || e).outlineStyle"
            assert page.evaluate(f"({outline})(document.activeElement)") == "solid", f"{at} shows no focus"
            if at == name:
                return
        raise AssertionError(f"Tab does not lead to {name}")

    tab_to("model")
    page.keyboard.press("s")  # the one that begins with it
    expect(page.locator("#model")).to_have_value("street")
    tab_to("files")
    page.keyboard.press("Space")
    if not choosers:
        page.wait_for_event("filechooser")
    choosers[0].set_files([file("a.png", street()), file("b.png", plain((0, 0, 255)))])
    expect(page.locator("#strip button")).to_have_count(2)
    expect(page.locator("#strip button").nth(1)).to_contain_text("blue 100 %")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # the second thumbnail
    expect(page.locator("#caption")).to_contain_text("b.png")
    tab_to("show-boxes")
    page.keyboard.press("Space")
    expect(page.locator("#show-boxes")).to_be_checked()
    tab_to("opacity")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#opacity-value")).to_have_text("56 %")
    tab_to("copy")


def no_token(page: Page) -> None:
    """Let requests pass that bring the token `right`."""

    def check(route: Route) -> None:
        if route.request.headers.get("authorization") == "Bearer right":
            route.continue_()
        else:
            told(
                401, error("unauthorised", "a token is wanted", "Send one."), **{"WWW-Authenticate": "Bearer"}
            )(route)

    for path in ("models", "predict"):
        page.route(f"**/{path}", check)


def test_a_token_is_asked_for_and_kept_in_this_tab_only(visit: Opener) -> None:
    page = visit(no_token)
    field = page.get_by_label("Token, kept in this tab only")
    expect(field).to_be_focused()
    field.fill("wrong")
    field.press("Enter")
    expect(page.locator("#token-note")).to_have_text("The service did not accept that token.")
    assert page.evaluate("sessionStorage.length") == 0
    field.fill("wröng 1")
    field.press("Enter")
    expect(page.locator("#token-note")).to_contain_text("ASCII")
    field.fill("right")
    field.press("Enter")
    give(page, file("red.png", RED))
    expect(page.locator(LABEL)).to_contain_text("red")
    expect(page.locator("#gate")).to_be_hidden()
    expect(page.locator("#curl")).to_contain_text('-H "Authorization: Bearer $SURGERY_TOKEN"')
    assert "right" not in page.locator("body").inner_text()
    assert page.evaluate("Object.values(sessionStorage)") == ["right"]
    assert page.evaluate("localStorage.length") == 0
    assert page.url.endswith("/")
    page.reload()
    expect(page.locator("#drop")).to_be_visible()
    page.get_by_role("button", name="Forget the token").click()
    give(page, file("red.png", RED))
    expect(field).to_be_focused()
    assert page.evaluate("sessionStorage.length") == 0
    field.fill("right")
    field.press("Enter")  # and what was refused is asked again
    expect(page.locator(LABEL)).to_contain_text("red")


def test_an_empty_store_says_what_to_do_and_looks_again_by_itself(visit: Opener) -> None:
    hint = "Make one with `surgery finetune DATA --name NAME`."
    failed = [row for row in MODELS if row["state"] == "failed"]
    listed = {"ready": False, "models": failed, "problems": [], "limits": LIMITS, "hint": hint}
    page = visit(lambda page: page.route("**/models", lambda route: route.fulfill(json=listed)))
    expect(page.locator("#empty-text")).to_have_text(hint.replace("`", ""))
    expect(page.locator("#empty-text code")).to_have_text("surgery finetune DATA --name NAME")
    expect(page.locator("#empty-problems")).to_contain_text("altered or half-copied")
    expect(page.locator("#drop")).to_be_hidden()
    page.unroute("**/models")
    expect(page.locator("#drop")).to_be_visible()
    expect(page.locator("#empty")).to_be_hidden()


def test_models_in_production_come_first_and_failed_versions_cannot_be_chosen(visit: Opener) -> None:
    page = visit()
    options = page.locator("#model option")
    expect(options).to_have_count(3)
    assert options.all_inner_texts() == ["colours", "street", "boats"]
    versions = page.locator("#version option")
    assert versions.all_inner_texts() == ["2 (production)", "3, failed", "1 (previous), stored"]
    expect(versions.nth(1)).to_be_disabled()
    expect(page.locator("#failed")).to_have_text("Version 3 of colours failed: altered or half-copied.")
    page.select_option("#version", "colours@1")
    page.set_input_files("#files", file("red.png", RED))
    expect(page.locator("#facts")).to_contain_text("1a1a1a1a1a1a")
    expect(page.locator("#curl")).to_contain_text("-F model=colours@1")


def grey_png(values: np.ndarray) -> bytes:
    """Return a grey PNG (h, w) whose rows take all five filters of the format in turn."""
    height, width = values.shape
    size = values.dtype.itemsize
    rows = (
        values.astype(values.dtype.newbyteorder(">")).view(np.uint8).reshape(height, width * size).astype(int)
    )
    left = np.pad(rows, ((0, 0), (size, 0)))[:, :-size]
    up = np.pad(rows, ((1, 0), (0, 0)))[:-1]
    corner = np.pad(rows, ((1, 0), (size, 0)))[:-1, :-size]
    guess = left + up - corner
    a, b, c = abs(guess - left), abs(guess - up), abs(guess - corner)
    paeth = np.where((a <= b) & (a <= c), left, np.where(b <= c, up, corner))
    guesses = (0 * rows, left, up, (left + up) // 2, paeth)
    lines = [
        bytes([y % 5]) + ((rows[y] - guesses[y % 5][y]) % 256).astype(np.uint8).tobytes()
        for y in range(height)
    ]

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8 * size, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"".join(lines))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("values", [(0, 1, 2, 3), (0, 300, 301, 65535)], ids=["8-bit", "16-bit"])
def test_every_value_of_a_mask_is_read_exactly(visit: Opener, values: tuple[int, ...]) -> None:
    kind = np.uint8 if max(values) < 256 else np.uint16
    mask = np.array(values, kind)[np.random.default_rng(0).integers(0, 4, (35, 50))]
    data = grey_png(mask)
    assert (np.asarray(Image.open(io.BytesIO(data))) == mask).all()
    answer = {
        **{key: MODELS[-1][key] for key in ("version", "sha256", "precision", "task")},
        **{"model": "street", "milliseconds": TIMES, "size": [50, 35], "boxes": [], "rest": "rest"},
        "values": dict(zip(STREET, values, strict=True)),
        "pixels": {name: float((mask == v).mean()) for name, v in zip(STREET, values, strict=True)},
        "mask": base64.b64encode(data).decode(),
    }
    page = visit(lambda page: page.route("**/predict", lambda route: route.fulfill(json=answer)))
    give(page, file("dark.png", plain((0, 0, 0), (50, 35))), model="street")
    expect(page.locator(".legend li")).to_have_count(4)
    page.get_by_role("slider").press("End")
    code = """() => { const c = document.getElementById("view");
        return [...c.getContext("2d").getImageData(0, 0, c.width, c.height).data]; }"""
    drawn = np.array(page.evaluate(code), np.uint8).reshape(35, 50, 4)[..., :3]
    hues = np.array([(0, 0, 0), RED_HUE, GREEN_HUE, (240, 228, 66)], np.uint8)
    assert (drawn == hues[np.searchsorted(values, mask)]).all()


def test_an_image_that_the_browser_cannot_show_is_answered_all_the_same(visit: Opener) -> None:
    data = io.BytesIO()
    Image.open(io.BytesIO(street())).save(data, "TIFF")
    page = visit()
    give(page, file("street.tiff", data.getvalue(), "image/tiff"), model="street")
    expect(page.locator("#caption")).to_contain_text("This browser cannot show files of this kind")
    page.get_by_role("slider").press("End")
    shows(page, 0.1, 0.5, RED_HUE)


def test_a_script_that_is_not_the_pages_own_does_not_run(browser: Browser, address: str) -> None:
    page = browser.new_page()
    page.goto(address)
    page.evaluate("""() => {
        const script = document.createElement("script");
        script.textContent = "window.foreign = true";
        document.body.append(script);
    }""")
    assert page.evaluate("window.foreign") is None
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_every_state_fits_the_screen_and_has_no_barriers(visit: Opener, width: int, scheme: str) -> None:
    page = visit(viewport={"width": width, "height": 844}, color_scheme=scheme, reduced_motion="reduce")
    dark = (
        sum(map(int, page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g)"))) < 384
    )
    assert dark == (scheme == "dark")
    assert page.evaluate("getComputedStyle(document.getElementById('drop')).transitionProperty") == "none"

    def look(state: str) -> None:
        over = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert over <= 0, f"{state}: {over} pixels wider than the screen"
        found = Axe().run(page)
        assert found.violations_count == 0, f"{state}: {found.generate_report()}"

    expect(page.locator("#drop")).to_be_visible()
    look("start")
    give(page, file(f"{'long' * 30}.png", RED))
    expect(page.locator(LABEL)).to_be_visible()
    look("labels")
    page.select_option("#model", "street")
    page.set_input_files("#files", [*[file(f"{n}.png", street()) for n in range(9)], file("bad.png", b"no")])
    expect(page.locator("#strip .failed")).to_have_count(1)
    page.locator("#strip button").nth(1).click()
    expect(page.locator(".legend")).to_be_visible()
    look("mask")
    page.locator("#strip button").nth(10).click()
    expect(page.locator("#wrong")).to_be_visible()
    look("error")
    page.route("**/predict", told(401, error("unauthorised", "a token is wanted", "Send one.")))
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#gate")).to_be_visible()
    look("token")
