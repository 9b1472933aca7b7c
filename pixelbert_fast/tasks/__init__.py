"""Tasks: model head, data, loss and metric of each thing a Pixel-BERT is trained for."""

from importlib import import_module
from typing import TYPE_CHECKING

from pixelbert_fast.errors import UserError, nearest

if TYPE_CHECKING:
    from pixelbert_fast.tasks.protocol import Task

_TASKS = {
    "pretrain": "pixelbert_fast.tasks.pretraining.task:PretrainingTask",
    "objects": "pixelbert_fast.tasks.objects.task:ObjectsTask",
    "nlvr2": "pixelbert_fast.tasks.nlvr2.task:NLVR2Task",
}


def make_task(config, device="cpu") -> "Task":
    """The task that `config.task` names, its model and data built from `config`, that of the whole run.

    device: where the model will be trained; images may be decoded there, the model is built on the CPU.
    Raises UserError for an unknown task, and as the task does for a configuration it cannot be built from.
    """
    if config.task not in _TASKS:
        close = nearest(config.task, _TASKS)
        hint = f"did you mean {close}?" if close else f"there are {', '.join(_TASKS)}"
        raise UserError(f"there is no task {config.task!r}; {hint}")
    module, name = _TASKS[config.task].split(":")
    return getattr(import_module(module), name)(config, device)
