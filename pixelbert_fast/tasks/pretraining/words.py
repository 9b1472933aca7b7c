"""Masking one content word of each caption, to ask what a model reads from the image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pixelbert_fast.errors import UserError


@dataclass(frozen=True)
class MaskedWord:
    """A caption with one word masked.

    row: the image it is a caption of. number: which of the image's captions it is. category: the word's.
    ids: int64 `[T]`, all word pieces of the word replaced by the mask token. labels: int64 `[T]`, their
    true ids there, -100 elsewhere.
    """

    row: int
    number: int
    category: str
    ids: np.ndarray
    labels: np.ndarray


def mask_words(
    captions: Sequence[Sequence[str]],
    tokenizer,
    max_length: int,
    categories: Mapping[str, Sequence[str]],
    stream: np.random.Generator,
) -> list[MaskedWord]:
    """One masked word of each caption: of a random category among its words', a random word.

    categories: the words, lower case, of each category; a word of several belongs to the first. Captions
    without such words, or whose words were cut off, give nothing. Raises UserError for a tokenizer that
    cannot say which word a token belongs to.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise UserError("word accuracies need a fast tokenizer (one saved with a tokenizer.json)")
    category_of = {}
    for category, words in categories.items():
        for word in words:
            category_of.setdefault(word.lower(), category)
    flat = [(row, number, text) for row, own in enumerate(captions) for number, text in enumerate(own)]
    if not flat:
        return []
    encoded = tokenizer([text for *_, text in flat], truncation=True, max_length=max_length, padding=False)
    items = []
    for place, (row, number, text) in enumerate(flat):
        ids = np.array(encoded["input_ids"][place], dtype=np.int64)
        found: dict[str, list[list[int]]] = {}
        for word, pieces in _words(encoded.encodings[place], text):
            if word in category_of:
                found.setdefault(category_of[word], []).append(pieces)
        if not found:
            continue
        names = sorted(found)
        category = names[stream.integers(len(names))]
        pieces = found[category][stream.integers(len(found[category]))]
        labels = np.full(len(ids), -100, dtype=np.int64)
        labels[pieces] = ids[pieces]
        ids[pieces] = tokenizer.mask_token_id
        items.append(MaskedWord(row, number, category, ids, labels))
    return items


def _words(encoding, text: str) -> list[tuple[str, list[int]]]:
    """Each word of the text, lower case, with the places of its tokens; what was cut off is not in it."""
    pieces: dict[int, list[int]] = {}
    for place, word in enumerate(encoding.word_ids):
        if word is not None:
            pieces.setdefault(word, []).append(place)
    words = []
    for places in pieces.values():
        start, end = encoding.offsets[places[0]][0], encoding.offsets[places[-1]][1]
        words.append((text[start:end].lower(), places))
    return words
