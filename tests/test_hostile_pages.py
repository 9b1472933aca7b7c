"""Contact sheets of hostile captions and file names in a real browser: shown, not run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pixelbert_fast import cli
from pixelbert_fast.data.build import build_set
from pixelbert_fast.pretrained import __file__ as shipped
from pixelbert_fast.visualize.report.page import Material, report_page
from pixelbert_fast.visualize.report.records import read_run
from tests.browsing import chromium, open_page
from tests.run_folders import SPLIT, run_folder
from tests.test_contact_sheet import Captioned
from tests.vqa_files import picture

HOSTILE = (
    "</script><script>document.title='run'</script>",
    "<img src=x onerror=\"document.title='run'\">",
    "\"' onload='document.title=1' \" <svg onload=\"document.title='run'\">",
    "</title></style><base href='http://192.0.2.1/'><form action=x><meta http-equiv=refresh content='0;a'>",
    "]]><!-- <a href=\"javascript:document.title='run'\">&lt;b&gt;&amp;</a>",
)
PICTURE = Path(shipped).parent / "pictures" / "7.jpg"
NAMES = [f"{text.replace('/', '_')}.jpg" for text in HOSTILE]
"""As file names, which hold no slash."""


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, tuple[Path, list[str]]]:
    """Of each page: its file, and the texts that must be shown in it."""
    folder = tmp_path_factory.mktemp("pages")
    build_set(Captioned([(picture(), 6, 8, list(HOSTILE))]), folder / "set", workers=1)
    assert cli.main(["data", "show", str(folder / "set"), "--out", str(folder / "set.html")]) == 0
    (folder / "images").mkdir()
    for name in NAMES:
        shutil.copy(PICTURE, folder / "images" / name)
    line = ["search", str(folder / "images"), HOSTILE[0], "--out", str(folder / "found.html")]
    assert cli.main(line) == 0
    figures = {f"{HOSTILE[0]}_accuracy": 0.5, "words": {HOSTILE[1]: SPLIT["words"]["colour"]}}
    run = run_folder(folder / "tiny", metrics={HOSTILE[2]: {**SPLIT, **figures}})
    (folder / "run.html").write_text(report_page(read_run(run), Material("a: b", "c: d")), encoding="utf-8")
    return {
        "set": (folder / "set.html", list(HOSTILE)),
        "found": (folder / "found.html", [HOSTILE[0], *NAMES]),
        "run": (folder / "run.html", list(HOSTILE[1:3])),
    }


@pytest.mark.parametrize("name", ["set", "found", "run"])
def test_hostile_texts_are_shown_and_not_run(driver, pages, name: str) -> None:
    file, texts = pages[name]
    open_page(driver, file)
    assert driver.title not in ("run", "1")
    body = driver.find_element("css selector", "body").text
    for text in texts:
        assert text in body
    assert driver.current_url == file.as_uri()
    for element in ("base", "form", "iframe", "[onload]", "[onerror]", "a[href^=javascript]"):
        assert not driver.find_elements("css selector", element), element
    assert len(driver.find_elements("css selector", "script")) == (name == "run")
    # A script, style or image that the policy stopped is an error there: none was asked for.
    assert driver.get_log("browser") == []
    loaded = driver.execute_script("return performance.getEntriesByType('resource').map(one => one.name)")
    assert [one for one in loaded if not one.startswith("data:")] == []


@pytest.mark.parametrize("name", ["set", "found", "run"])
def test_the_policy_holds_where_escaping_would_fail(driver, pages, name: str, tmp_path: Path) -> None:
    page = pages[name][0].read_text(encoding="utf-8")
    planted = (
        "<base href='http://192.0.2.1/'><script>document.title='run'</script>"
        "<img src=x onerror=\"document.title='run'\"><form action=x id=sent></form>"
    )
    assert page.count("</body>") == 1
    (tmp_path / "page.html").write_text(page.replace("</body>", f"{planted}</body>"), encoding="utf-8")
    open_page(driver, tmp_path / "page.html")
    assert driver.title != "run"
    assert driver.execute_script("return document.baseURI").startswith("file:")
    driver.execute_script("document.getElementById('sent').submit()")
    said = " ".join(entry["message"] for entry in driver.get_log("browser"))
    for rule in ("base-uri", "form-action", "img-src", "script"):
        assert rule in said, rule
    assert driver.current_url == (tmp_path / "page.html").as_uri()
