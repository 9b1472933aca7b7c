"""The headers that host and device share, called through `pixelbert_fast._host`."""

from __future__ import annotations

import math
import sys

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from pixelbert_fast.ops.philox_reference import philox_4x32
from tests.known_answers import PHILOX

host = pytest.importorskip(
    "pixelbert_fast._host", reason="not built; `python setup.py build_ext --inplace` builds it"
)

LARGEST_WORD = 2**32 - 1
words_with_ties = st.one_of(
    st.lists(st.integers(0, LARGEST_WORD), min_size=1, max_size=300),
    # Words that share digits: ties of the whole word, and ties that only the last pass breaks.
    st.lists(
        st.sampled_from([0, 1, 255, 256, 0x01000000, 0x01000001, LARGEST_WORD]), min_size=1, max_size=300
    ),
)


@pytest.mark.parametrize(("counter", "key", "expected"), PHILOX)
def test_philox_gives_the_published_answers(counter: tuple, key: tuple, expected: tuple) -> None:
    assert tuple(host.philox_4x32(counter, key)) == expected


@given(
    st.lists(st.integers(0, LARGEST_WORD), min_size=4, max_size=4),
    st.lists(st.integers(0, LARGEST_WORD), min_size=2, max_size=2),
)
def test_philox_equals_the_reference(counter: list[int], key: list[int]) -> None:
    reference = philox_4x32(tuple(map(torch.tensor, counter)), tuple(map(torch.tensor, key)))
    assert host.philox_4x32(counter, key) == [int(word) for word in reference]


@given(
    row=st.integers(0, LARGEST_WORD),
    column=st.integers(0, LARGEST_WORD),
    key=st.integers(-(2**63), 2**63 - 1),
    seed=st.integers(-(2**63), 2**63 - 1),
)
@example(row=3, column=4, key=-1, seed=-(2**63))
def test_a_place_draws_the_first_word_of_its_block(row: int, column: int, key: int, seed: int) -> None:
    counter = (row, column, key & LARGEST_WORD, (key >> 32) & LARGEST_WORD)
    block = host.philox_4x32(counter, (seed & LARGEST_WORD, (seed >> 32) & LARGEST_WORD))
    assert host.place_word(row, column, key, seed) == block[0]


@given(words_with_ties, st.data())
def test_the_threshold_selects_what_sorting_does(words: list[int], data: st.DataObject) -> None:
    wanted = data.draw(st.integers(1, len(words)))
    threshold, equal = host.threshold(words, wanted)
    smallest, order = torch.tensor(words).sort(stable=True)
    assert threshold == smallest[wanted - 1]
    assert equal == (smallest[:wanted] == threshold).sum()

    # The ops' rule: all words below the threshold, and of those equal to it the ones at the lowest places.
    tied = [place for place, word in enumerate(words) if word == threshold]
    chosen = [place for place, word in enumerate(words) if word < threshold] + tied[:equal]
    assert sorted(chosen) == sorted(order[:wanted].tolist())
    assert sorted(words[place] for place in chosen) == sorted(
        torch.tensor(words).topk(wanted, largest=False).values.tolist()
    )


@pytest.mark.parametrize("wanted", [0, -1, 3])
def test_a_selection_of_too_few_or_too_many_is_refused(wanted: int) -> None:
    with pytest.raises(ValueError, match=rf"wanted must lie in 1 .. the number of words, got {wanted}"):
        host.threshold([5, 6], wanted)


sides = st.integers(0, 70)
steps = st.integers(0, 2**40)


@given(batch=st.integers(0, 5), channels=st.integers(1, 3000), height=sides, width=sides)
def test_the_pooled_grid_drops_an_odd_last_row_and_column(
    batch: int, channels: int, height: int, width: int
) -> None:
    rows, columns, places = host.pooled_grid((batch, channels, height, width))
    assert (rows, columns, places) == (height // 2, width // 2, (height // 2) * (width // 2))


@given(height=st.integers(2, 70), width=st.integers(2, 70), row=steps, column=steps, data=st.data())
@example(height=3, width=5, row=2**33 + 1, column=2**31, data=None)
def test_offsets_are_those_of_plain_arithmetic(
    height: int, width: int, row: int, column: int, data: st.DataObject | None
) -> None:
    """Strides far beyond 32 bits, as in maps of more than 2**31 elements."""
    shape, strides = (2, 7, height, width), (1, 3, row, column)
    places = (height // 2) * (width // 2)
    place = data.draw(st.integers(0, places - 1)) if data else places - 1
    top, left = 2 * (place // (width // 2)), 2 * (place % (width // 2))
    window = host.window_offset(shape, strides, place)
    assert window == top * row + left * column
    for pixel in range(4):
        reached = (top + pixel // 2) * row + (left + pixel % 2) * column
        assert window + host.pixel_offset(strides, pixel) == reached


def test_an_offset_beyond_two_thousand_million() -> None:
    features = torch.empty((1, 1, 70000, 70000), device="meta")
    last = 35000 * 35000 - 1
    offset = host.window_offset(features.shape, features.stride(), last)
    assert offset == 69998 * 70000 + 69998 > 2**31


@pytest.mark.parametrize("shape", [(1, 1, 1, 4), (1, 1, 4, 1), (1, 1, 4, 4)])
def test_a_place_outside_the_grid_has_no_offset(shape: tuple) -> None:
    for place in (-1, host.pooled_grid(shape)[2]):
        with pytest.raises(IndexError, match="outside the pooled grid"):
            host.window_offset(shape, (1, 1, 1, 1), place)


@given(
    batch=st.integers(0, 4),
    height=st.integers(0, 7),
    width=st.integers(0, 7),
    image=st.integers(-2, 6),
    place=st.one_of(st.integers(-3, 12), st.sampled_from([-(2**31), 2**31 - 1, 2**40])),
)
def test_a_row_is_a_place_none_or_invalid(
    batch: int, height: int, width: int, image: int, place: int
) -> None:
    inside = 0 <= image < batch and 0 <= place < (height // 2) * (width // 2)
    expected = "none" if place == -1 else "place" if inside else "invalid"
    assert host.row_kind((batch, 3, height, width), image, place) == expected


floats = st.one_of(st.floats(width=32), st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0]))


@given(st.lists(floats, min_size=4, max_size=4))
@example([math.nan, 1.0, math.nan, 2.0])
@example([-0.0, 0.0, -0.0, 0.0])
@example([-math.inf] * 4)
def test_the_winner_of_a_window_is_max_pool2ds(pixels: list[float]) -> None:
    best = 0
    for pixel in range(1, 4):
        if host.takes_over(pixels[pixel], pixels[best]):
            best = pixel
    window = torch.tensor(pixels).view(1, 1, 2, 2)
    _, index = torch.nn.functional.max_pool2d(window, 2, return_indices=True)
    assert best == index.item()


def test_it_says_what_it_was_compiled_with() -> None:
    record = host.build_record()
    assert record["compiler"].startswith(("GCC ", "Clang "))
    assert "-std=c++17" in record["flags"].split()
    assert record["cplusplus"] == 201703
    assert record["python"].split(".")[:2] == [str(number) for number in sys.version_info[:2]]
