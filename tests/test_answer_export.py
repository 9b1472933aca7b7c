"""The exported VQA model: plain aten, the model's own logits, and ONNX of it where that is installed."""

import pytest
import torch

from pixelbert_fast.model.answer_export import export_answers
from pixelbert_fast.model.inference_shape import InferenceShape
from tests.small_models import PLACES, SIZES, text
from tests.task_models import VQA, inputs_of, pair_of
from tests.test_export import operators

SHAPE = InferenceShape(images=2, height=48, width=64, sequences=3, words=7)
FULL = InferenceShape(2, 48, 64, 3, 7, pixels=3, padded_images=True)
# Float32 through a compiler that fuses and reorders sums: what a drop-in promises.
DROP_IN = {"rtol": 1e-4, "atol": 1e-4}


def given_for(shape):
    given = inputs_of(VQA, target=False)
    if shape is FULL:
        return given | {"pixel_size": SIZES, "positions": PLACES}
    del given["pixel_size"]
    return given


@pytest.mark.parametrize("shape", [SHAPE, FULL], ids=["every-place", "padded-and-given"])
@pytest.mark.parametrize("fast", [True, False], ids=["fast", "reference"])
def test_the_program_is_plain_aten_and_gives_the_logits(shape, fast, tmp_path):
    model = pair_of(VQA)[fast].eval()
    given = given_for(shape)
    program = export_answers(model, shape)
    assert operators(program) == {"aten"}
    with torch.no_grad():
        expected = model(**given).logits
    torch.testing.assert_close(program.module()(**given), expected, **DROP_IN)
    torch.export.save(program, tmp_path / "answers.pt2")
    loaded = torch.export.load(tmp_path / "answers.pt2").module()
    model.answer_head.classifier.weight.data.zero_()  # the program has its own
    torch.testing.assert_close(loaded(**given), expected, **DROP_IN)


def test_the_number_of_questions_and_their_length_may_stay_open():
    model = pair_of(VQA)[1].eval()
    program = export_answers(model, SHAPE, dynamic=("sequences", "words"))
    for sequences, words in ((1, 4), (5, 20)):
        given = {
            "input_ids": text(sequences, words),
            "pixel_values": inputs_of(VQA)["pixel_values"],
            "image_index": torch.zeros(sequences, dtype=torch.int64),
            "attention_mask": torch.ones(sequences, words, dtype=torch.int64),
        }
        with torch.no_grad():
            torch.testing.assert_close(program.module()(**given), model(**given).logits, **DROP_IN)
    with pytest.raises(ValueError, match="words must be at most 64"):
        export_answers(model, InferenceShape(2, 48, 64, 3, 65))


def test_onnx_gives_the_logits(tmp_path):
    pytest.importorskip("onnxscript", reason="torch.onnx.export needs onnx and onnxscript")
    runtime = pytest.importorskip("onnxruntime", reason="nothing here runs ONNX")
    model = pair_of(VQA)[1].eval()
    given = given_for(SHAPE)
    program = torch.onnx.export(export_answers(model, SHAPE), dynamo=True)
    program.save(str(tmp_path / "answers.onnx"))
    session = runtime.InferenceSession(str(tmp_path / "answers.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {name: value.numpy() for name, value in given.items()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), model(**given).logits, **DROP_IN)
