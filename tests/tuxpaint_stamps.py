"""A made-up collection of stamps, drawn on the spot, for the tests of `tuxpaint`."""

from pathlib import Path

from PIL import Image, ImageDraw

# Objects of the made-up collection: path below the stamps folder, English caption, colour of the blob.
GOOD = {
    "animals/birds/owl": ("An owl.", (200, 30, 30)),
    "animals/birds/duck": ("A duck.", (30, 200, 30)),
    "animals/birds/drake": ("A drake.", (40, 210, 30)),
    "animals/birds/crow": ("A crow.", (20, 20, 20)),
    "animals/mammals/bear": ("A bear.", (90, 60, 30)),
    "animals/mammals/brown_bear": ("A brown bear", (100, 60, 30)),
    "animals/mammals/kangaroo": ("A red kangaroo.", (200, 90, 60)),
    "animals/mammals/hippo": ("An hippopotamus.", (120, 110, 130)),
    "animals/mammals/fox": ("A fox.", (220, 120, 20)),
    "animals/mammals/yak": ("A yak.", (50, 40, 30)),
    "food/fruit/apple": ("A “Fuji” apple.", (220, 40, 60)),
    "food/fruit/lemon": ("A yellow lemon.", (240, 230, 40)),
    "food/fruit/pumpkin": ("A very small pumpkin.", (240, 140, 20)),
    "food/fruit/tomato": ("A ripe, red tomato!", (230, 20, 20)),
    "food/nuts/walnut": ("A walnut in its shell.", (150, 110, 60)),
    "household/tools/hammer": ("A hammer.", (100, 100, 110)),
    "household/tools/tape": ("Measuring tape.", (250, 220, 30)),
    "household/tools/saw": ("A saw.", (160, 160, 170)),
    "household/key": ("A key.", (180, 170, 60)),
    "household/teapot": ("A teapot.", (240, 240, 250)),
    "vehicles/dumper": ("A dumper. It carries its load in the front.", (250, 120, 10)),
    "vehicles/bus": ("A green bus.", (20, 160, 50)),
    "vehicles/truck": ("A fire truck.", (220, 10, 10)),
    "vehicles/race/car": ("A race car.", (40, 60, 220)),
    "vehicles/wheel": ("A wheel! Put the brake calipers toward the rear.", (30, 30, 35)),
    "plants/flowers/rose": ("A rose.", (230, 20, 70)),
    "plants/flowers/iris": ("An iris.", (110, 60, 200)),
    "plants/flowers/any": ("A flower covered in dew drops.", (240, 130, 200)),
}


def blob(colour, size=(90, 70), mode="RGBA") -> Image.Image:
    """A filled ellipse with a feathered edge in the middle two thirds of a transparent picture."""
    wide, high = size
    alpha = Image.new("L", size, 0)
    draw = ImageDraw.Draw(alpha)
    draw.ellipse((wide // 6, high // 6, wide - wide // 6, high - high // 6), fill=120)
    draw.ellipse((wide // 6 + 2, high // 6 + 2, wide - wide // 6 - 2, high - high // 6 - 2), fill=255)
    image = Image.new("RGBA", size, (*colour, 0))
    image.putalpha(alpha)
    return image.convert(mode)


def add(
    root: Path, name: str, caption: str | None, image: Image.Image | bytes | None, options=None, **save
) -> None:
    """Write one stamp: picture, caption file with a translation, options file."""
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    if caption is not None:
        file.with_suffix(".txt").write_text(
            f"{caption}\nde.utf8=Ein Ding.\nfr.utf8=Une chose.\n", encoding="utf-8"
        )
    if options:
        file.with_suffix(".dat").write_text(f"scale=15%\n{options}\n")
    if isinstance(image, bytes):
        file.with_suffix(".png").write_bytes(image)
    elif image is not None:
        image.save(file.with_suffix(".png"), "PNG", **save)


def make_stamps(root: Path) -> Path:
    """The good stamps."""
    for i, (name, (caption, colour)) in enumerate(GOOD.items()):
        add(root, name, caption, blob(colour, (80 + i, 100 - i)))
    return root
