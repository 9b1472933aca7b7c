"""A WordPiece vocabulary trained on a set's own captions, for sets that come without a tokenizer.

The merges are chosen as in byte-pair encoding (Sennrich et al. 2016), as the `tokenizers` library's
WordPiece trainer does. That trainer breaks ties by the order of a randomised hash table, so two runs on the
same texts give different vocabularies; this one breaks them by spelling, and the same texts always give the
same vocabulary.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING

from pixelbert_fast.errors import UserError

if TYPE_CHECKING:
    from transformers import BertTokenizerFast

LONGEST_WORD = 100
"""In letters: BERT's tokenizer reads longer ones as unknown whatever the vocabulary."""

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def train_wordpiece(texts: Iterable[str], size: int) -> "BertTokenizerFast":
    """Trains a lower-case WordPiece tokenizer of at most `size` tokens (special tokens and letters
    included) on `texts`.

    The tokenizer is an ordinary transformers BERT tokenizer: `[CLS] text [SEP]`, `save_pretrained`. Where
    `size` allows, every word of the texts of at most LONGEST_WORD letters becomes one token. The same texts,
    in any order, give the same tokenizer.

    Raises UserError when the texts hold no word, or `size` does not even hold the special tokens and the
    letters.
    """
    from transformers import BertTokenizerFast

    words = _count_words(texts)
    if not words:
        raise UserError("no vocabulary can be trained: the captions hold no words")
    tokens = [*SPECIAL_TOKENS, *sorted({piece for word in words for piece in _letters(word)})]
    if len(tokens) > size:
        raise UserError(
            f"tokenizer size {size} is too small: the letters of these captions alone need {len(tokens)}"
        )
    known = set(tokens)
    for token in _merged(words):
        if len(tokens) == size:
            break
        if token not in known:
            known.add(token)
            tokens.append(token)
    return BertTokenizerFast(vocab={token: number for number, token in enumerate(tokens)}, do_lower_case=True)


def _count_words(texts: Iterable[str]) -> Counter:
    """How often each word occurs; words are what BERT's normaliser and pre-tokenizer make of the texts."""
    from tokenizers import normalizers, pre_tokenizers

    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words: Counter = Counter()
    for text, times in Counter(texts).items():
        for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)):
            if len(word) <= LONGEST_WORD:
                words[word] += times
    return words


def _letters(word: str) -> list[str]:
    return [word[0], *("##" + letter for letter in word[1:])]


def _merged(words: Counter) -> Iterable[str]:
    """The tokens that merging the most frequent pair of neighbours again and again makes, in that order."""
    spelled = [(_letters(word), words[word]) for word in words]
    times: Counter = Counter()
    where: dict[tuple[str, str], set[int]] = defaultdict(set)
    for number, (pieces, count) in enumerate(spelled):
        for pair in pairwise(pieces):
            times[pair] += count
            where[pair].add(number)
    heap = [(-count, pair) for pair, count in times.items()]
    heapq.heapify(heap)
    while heap:
        negative, pair = heapq.heappop(heap)
        if -negative != times[pair]:
            # Its count has changed since it was pushed; every change pushes anew, so a right entry is in
            # the heap.
            continue
        if not negative:
            continue
        left, right = pair
        token = left + right.removeprefix("##")
        yield token
        changed = set()
        for number in where.pop(pair):
            pieces, count = spelled[number]
            for old in pairwise(pieces):
                times[old] -= count
                changed.add(old)
            pieces[:] = _replace(pieces, left, right, token)
            for new in pairwise(pieces):
                times[new] += count
                where[new].add(number)
                changed.add(new)
        for one in changed:
            heapq.heappush(heap, (-times[one], one))


def _replace(pieces: list[str], left: str, right: str, token: str) -> list[str]:
    merged, place = [], 0
    while place < len(pieces):
        if pieces[place] == left and pieces[place + 1 : place + 2] == [right]:
            merged.append(token)
            place += 2
        else:
            merged.append(pieces[place])
            place += 1
    return merged
