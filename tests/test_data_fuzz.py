"""The processor, the builders and the readers under random inputs, as `make fuzz-data` has them.

Below it, what that has found: each with the smallest input that showed it.
"""

from __future__ import annotations

import json
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from pixelbert_fast import PixelBertConfig
from pixelbert_fast.data.build import build_set, make_builder
from pixelbert_fast.data.images import to_rgb
from pixelbert_fast.data.json_stream import JsonArray, value_of
from pixelbert_fast.data.records import open_set, read_card, write_card
from pixelbert_fast.data.vocabulary import train_wordpiece
from pixelbert_fast.errors import LONGEST, RunError, UserError
from pixelbert_fast.model.checkpoint_files import read_checkpoint
from pixelbert_fast.training.folder import RunFolder
from pixelbert_fast.training.recipes import load_config
from pixelbert_fast.visualize.report.records import read_run
from tests import fuzz_data, fuzzed_inputs, toy_sets
from tests.fuzzed_cases import WORKED, Target, at_most
from tests.official_files import picture, put

DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Target]:
    return {target.name: target for target in fuzz_data.all_targets(tmp_path_factory.mktemp("fuzz"))}


def test_random_inputs(targets: dict[str, Target], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same cases every time; the slowest targets are left to the long run."""
    slow = {"open a checkpoint", "build easy-vqa", "read a set (vqa2)", "read a set (nlvr2)", "build vqa2"}
    counted = sum(
        (
            fuzz_data.run_batch(target, 7, 12, tmp_path)
            for name, target in sorted(targets.items())
            if name not in slow
        ),
        start=type(fuzz_data.run_batch(targets["read predictions"], 7, 1, tmp_path))(),
    )
    outcomes = {name.partition(": ")[2] for name in counted}
    assert outcomes == {WORKED, "UserError"}


def test_a_wrong_outcome_ends_the_batch(tmp_path: Path) -> None:
    def judge(case: int, folder: Path) -> str:
        folder.joinpath("mess").touch()
        return {0: "worked"}[case // 1000]

    target = Target("break", "numbers", fuzzed_inputs.st.integers(0, 5000), judge)
    with pytest.raises(KeyError):
        fuzz_data.run_batch(target, 0, 50, tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_does_not_end_is_stopped() -> None:
    with pytest.raises(AssertionError, match="still at work"), at_most(1):
        time.sleep(30)


@pytest.mark.parametrize("text", [np.array("a"), torch.tensor(3)])
def test_a_text_without_dimensions(text: object) -> None:
    with pytest.raises(UserError, match="and holds no texts"):
        fuzzed_inputs.PROCESSOR(text=text)


def test_truncation_may_be_none() -> None:
    found = fuzzed_inputs.PROCESSOR(text="a red circle " * 20, truncation=None)
    assert found["input_ids"].shape[1] == 62


@pytest.mark.parametrize(
    "options", [{"size_divisor": 2**31}, {"short_side": 2**20, "long_side": 2**20}, {"size_divisor": 9600}]
)
def test_an_image_does_not_become_a_huge_one(options: dict) -> None:
    with at_most(5), pytest.raises(UserError, match=r"an image would become .* more than 89,478,485"):
        fuzzed_inputs.PROCESSOR(images=picture(1), **options)


def test_a_view_with_steps_is_an_image() -> None:
    content = picture(1)
    steps = memoryview(b"".join(bytes([one, 0]) for one in content))[::2]
    assert np.array_equal(to_rgb(steps), to_rgb(content))


def test_a_word_that_no_tokenizer_reads_is_not_learnt() -> None:
    letters = "".join(chr(97 + number % 26) for number in np.random.default_rng(0).integers(0, 26, 200_000))
    with at_most(10):
        tokenizer = train_wordpiece([letters, "a dog"], 2000)
    assert "dog" in tokenizer.get_vocab() and max(map(len, tokenizer.get_vocab())) <= 100
    with pytest.raises(UserError, match="hold no words"):
        train_wordpiece([letters], 2000)


def test_nested_values_are_not_valid(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="too deep"):
        value_of(DEEP)
    file = put(tmp_path / "a.json", '[{"é": '.encode() + b"[" * 985 + b"]" * 985 + b"}]")
    with pytest.raises(UserError, match="not valid JSON"):
        list(JsonArray(file))
    put(tmp_path / "card.json", DEEP)
    assert read_card(tmp_path) is None
    put(tmp_path / "config.json", DEEP)
    put(tmp_path / "model.safetensors", b"")
    with pytest.raises(UserError, match="cannot be read as JSON"):
        read_checkpoint(tmp_path)
    put(tmp_path / "run.json", DEEP)
    with pytest.raises(UserError, match="no run"):
        read_run(tmp_path)


def test_a_row_longer_than_the_names(tmp_path: Path) -> None:
    put(tmp_path / "images" / "a.jpg", picture(1))
    file = put(tmp_path / "c.csv", b"photo\na.jpg,a dog\n")
    with pytest.raises(UserError, match="no column 'image', it has: photo;"):
        make_builder("captions", images=tmp_path / "images", annotations=[file]).plan()


LAUGHS = "&a [1,1,1,1,1,1,1,1,1,1]" + "".join(
    f", &{after} [" + f"*{before}," * 10 + "]" for before, after in pairwise("abcdefghij")
)
"""A list of a few letters that stands for ten thousand million values."""
ODD = ["2024-99-99", "!!float ''", "!!bool x", "!!timestamp x", "{[a]: b}", "9" * 5000, "&a [*a]", "[" * 1200]


@pytest.mark.parametrize("value", [*ODD, "[" * 60 + "]" * 60, f"[{LAUGHS}]"])
def test_a_recipe_of_odd_values(tmp_path: Path, value: str) -> None:
    file = put(tmp_path / "recipe.yaml", f"model: {{overrides: {{a: {value}}}}}\n".encode())
    with at_most(10), pytest.raises(UserError, match=r"recipe\.yaml"):
        load_config(file)
    with at_most(10), pytest.raises(UserError):
        load_config("demo", [f"model.overrides.a={value}"])


def test_an_override_goes_so_deep() -> None:
    with pytest.raises(UserError, match=r"written key\.path=value"):
        load_config("demo", ["model.overrides." + "a." * 2000 + "a=1"])


@pytest.mark.parametrize("kind", [UserError, RunError])
def test_an_error_is_one_line_of_plain_letters(kind: type) -> None:
    message = str(kind("a\r\n  b \x1b[31m\0\x85" + "c" * 5000 + ": do this"))
    assert message.startswith(r"a b \x1b[31m\x00\x85ccc") and message.endswith("c: do this")
    assert len(message) == LONGEST and " ... " in message
    assert str(kind(message)) == message


def test_an_error_that_quotes_much_blank_space_is_told_at_once() -> None:
    with at_most(5):
        assert str(UserError("\t" + " " * 300_000 + "b \n c")) == "b c"


@pytest.fixture
def partial(tmp_path: Path) -> Path:
    """A build stopped after two of five blocks, of which the second has a dropped record."""
    with pytest.raises(toy_sets.Stop):
        build_set(
            toy_sets.Toy(broken=[4]), tmp_path / "set", workers=1, block=3, progress=toy_sets.stop_after(2)
        )
    return tmp_path / "set.partial"


def resumed(partial: Path) -> list:
    """What a second build renders; the set must be whole then."""
    toy = toy_sets.Toy(broken=[4])
    report = build_set(toy, partial.with_name("set"), workers=1, block=3)
    assert report.counts == {"train": 9, "val": 0, "test": 4} or report.counts == {
        "train": 9,
        "val": 0,
        "test": 3,
    }
    rows = open_set(partial.with_name("set")).split("train")
    assert rows["key"] == [f"train-{number}" for number in range(10) if number != 4]
    assert rows["image"] == [bytes([number]) for number in range(10) if number != 4]
    return toy.rendered


def test_finished_blocks_are_not_rendered_again(partial: Path) -> None:
    assert len(list(partial.glob("train-*.json"))) >= 1
    done = 3 * len(list(partial.glob("train-*.json")))
    assert ("train", done - 1) not in resumed(partial)


@pytest.mark.parametrize("content", [b"3", b"[]", b'{"block": "3"}', b'{"block": 0}', DEEP])
def test_an_identity_of_another_kind(partial: Path, content: bytes) -> None:
    put(partial / "identity.json", content)
    assert ("train", 0) in resumed(partial)


@pytest.mark.parametrize(
    "content", [b"3", b'{"rows": 0, "dropped": "no"}', b'{"rows": 0, "dropped": []}', b'{"rows": [3]}', DEEP]
)
def test_a_summary_of_another_kind(partial: Path, content: bytes) -> None:
    put(partial / "train-000000000.json", content)
    assert ("train", 0) in resumed(partial)


def test_a_block_of_other_bytes_is_rendered_again(partial: Path) -> None:
    file = partial / "train-000000000.arrow"
    file.write_bytes(bytes(file.stat().st_size))  # what a machine that loses its power leaves
    assert ("train", 0) in resumed(partial)


def test_places_outside_an_arrow_file(tmp_path: Path) -> None:
    build_set(toy_sets.Toy(), tmp_path / "set", workers=1)
    (file,) = (tmp_path / "set" / "train").glob("*.arrow")
    content = file.read_bytes()
    ends = np.arange(11, dtype=np.int32)  # of ten images of one byte each, and of their captions
    wrong = ends.copy()
    wrong[5] = 2**31 - 1
    assert ends.tobytes() in content
    file.write_bytes(content.replace(ends.tobytes(), wrong.tobytes(), 1))
    with pytest.raises(UserError, match="cannot be read"):
        open_set(tmp_path / "set").split("train")


@pytest.mark.parametrize(
    "told",
    [{"counts": {"train": "no"}}, {"counts": {"train": -1}}, {"counts": {"train": [1]}}, {"pairs": 3},
     {"pairs": ["train"]}, {"pairs": {"../train": 1}}, {"files": 3}],
)  # fmt: skip
def test_a_card_of_other_kinds(tmp_path: Path, told: dict) -> None:
    write_card(tmp_path, {"counts": {"train": 10, "val": 0}, "pairs": {"train": 0}, "files": {}})
    assert open_set(tmp_path).splits == ["train", "val"]
    write_card(tmp_path, {"counts": {"train": 10}, **told})
    with pytest.raises(UserError, match=r"card\.json .*: build the set again"):
        open_set(tmp_path)


def test_a_list_of_files_too_deep_to_be_read(tmp_path: Path) -> None:
    write_card(tmp_path, {"counts": {"train": 1}})
    put(tmp_path / "train" / "state.json", DEEP)
    with pytest.raises(UserError, match="cannot be read"):
        open_set(tmp_path).split("train")


@pytest.mark.parametrize(
    "index", [{}, {"weight_map": []}, {"weight_map": {"a": ["b"]}}, {"weight_map": {"a": ""}}]
)
def test_an_index_without_names(tmp_path: Path, index: dict) -> None:
    put(tmp_path / "model.safetensors.index.json", json.dumps(index).encode())
    with pytest.raises(UserError, match="weight_map"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "changed",
    [{"num_hidden_layers": 2**31}, {"hidden_size": 2**31}, {"backbone_depths": [1, 1, 1, 2**31]},
     {"layer_norm_eps": [1e-12]}, {"hidden_dropout_prob": 1.5}, {"initializer_range": float("nan")}],
)  # fmt: skip
def test_a_configuration_that_no_model_has(changed: dict) -> None:
    with at_most(5), pytest.raises(ValueError, match=next(iter(changed))):
        PixelBertConfig(**changed)


@pytest.mark.parametrize("content", [b"[]", b'{"steps": [[4]]}', b'"done"', DEEP])
def test_metrics_of_another_kind(tmp_path: Path, content: bytes) -> None:
    assert RunFolder(tmp_path / "run").claim({"seed": 0}, "auto") == "new"
    put(tmp_path / "run" / "metrics.json", content)
    assert read_run(tmp_path / "run").step == 0
    if not content.startswith(b"{"):
        with pytest.raises(UserError, match="is damaged"):
            RunFolder(tmp_path / "run").metrics()
