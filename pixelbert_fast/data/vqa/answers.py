"""Answers of visual question answering: their normal form, soft scores, and the vocabulary.

`normalise` gives exactly what the official VQA evaluation compares answers by, oddities included: a model's
answer that differs from an annotator's in one of them would be counted wrong there.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache

LEAST_OCCURRENCES = 9
"""An answer is in the vocabulary when it is the main answer of at least so many questions."""

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {"none": "0", **{word: str(number) for number, word in enumerate(_NUMBERS)}}
_ARTICLES = frozenset(("a", "an", "the"))

# Colon, apostrophe, full stop, dollar, percent, hash, ampersand and asterisk are not among them.
_PUNCTUATION = ';/[]"{}()=+\\_->@`,?!<'
_THOUSANDS = re.compile(r"\d,\d")
_FULL_STOP = re.compile(r"\.(?!\d)")
# The evaluation passes a flag of `re` where the number of replacements belongs.
_MOST_FULL_STOPS = 32

# Each is also reached from its spellings that lack exactly one of its apostrophes.
_CONTRACTIONS = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't
he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've
mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't
shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll someone's
something'd something'd've something'll that's there'd there'd've there're there's they'd they'd've
they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's where'd
where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't
wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""


def _spellings() -> dict[str, str]:
    spellings = {"somebody'd": "somebodyd"}  # in this one word the evaluation takes the apostrophe away
    for word in _CONTRACTIONS.split():
        for place, letter in enumerate(word):
            if letter == "'":
                spellings[word[:place] + word[place + 1 :]] = word
    return spellings


_SPELLINGS = _spellings()


@lru_cache(maxsize=1 << 16)
def normalise(answer: str) -> str:
    """The form in which the official evaluation compares answers.

    Lower case, number words to ten as digits, no articles, contractions with their apostrophe, no full stops
    but decimal points (and those after the 32nd that is removed). A punctuation mark that stands beside a
    space anywhere in the answer is removed, another one becomes a space; where a comma stands between digits
    all are removed. The result holds single spaces only and may be empty ("the").
    """
    return plain_words(without_punctuation(one_line(answer)))


def one_line(answer: str) -> str:
    """`answer` without new lines and tabs, and without space around it."""
    return answer.replace("\n", " ").replace("\t", " ").strip()


def without_punctuation(answer: str) -> str:
    """What `normalise` does about punctuation, with the spaces that it leaves."""
    closed_up = _THOUSANDS.search(answer) is not None
    text = answer
    for mark in _PUNCTUATION:
        if mark in answer:
            beside_a_space = mark + " " in answer or " " + mark in answer
            text = text.replace(mark, "" if closed_up or beside_a_space else " ")
    return _FULL_STOP.sub("", text, count=_MOST_FULL_STOPS)


def plain_words(answer: str) -> str:
    """What `normalise` does about case, numbers, articles and contractions, single spaces between words."""
    words = (_DIGITS.get(word, word) for word in answer.lower().split())
    return " ".join(_SPELLINGS.get(word, word) for word in words if word not in _ARTICLES)


def soft_scores(answers: Sequence[str]) -> dict[str, float]:
    """The official accuracy that each of these normalised answers would get, in order of first occurrence.

    An answer scores min(1, others that gave it / 3), averaged over leaving out each annotator in turn. Of ten
    answers 1, 2, 3, and 4 or more alike score 0.3, 0.6, 0.9 and 1: the field's usual table.
    """
    total = len(answers)
    return {
        answer: (times * min(3, times - 1) + (total - times) * min(3, times)) / (3 * total)
        for answer, times in Counter(answers).items()
    }


def vocabulary(occurrences: Mapping[str, int], least: int = LEAST_OCCURRENCES) -> list[str]:
    """The answers with at least `least` occurrences, most frequent first, ties in order of the alphabet."""
    kept = [answer for answer, times in occurrences.items() if times >= least]
    return sorted(kept, key=lambda answer: (-occurrences[answer], answer))
