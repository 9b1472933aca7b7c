"""Reading Tux Paint's stamps: captions to noun phrases, and a folder with everything wrong that can be."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from pixelbert_fast.data.build import make_builder
from pixelbert_fast.data.tuxpaint import captions, cutouts
from pixelbert_fast.data.tuxpaint.collection import read_collection
from pixelbert_fast.errors import UserError
from tests.tuxpaint_stamps import GOOD, add, blob, make_stamps


@pytest.fixture(scope="module")
def stamps(tmp_path_factory):
    return make_stamps(tmp_path_factory.mktemp("stamps"))


@pytest.mark.parametrize(
    ("caption", "phrase"),
    [
        ("A red kangaroo.", "a red kangaroo"),
        ("An hippopotamus.", "a hippopotamus"),
        ("A european bear.", "a european bear"),
        ("An F-22 Raptor.", "an f-22 raptor"),
        ("A UK post box. Put your letter in here!", "a uk post box"),
        ("A very poisonous lionfish!", "a lionfish"),
        ("A large metal mallet.", "a metal mallet"),
        ("A ripe, red tomato!", "a ripe red tomato"),
        ("A spiny lobster, from the Hawaiian islands.", "a spiny lobster"),
        ("An albino peahen (a female peafowl, or peacock).", "an albino peahen"),
        ("A ginger 'root'.", "a ginger root"),
        ("A plumber\u2019s wrench.", "a plumber's wrench"),
        ("A candy cane is a traditional Christmas treat in the United States.", "a candy cane"),
        ("A stethoscope lets your doctor listen to your heart and lungs.", "a stethoscope"),
        ("Measuring tape.", "a measuring tape"),
        ("Hibiscus", "a hibiscus"),
        ("A pair of closed scissors.", "a pair of closed scissors"),
    ],
)
def test_captions_become_noun_phrases(caption, phrase):
    assert captions.noun_phrase(caption) == phrase


@pytest.mark.parametrize(
    ("caption", "why"),
    [
        ("Eat your broccoli!", "exclamation"),
        ("Boom!!!", "exclamation"),
        ("Santa Claus.", "a name"),
        ("The full moon.", "a sentence or a name"),
        ("Mercury—the planet closest to the Sun.", "a sentence or a name"),
        ("Two flowers.", "more than one"),
        ("A red and white anemone flower.", "more than one"),
        ("The baby of a gnu.", "a sentence or a name"),
        ("A photograph of a gnu.", "more than one"),
        ("Rugby goal posts.", "plural"),
        ("Sweet yellow corn.", "substance"),
        ("A fine old grey stone bridge.", "longer than 5 words"),
        ("A 愛 sign.", "characters"),
        ("An.", "a sentence or a name"),
        ("(a lamb)", "empty"),
    ],
)
def test_captions_that_name_nothing_say_why(caption, why):
    with pytest.raises(captions.NotANounPhrase, match=why):
        captions.noun_phrase(caption)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a bear", "a brown bear"),
        ("a drake", "a duck"),
        ("a doe", "a deer"),
        ("a garlic bulb", "a string of garlic"),
        ("a cherimoya", "a cherimoya fruit"),
        ("a football", "a soccer ball"),
        ("a garbage can", "a wheelie bin"),
    ],
)
def test_names_that_may_be_said_of_one_thing_share_a_concept(one, other):
    assert captions.concept(one) == captions.concept(other)
    assert captions.concept("a walnut sailboat") != captions.concept("a walnut")


def test_every_unusable_picture_is_dropped_with_its_reason(tmp_path):
    root = make_stamps(tmp_path / "unpacked" / "usr" / "share" / "tuxpaint" / "stamps")
    picture = blob((10, 200, 200))
    opaque = Image.new("RGB", (80, 80), (1, 2, 3))
    sixteen = Image.fromarray(np.full((80, 80), 40_000, np.uint16))
    png = io.BytesIO()
    blob((9, 9, 200)).save(png, "PNG")
    bad = {
        "animals/cartoon/penguin": ("drawing", "A penguin.", picture, None),
        "animals/mammals/hedgehog": ("drawing", "A hedgehog.", picture, None),
        "clothes/shirt": ("drawing", "A shirt.", picture, "tintable\ntinter=vector"),
        "symbols/star": ("symbol, letter or coin", "A star.", picture, None),
        "town/roadsigns/stop": ("road sign", "A stop sign.", picture, None),
        "animals/fish/nothing": ("no caption file", None, picture, None),
        "animals/fish/foreign": ("no English caption", "de.utf8=Ein Fisch.", picture, None),
        "animals/fish/blank": ("no English caption", "", picture, None),
        "animals/fish/joke": ("caption is an exclamation", "Fish!", picture, None),
        "animals/fish/opaque": ("no transparent ground", "A trout.", opaque, None),
        "animals/fish/sixteen": ("no transparent ground", "A pike.", sixteen, None),
        "animals/fish/solid": ("no transparent ground", "A carp.", opaque.convert("RGBA"), None),
        "animals/fish/empty": ("nothing visible", "A ghost.", Image.new("RGBA", (80, 80)), None),
        "animals/fish/tiny": ("smaller than 40 pixels", "A shrimp.", blob((1, 1, 1), (20, 20)), None),
        "animals/fish/eel": ("too thin to be seen in a scene", "An eel.", blob((1, 1, 1), (600, 60)), None),
        "animals/fish/cut": ("picture is corrupt", "A tuna.", png.getvalue()[:120], None),
        "animals/fish/text": ("picture is corrupt", "A ray.", b"not a picture", None),
        "household/duck": ("has the name of something of another category", "A rubber duck.", picture, None),
    }
    for name, (_, caption, image, options) in bad.items():
        add(root, name, caption, image, options)
    add(root, "household/tools/tape_mirror", None, picture)
    add(root, "plants/copy", "A copy.", blob(GOOD["animals/birds/owl"][1], (80, 100)))
    (root / "animals" / "fish" / "bytes.txt").write_bytes(b"A \xff fish.")
    picture.save(root / "animals" / "fish" / "bytes.png")
    (root / "animals" / "fish" / "drawn.svg").write_text("<svg/>")

    collection = read_collection(tmp_path / "unpacked")
    expected = {f"{name}.png": why for name, (why, *_) in bad.items()} | {
        "animals/fish/bytes.png": "caption cannot be read",
        "animals/fish/drawn.svg": "drawing (SVG)",
        "household/tools/tape_mirror.png": "mirror image of another stamp",
        "plants/copy.png": "same picture as another stamp",
    }
    assert dict(collection.dropped) == expected
    assert {stamp.path[:-4] for stamp in collection.stamps} == set(GOOD)
    assert sum(collection.why_counts().values()) == len(expected)
    assert collection.why_counts()["drawing"] == 3


def test_stamps_know_their_category_concept_and_flip(tmp_path):
    root = make_stamps(tmp_path)
    add(root, "military/vehicles/plane", "An airplane.", blob((90, 90, 90), (91, 71)), "nomirror noflip")
    add(root, "hobbies/music/cello", "A cello.", blob((140, 80, 30), (92, 71)), "noflip")
    add(root, "plants/trees/oak", "A holm oak.", blob((50, 110, 50), (93, 71)))
    blob((1, 2, 3)).save(root / "household" / "tools" / "tape_mirror.png")
    by_path = {stamp.path[:-4]: stamp for stamp in read_collection(root).stamps}
    assert {
        path: by_path[path].category for path in ("vehicles/bus", "vehicles/wheel", "plants/flowers/rose")
    } == {
        "vehicles/bus": "vehicles",
        "vehicles/wheel": "parts",
        "plants/flowers/rose": "flowers",
    }
    assert by_path["military/vehicles/plane"].category == "vehicles"
    assert by_path["hobbies/music/cello"].category == "music"
    assert by_path["plants/flowers/rose"].concept == by_path["plants/flowers/any"].concept == "flower"
    assert by_path["plants/trees/oak"].concept == "tree"
    assert [
        by_path[p].mirror for p in ("military/vehicles/plane", "household/tools/tape", "hobbies/music/cello")
    ] == [
        False,
        False,
        True,
    ]


@pytest.mark.parametrize("kind", ["palette", "colour key", "grey with alpha", "16 bits a channel"])
def test_transparency_of_every_kind_is_read(tmp_path, kind):
    picture = blob((200, 60, 30), (90, 60))
    file = io.BytesIO()
    if kind == "palette":
        picture.quantize(16).save(file, "PNG")
    elif kind == "colour key":
        flat = Image.new("RGB", picture.size, (0, 255, 0))
        flat.paste(picture, (0, 0), picture.getchannel("A").point(lambda a: 255 * (a > 200)))
        flat.save(file, "PNG", transparency=(0, 255, 0))
    elif kind == "grey with alpha":
        picture.convert("LA").save(file, "PNG")
    else:
        file.write(_png_16_bits(np.asarray(picture)))
    found = cutouts.read_cutout(file.getvalue())
    assert np.allclose(found.box, (15, 10, 76, 51), atol=4)
    (tmp_path / "stamp.png").write_bytes(file.getvalue())
    pixels = cutouts.pixels(str(tmp_path), "stamp.png", found.box, 30)
    assert pixels.mode == "RGBa"
    assert max(pixels.size) == 30
    red, green, blue, alpha = np.asarray(pixels)[pixels.height // 2, pixels.width // 2]
    assert alpha == 255
    if kind == "grey with alpha":
        assert red == green == blue
    else:
        assert abs(int(red) - 200) <= 12
        assert abs(int(green) - 60) <= 12


def _png_16_bits(rgba: np.ndarray) -> bytes:
    """A PNG file of 16 bits a channel, which Pillow reads but does not write."""
    height, width, _ = rgba.shape
    rows = (rgba.astype(">u2") * 257).reshape(height, -1)
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 16, 6, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(raw))
        + chunk(b"IEND", b"")
    )


def test_folders_without_stamps_are_told_in_one_sentence(tmp_path, stamps):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    drawings = tmp_path / "drawings"
    for name in ("animals/cartoon/a", "plants/cartoon/b"):
        add(drawings, name, "A thing.", blob((1, 2, 3)))
    few = tmp_path / "few"
    for name in [*list(GOOD)[:3], "food/fruit/lemon"]:
        add(few, name, GOOD[name][0], blob(GOOD[name][1]))
    wrong = {
        tmp_path / "gone": "there is no folder",
        tmp_path / "file": "is a file",
        tmp_path / "empty": "holds no stamps",
        stamps / "animals": "holds no stamps",
        drawings: "none of the 2 pictures",
        few: "objects that can be used, too few",
    }
    for folder, said in wrong.items():
        with pytest.raises(UserError, match=said) as error:
            make_builder("tuxpaint", source=str(folder))
        assert "apt-get download tuxpaint-stamps-default" in str(error.value)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="needs their folder"):
        make_builder("tuxpaint")
    with pytest.raises(UserError, match="images must be a whole number from 20"):
        make_builder("tuxpaint", source=str(stamps), images=5)
