"""The page of `pixelbert attend` in a real browser: what is pointed at is what is drawn."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from pixelbert_fast.visualize.attention_figure import percent
from pixelbert_fast.visualize.heat import coloured, colours, spread_out
from pixelbert_fast.visualize.word_page import CANVAS, attention_page
from tests.browsing import chromium, contrast, open_page
from tests.word_maps import GRID, HEADS, IMAGE, LAYERS, READ, WINDOW, maps_of

HOSTILE = "a <script>document.title = 'run'</script><img src=x onerror=\"document.title='run'\"> red star"
MAPS = [maps_of("A red star, left of blue stars", 1), maps_of(HOSTILE, 2)]
SIZE = (round(CANVAS * 100 / 140), CANVAS)
# A byte a value errs by half a step of the scale and rounding by another half; of a mean of six maps, each on
# a scale of its own and so at most twice that of their mean, by twice as much.
STEPS = 2
LARGEST_STEP = int(np.abs(np.diff(colours().astype(int), axis=0)).max())


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(attention_page(MAPS, IMAGE, about=["<b>a & b</b>.jpg"]), encoding="utf-8")
    return path


@pytest.fixture
def page(driver, file):
    open_page(driver, file)
    yield driver
    # A blocked script or style is an error there.
    assert driver.get_log("browser") == []


def drawn(driver, canvas: str = "map") -> np.ndarray:
    uri = driver.execute_script(f"return document.getElementById('{canvas}').toDataURL('image/png')")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGBA"))


def assert_drawn(driver, values: np.ndarray, *, most: float | None = None, smooth: bool = True) -> None:
    """The canvas is the map `values` ``[rows, columns]``, on a scale up to `most`."""
    found = drawn(driver).astype(int)
    spread, covered = spread_out(values, SIZE, MAPS[0], smooth=smooth)
    assert found.shape == (*SIZE, 4)
    assert np.array_equal(found[..., 3] == 255, covered) and not found[..., 3][~covered].any()
    right = coloured(spread / (values.max() if most is None else most)).astype(int)
    assert np.abs(found[..., :3] - right)[covered].max() <= STEPS * LARGEST_STEP
    # And other words' maps are told apart by that bound.
    others = [one.of(layer)[word] for one in MAPS for layer in (0, 1) for word in range(len(one.words))]
    differing = [one for one in others if not np.array_equal(one, values)]
    for one in differing[:4]:
        other = coloured(spread_out(one, SIZE, MAPS[0])[0] / one.max()).astype(int)
        assert np.abs(found[..., :3] - other)[covered].max() > 10 * STEPS * LARGEST_STEP


def word(driver, caption: int, number: int):
    return driver.find_element("css selector", f'[data-caption="{caption}"][data-word="{number}"]')


def chosen(driver) -> list[tuple[int, int]]:
    found = driver.find_elements("css selector", '.word[aria-pressed="true"]')
    return [(int(one.get_attribute("data-caption")), int(one.get_attribute("data-word"))) for one in found]


def wait_for(driver, caption: int, number: int) -> None:
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(driver, 20).until(lambda _: chosen(driver) == [(caption, number)])


def hover(driver, element) -> None:
    from selenium.webdriver import ActionChains

    ActionChains(driver).move_to_element(element).perform()


def press(driver, *keys: str) -> None:
    for key in keys:  # chords too, as shift and tab
        driver.switch_to.active_element.send_keys(key)


def test_a_word_is_hovered_and_its_map_lies_over_the_image(page):
    for caption, number in ((0, 2), (1, 0), (0, 6)):
        hover(page, word(page, caption, number))
        wait_for(page, caption, number)
        assert_drawn(page, MAPS[caption].of(0)[number])
        name = page.find_element("id", "map").get_attribute("aria-label")
        assert name == f"Attention of “{MAPS[caption].words[number]}” to the image"


def test_what_the_reader_sees_is_the_map_at_its_place(page):
    from selenium.webdriver.common.keys import Keys

    page.find_element("id", "opacity").send_keys(Keys.END)
    word(page, 0, 3).click()
    stage = page.find_element("id", "stage")
    seen = np.asarray(Image.open(io.BytesIO(stage.screenshot_as_png)).convert("RGB")).astype(int)
    values = MAPS[0].of(0)[3]
    right = coloured(spread_out(values / values.max(), seen.shape[:2], MAPS[0])[0]).astype(int)
    centres = (np.indices(GRID) + 0.5) * WINDOW
    for row, column in centres.reshape(2, -1).T:
        y, x = (int(at * seen.shape[axis] / READ[axis]) for axis, at in enumerate((row, column)))
        if y < seen.shape[0]:
            # The browser scales the canvas, and a colour changes by some steps a pixel on a slope.
            assert np.abs(seen[y, x] - right[y, x]).max() <= 12
    page.find_element("id", "opacity").send_keys(Keys.HOME)
    bare = np.asarray(Image.open(io.BytesIO(stage.screenshot_as_png)).convert("RGB")).astype(int)
    # The image is of middling greys with noise, which scaling up averages.
    inner = bare[12:-12, 12:-12]
    assert inner.min() >= 80 and inner.max() <= 170


def test_sliders_choose_layer_and_head_or_their_mean(page):
    from selenium.webdriver.common.keys import Keys

    word(page, 0, 1).click()
    layer, head = page.find_element("id", "layer"), page.find_element("id", "head")
    for keys, asked, said in (
        ([Keys.END], (LAYERS - 1, None), ("2 of 2", "mean of 3")),
        ([Keys.HOME], (None, None), ("mean of 2", "mean of 3")),
        ([Keys.ARROW_RIGHT], (0, None), ("1 of 2", "mean of 3")),
    ):
        layer.send_keys(*keys)
        assert (layer.get_attribute("aria-valuetext"), head.get_attribute("aria-valuetext")) == said
        assert_drawn(page, MAPS[0].of(*asked)[1])
    head.send_keys(Keys.END)
    assert_drawn(page, MAPS[0].of(0, HEADS - 1)[1])
    layer.send_keys(Keys.HOME)
    assert_drawn(page, MAPS[0].of(None, HEADS - 1)[1])
    assert page.find_element("id", "head-said").text == "3 of 3"


def test_switches_change_map_scale_and_cells(page):
    word(page, 1, 1).click()
    page.find_element("id", "rollout").click()
    assert_drawn(page, MAPS[1].rollout[1])
    assert not page.find_element("id", "layer").is_enabled()
    page.find_element("id", "smooth").click()
    assert_drawn(page, MAPS[1].rollout[1], smooth=False)
    page.find_element("id", "rollout").click()
    assert_drawn(page, MAPS[1].of(0)[1], smooth=False)
    page.find_element("id", "common").click()
    most = max(one.of(0).max() for one in MAPS)
    assert_drawn(page, MAPS[1].of(0)[1], most=most, smooth=False)
    assert page.find_element("id", "high").text == percent(float(most))


def test_words_are_reached_by_keyboard_and_focus_is_visible(page):
    from selenium.webdriver.common.keys import Keys

    press(page, Keys.TAB, Keys.TAB)
    assert chosen(page) == [(0, 0)]
    active = page.switch_to.active_element
    assert active.get_attribute("data-word") == "0"
    assert active.value_of_css_property("outline-style") == "solid"
    assert_drawn(page, MAPS[0].of(0)[0])
    last = len(MAPS[1].words) - 1
    for key, place in (
        (Keys.ARROW_RIGHT, (0, 1)),
        (Keys.ARROW_DOWN, (0, 2)),
        (Keys.ARROW_LEFT, (0, 1)),
        (Keys.HOME, (0, 0)),
        (Keys.ARROW_UP, (1, last)),
        (Keys.ARROW_RIGHT, (0, 0)),
        (Keys.END, (1, last)),
        (Keys.SHIFT + Keys.TAB, (1, last - 1)),
    ):
        press(page, key)
        assert chosen(page) == [place]
    assert_drawn(page, MAPS[1].of(0)[last - 1])


def assert_reads(driver, row: int, column: int, number: int) -> None:
    """The first layer's mean of a word of the first text is told, of one cell."""
    said = driver.find_element("id", "reading").text
    place, _, rest = said.partition(": ")
    share, _, of = rest.partition(" % of ")
    assert place == f"Row {row + 1}, column {column + 1}"
    assert of == f"the attention of “{MAPS[0].words[number]}”"
    right = 100 * float(MAPS[0].of(0)[number, row, column])
    # Half of a byte's step, of each head's own scale; and two digits.
    step = 100 * MAPS[0].maps[0, :, number].max((-1, -2)).mean() / 255
    assert abs(float(share) - right) <= step / 2 + 0.05 * right


def test_a_cell_is_read_by_pointer_and_by_keyboard(page):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    word(page, 0, 4).click()
    canvas, cursor = (page.find_element("id", name) for name in ("map", "cell"))
    box = canvas.rect

    def point(y: float, x: float) -> None:
        """At a pixel of the image as it was read."""
        across = (x / READ[1] - 0.5) * box["width"]
        down = (y / READ[0] - 0.5) * box["height"]
        ActionChains(page).move_to_element_with_offset(canvas, int(across), int(down)).perform()

    for row, column in ((1, 2), (0, 0), (2, 3)):
        point((row + 0.4) * WINDOW, (column + 0.4) * WINDOW)
        assert_reads(page, row, column, 4)
        wide = box["width"] / READ[1]
        assert cursor.rect["x"] - box["x"] == pytest.approx(column * WINDOW * wide, abs=1)
        assert cursor.rect["y"] + cursor.rect["height"] <= box["y"] + box["height"] + 1
    point(20, 66)  # what no cell stands for has no value
    assert page.find_element("id", "reading").text.startswith("Point at the image")
    assert not cursor.is_displayed()

    press(page, Keys.HOME, Keys.SHIFT + Keys.TAB)
    assert page.switch_to.active_element.get_attribute("id") == "map"
    # The first key shows the first cell, and none leads over an edge.
    for key, row, column in (
        (Keys.ARROW_DOWN, 0, 0),
        (Keys.ARROW_DOWN, 1, 0),
        (Keys.ARROW_RIGHT, 1, 1),
        (Keys.ARROW_LEFT, 1, 0),
        (Keys.ARROW_LEFT, 1, 0),
    ):
        press(page, key)
        assert_reads(page, row, column, 0)
    assert cursor.is_displayed()


def test_a_script_in_a_text_is_shown_and_not_run(page):
    assert page.title == "Where each word looks"
    shown = page.find_elements("css selector", ".caption")
    assert [one.text for one in shown] == [MAPS[0].text, HOSTILE]
    assert page.find_element("css selector", "header p").text == "<b>a & b</b>.jpg"
    assert page.find_elements("css selector", ".caption script, .caption img, header b") == []
    # The second lock: an element that gets in after all does not run.
    page.execute_script(
        "const one = document.createElement('script'); one.textContent = 'window.ran = 1';"
        "document.body.append(one)"
    )
    assert page.execute_script("return window.ran") is None
    refused = page.get_log("browser")
    assert len(refused) == 1 and "Content Security Policy" in refused[0]["message"]


@pytest.mark.parametrize("dark", [False, True])
def test_text_is_legible_in_light_and_dark(driver, file, dark):
    open_page(driver, file, dark=dark)
    ground = driver.find_element("tag name", "body").value_of_css_property("background-color")
    assert (ground == "rgba(19, 21, 24, 1)") == dark
    texts = "h1, header p, .word, .said, #reading, label, .slider span, .thumb span, footer p, legend"
    for element in driver.find_elements("css selector", texts):
        # WCAG 2's level AA for small text.
        assert contrast(driver, element) >= 4.5, element.get_attribute("outerHTML")


@pytest.mark.parametrize("width", [320, 360])
def test_a_phone_needs_no_scrolling_sideways(driver, tmp_path, width):
    long = maps_of("star" * 40 + " and " + "a red star " * 20)
    file = tmp_path / "page.html"
    file.write_text(attention_page([MAPS[0], long], IMAGE, about=["x" * 200 + ".jpg"]), encoding="utf-8")
    open_page(driver, file, width=width, height=740)
    assert driver.execute_script("return document.documentElement.scrollWidth") == width
    stage = driver.find_element("id", "stage").rect
    assert stage["width"] == width - 32 and stage["x"] == 16
    word(driver, 0, 5).click()
    assert chosen(driver) == [(0, 5)]
    assert_drawn(driver, MAPS[0].of(0)[5])
    assert driver.get_log("browser") == []


def test_small_maps_show_all_words_and_choose(page):
    word(page, 1, 0).click()
    small = page.find_elements("css selector", "#strip .thumb")
    assert [one.text for one in small] == MAPS[1].words
    small[3].click()
    assert chosen(page) == [(1, 3)]
    assert_drawn(page, MAPS[1].of(0)[3])
