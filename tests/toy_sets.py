"""Records without pictures, for the tests of building sets, and what a build interrupted on purpose needs."""

from pathlib import Path

from pixelbert_fast.data.build import Dropped, Plan


class Toy:
    """Records without pictures; every image whose number is in `broken` is dropped."""

    name = "toy"

    def __init__(self, train=10, test=4, broken=()):
        self.train, self.test, self.broken, self.rendered = train, test, broken, []

    def options(self):
        return {"train": self.train, "test": self.test, "broken": list(self.broken)}

    def plan(self):
        splits = {
            "train": [("train", i) for i in range(self.train)],
            "val": [],
            "test": [("test", i) for i in range(self.test)],
        }
        pairs = {
            split: [
                {"left": i, "right": i + 1, "statement": f"{i}", "label": i % 2 == 0, "fact": "{}"}
                for i in range(len(specs) - 1)
            ]
            for split, specs in splits.items()
        }
        return Plan(splits, {"captions_per_image": 1}, pairs)

    def render(self, spec):
        split, i = spec
        self.rendered.append(spec)
        if i in self.broken:
            return Dropped(f"{split}-{i}", "not an image")
        return {
            "key": f"{split}-{i}",
            "image": bytes([i]),
            "height": 1,
            "width": 1,
            "captions": [f"number {i}"],
        }


def files(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


class Stop(Exception):
    pass


def stop_after(calls):
    def progress(advance, total):
        nonlocal calls
        calls -= 1
        if calls < 0:
            raise Stop

    return progress
