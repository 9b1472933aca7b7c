"""The words of the scenes, and the pixels they stand for."""

SHAPES = ("circle", "square", "triangle", "star", "cross", "heart", "ring", "moon")
COLOURS = {
    "red": (218, 38, 38),
    "green": (44, 172, 56),
    "blue": (36, 76, 222),
    "yellow": (244, 222, 44),
    "purple": (142, 44, 180),
    "pink": (250, 140, 196),
    "white": (250, 250, 250),
    "black": (22, 22, 26),
}
SIZES = ("small", "large")
TEXTURES = ("plain", "striped", "dotted")
PLACES = (
    "top left",
    "top middle",
    "top right",
    "middle left",
    "centre",
    "middle right",
    "bottom left",
    "bottom middle",
    "bottom right",
)
GROUND_COLOURS = {
    "grey": (138, 142, 148),
    "beige": (204, 188, 156),
    "brown": (122, 92, 68),
    "teal": (74, 116, 122),
}
GROUND_TEXTURES = ("plain", "noisy")
NUMBERS = ("no", "one", "two", "three", "four")

# One combination of every shape and every colour, so that holding these out leaves both marginals balanced.
HELD_OUT = frozenset(
    zip(SHAPES, ("green", "pink", "red", "black", "blue", "white", "purple", "yellow"), strict=True)
)

# How the attributes of one object are written before its noun, in order.
ADJECTIVES = ("size", "texture", "colour")

ATTRIBUTES = {"shape": list(SHAPES), "colour": list(COLOURS), "size": list(SIZES), "texture": list(TEXTURES)}


def plural(noun: str) -> str:
    """The plural of a shape's name or of "object"."""
    return noun + ("es" if noun.endswith("s") else "s")


def word_categories() -> dict[str, list[str]]:
    """The words that say something of an image, by category, as the card lists them for content-word metrics.

    "object", "ground" or "picture" are not among them: they can be told from the words around them.
    """
    return {
        "colour": list(COLOURS),
        "shape": [word for shape in SHAPES for word in (shape, plural(shape))],
        "number": list(NUMBERS[1:]),
        "size": list(SIZES),
        "texture": [*TEXTURES, "noisy"],
        "place": sorted({word for place in PLACES for word in place.split()} | {"above", "below"}),
        "ground": list(GROUND_COLOURS),
    }


def noun_phrase(description: dict, article: str = "a") -> str:
    """A description in words: "a large striped red circle at the top left", "a red object".

    An empty article gives the bare phrase.
    """
    words = [article] if article else []
    words += [description[name] for name in ADJECTIVES if name in description]
    words.append(description.get("shape", "object"))
    if "place" in description:
        words.append(place_phrase(description["place"]))
    return " ".join(words)


def counted_phrase(description: dict, number: int) -> str:
    """A number of them in words: "two red circles", "one object"."""
    phrase = noun_phrase(description, NUMBERS[number])
    noun = description.get("shape", "object")
    return phrase if number == 1 else phrase.replace(f" {noun}", f" {plural(noun)}", 1)


def place_phrase(place: str) -> str:
    """Where: "in the centre", "at the top left"."""
    return ("in the " if place == "centre" else "at the ") + place


def ground_phrase(ground: dict) -> str:
    """What it lies on: "on a noisy grey ground"."""
    return f"on a {ground['texture']} {ground['colour']} ground"


def listed(phrases: list[str]) -> str:
    """An enumeration: "x", "x and y", "x, y and z"."""
    return phrases[0] if len(phrases) == 1 else ", ".join(phrases[:-1]) + " and " + phrases[-1]
