"""Exported programs and packages: plain aten, loaded by who knows nothing of this package, equal outputs."""

import operator
import os
import subprocess
import sys

import pytest
import torch

from pixelbert_fast import FastPixelBERT, PixelBERT
from pixelbert_fast.model import export
from pixelbert_fast.model.compilation import can_compile
from pixelbert_fast.model.export import export_for_inference, load_package, save_package
from pixelbert_fast.model.inference_shape import InferenceShape
from tests.compiling import compiling
from tests.small_models import config, text

SHAPE = InferenceShape(images=2, height=48, width=64, sequences=3, words=7)
FULL = InferenceShape(2, 48, 64, 3, 7, pixels=4, padded_images=True)
INDEX = torch.tensor([0, 1, 1])
MASK = torch.tensor([[1] * 7, [1] * 4 + [0] * 3, [1] * 2 + [0] * 5])
SIZES = torch.tensor([[48, 64], [33, 40]])
PLACES = torch.tensor([[0, 5, -1, 4], [1, -1, 0, 4], [-1, -1, 4, 0]])
NAMES = ("last_hidden_state", "pooler_output", "positions", "pixel_mask")
# Float32 through a compiler that fuses and reorders sums: what a drop-in promises.
DROP_IN = {"rtol": 1e-4, "atol": 1e-4}


def images():
    return torch.randn(2, 3, 48, 64, generator=torch.Generator().manual_seed(1))


def inputs(sequences=3, words=7):
    more = {"input_ids": text(sequences, words), "pixel_values": images()}
    if (sequences, words) == (3, 7):
        return more | {"image_index": INDEX, "attention_mask": MASK}
    mask = torch.ones(sequences, words, dtype=torch.int64)
    return more | {"image_index": torch.zeros(sequences, dtype=torch.int64), "attention_mask": mask}


@pytest.fixture(scope="module", params=["frozen", "batch"])
def model(request):
    torch.manual_seed(5)
    model = FastPixelBERT(config(norm=request.param)).eval()
    for name, value in model.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif name.endswith(("running_mean", "bias")):
            value.normal_(std=0.1)
    return model


def reference(model, **given):
    eager = PixelBERT(model.config).eval()
    eager.load_state_dict(model.state_dict())
    with torch.no_grad():
        return eager(**given)


def operators(program):
    """Who owns each operator of the graph and of the graphs in it."""
    modules = [
        module for module in program.graph_module.modules() if isinstance(module, torch.fx.GraphModule)
    ]
    nodes = [node for module in modules for node in module.graph.nodes if node.op == "call_function"]
    targets = {node.target for node in nodes} - {operator.getitem}  # that takes apart what an operator gives
    return {getattr(target, "namespace", str(target)) for target in targets}


@pytest.mark.parametrize("shape", [SHAPE, FULL], ids=["every-place", "padded-and-given"])
def test_the_program_is_plain_aten_and_the_references(model, shape):
    given = inputs() | ({"positions": PLACES, "pixel_size": SIZES} if shape is FULL else {})
    program = export_for_inference(model, shape)
    assert operators(program) == {"aten"}
    found, expected = program.module()(**given), reference(model, **given)
    for name, value in zip(NAMES, found, strict=True):
        torch.testing.assert_close(value, expected[name], **DROP_IN)


def test_a_custom_op_would_be_seen():
    class Drawing(torch.nn.Module):
        def forward(self, grid):
            from pixelbert_fast import ops

            return ops.sample_positions(grid, (2, 2), 1, seed=0)

    assert "pixelbert_fast" in operators(
        torch.export.export(Drawing(), (torch.ones(1, 2, dtype=torch.int32),))
    )


def test_text_length_and_the_number_of_sequences_may_stay_open(model):
    smallest = InferenceShape(2, 48, 64, sequences=1, words=1)
    program = export_for_inference(model, smallest, dynamic=("sequences", "words"))
    for sequences, words in ((3, 7), (1, 1), (5, 64)):
        given = inputs(sequences, words)
        found, expected = program.module()(**given), reference(model, **given)
        torch.testing.assert_close(found[0], expected.last_hidden_state, **DROP_IN)
    with pytest.raises(ValueError, match="dynamic must name some of sequences, words, got height"):
        export_for_inference(model, SHAPE, dynamic=("height",))
    with pytest.raises(ValueError, match="words must be at most 64"):
        export_for_inference(model, InferenceShape(2, 48, 64, 3, 65))


def test_a_program_survives_being_saved(model, tmp_path):
    torch.export.save(export_for_inference(model, SHAPE), tmp_path / "program.pt2")
    found = torch.export.load(tmp_path / "program.pt2").module()(**inputs())
    torch.testing.assert_close(found[0], reference(model, **inputs()).last_hidden_state, **DROP_IN)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """(model, path of its package, open in both sizes)."""
    if can_compile("cpu") is not None:
        pytest.skip(can_compile("cpu"))
    torch.manual_seed(5)
    model = FastPixelBERT(config(norm="batch")).eval()
    directory = tmp_path_factory.mktemp("package")
    with compiling(tmp_path_factory.getbasetemp() / "inductor"):
        yield model, save_package(model, SHAPE, directory / "model.pt2", dynamic=("sequences", "words"))


ELSEWHERE = """
import sys
import torch

run = torch._inductor.aoti_load_package("model.pt2")
torch.save(run(**torch.load("inputs.pt")), "outputs.pt")
assert not [name for name in sys.modules if name.startswith("pixelbert_fast")]
"""


def test_a_package_runs_where_this_one_is_unknown(package):
    model, path = package
    directory = path.parent
    torch.save(inputs(), directory / "inputs.pt")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    # Not even a compiler: all of it was compiled before.
    environment |= {"CXX": str(directory / "no-compiler")}
    environment |= {"TORCHINDUCTOR_CACHE_DIR": str(directory / "other-cache")}
    subprocess.run([sys.executable, "-c", ELSEWHERE], cwd=directory, env=environment, check=True)
    expected = reference(model, **inputs())
    for name, value in zip(NAMES, torch.load(directory / "outputs.pt"), strict=True):
        torch.testing.assert_close(value, expected[name], **DROP_IN)


def test_a_loaded_package_takes_every_open_size_and_either_layout(package):
    model, path = package
    run = load_package(path)
    for sequences, words in ((3, 7), (1, 1), (5, 64)):
        given = inputs(sequences, words)
        found, expected = run(**given), reference(model, **given)
        for name in NAMES:
            torch.testing.assert_close(found[name], expected[name], **DROP_IN)
        given["pixel_values"] = given["pixel_values"].contiguous(memory_format=torch.channels_last)
        assert torch.equal(run(**given).last_hidden_state, found.last_hidden_state)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"input_ids": text(3, 65)}, ValueError, "input_ids must have 1 .. 64 words"),
        ({"pixel_values": images().double()}, ValueError, r"pixel_values must be float32 \[2, 3, 48, 64\]"),
        ({"pixel_values": images()[:1]}, ValueError, r"pixel_values must be float32 \[2, 3, 48, 64\]"),
        ({"image_index": INDEX.int()}, ValueError, "image_index must be int64"),
        ({"image_index": [0, 1, 1]}, TypeError, "image_index must be a tensor int64"),
        ({"input_ids": text(0)}, ValueError, "input_ids must have 1 .. any sequences"),
        ({"positions": PLACES}, TypeError, "the package takes input_ids, pixel_values, image_index"),
        ({"attention_mask": MASK[:2]}, ValueError, "attention_mask must have 3 sequences like input_ids"),
        ({"attention_mask": MASK[:, :5]}, ValueError, "attention_mask must have 7 words like input_ids"),
        ({"input_ids": text(3) + 50}, IndexError, "input_ids must lie in 0 .. 49"),
        ({"image_index": torch.tensor([0, 2, 1])}, IndexError, "image_index must lie in 0 .. 1"),
    ],
)
def test_a_loaded_package_refuses_what_it_was_not_made_for(package, change, error, message):
    with pytest.raises(error, match=message):
        load_package(package[1])(**(inputs() | change))


def test_no_package_without_a_compiler(tmp_path, monkeypatch, model):
    monkeypatch.setattr(export, "can_compile", lambda device: "there is no working C++ compiler")
    with pytest.raises(
        RuntimeError, match=r"save_package cannot compile: there is no working C\+\+ compiler"
    ):
        save_package(model, SHAPE, tmp_path / "model.pt2")
