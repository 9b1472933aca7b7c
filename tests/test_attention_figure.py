"""The figure of word maps, where a map's cells lie, its colours; and the page's numbers without a browser."""

from __future__ import annotations

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from pixelbert_fast import visualize
from pixelbert_fast.errors import UserError
from pixelbert_fast.tasks import attending
from pixelbert_fast.visualize.attention_figure import draw, percent
from pixelbert_fast.visualize.heat import coloured, colours, spread_out
from pixelbert_fast.visualize.word_page import attention_page
from tests.word_maps import GRID, HEADS, IMAGE, LAYERS, maps_of

MAPS = maps_of("A red star, left of blue stars")
VALUES = np.arange(12.0).reshape(GRID)


def test_the_colours_grow_lighter_all_the_way():
    table = colours().astype(float)
    light = table @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(light) > 0).all() and light[0] < 20 and light[-1] > 235
    np.testing.assert_array_equal(coloured(np.array([-1, 0, 0.5, 1, 2])), colours()[[0, 0, 128, 255, 255]])


@pytest.mark.parametrize("size", [(45, 67), (90, 134), (200, 300)])
def test_cells_lie_where_the_model_reads_them(size):
    found, covered = spread_out(VALUES, size, MAPS, smooth=False)
    for y in range(0, size[0], 7):
        for x in range(0, size[1], 7):
            # The pixel's centre in the image as it was read, 45 x 67, of windows of 16.
            row, column = int((y + 0.5) / size[0] * 45 // 16), int((x + 0.5) / size[1] * 67 // 16)
            assert covered[y, x] == (column < 4)
            if covered[y, x]:
                assert found[y, x] == VALUES[row, column]


def test_smooth_maps_go_through_the_centres_and_stay_between_them():
    # So large that a pixel's centre lies beside each cell's.
    found, covered = spread_out(VALUES, (45 * 16, 67 * 16), MAPS)
    for (row, column), value in np.ndenumerate(VALUES):
        if (row * 16 + 8) < 45:
            # Half a pixel of 256 a cell, of slopes of 4 a row and 1 a column.
            assert found[(row * 16 + 8) * 16, (column * 16 + 8) * 16] == pytest.approx(
                value, abs=5 / 512 + 1e-9
            )
    assert covered[:, : 64 * 16].all() and not covered[:, 64 * 16 :].any()
    assert (np.diff(found, axis=0) >= 0).all() and (np.diff(found, axis=1) >= 0).all()
    assert found.min() == 0 and found.max() <= 11
    np.testing.assert_array_equal(spread_out(np.full(GRID, 0.3), (50, 50), MAPS)[0], np.full((50, 50), 0.3))


def panels(figure: Image.Image, count: int, panel: int) -> list[np.ndarray]:
    """The `count` pictures of a figure of one row, each `panel` wide, with margins of 12."""
    pixels = np.asarray(figure).astype(int)[-12 - round(panel * 100 / 140) : -12]
    return [pixels[:, left : left + panel] for left in range(12, 12 + count * (panel + 12), panel + 12)]


def test_a_figure_shows_the_image_and_each_words_map_over_it():
    for opacity in (0.0, 0.6, 1.0):
        figure = draw(MAPS, IMAGE, layer=1, head=2, opacity=opacity, columns=8, panel=140)
        assert figure.width == 8 * 152 + 12
        image, *words = panels(figure, 8, 140)
        np.testing.assert_array_equal(image, IMAGE)  # the panel has its size
        for values, found in zip(MAPS.of(1, 2), words, strict=True):
            spread, covered = spread_out(values / values.max(), (100, 140), MAPS)
            over = opacity * covered[..., None]
            right = IMAGE * (1 - over) + coloured(spread) * over
            # Rounding to whole levels, and a step of the scale where float32 and float64 round apart.
            assert np.abs(found - right).max() <= 3


def test_a_figure_takes_rollout_words_cells_and_one_scale():
    chosen = [4, 1]
    figure = draw(
        MAPS, IMAGE, rollout=True, words=chosen, opacity=1, smooth=False, common=True, panel=140, columns=3
    )
    values = MAPS.rollout[chosen]
    for one, found in zip(values, panels(figure, 3, 140)[1:], strict=True):
        spread, covered = spread_out(one / values.max(), (100, 140), MAPS, smooth=False)
        right = np.where(covered[..., None], coloured(spread), IMAGE)
        assert np.abs(found - right).max() <= 3


def test_rows_titles_and_long_words():
    few, more = (draw(MAPS, IMAGE, columns=columns, panel=60) for columns in (8, 3))
    assert (few.width, more.width) == (8 * 72 + 12, 3 * 72 + 12) and more.height > 2 * few.height
    named, other = (draw(maps_of(text), IMAGE, panel=60) for text in ("star red", "moon red"))
    assert named.size == other.size and named.tobytes() != other.tobytes()
    for text in ("w" * 500, "日本 étoile \u0928\u092e", "a\nb\tc"):
        figure = draw(maps_of(text), IMAGE, panel=60)
        pixels = np.asarray(figure)
        assert (pixels[:, -12:] == 255).all(), "nothing is written into the margin"


def test_a_narrow_image_makes_no_endless_figure():
    narrow = np.zeros((5000, 20, 3), np.uint8)
    narrow[:2500] = 255
    figure = np.asarray(draw(MAPS, narrow, words=[0], panel=64))
    assert figure.shape[0] < 4 * 64 + 150 and figure.shape[1] == 2 * (64 + 12) + 12
    # The first picture, one pixel wide: its upper half is white as the sheet, the lower one is not.
    column = figure[-(4 * 64 + 12) : -12, 12].mean(axis=1)
    assert column[0] > 200 and column[-1] < 50 and abs(int((column > 128).sum()) - 128) <= 2


def test_maps_of_nothing_are_drawn_dark():
    nothing = maps_of("red star", maps=np.zeros((LAYERS, HEADS, 2, *GRID), np.float32))
    word = panels(draw(nothing, IMAGE, opacity=1, panel=140), 3, 140)[1]
    assert (word[:, :130] == colours()[0]).all()
    assert '"scales":[0.0' in attention_page([nothing], IMAGE)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layer": 2}, IndexError, r"layer must lie in -2 .. 1 \(2 layers\), got 2"),
        ({"head": -4}, IndexError, "head must lie in -3 .. 2"),
        ({"opacity": 1.5}, UserError, r"opacity must lie in 0..1"),
        ({"panel": 3}, UserError, "panel be at least 16"),
        ({"columns": 0}, UserError, "columns at least 1"),
        ({"words": [7]}, IndexError, "index 7 is out of bounds"),
    ],
)
def test_options_of_no_use_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        draw(MAPS, IMAGE, **options)


def test_rollout_that_was_not_computed_is_refused():
    without = maps_of("red star", rollout=None)
    with pytest.raises(UserError, match="hold no rollout"):
        draw(without, IMAGE, rollout=True)
    with pytest.raises(UserError, match="the page shows rollout too"):
        attention_page([without], IMAGE)
    with pytest.raises(UserError, match="different images or models"):
        attention_page([MAPS, maps_of("red star", image_size=(48, 64))], IMAGE)


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0 %"),
        (1e-5, "under 0.01 %"),
        (0.00123, "0.12 %"),
        (0.0123, "1.2 %"),
        (0.0999, "10 %"),
        (1, "100 %"),
    ],
)
def test_shares_are_told_in_two_digits(share, text):
    assert percent(share) == text


def data_of(page: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page)[1])


def test_the_pages_bytes_give_the_maps_back():
    data = data_of(attention_page([MAPS, maps_of("</script><b>", 3)], IMAGE))
    for packed, maps in zip(data["captions"], (MAPS, maps_of("</script><b>", 3)), strict=True):
        for field, scales in (("maps", "scales"), ("rollout", "rolloutScales")):
            right = getattr(maps, field)
            stored = np.frombuffer(base64.b64decode(packed[field]), np.uint8).reshape(right.shape)
            most = np.array(packed[scales]).reshape(right.shape[:-2])[..., None, None]
            # Half a step, and four digits of the scale.
            assert (np.abs(stored * most / 255 - right) <= most * (0.5 / 255 + 1e-3)).all()
            np.testing.assert_allclose(most[..., 0, 0], right.max((-1, -2)), rtol=5e-4)


def test_a_page_is_small_whole_and_asks_for_nothing():
    words = "a red star left of a blue star and two green rings"
    page = attention_page([maps_of(words)], IMAGE)
    empty = attention_page([maps_of("a")], np.zeros((100, 140, 3), np.uint8))
    assert len(empty) < 26_000
    cells = 12 * GRID[0] * GRID[1] * (LAYERS * HEADS + 1)
    picture = len(re.search(r'src="data:image/(?:png|jpeg);base64,([^"]*)"', page)[1])
    assert len(page) < len(empty) + picture + cells * 4 / 3 + 12 * (LAYERS * HEADS + 1) * 10 + 12 * 110
    assert "http:" not in page and "https:" not in page and "@import" not in page and "url(" not in page
    assert re.findall(r'(?:src|href)="(?!data:image/)', page) == []
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    assert policy.startswith("default-src 'none'; img-src data:; script-src 'sha256-")
    assert "unsafe" not in policy


def test_large_images_are_made_smaller_and_small_ones_kept():
    def image(shape):
        page = attention_page([MAPS], np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8))
        kind, content = re.search(r'src="data:image/(\w+);base64,([^"]*)"', page).groups()
        return kind, Image.open(io.BytesIO(base64.b64decode(content))).size

    assert image((40, 60, 3)) == ("png", (60, 40))
    assert image((1200, 1800, 3)) == ("jpeg", (960, 640))


def test_what_was_cut_off_is_marked():
    text = "a red star, cut off here"
    page = attention_page([maps_of(text, spans=[(0, 1), (2, 5), (6, 10)])], IMAGE)
    assert '<span class="unread">, cut off here</span>' in page
    assert "the model never read it" in page
    assert 'class="unread"' not in attention_page([maps_of("a red star!")], IMAGE)


def test_the_page_opens_where_it_is_asked_to():
    page = attention_page([MAPS], IMAGE, layer=-1, head=1, rollout=True, opacity=0.25)
    for name, value in (("layer", 2), ("head", 2), ("opacity", 25)):
        assert re.search(rf'id="{name}" min="0" max="\d+" value="{value}"', page)
    assert re.search(r'id="rollout" autocomplete="off" checked', page)
    sharp = MAPS.rollout.max((-1, -2)) / MAPS.rollout.sum((-1, -2))
    assert data_of(page)["start"] == int(sharp.argmax())
    means = attention_page([MAPS], IMAGE, layer=None)
    assert re.search(r'id="layer" min="0" max="2" value="0"', means)
    with pytest.raises(IndexError, match="layer must lie"):
        attention_page([MAPS], IMAGE, layer=5)


def test_the_package_gives_them_by_name():
    assert visualize.draw is draw and visualize.attention_maps is attending.attention_maps
    assert {"draw", "attention_maps"} <= set(dir(visualize))
    with pytest.raises(AttributeError, match="no attribute 'drew'"):
        _ = visualize.drew
