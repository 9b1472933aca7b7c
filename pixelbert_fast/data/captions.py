"""The captions of a split: their texts by number, and as token ids, tokenised once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pixelbert_fast.errors import UserError


class CaptionTexts:
    """The captions of all images without a Python object for each: there may be millions.

    Attributes:
        counts: int64 `[N]`, how many captions each image has.
        starts: int64 `[N]`, where an image's captions begin among all.
        text: int64 `[C]`, the number of each caption's text; equal texts have equal numbers.
        distinct: the texts, a `pyarrow.Array` of strings.
    """

    def __init__(self, captions: Sequence[Sequence[str]]):
        """captions: the captions of each image; lists, or a pyarrow array of lists of strings."""
        import pyarrow

        kind = pyarrow.large_list(pyarrow.large_string())
        if isinstance(captions, (pyarrow.Array, pyarrow.ChunkedArray)):
            captions = captions.cast(kind)
        else:
            captions = pyarrow.array(captions, kind)
        if isinstance(captions, pyarrow.ChunkedArray):
            captions = (
                pyarrow.concat_arrays(captions.chunks) if captions.num_chunks else captions.combine_chunks()
            )
        self.counts = captions.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        self.starts = np.cumsum(self.counts) - self.counts
        encoded = captions.flatten().fill_null("").dictionary_encode()
        self.text = encoded.indices.to_numpy().astype(np.int64)
        self.distinct = encoded.dictionary

    @classmethod
    def of(cls, captions: Sequence[Sequence[str]] | CaptionTexts) -> CaptionTexts:
        """The captions themselves where they are texts by number already."""
        return captions if isinstance(captions, cls) else cls(captions)

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.counts)


def caption_column(*splits: Any) -> Any:
    """The captions of all rows of these `datasets.Dataset`s, one after the other, as pyarrow holds them."""
    import pyarrow

    kind = pyarrow.large_list(pyarrow.large_string())
    columns = [split.select_columns(["captions"]).with_format("arrow")[:]["captions"] for split in splits]
    return pyarrow.chunked_array([chunk for column in columns for chunk in column.cast(kind).chunks], kind)


class TokenisedCaptions:
    """Token ids of every caption of every image, `[CLS] words [SEP]`, at most `max_length` long.

    captions: the captions of each image, as `CaptionTexts` takes them, or such. tokenizer: any transformers
    tokenizer with a padding token.
    `truncated` counts the captions that were cut to `max_length`.
    """

    def __init__(self, captions: Sequence[Sequence[str]] | CaptionTexts, tokenizer, max_length: int):
        if tokenizer.pad_token_id is None:
            raise UserError("the tokenizer has no padding token; give it one (tokenizer.pad_token)")
        self.max_length, self.pad_id = max_length, int(tokenizer.pad_token_id)
        captions = CaptionTexts.of(captions)
        self._starts, self._text = captions.starts, captions.text
        self._ids, self._ends, too_long = _tokenise(captions.distinct, tokenizer, max_length)
        self._cut = too_long
        self.truncated = int(too_long[self._text].sum())

    @property
    def longest(self) -> int:
        """How many token ids the longest caption has."""
        return int(np.diff(self._ends, prepend=0).max(initial=0))

    def ids(self, row: int, number: int) -> np.ndarray:
        """The token ids, int64, of caption `number` of image `row`."""
        text = self._text[self._starts[row] + number]
        begin = self._ends[text - 1] if text else 0
        return self._ids[begin : self._ends[text]].astype(np.int64)

    def lengths(self, row: np.ndarray, number: np.ndarray) -> np.ndarray:
        """How many token ids each of these captions has, int64 in the arguments' common shape."""
        return np.diff(self._ends, prepend=0)[self._text[self._starts[row] + number]]

    def cut(self, row: np.ndarray, number: np.ndarray) -> np.ndarray:
        """Which of these captions were cut to `max_length`, bool in the arguments' common shape."""
        return self._cut[self._text[self._starts[row] + number]]

    def pad(self, sequences: Sequence[np.ndarray], length: int | None = None) -> np.ndarray:
        """The sequences, padded at the right, as int64 `[S, length]`; length None: that of the longest."""
        if length is None:
            length = max((len(ids) for ids in sequences), default=0)
        padded = np.full((len(sequences), length), self.pad_id, dtype=np.int64)
        for line, ids in zip(padded, sequences, strict=True):
            line[: len(ids)] = ids
        return padded


def lengths_mask(sequences: Sequence[np.ndarray], length: int) -> np.ndarray:
    """int64 `[S, length]`: 1 at the sequences' own tokens, 0 at padding."""
    lengths = np.array([len(ids) for ids in sequences], dtype=np.int64)
    return (np.arange(length) < lengths[:, None]).astype(np.int64)


def _tokenise(texts: Any, tokenizer, max_length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The token ids of all texts one after the other, where those of each end, whether it had to be cut."""
    plain = {"padding": False, "return_attention_mask": False, "return_token_type_ids": False}
    ids, lengths = [np.zeros(0, dtype=np.int32)], [np.zeros(0, dtype=np.int64)]
    too_long = np.zeros(len(texts), dtype=bool)
    # By parts: as lists of numbers the ids take ten times the room they take as arrays.
    for start in range(0, len(texts), _PART):
        part = texts[start : start + _PART].to_pylist()
        found = tokenizer(part, truncation=True, max_length=max_length, **plain)["input_ids"]
        full = [number for number, one in enumerate(found) if len(one) == max_length]
        if full:
            # Only a caption that fills the length can have been cut; its whole length shows whether it was.
            whole = tokenizer([part[number] for number in full], truncation=False, verbose=False, **plain)
            too_long[start + np.array(full)] = [len(one) > max_length for one in whole["input_ids"]]
        lengths.append(np.array([len(one) for one in found], dtype=np.int64))
        ids.append(np.fromiter((piece for one in found for piece in one), dtype=np.int32))
    return np.concatenate(ids), np.cumsum(np.concatenate(lengths)), too_long


_PART = 50_000
