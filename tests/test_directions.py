"""The picture of the architecture is the code's, whole, and can be read in light and dark."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.browsing import chromium, open_page
from tests.scripts import script

directions = script(".ci/directions.py")
pictures = directions.directions_picture
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def drawn() -> str:
    return directions.picture()


def part(name: str, floor: int, about: str = "It is something.") -> pictures.Part:
    return pictures.Part(name, floor, about, (), ())


HOUSE = [part("ground", 0), part("low", 1), part("left", 2), part("right", 2), part("roof", 3)]


def ways(picture: str, kind: str) -> list[str]:
    return re.findall(rf'<path class="{kind}"[^>]* d="([^"]*)"', picture)


def test_the_picture_is_of_the_code_as_it_is(drawn: str) -> None:
    assert directions.PICTURE.read_text(encoding="utf-8") == drawn, "the imports changed: make pages"
    assert len(drawn) < 60_000


def test_every_part_and_every_direction_is_drawn(drawn: str) -> None:
    parts, imports = directions.read()
    assert {one.name for one in parts} == directions.FLOORS.keys()
    assert {("tasks", "model"), ("tasks", "data"), ("ops", "kernels"), ("ops", "csrc")} <= imports
    assert ("model", "data") not in imports and ("data", "model") not in imports
    above = {(here, there) for here, there in imports if there != "ground"}
    assert len(ways(drawn, "way")) + len(ways(drawn, "lane")) == len(above)
    texts = [element.text for element in ElementTree.fromstring(drawn).iter(f"{SVG}text")]
    assert not [
        one.name for one in parts if one.name not in ("top", "ground") and f"{one.name}/" not in texts
    ]
    assert "imported by all but kernels and csrc" in texts


def test_another_import_is_another_picture() -> None:
    before = pictures.draw(HOUSE, {("roof", "left"), ("left", "low")})
    assert pictures.draw(HOUSE, {("left", "low"), ("roof", "left")}) == before
    further = pictures.draw(HOUSE, {("roof", "left"), ("left", "low"), ("roof", "low")})
    assert (len(ways(before, "way")), len(ways(before, "lane"))) == (2, 0)
    assert (len(ways(further, "way")), len(ways(further, "lane"))) == (2, 1)
    on_the_ground = pictures.draw(HOUSE, {("low", "ground")})
    assert "imported by all but left and right and roof" in on_the_ground


def test_an_arrow_that_goes_up_or_sideways_is_refused() -> None:
    for wrong in (("low", "roof"), ("left", "right")):
        with pytest.raises(ValueError, match=f"{wrong[0]} imports {wrong[1]}, which is not below it"):
            pictures.draw(HOUSE, {wrong})


def test_what_is_said_of_a_part_is_text() -> None:
    odd = [HOUSE[0], part("low", 1, "Less < more & <script>alert(1)</script>.")]
    texts = [one.text for one in ElementTree.fromstring(pictures.draw(odd, set())).iter(f"{SVG}text")]
    assert "Less < more & <script>alert(1)</script>." in texts


def test_no_text_leaves_its_box_and_none_is_faint(tmp_path: Path, drawn: str) -> None:
    page = tmp_path / "page.html"
    page.write_text(f"<!doctype html><body>{drawn}</body>", encoding="utf-8")
    measure = """
        const light = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
          .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
          .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
        const boxes = [...document.querySelectorAll('rect')];
        return [...document.querySelectorAll('text')].map((text) => {
          const own = text.getBBox();
          const around = boxes.filter((box) => {
            const b = box.getBBox();
            const level = b.y <= own.y && b.y + b.height >= own.y + own.height;
            return level && b.x <= own.x && b.x + b.width > own.x;
          }).pop();
          const b = around.getBBox();
          const pair = [text, around].map((one) => light(getComputedStyle(one).fill));
          return {text: text.textContent, room: b.x + b.width - own.x - own.width,
                  contrast: (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05)};
        });
        """
    with chromium(tmp_path / "profile") as driver:
        for dark in (False, True):
            open_page(driver, page, dark=dark)
            measured = driver.execute_script(measure)
            assert len(measured) > 20
            assert not [one for one in measured if one["room"] < 4]
            # What WCAG 2.1 asks of small text.
            assert not [one for one in measured if one["contrast"] < 4.5]
