"""From a stamp's one-line English caption to a noun phrase, and what else the phrase might be said of.

``A red kangaroo.`` becomes ``a red kangaroo``; ``A dumper. It carries its load in the front.`` becomes
``a dumper``; ``Eat your broccoli!`` names nothing and is refused with the reason.
"""

import re

# Longest phrase that still reads well inside a sentence about several objects, article included.
MAX_WORDS = 5
# A caption without an article gets one when it is this short: "Measuring tape."
_MAX_BARE_WORDS = 3

# Quotation marks, straight or curly, but not the apostrophe of "plumber's".
_QUOTES = re.compile("[\u201c\u201d\"«»]|(?<!\\w)['\u2018\u2019]|['\u2019](?!\\w)")
_APOSTROPHE = "\u2019"
_ASIDE = re.compile(r"\([^)]*\)")
_SENTENCE_END = re.compile(r"[.!?…](?=\s|$)")
_COMMA_TAIL = re.compile(r",\s+(?:from|also|or|a|an|the|which|then)\b.*")
_WORD = re.compile(r"[a-z0-9]+(?:['-][a-z0-9]+)*")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# From one of these words on a caption tells something about the object instead of naming it.
_TELLING = _words(
    "is are was were has have lets means stands carries resembles used called eaten made making covered "
    "inside in on at from to that which who"
)
# Phrases with these name two things, or a thing and a part of it.
_NOT_PLAIN = _words("and or with some two three several")
# Captions that begin so speak of something known, or speak to the reader.
_SPEAKING_OF = _words("the our your my we it's this these another remember")
# The size a caption gives is not the size in a composed scene.
_SIZES = _words("large small huge")
# Nouns that take no article in the singular.
_UNCOUNTABLE = _words("corn confetti garlic lettuce grass fire water")
# Last words that name a part of a plant and not the object: "a cherimoya fruit" is a cherimoya.
_HOLLOW_HEADS = _words("fruit root bulb plant")

# Nouns that can be said of the same thing, or be taken for it, by the most general of them. Two objects of
# one line are never used to make a false caption of each other.
_SAME_KIND = {
    "ape": "gorilla chimpanzee",
    "ball": "football basketball",
    "bin": "can",
    "car": "beetle",
    "camel": "dromedary",
    "cattle": "cow bull zebu yak bison",
    "chicken": "hen rooster",
    "deer": "doe wapiti caribou",
    "dog": "dingo",
    "drum": "kit cymbal",
    "duck": "drake",
    "fly": "hoverfly",
    "goat": "mountaingoat",
    "goose": "gander",
    "gull": "seagull",
    "hammer": "mallet",
    "mailbox": "box",
    "marker": "pen",
    "mouse": "rat",
    "mushroom": "cep",
    "peafowl": "peacock peahen",
    "plane": "airplane raptor",
    "rabbit": "bunny",
    "sheep": "ram lamb",
    "ship": "sailboat",
    "truck": "dumper",
    "whale": "dolphin orca",
}
_KIND_OF = {noun: kind for kind, nouns in _SAME_KIND.items() for noun in nouns.split()}


class NotANounPhrase(ValueError):
    """The caption does not name one thing; the message is the reason, for the list of what was dropped."""


def noun_phrase(caption: str) -> str:
    """The noun phrase, lower case and with its article, that the caption's first sentence begins with.

    Raises NotANounPhrase when the caption does not name one thing in at most MAX_WORDS words.
    """
    text = _QUOTES.sub("", _ASIDE.sub(" ", caption)).replace(_APOSTROPHE, "'").strip()
    end = _SENTENCE_END.search(text)
    exclaimed = end is not None and end.group() == "!"
    text = _COMMA_TAIL.sub("", text[: end.start()] if end else text)
    if "—" in text:
        raise NotANounPhrase("caption is a sentence or a name")
    cased = text.replace(",", " ").split()
    words = [word.lower() for word in cased]
    if not words:
        raise NotANounPhrase("caption is empty")
    if words[0] in ("a", "an"):
        article, words = words[0], words[1:]
    elif exclaimed:
        raise NotANounPhrase("caption is an exclamation")
    else:
        article = None
    words = _without_tail(words)
    if article is None:
        _check_bare(cased, words)
    _check_plain(words)
    words = _without_sizes(words)
    if len(words) + 1 > MAX_WORDS:
        raise NotANounPhrase(f"caption is longer than {MAX_WORDS} words")
    return " ".join([_article(words[0], article), *words])


def without_article(phrase: str) -> str:
    """``a soccer ball`` -> ``soccer ball``."""
    return phrase.split(" ", 1)[1]


def concept(phrase: str) -> str:
    """The kind of thing the phrase names: its head noun, or the one word for all nouns of the same kind.

    Phrases of one concept may be true of each other's object: "a bear" of a brown bear, "a deer" of a doe.
    """
    words = without_article(phrase).split()
    head = words[-1]
    if head in _HOLLOW_HEADS and len(words) > 1:
        head = words[-2]
    return _KIND_OF.get(head, head)


def _without_tail(words: list[str]) -> list[str]:
    for i, word in enumerate(words):
        if word in _TELLING:
            return words[:i]
    return words


def _without_sizes(words: list[str]) -> list[str]:
    """Without size words, nor "very" and what it strengthens; the noun, which comes last, always stays."""
    kept, skip = [], False
    for word in words[:-1]:
        if not skip and word not in _SIZES and word != "very":
            kept.append(word)
        skip = word == "very"
    return [*kept, words[-1]]


def _check_bare(cased: list[str], words: list[str]) -> None:
    """A caption without an article must be a short singular common noun, so that one can be given to it."""
    if words and words[0] in _NOT_PLAIN:
        return  # the next check says why
    known = words[:1] and words[0] in _SPEAKING_OF
    capitals = [word for word in cased[1 : len(words)] if word[:1].isupper()]
    if not words or len(words) > _MAX_BARE_WORDS or capitals or known:
        raise NotANounPhrase("caption is a sentence or a name")
    plural = words[-1].endswith("s") and not words[-1].endswith(("ss", "us"))
    if plural or words[-1] in _UNCOUNTABLE:
        raise NotANounPhrase("caption is a plural or names a substance")


def _check_plain(words: list[str]) -> None:
    if not words:
        raise NotANounPhrase("caption is a sentence or a name")
    if any(word in _NOT_PLAIN for word in words):
        raise NotANounPhrase("caption names more than one thing, or part of one")
    after_of = words[words.index("of") + 1 :] if "of" in words else words
    if not after_of or after_of[0] in ("a", "an"):
        raise NotANounPhrase("caption names more than one thing, or part of one")
    if not all(_WORD.fullmatch(word) for word in words):
        raise NotANounPhrase("caption has characters other than letters, digits, hyphens and apostrophes")


def _article(word: str, given: str | None) -> str:
    """The article the caption gave, unless it is wrong ("an hippopotamus") or words were taken out."""
    if given is not None and (word.startswith(("eu", "u", "one", "hon", "hour")) or not word.isalpha()):
        return given
    return "an" if word[0] in "aeiou" else "a"
