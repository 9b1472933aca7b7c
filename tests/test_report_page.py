"""The pages of a run, of several and of an evaluation: what they say, and that nothing in them can run."""

from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from pixelbert_fast import cli
from pixelbert_fast.commands.report import report_run
from pixelbert_fast.tasks.examples import Example, Group, Picture, WordMap
from pixelbert_fast.visualize.report.evaluation import evaluation_page
from pixelbert_fast.visualize.report.page import Material, report_page
from pixelbert_fast.visualize.report.records import read_run
from tests.run_folders import HOSTILE, SPLIT, run_folder


class Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attributes) -> None:
        self.found.append((tag, dict(attributes)))

    def handle_data(self, data) -> None:
        self.words.append(data)


def jpeg(value: int, size: tuple[int, int] = (48, 64)) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(stream, "JPEG")
    return stream.getvalue()


def example(text: str = HOSTILE, right: bool = False) -> Example:
    word = WordMap(HOSTILE, np.arange(12, dtype=np.float32).reshape(3, 4), (1.0, 1.0))
    pictures = (Picture(jpeg(90), HOSTILE, HOSTILE, True, (word, word)),)
    return Example(text, right, pictures, ((HOSTILE, 0.75), ("b", None)), HOSTILE, 0.9)


def page_of(folder: Path, **material) -> str:
    return report_page(read_run(folder), Material(**material))


def test_a_page_loads_and_runs_nothing(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", evaluated=(50,))
    groups = [Group("What?", HOSTILE, 4, 1, [example(), example("a fine <b>text</b>", True)])]
    page = page_of(folder, recipe=f"name: {HOSTILE}", groups=groups, sets=[(HOSTILE, {}, HOSTILE)])
    tags = Tags(page).found
    assert [tag for tag, _ in tags].count("script") == 1
    for tag, attributes in tags:
        assert not any(name.startswith("on") for name in attributes), tag
        for name in ("src", "href"):
            value = attributes.get(name) or ""
            assert value.startswith(("data:", "#")) or not value, value
    assert "http" not in page.replace("http-equiv", "")
    assert HOSTILE in "".join(Tags(page).words)
    assert "<b>" not in page.replace("<b>90.0", "").replace("<b>50.0", "").replace("<b>70.0", "")


def test_an_image_is_in_the_page_once_however_often_it_is_shown(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run")
    page = page_of(folder, groups=[Group("What?", "", 9, 9, [example() for _ in range(9)])])
    assert page.count("data:image/jpeg") == 1
    assert page.count('class="shot p0"') == 27
    assert page.count("data:image/png") == 18


def test_a_picture_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    broken = Example("text", False, (Picture(b"nothing", "key-7"),), (), "truth", 0.5)
    page = page_of(run_folder(tmp_path / "run"), groups=[Group("What?", "", 1, 1, [broken])])
    assert "key-7" in page


def test_metrics_stand_beside_chance_and_the_twin(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run")
    blind = json.loads(json.dumps(SPLIT)) | {"itm_accuracy": 0.512}
    twin = read_run(run_folder(tmp_path / "blind", metrics={"val": blind}, start={"text_only": True}))
    page = page_of(folder, twin=twin)
    line = re.search(r'<th scope="row">matching</th>(.*?)</tr>', page)[1]
    assert re.findall(r">([^<]+)</td>", line) == ["90.0\u202f%", "400", "50.0\u202f%", "51.2\u202f%"]
    assert "without pixels (blind)" in page


@pytest.mark.parametrize(
    ("steps", "sections", "said"),
    [
        (10, {}, "has reached epoch 1.00 (step 100) of 3 epochs"),
        (10, {"training": {"steps": 300}}, "has reached step 100 of 300 steps"),
        (0, {}, "Nothing is logged yet"),
    ],
)
def test_an_unfinished_run_says_so_first(tmp_path: Path, steps: int, sections: dict, said: str) -> None:
    page = page_of(run_folder(tmp_path / "run", steps=steps, finished=False, **sections))
    assert said in page
    assert page.index("NOT FINISHED") < page.index("<main>")
    assert "NOT FINISHED" not in page_of(run_folder(tmp_path / "done"))


def test_every_quantity_of_the_log_has_its_curve(tmp_path: Path) -> None:
    page = page_of(run_folder(tmp_path / "run", evaluated=(50,)))
    titles = re.findall(r"<figcaption>([^<]+)</figcaption>", page)
    assert titles == [
        "Loss",
        "Accuracy while training",
        "Evaluated on the way",
        "Learning rate",
        "Gradient norm before clipping",
        "Throughput",
        "Seconds a step",
        "Share of time spent waiting for data",
        "Memory",
    ]
    # The MFU of an unknown device is null throughout.
    assert "MFU" not in page


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), None])
def test_one_value_that_is_no_number_changes_no_chart(tmp_path: Path, bad: float | None) -> None:
    folder = run_folder(tmp_path / "run")
    log = folder / "log.jsonl"
    records = [json.loads(line) for line in log.read_text().splitlines()]
    # The first, which min() and max() would keep, as they compare everything with it.
    records[0] |= {"itm_accuracy": bad, "loss": bad, "mlm_loss": bad}
    next(one for one in reversed(records) if one["kind"] == "train")["loss"] = 1e-3
    log.write_text("".join(json.dumps(one) + "\n" for one in records))

    def chart(page: str, title: str) -> tuple[list[str], str]:
        (found,) = re.findall(rf"<figcaption>{title}</figcaption>.*?</figure>", page, re.DOTALL)
        return re.findall('data-name="([^"]+)"', found), found.split('data-scale="')[1].split('"')[0]

    page = page_of(folder)
    assert chart(page, "Loss") == (["all", "masked words (MLM)"], "log")
    assert chart(page, "Accuracy while training") == (["matching accuracy"], "linear")


def test_several_runs_are_compared(tmp_path: Path) -> None:
    folders = [
        run_folder(tmp_path / "one"),
        run_folder(
            tmp_path / "two", steps=20, finished=False, evaluated=(100,), seed=7, model={"preset": "r50"}
        ),
    ]
    out = tmp_path / "out" / "page.html"
    result = CliRunner().invoke(cli.app, ["report", *map(str, folders), "--out", str(out)])
    assert result.exit_code == 0, result.output
    page = out.read_text(encoding="utf-8")
    assert "NOT FINISHED: two." in page
    # Only one was evaluated on the way, which makes two curves.
    assert page.count('data-name="one"') == page.count('data-name="two"') - 2 > 5
    differing = re.findall(r'<th scope="row">([a-z_]+\.?[a-z_.]*)</th><td class="long">', page)
    assert differing == ["model.preset", "seed"]
    assert '<td class="long">tiny</td><td class="long">r50</td>' in page


def test_the_command_writes_into_the_run_and_says_why_there_are_no_examples(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", data={"directory": str(tmp_path / "gone")})
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint" / "config.json").write_text("{}")
    result = CliRunner().invoke(cli.app, ["report", str(folder)])
    assert result.exit_code == 0, result.output
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert f"There are none: there is no data set at {tmp_path / 'gone'}" in page
    assert "directory: " in page and "With every default" in page


def test_a_full_disk_for_temporary_files_costs_the_examples_alone(tmp_path: Path, monkeypatch) -> None:
    folder = run_folder(tmp_path / "run", finished=False)

    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryDirectory", full)
    report_run(folder, examples=True)  # as a training does, which needs no room
    assert "There are none: there is no data set" in (folder / "report.html").read_text(encoding="utf-8")
    assert CliRunner().invoke(cli.app, ["report", str(folder)]).exit_code == 0
    assert "There are none: [Errno 28] No space left" in (folder / "report.html").read_text(encoding="utf-8")


def test_mistakes_of_the_command_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["report", str(tmp_path / "none")]) == 2
    assert "there is no run in" in capsys.readouterr().err
    folder = run_folder(tmp_path / "run")
    assert cli.main(["report", str(folder), "--out", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err


def test_the_page_of_an_evaluation() -> None:
    about = {"task": "vqa", "checkpoint": HOSTILE, "data": "data/x", "split": "val"}
    metrics = {"accuracy": 0.8, "questions": 10, "by_answer_type": {}, "by_question_type": {}}
    groups = [Group("What?", "", 2, 1, [example()])]
    page = evaluation_page(about, metrics, {"all": 0.4}, groups, "", {"versions": {"torch": "2"}})
    assert "80.0\u202f%" in page and "40.0\u202f%" in page
    assert [tag for tag, _ in Tags(page).found].count("script") == 1
