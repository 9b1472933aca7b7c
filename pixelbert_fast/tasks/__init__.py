"""Tasks: model head, data, loss and metric of each thing a Pixel-BERT is trained for."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pixelbert_fast.errors import UserError, nearest

if TYPE_CHECKING:
    from pixelbert_fast.tasks.examples import Group
    from pixelbert_fast.tasks.fine_tuned import Evaluated
    from pixelbert_fast.tasks.protocol import Task

_TASKS = {
    "pretrain": "pixelbert_fast.tasks.pretraining.task:PretrainingTask",
    "objects": "pixelbert_fast.tasks.objects.task:ObjectsTask",
    "vqa": "pixelbert_fast.tasks.vqa.task:VqaTask",
    "nlvr2": "pixelbert_fast.tasks.nlvr2.task:NLVR2Task",
    "retrieval": "pixelbert_fast.tasks.retrieval.task:RetrievalTask",
}

# What evaluates a checkpoint of each: a function of (checkpoint, BuiltSet, split, EvaluationRequest).
_EVALUATIONS = {
    "vqa": "pixelbert_fast.tasks.vqa.checkpoint:evaluate_checkpoint",
    "nlvr2": "pixelbert_fast.tasks.nlvr2.checkpoint:evaluate_checkpoint",
    "retrieval": "pixelbert_fast.tasks.retrieval.checkpoint:evaluate_checkpoint",
    "grounding": "pixelbert_fast.tasks.grounding.checkpoint:evaluate_checkpoint",
}

# What finds examples of what a checkpoint of each gets right and wrong: of (checkpoint, BuiltSet, split,
# ExampleRequest). The task "objects" leaves no model behind that could be asked.
_EXAMPLES = {
    "pretrain": "pixelbert_fast.tasks.pretraining.examples:examples",
    "vqa": "pixelbert_fast.tasks.vqa.examples:examples",
    "nlvr2": "pixelbert_fast.tasks.nlvr2.examples:examples",
    "retrieval": "pixelbert_fast.tasks.retrieval.examples:examples",
}


def make_task(config, device="cpu") -> "Task":
    """The task that `config.task` names, its model and data built from `config`, that of the whole run.

    device: where the model will be trained; images may be decoded there, the model is built on the CPU.
    Raises UserError for an unknown task, and as the task does for a configuration it cannot be built from.
    """
    return _named(config.task, _TASKS, "task")(config, device)


def checkpoint_evaluation(task: str) -> "Callable[..., Evaluated]":
    """What evaluates a fine-tuned checkpoint of `task`, called as `tasks.vqa.checkpoint.evaluate_checkpoint`.

    Raises UserError for an unknown task.
    """
    return _named(task, _EVALUATIONS, "task with an evaluation of checkpoints")


def checkpoint_examples(task: str) -> "Callable[..., list[Group]]":
    """What finds examples for a checkpoint of `task`, called as `tasks.pretraining.examples.examples`.

    Raises UserError for an unknown task, and for "objects".
    """
    return _named(task, _EXAMPLES, "task with examples")


def _named(task: str, places: Mapping[str, str], what: str) -> Any:
    if task not in places:
        close = nearest(task, places)
        hint = f"did you mean {close}?" if close else f"there are {', '.join(places)}"
        raise UserError(f"there is no {what} {task!r}; {hint}")
    module, name = places[task].split(":")
    return getattr(import_module(module), name)
