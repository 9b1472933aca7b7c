"""transformers' own tools with our VQA model: Trainer fine-tunes it, a pipeline answers with it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BertTokenizer, Trainer, TrainingArguments, pipeline, set_seed

from pixelbert_fast import (
    PixelBertForPreTraining,
    PixelBertForVisualQuestionAnswering,
    PixelBertProcessor,
)
from pixelbert_fast.data.processor import PixelBertImageProcessor
from pixelbert_fast.errors import UserError
from pixelbert_fast.model import answer_labels
from pixelbert_fast.tasks.vqa.pipeline import TASK, VisualQuestionAnsweringPipeline
from tests.small_models import config

COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 230)}
ANSWERS = [*COLOURS, "yes", "no"]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "what", "colour", "is", "it", "?", *COLOURS]


def picture(colour, height=48, width=64):
    return Image.fromarray(np.full((height, width, 3), COLOURS[colour], dtype=np.uint8))


@pytest.fixture(scope="module")
def processor():
    tokenizer = BertTokenizer(vocab={word: place for place, word in enumerate(WORDS)})
    return PixelBertProcessor(PixelBertImageProcessor(short_side=48, long_side=64), tokenizer)


def asked():
    """(image, question, answer): the question of an image's colour, and whether it is each one."""
    told = []
    for number, colour in enumerate(COLOURS):
        height = 48 + 8 * number  # sizes differ, so that batches are padded
        told.append((picture(colour, height), "what colour is it ?", colour))
        for other in COLOURS:
            told.append((picture(colour, height), f"is it {other} ?", "yes" if other == colour else "no"))
    return told


def examples(processor):
    for image, question, answer in asked():
        given = processor(images=image, text=question)
        scores = torch.zeros(len(ANSWERS))
        scores[ANSWERS.index(answer)] = 1
        yield {
            "pixel_values": given["pixel_values"][0],
            "input_ids": given["input_ids"][0],
            "labels": scores,
        }


def collate(processor):
    def batch(rows):
        pixel_values, pixel_size = processor.image_processor.pad([row["pixel_values"] for row in rows])
        ids = torch.nn.utils.rnn.pad_sequence([row["input_ids"] for row in rows], batch_first=True)
        return {
            "pixel_values": pixel_values,
            "pixel_size": pixel_size,
            "input_ids": ids,
            "attention_mask": (ids != 0).long(),
            "labels": torch.stack([row["labels"] for row in rows]),
        }

    return batch


def test_trainer_fine_tunes_the_model(processor, tmp_path):
    pytest.importorskip("accelerate", reason="transformers.Trainer needs accelerate")
    set_seed(0)
    settings = config(vocab_size=len(WORDS), **answer_labels(ANSWERS))
    model = PixelBertForVisualQuestionAnswering(settings)
    rows = list(examples(processor))
    trainer = Trainer(
        model,
        TrainingArguments(
            str(tmp_path / "run"),
            max_steps=60,
            per_device_train_batch_size=6,
            per_device_eval_batch_size=12,
            gradient_accumulation_steps=2,
            learning_rate=2e-3,
            lr_scheduler_type="constant",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            save_strategy="no",
        ),
        data_collator=collate(processor),
        train_dataset=rows,
        eval_dataset=rows,
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    told = trainer.predict(rows)
    assert told.metrics["test_loss"] < before / 2
    assert told.predictions.shape == (len(rows), len(ANSWERS))
    right = told.predictions.argmax(axis=1) == told.label_ids.argmax(axis=1)
    assert right[::4].all()  # the questions of colour, which nothing but the image answers
    trainer.save_model(str(tmp_path / "saved"))
    loaded = PixelBertForVisualQuestionAnswering.from_pretrained(tmp_path / "saved")
    assert not loaded.answer_head.fresh and loaded.config.id2label == dict(enumerate(ANSWERS))


@pytest.fixture(scope="module")
def saved(processor, tmp_path_factory):
    """A folder with a model and its processor, as a fine-tuning writes it."""
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("vqa")
    settings = config(vocab_size=len(WORDS), **answer_labels(ANSWERS))
    PixelBertForVisualQuestionAnswering(settings).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def expected_of(saved, processor, image, question):
    model = PixelBertForVisualQuestionAnswering.from_pretrained(saved).eval()
    with torch.no_grad():
        scores = model(**processor(images=image, text=question)).logits[0].sigmoid().tolist()
    return sorted(zip(scores, ANSWERS, strict=True), reverse=True)


def test_a_pipeline_answers_with_the_model(saved, processor, tmp_path):
    ask = pipeline(TASK, model=str(saved), device="cpu")
    assert isinstance(ask, VisualQuestionAnsweringPipeline)
    picture("red").save(tmp_path / "red.png")
    question = "what colour is it ?"
    expected = expected_of(saved, processor, picture("red"), question)
    for image in (picture("red"), str(tmp_path / "red.png"), np.asarray(picture("red"))):
        found = ask(image=image, question=question, top_k=3)
        assert [one["answer"] for one in found] == [answer for _, answer in expected[:3]]
        assert [one["score"] for one in found] == pytest.approx([score for score, _ in expected[:3]])
    assert ask({"image": picture("red"), "question": question}, top_k=3) == found
    assert len(ask(image=picture("red"), question=question, top_k=99)) == len(ANSWERS)


def test_a_pipeline_says_that_nothing_has_learnt_to_answer(saved, processor, tmp_path, caplog):
    pipeline(TASK, model=str(saved), device="cpu")
    assert not caplog.records
    PixelBertForPreTraining(config(vocab_size=len(WORDS))).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    pipeline(TASK, model=str(tmp_path), device="cpu")
    assert [f"{tmp_path} has no answer head" in one.getMessage() for one in caplog.records] == [True]


def test_a_pipeline_takes_lists(saved, processor):
    model = PixelBertForVisualQuestionAnswering.from_pretrained(saved)
    ask = VisualQuestionAnsweringPipeline(model=model, processor=processor, device="cpu")
    red, blue, questions = picture("red"), picture("blue", 56), ["is it red ?", "is it blue ?"]

    def each(*pairs):
        return [ask(image=image, question=question) for image, question in pairs]

    found = ask(image=red, question=questions)
    assert found == each((red, questions[0]), (red, questions[1]))
    assert ask([red, blue], questions) == each((red, questions[0]), (blue, questions[1]))
    assert ask(image=[red, blue], question=questions[0]) == each((red, questions[0]), (blue, questions[0]))
    assert ask([{"image": blue, "question": questions[1]}]) == each((blue, questions[1]))
    with pytest.raises(UserError, match="1 images came with 2 questions"):
        ask([red], questions)
    with pytest.raises(UserError, match="there is no question"):
        ask(red)
    with pytest.raises(UserError, match="top is no option of this pipeline"):
        ask(red, questions[0], top=3)
