"""`pixelbert data show`: the page and the figures."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from PIL import Image

from pixelbert_fast import cli
from pixelbert_fast.data.build import Plan, build_set, make_builder
from pixelbert_fast.data.records import open_set, spread
from pixelbert_fast.data.summary import Row, SizeRule, summarise, table
from pixelbert_fast.data.vocabulary import train_wordpiece
from pixelbert_fast.errors import RunError, UserError
from pixelbert_fast.model.backbone import ResNet
from pixelbert_fast.model.config import PixelBertConfig
from pixelbert_fast.visualize.contact_sheet import grid_of, take_images
from pixelbert_fast.visualize.showing import show
from tests.vqa_files import (
    annotation,
    annotations_file,
    coco_image,
    picture,
    question,
    questions_file,
    statement,
    write,
    write_lines,
)

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> \"a\" & 'b' </style></pre>"


class Captioned:
    """Records from (image bytes, height, width, captions), in a split called train."""

    name = "captioned"

    def __init__(self, records: list[tuple[bytes, int, int, list[str]]]):
        self.records = records

    def options(self) -> dict:
        return {"records": len(self.records)}

    def plan(self) -> Plan:
        return Plan({"train": list(range(len(self.records))), "val": []}, {})

    def render(self, spec: int) -> dict:
        image, height, width, captions = self.records[spec]
        key = f"<b>{spec}</b>"
        return {"key": key, "image": image, "height": height, "width": width, "captions": captions}


def captioned(directory: Path, *records: tuple[bytes, int, int, list[str]]) -> Path:
    build_set(Captioned(list(records)), directory / "set", workers=1)
    return directory / "set"


class Page(HTMLParser):
    """What a browser would see: the elements with their attributes, and the text."""

    def __init__(self, path: Path):
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_texts_are_shown_and_not_run(tmp_path: Path) -> None:
    texts = [
        HOSTILE,
        "nul \x00 and \ud7ff \x9b",
        "狗 ما لون",
        "word " * 1000,
        *(f"text {i}" for i in range(20)),
    ]
    directory = captioned(tmp_path, (picture(), 6, 8, texts))
    page = Page(show(directory, out=tmp_path / "page.html").page)
    assert HOSTILE in page.text
    assert "nul \ufffd and \ud7ff \ufffd" in page.text
    assert "狗 ما لون" in page.text
    assert "word … and 4,400 more characters" in page.text
    assert "text 7" in page.text and "text 8" not in page.text
    assert "and 12 more" in page.text
    assert "<b>0</b>" in page.text
    assert {tag for tag, _ in page.elements} <= {
        *("html", "head", "meta", "title", "style", "body", "header", "h1", "p", "pre", "input", "label"),
        *("main", "article", "figure", "img", "svg", "path", "div", "h2", "ul", "li", "span"),
    }
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name in ("href", "srcset")]
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in page.of("img"))
    policy = [meta["content"] for meta in page.of("meta") if "http-equiv" in meta]
    assert policy == [
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    ]


def test_images_are_small_jpegs_of_the_right_shape(tmp_path: Path) -> None:
    large = picture((200, 10, 10), (1200, 300), kind="PNG")
    directory = captioned(tmp_path, (large, 300, 1200, ["a"]), (picture(), 6, 8, ["b"]))
    page = Page(show(directory, out=tmp_path / "page.html").page)
    for image, size in zip(page.of("img"), [(480, 120), (8, 6)], strict=True):
        decoded = Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2])))
        assert decoded.format == "JPEG"
        assert decoded.size == size


def test_an_image_that_cannot_be_decoded_says_so(tmp_path: Path) -> None:
    directory = captioned(tmp_path, (b"<html>404</html>", 6, 8, ["a"]), (picture(), 6, 8, ["b"]))
    shown = show(directory, out=tmp_path / "page.html")
    page = Page(shown.page)
    assert len(page.of("img")) == 1
    assert "is not an image that can be read" in page.text
    assert "1 of the 2 images on the sheet cannot be decoded: it says why" in shown.lines


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_the_grid_is_the_models_own(stride: int) -> None:
    config = PixelBertConfig.preset("tiny", output_stride=stride, sampled_pixels=None)
    with torch.device("meta"):
        backbone = ResNet(config)
    for side in (*range(2 * stride, 6 * stride), 800, 1066, 1333):
        if backbone.map_size(side) < 2:
            continue
        grid = grid_of((side, 10 * stride), config, 0)
        assert grid.rows == backbone.map_size(side) // 2
        assert (grid.columns, grid.side) == (5, 2 * stride)
        assert grid.places == list(range(grid.rows * grid.columns))
    assert grid_of((stride, 10 * stride), config, 0) is None


def test_as_many_places_as_the_preset_samples() -> None:
    config = PixelBertConfig.preset("r50")
    grid = grid_of((800, 1066), config, 3)
    assert (grid.rows, grid.columns, len(grid.places)) == (12, 17, 100)
    assert grid.places == sorted(set(grid.places))
    assert grid == grid_of((800, 1066), config, 3)
    assert grid.places != grid_of((800, 1066), config, 4).places
    assert grid_of((800, 1066), config, 3).places[-1] < 12 * 17


def test_the_places_are_drawn_over_the_image(tmp_path: Path) -> None:
    directory = captioned(tmp_path, (picture(size=(40, 30)), 30, 40, ["a"]))
    page = Page(show(directory, out=tmp_path / "page.html", preset="tiny", size_divisor=16).page)
    assert [svg["viewbox"] for svg in page.of("svg")] == ["0 0 128 96"]
    read = next(path["d"] for path in page.of("path") if path["class"] == "read")
    squares = re.findall(r"M(\d+) (\d+)h16v16h-16z", read)
    assert len(squares) == len(set(squares)) == 30
    assert all(int(x) % 16 == 0 and int(x) < 128 and int(y) % 16 == 0 and int(y) < 96 for x, y in squares)
    assert "30 x 40, resized to 96 x 128, 30 of 6 x 8 = 48 places" in page.text


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VQA v2 of ten images, the first with a second question whose answers differ."""
    root = tmp_path_factory.mktemp("asked")
    questions = [question(image, 0, f"Is it {image}?") for image in range(10)]
    annotations = [annotation(image, 0, ["yes"] * 10, kind="yes/no") for image in range(10)]
    questions.append(question(0, 1, "Which <i>one</i>?"))
    annotations.append(annotation(0, 1, ["yes"] * 2 + ["it"] * 8, "<u>it</u>"))
    files = [
        write(root / "questions.json", questions_file("train2014", questions)),
        write(root / "annotations.json", annotations_file("train2014", annotations)),
    ]
    for image in range(10):
        coco_image(root / "coco", "train2014", image)
    build_set(make_builder("vqa2", images=root / "coco", annotations=files), root / "set", workers=1)
    return root / "set"


def test_questions_have_their_scored_answers(asked: Path) -> None:
    sheets = take_images(open_set(asked), "train", 1, SizeRule(96, 160), PixelBertConfig.preset("tiny"))
    assert [(text.text, text.note) for text in sheets[0].texts] == [
        ("Is it 0?", "yes 1"),
        ("Which <i>one</i>?", "yes 0.6"),
    ]


def test_statements_stand_by_both_images(tmp_path: Path) -> None:
    for side in (0, 1):
        path = tmp_path / "images" / "dev" / f"dev-1-0-img{side}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(kind="PNG"))
    file = write_lines(tmp_path / "dev.json", [statement("dev-1-0-0", "Both <b>are</b> dark.", "False")])
    build_set(
        make_builder("nlvr2", images=tmp_path / "images", annotations=[file]), tmp_path / "set", workers=1
    )
    shown = show(tmp_path / "set", out=tmp_path / "page.html")
    page = Page(shown.page)
    assert page.text.count("Both <b>are</b> dark.") == 2
    assert "false with dev-1-0-img1 on the right" in page.text
    assert "false with dev-1-0-img0 on the left" in page.text
    assert any(re.fullmatch(r"words a statement +3 +3 +3 +3 +3 +1", line) for line in shown.lines)


def test_images_are_spread_over_the_split() -> None:
    assert spread(10, 3) == [0, 4, 9]
    assert spread(3, 10) == [0, 1, 2]
    assert spread(1, 5) == [0]
    assert spread(1000, 1) == [0]


def test_the_figures_are_quartiles(tmp_path: Path) -> None:
    captions = [["one two"], ["one", "one two three"], ["a b c d"], [], ["a b c d e f"]]
    sizes = [(10, 20), (20, 20), (30, 20), (40, 20), (50, 100)]
    records = [(b"", *size, own) for size, own in zip(sizes, captions, strict=True)]
    data = open_set(captioned(tmp_path, *records)).split("train")
    summary = summarise(data, SizeRule(10, 20))
    assert summary.rows == [
        Row("height", 10, 20, 30, 40, 50, 5),
        Row("width", 20, 20, 20, 20, 100, 5),
        Row("captions an image", 0, 1, 1, 1, 2, 5),
        Row("words a caption", 1, 2, 3, 4, 6, 5),
    ]
    assert sorted(summary.buckets) == [((10, 10), 1), ((10, 20), 2), ((15, 10), 1), ((20, 10), 1)]
    assert table(summary, shown_buckets=1)[-3:] == [
        "images by size after resizing, height x width (4 in all)",
        "  10 x 20: 2, 40.0 %",
        "  others: 3",
    ]


def test_lengths_in_word_pieces(tmp_path: Path) -> None:
    texts = ["a dog and a cat", "a dog"]
    train_wordpiece(texts, 60).save_pretrained(tmp_path / "tokenizer")
    directory = captioned(tmp_path, (picture(), 6, 8, texts))
    shown = show(directory, out=tmp_path / "page.html", tokenizer=str(tmp_path / "tokenizer"))
    assert any(
        re.fullmatch(r"word pieces a caption +4 +4\.8 +5\.5 +6\.2 +7 +2", line) for line in shown.lines
    )
    with pytest.raises(UserError, match=r"--tokenizer .* cannot be loaded"):
        show(directory, out=tmp_path / "page.html", tokenizer=str(tmp_path / "nothing"))


def test_word_pieces_of_a_large_split_are_counted_of_some(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("pixelbert_fast.data.summary.MOST_TOKENISED", 3)
    tokenizer = train_wordpiece(["a dog"], 60)
    data = open_set(captioned(tmp_path, *[(b"", 6, 8, ["a dog"])] * 10)).split("train")
    summary = summarise(data, SizeRule(10, 20), tokenizer)
    assert [row.number for row in summary.rows] == [10, 10, 3, 3]


def test_the_command_writes_the_page_and_prints_the_figures(
    tmp_path: Path, asked: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["data", "show", str(asked), "--images", "4", "--preset", "tiny"]) == 0
    printed = capsys.readouterr().out
    assert printed.endswith("wrote set-train.html with 4 images\n")
    assert "questions an image" in printed
    assert len(Page(tmp_path / "set-train.html").of("article")) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["set-train.html"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["--split", "tran"], "has no split 'tran', it has: train"),
        (["--preset", "r60"], "--preset must be one of tiny, r50, x152"),
        (["--short-side", "0"], "short_side is 0"),
        (["--short-side", "900", "--long-side", "800"], "long_side (800) is less"),
        (["--size-divisor", "0"], "size_divisor is 0"),
        (["--out", "."], "is a folder"),
    ],
)
def test_a_mistake_is_one_sentence(
    asked: Path, line: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["data", "show", str(asked), *line]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_page_that_cannot_be_written_is_told(asked: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        show(asked, images=1, out=tmp_path / "file" / "page.html")


def test_a_set_built_before_there_were_answers_is_shown(tmp_path: Path) -> None:
    """Questions with an answer and a kind, and nothing else, as `scenes` has them."""
    build_set(make_builder("scenes", images=20), tmp_path / "set", workers=1)
    card = json.loads((tmp_path / "set" / "card.json").read_text())
    assert "files" not in card
    page = Page(show(tmp_path / "set", out=tmp_path / "page.html", preset="tiny", images=2).page)
    record = open_set(tmp_path / "set").split("train")[0]
    assert record["captions"][4] in page.text
    assert record["questions"][0]["question"] in page.text
