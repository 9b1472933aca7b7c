"""The statements of a split: the images they are about, their words, whether they are true, their names."""

from __future__ import annotations

import json
from collections import Counter
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from pixelbert_fast.data.captions import TokenisedCaptions, lengths_mask
from pixelbert_fast.errors import UserError

UNKNOWN = -100
"""The label of a statement of which nobody has said whether it is true, as the loss knows it."""


class Statements:
    """The statements about pairs of images of one split, by number.

    pairs: as of `BuiltSet.pairs`, of which `label` may be null.

    Attributes:
        sides: int64 `[P, 2]`, the rows of the left and of the right image.
        labels: int64 `[P]`, 1 where it is true, 0 where it is not, else `UNKNOWN`.
    """

    def __init__(self, pairs, tokenizer, max_text_length: int):
        columns = pairs.select_columns(["left", "right"]).with_format("numpy")[:]
        self.sides = np.stack([columns["left"], columns["right"]], axis=1).astype(np.int64)
        labels = pairs["label"][:]
        self.labels = np.array([UNKNOWN if one is None else int(one) for one in labels], dtype=np.int64)
        self._pairs = pairs
        texts = [[text] for text in pairs["statement"][:]]
        self._texts = TokenisedCaptions(texts, tokenizer, max_text_length)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def truncated(self) -> int:
        """How many had to be cut to `max_text_length`."""
        return self._texts.truncated

    @property
    def longest(self) -> int:
        """How many token ids the longest has."""
        return self._texts.longest

    def words(self, members: np.ndarray) -> dict[str, Tensor]:
        """`input_ids` and `attention_mask`, int64 `[len(members), T]`, of these."""
        texts = [self._texts.ids(int(member), 0) for member in members]
        ids = self._texts.pad(texts)
        mask = lengths_mask(texts, ids.shape[1])
        return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}

    @cached_property
    def identifiers(self) -> list[str]:
        """What the prediction file calls each. Raises UserError where two have one name.

        Of a set that names none: `set-SENTENCE-TIME-0`, in the official form, where SENTENCE numbers the
        different texts and TIME counts the pairs of images that one was shown with; consistency is then over
        all of these.
        """
        if "identifier" in self._pairs.column_names:
            named = self._pairs["identifier"][:]
            name, times = Counter(named).most_common(1)[0]
            if times > 1:
                raise UserError(f"{times} statements are called {name}, one of which would count: name each")
            return named
        numbers: dict[str, int] = {}
        times: Counter[int] = Counter()
        found = []
        for text in self._pairs["statement"][:]:
            number = numbers.setdefault(text, len(numbers))
            found.append(f"set-{number}-{times[number]}-0")
            times[number] += 1
        return found

    @cached_property
    def forms(self) -> list[str] | None:
        """What form of fact each states, where the set knows (see `data.scenes.pairs`)."""
        if "fact" not in self._pairs.column_names:
            return None
        return [next(iter(json.loads(fact))) for fact in self._pairs["fact"][:]]
