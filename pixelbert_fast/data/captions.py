"""The captions of a split as token ids, tokenised once."""

from collections.abc import Sequence

import numpy as np

from pixelbert_fast.errors import UserError


class TokenisedCaptions:
    """Token ids of every caption of every image, `[CLS] words [SEP]`, at most `max_length` long.

    captions: the captions of each image. tokenizer: any transformers tokenizer with a padding token.
    `truncated` counts the captions that were cut to `max_length`.
    """

    def __init__(self, captions: Sequence[Sequence[str]], tokenizer, max_length: int):
        if tokenizer.pad_token_id is None:
            raise UserError("the tokenizer has no padding token; give it one (tokenizer.pad_token)")
        self.max_length, self.pad_id = max_length, int(tokenizer.pad_token_id)
        self._starts = np.cumsum([0, *(len(own) for own in captions)])
        numbers: dict[str, int] = {}
        texts = [numbers.setdefault(text, len(numbers)) for own in captions for text in own]
        self._text = np.array(texts, dtype=np.int64)
        self._ids, too_long = _tokenise(list(numbers), tokenizer, max_length)
        self.truncated = int(too_long[self._text].sum())

    def ids(self, row: int, number: int) -> np.ndarray:
        """The token ids, int64, of caption `number` of image `row`."""
        return self._ids[self._text[self._starts[row] + number]]

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


def _tokenise(texts: list[str], tokenizer, max_length: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Token ids of each text, and whether it had to be cut."""
    if not texts:
        return [], np.zeros(0, dtype=bool)
    plain = {"padding": False, "return_attention_mask": False, "return_token_type_ids": False}
    ids = tokenizer(texts, truncation=True, max_length=max_length, **plain)["input_ids"]
    too_long = np.zeros(len(texts), dtype=bool)
    full = [number for number, one in enumerate(ids) if len(one) == max_length]
    if full:
        # Only a caption that fills the length can have been cut; whether it was shows in its whole length.
        whole = tokenizer([texts[number] for number in full], truncation=False, verbose=False, **plain)[
            "input_ids"
        ]
        too_long[full] = [len(one) > max_length for one in whole]
    return [np.array(one, dtype=np.int64) for one in ids], too_long
