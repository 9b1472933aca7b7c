"""The report in a real browser: nothing is run, loaded or cut off, and curves can be read out."""

from __future__ import annotations

from pathlib import Path

import pytest

from pixelbert_fast.tasks.examples import Group
from pixelbert_fast.visualize.report.comparison import comparison_page
from pixelbert_fast.visualize.report.page import Material, report_page
from pixelbert_fast.visualize.report.records import read_runs
from tests.browsing import chromium, contrast, open_page
from tests.run_folders import HOSTILE, config, run_folder
from tests.test_report_page import example

PAGES = ("run", "unfinished", "several")


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    made = [
        run_folder(folder / "a_run_with_a_long_name_of_its_own_and_more_of_it", evaluated=(30, 60)),
        run_folder(folder / "b", finished=False),
    ]
    runs = read_runs(made)
    groups = [Group("What?", HOSTILE, 4, 2, [example(), example("a red star", True)])]
    counts = [("data/x", {"images": {"train": 24_000, "val": 3_000, "test": 3_000}}, "")]
    material = Material(recipe="a: " + "x" * 400, whole="b: c", groups=groups, sets=counts)
    pages = {
        "run": report_page(runs[0], material),
        "unfinished": report_page(runs[1], material),
        "several": comparison_page(runs, [config(), config(seed=1)], [{}, {}]),
    }
    for name, page in pages.items():
        (folder / f"{name}.html").write_text(page, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in pages}


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_is_blocked_loaded_or_run(driver, files, name: str, dark: bool) -> None:
    open_page(driver, files[name], dark=dark)
    title = driver.title
    # A blocked script, style or image is an error there.
    assert driver.get_log("browser") == []
    loaded = driver.execute_script("return performance.getEntriesByType('resource').map(one => one.name)")
    assert [one for one in loaded if not one.startswith("data:")] == []
    assert driver.title == title != "run"
    assert len(driver.find_elements("css selector", "script")) == 1
    if name == "run":
        assert HOSTILE in driver.find_element("css selector", ".example h4").text


@pytest.mark.parametrize("name", PAGES)
def test_a_phone_needs_no_sideways_scrolling(driver, files, name: str) -> None:
    open_page(driver, files[name], width=360, height=780)
    wide, room = driver.execute_script(
        "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert wide == room == 360


@pytest.mark.parametrize("dark", [False, True])
def test_text_can_be_read_in_light_and_dark(driver, files, dark: bool) -> None:
    open_page(driver, files["run"], dark=dark)
    for place in (
        "h1",
        "h2",
        "p.faint",
        ".verdict",
        "thead th",
        "tbody th",
        ".chart li",
        ".tile span",
        "nav a",
    ):
        # WCAG's AA for text of ordinary size.
        assert contrast(driver, driver.find_element("css selector", place)) >= 4.5, place


def test_images_and_their_maps_are_drawn(driver, files) -> None:
    open_page(driver, files["run"])
    shot, under = driver.find_elements("css selector", ".shot")[:2]
    assert shot.size == under.size and shot.size["height"] > 40
    overlay = under.find_element("css selector", "img")
    assert driver.execute_script("return arguments[0].naturalWidth", overlay) == 4
    assert overlay.size["width"] == pytest.approx(under.size["width"], abs=1)


def test_a_curve_is_read_out_at_the_pointer(driver, files) -> None:
    from selenium.webdriver import ActionChains

    open_page(driver, files["run"])
    plot = driver.find_element("css selector", "svg.plot")
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", plot)
    ActionChains(driver).move_to_element_with_offset(plot, plot.size["width"] // 2 - 16, 0).perform()
    told = driver.find_element("css selector", ".chart output").text
    # Step 100 is the last: 5 exp(-2) + 0.1.
    assert told == "100: all 0.777, masked words (MLM) 0.641"


def test_without_scripts_everything_is_there(driver, files) -> None:
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        open_page(driver, files["run"])
        assert len(driver.find_elements("css selector", "svg.plot .l")) > 10
    finally:
        driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
