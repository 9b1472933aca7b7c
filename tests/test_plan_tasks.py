"""Plans of fine-tuning against the tasks themselves: parameters, operations, memory and steps."""

from __future__ import annotations

import pytest
import torch

from pixelbert_fast import PixelBertConfig, PixelBertForImageTextRetrieval
from pixelbert_fast.data.build import build_set, make_builder
from pixelbert_fast.errors import UserError
from pixelbert_fast.model.memory import group_bytes
from pixelbert_fast.tasks import make_task
from pixelbert_fast.training.plan import Machine, plan
from pixelbert_fast.training.plan_text import table
from pixelbert_fast.training.recipes import load_config
from tests import toy_pairs, vqa_sets
from tests.live_memory import LiveMemory
from tests.test_retrieval_task import settings

WORDS = 12
RETRIEVAL = {
    "embeddings": {"cache": "embeddings"},
    "c5": {"cache": "c5"},
    "none": {"cache": "none"},
    "trained": {"cache": "none", "freeze_backbone": False},
    "all learnt": {"cache": "none", "hardest": None},
    "more than there are": {"cache": "embeddings", "hardest": 50},
}
CASES = ["vqa", "nlvr2", *RETRIEVAL]


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Sets, and a checkpoint of another width than the preset's, whose word pieces are known."""
    folder = tmp_path_factory.mktemp("plans")
    build_set(make_builder("scenes", images=60, seed=1, size=48), folder / "scenes")
    vqa_sets.build(folder / "vqa")
    toy_pairs.build(folder / "pairs")
    task = make_task(settings(folder / "scenes", folder))
    task.save(task.model, folder / "checkpoint")
    return folder


def configuration(sets, name, output):
    start = {"checkpoint": str(sets / "checkpoint")}
    data = {"short_side": 48, "long_side": 64, "max_text_length": WORDS}
    if name == "vqa":
        given = {"data": {"directory": str(sets / "vqa"), **data, "captions_per_image": 3}}
        return vqa_sets.config(
            sets / "vqa", output=str(output), start=start, model={"overrides": {}}, **given
        )
    if name == "nlvr2":
        sections = {"data": data, "start": start, "model": {"preset": "tiny"}, "output": str(output)}
        found = toy_pairs.config(sets / "pairs", training={"images_per_batch": 7}, **sections)
        return found.model_copy(update={"model": found.model.model_copy(update={"overrides": {}})})
    return settings(
        sets / "scenes",
        output,
        retrieval={"negatives": 6, "hardest": 2, **RETRIEVAL[name]},
        data={"directory": str(sets / "scenes"), **data},
        start=start,
        model={"overrides": {}},
    )


def batch_of(task, name, size, images):
    """As large as the plan takes it to be: texts of the greatest length, photos of the typical size."""
    texts = {"vqa": 3, "nlvr2": 1}.get(name, 7)
    count = images // 2 if name == "nlvr2" else images * texts
    index = torch.arange(images).repeat_interleave(texts)
    batch = {
        "rows": torch.arange(images),
        "attention_mask": torch.ones(count, WORDS, dtype=torch.int64),
        "image_index": index.view(-1, 2) if name == "nlvr2" else index,
        "groups": torch.zeros(images, 7, dtype=torch.int64),
    }
    rows, columns = (task.model.pixelbert.backbone.map_size(side) for side in size)
    grid = torch.tensor([[rows // 2, columns // 2]]).expand(images, 2)
    if name == "c5":
        batch |= {"features": torch.zeros(images, 1, rows, columns), "valid_grid": grid}
    elif name in ("embeddings", "more than there are"):
        batch["valid_grid"] = grid
    else:
        batch["pixel_values"] = torch.zeros(images, 3, *size)
    return batch


@pytest.mark.parametrize("name", CASES)
def test_parameters_and_operations_are_the_tasks(sets, tmp_path, name):
    config = configuration(sets, name, tmp_path)
    made, task = plan(config, Machine()), make_task(config)
    counted = {part: parameter.numel() for part, parameter in task.model.named_parameters()}
    trained = sum(
        parameter.numel() for own in task.parameter_groups(task.model).values() for _, parameter in own
    )
    assert made["parameters"]["all"] == sum(counted.values())
    assert made["parameters"]["trained"] == trained
    head = {"vqa": "answer_head", "nlvr2": "pair_head"}.get(name, "score_head")
    assert made["parameters"][head] == sum(n for part, n in counted.items() if part.startswith(head)) > 0
    assert made["flops_per_step"][head] > 0
    images = config.training.images_per_batch
    images = images // 2 * 2 if name == "nlvr2" else images
    batch = batch_of(task, name, made["image"]["typical"], images)
    # Of questions and statements the task leaves out the head.
    planned = sum(
        count for part, count in made["flops_per_step"].items() if name in RETRIEVAL or part != head
    )
    assert planned == task.flops(batch)
    assert str(sets / "checkpoint") in table(made).replace("\n", "").replace(" ", "")


@pytest.mark.parametrize("name", ["vqa", "nlvr2", "embeddings"])
def test_steps_are_the_tasks(sets, tmp_path, name):
    config = configuration(sets, name, tmp_path)
    for world in (1, 2):
        expected = make_task(config).steps_per_epoch(world)
        assert plan(config, Machine(gpus=world))["steps_per_epoch"] == expected


@pytest.mark.parametrize(
    "options", [{"epoch": "captions"}, {"epoch": "captions", "train_captions": "distinct"}]
)
def test_an_epoch_of_captions_shows_each(sets, tmp_path, options):
    config = configuration(sets, "embeddings", tmp_path)
    config = config.model_copy(update={"retrieval": config.retrieval.model_copy(update=options)})
    assert plan(config, Machine())["steps_per_epoch"] == make_task(config).steps_per_epoch(1)


@pytest.mark.parametrize("task", ["retrieval_coco", "vqa", "nlvr2"])
@pytest.mark.parametrize("preset", ["r50", "x152"])
def test_a_checkpoint_that_is_not_there_is_planned_by_its_recipe(task, preset):
    made = plan(load_config(f"{task}_{preset}"), Machine(8, 80.0))
    earlier = plan(load_config(f"pretrain_{preset}"), Machine(8, 80.0))
    for part in ("backbone", "projection", "embeddings", "encoder", "pooler"):
        assert made["parameters"][part] == earlier["parameters"][part]
    assert made["architecture_by"] == f"recipe pretrain_{preset}" in table(made)


@pytest.mark.parametrize("kept", ["embeddings", "c5", "none", "trained"])
def test_what_a_step_of_retrieval_holds_is_told(kept):
    config = PixelBertConfig.preset("tiny", norm="frozen")
    images, negatives, hardest, size = 4, 20, 5, (96, 128)
    model = PixelBertForImageTextRetrieval(config).train()
    inner, sequences = model.pixelbert, images * (1 + negatives)
    if kept != "trained":
        inner.backbone.requires_grad_(False)
    if kept == "embeddings":
        inner.pixel_projection.requires_grad_(False)
        inner.pixel_type_embedding.requires_grad_(False)
    pictures = torch.randn(images, 3, *size)
    given = {"pixel_values": pictures}
    with torch.no_grad():
        embedded = inner.embed_pixels(pictures)
        if kept == "embeddings":
            given = {"pixel_embeddings": embedded}
        if kept == "c5":
            from pixelbert_fast.model.outputs import FeatureMaps

            maps = inner.run_backbone(pictures, None)
            given = {"pixel_embeddings": FeatureMaps(maps, embedded.valid_grid)}
    inputs = {
        "input_ids": torch.randint(5, 60, (sequences, WORDS)),
        "image_index": torch.arange(images).repeat_interleave(1 + negatives),
        "groups": torch.arange(sequences).view(images, -1),
        "hardest": hardest,
        "seed": 0,
        **given,
    }
    model(**inputs).loss.backward()
    with LiveMemory() as live:
        model(**inputs).loss.backward()
    told = group_bytes(
        config,
        image_size=size,
        images=images,
        sequences=sequences,
        learnt=images * (1 + hardest),
        text_length=WORDS,
        pixels=embedded.values.shape[1],
        kept="none" if kept == "trained" else kept,
        frozen=kept != "trained",
    )
    print(f"{kept}: {live.peak / 1e6:.1f} MB at the peak, {told / 1e6:.1f} told")
    # As tests/test_kept_memory.py; which pass is the higher one depends on the shapes.
    assert live.peak / 1.4 <= told <= live.peak * 1.4


def test_vqa_is_not_planned_for_a_set_without_questions(sets, tmp_path):
    asked = load_config("vqa_r50", [f"data.directory={sets / 'pairs'}", f"output={tmp_path}"])
    with pytest.raises(UserError, match=r"the set in .*pairs asks no questions"):
        plan(asked, Machine(1, 24.0))
