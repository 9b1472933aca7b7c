"""A model that a run saved, with its processor: opened only where all of it is there."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from pixelbert_fast.data.processor import PixelBertProcessor
from pixelbert_fast.errors import UserError
from pixelbert_fast.model.heads import ALL_HEADS
from pixelbert_fast.model.pixelbert import PixelBertPreTrainedModel
from pixelbert_fast.tasks.pretraining.start import check_checkpoint
from pixelbert_fast.tasks.quiet import quietly

_PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
_ANOTHER = "give the folder that a run wrote, whole"


def checkpoint_folder(path: str | Path) -> Path:
    """The checkpoint in a finished run's folder, or the folder itself."""
    inside = Path(path) / "checkpoint"
    return inside if (inside / "config.json").is_file() else Path(path)


def trained_blank(path: str | Path) -> bool:
    """Whether the run of this folder, or of the one it lies in, was shown no pixels (`start.text_only`)."""
    for folder in (Path(path), Path(path).resolve().parent):
        try:
            told = json.loads((folder / "run.json").read_text(encoding="utf-8"))
            return bool(told["config"]["start"]["text_only"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
    return False


def open_saved(
    folder: Path, kind: type[PixelBertPreTrainedModel]
) -> tuple[PixelBertPreTrainedModel, PixelBertProcessor, frozenset[str]]:
    """(model of class `kind` in float32 on the CPU in evaluation mode, its processor, heads not found).

    transformers fills up with random weights what a file lacks, and makes an empty tokenizer where there is
    none: here both are errors, but for a head, of which the caller knows whether it is needed.

    Raises:
        UserError: there is no checkpoint, none of a Pixel-BERT, or one of which something is missing, damaged
            or of another model.
    """
    check_checkpoint(str(folder))
    if not any((folder / name).is_file() for name in _PROCESSOR_FILES):
        raise UserError(f"{folder} has no processor ({_PROCESSOR_FILES[0]}): {_ANOTHER}")
    try:
        with quietly():
            # What does not fit is told below, by its name.
            model, report = kind.from_pretrained(
                folder, output_loading_info=True, ignore_mismatched_sizes=True
            )
            processor = PixelBertProcessor.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # transformers and safetensors raise many kinds
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{folder} holds no checkpoint that can be used: {reason}") from error
    missing = sorted(report["missing_keys"])
    lacking = {name.partition(".")[0] for name in missing} & set(ALL_HEADS)
    body = [name for name in missing if name.partition(".")[0] not in lacking]
    sizes = sorted(one[0] for one in report["mismatched_keys"])
    for names, what in ((body, "lack"), (sizes, "have another size of")):
        if names:
            raise UserError(
                f"the weights in {folder} do not fit its config.json, they {what} {names[0]}: {_ANOTHER}"
            )
    for name, weight in model.state_dict().items():
        if weight.is_floating_point() and not torch.isfinite(weight).all():
            raise UserError(
                f"{folder} holds weights that are no numbers (in {name}): its training diverged, or the file "
                "is damaged; give another checkpoint"
            )
    known, words = len(processor.tokenizer), model.config.vocab_size
    if known != words:
        raise UserError(
            f"the tokenizer in {folder} has {known} word pieces and the model {words}: it is another model's "
            f"or a file of it is missing; {_ANOTHER}"
        )
    fresh = {
        name for name, head in model.named_children() if name in ALL_HEADS and getattr(head, "fresh", False)
    }
    return model.float().eval(), processor, frozenset(lacking | fresh)
