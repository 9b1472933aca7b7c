"""What the downstream tasks share: a model to fine-tune, its parameters by optimiser, saving, figures.

A task derives `FineTuningTask` and adds its batches, loss and metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pixelbert_fast.data.processor import PixelBertImageProcessor
from pixelbert_fast.data.vocabulary import train_wordpiece
from pixelbert_fast.errors import UserError
from pixelbert_fast.model import PixelBertConfig
from pixelbert_fast.model.downstream import PixelBertForDownstreamTask
from pixelbert_fast.model.flops import training_flops
from pixelbert_fast.model.heads import ALL_HEADS
from pixelbert_fast.model.trained import load_trained_backbone
from pixelbert_fast.model.weights import load_bert
from pixelbert_fast.tasks.architecture import image_processor, model_config, seeded
from pixelbert_fast.tasks.batched import PairTask
from pixelbert_fast.tasks.pretraining.start import check_checkpoint, load_tokenizer
from pixelbert_fast.tasks.quiet import quietly


class Prepared(NamedTuple):
    """A model to fine-tune, in float32 on the CPU, and what makes its inputs."""

    model: PixelBertForDownstreamTask
    tokenizer: Any
    image_processor: PixelBertImageProcessor


def prepare(
    config, kind: type[PixelBertForDownstreamTask], texts: Callable[[], Iterable[str]], **fields: Any
) -> Prepared:
    """The model of class `kind` that `config` describes.

    From `start.checkpoint`: its architecture, weights and tokenizer, with `data`'s image sides and
    `model.overrides` laid over its configuration; the head too where the checkpoint is of this very task and
    the same labels, else the head starts as its class says. Without one: `model.preset`, and `start.backbone`
    and `start.bert`.

    Args:
        texts: the training texts, read where a vocabulary is to be learnt from them.
        **fields: further fields of the model's configuration, such as `id2label`.

    Raises:
        UserError: a checkpoint, tokenizer or option that is missing or does not fit.
    """
    start = config.start
    if start.checkpoint:
        check_checkpoint(start.checkpoint)
    saved = config.tokenizer.path or start.checkpoint or start.bert
    tokenizer = load_tokenizer(saved) if saved else train_wordpiece(texts(), config.tokenizer.size)
    if start.checkpoint and config.tokenizer.path:
        _check_same_words(tokenizer, config)
    with seeded(config.seed):
        if start.checkpoint:
            model = _from_checkpoint(config, kind, fields)
        else:
            words = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
            model = kind(_labelled(model_config(config, **words), fields), fast=config.model.fast)
    built = model.config
    if len(tokenizer) != built.vocab_size:
        raise UserError(
            f"the tokenizer of {saved} has {len(tokenizer)} word pieces, the model {built.vocab_size}; give "
            "the one that the model was trained with (tokenizer.path=null takes the checkpoint's)"
        )
    if config.data.max_text_length > built.max_position_embeddings:
        raise UserError(
            f"data.max_text_length is {config.data.max_text_length}, but the model reads at most "
            f"{built.max_position_embeddings} word pieces; lower it"
        )
    if start.bert:
        load_bert(model, start.bert)
    if start.backbone:
        load_trained_backbone(model.pixelbert.backbone, start.backbone)
    return Prepared(model, tokenizer, image_processor(config, built))


def _check_same_words(tokenizer: Any, config) -> None:
    """Raises UserError where the checkpoint was trained with other words: each would read as another one."""
    checkpoint = config.start.checkpoint
    if any(Path(checkpoint).glob("tokenizer*")) or any(Path(checkpoint).glob("vocab*")):
        own = load_tokenizer(checkpoint)
        if own.get_vocab() != tokenizer.get_vocab():
            raise UserError(
                f"tokenizer.path {config.tokenizer.path} numbers words otherwise than the tokenizer that "
                f"{checkpoint} was trained with; leave it out (tokenizer.path=null takes the checkpoint's)"
            )


def _labelled(built: PixelBertConfig, fields: Mapping[str, Any]) -> PixelBertConfig:
    for name, value in fields.items():
        setattr(built, name, value)
    return built


def _from_checkpoint(config, kind: type, fields: Mapping[str, Any]) -> PixelBertForDownstreamTask:
    path = config.start.checkpoint
    built = PixelBertConfig.from_pretrained(path)
    told = built.id2label
    known = built.to_dict()
    for name in config.model.overrides:
        if name not in known:
            raise UserError(f"model.overrides: PixelBertConfig has no field {name!r}")
    sides = {"short_side": config.data.short_side, "long_side": config.data.long_side}
    given = {name: side for name, side in sides.items() if side is not None}
    _labelled(built, {**given, **config.model.overrides, **fields})
    try:
        built.check()
        with quietly():
            model, report = kind.from_pretrained(
                path,
                config=built,
                fast=config.model.fast,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except Exception as error:  # transformers and safetensors raise many kinds
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{path} holds no checkpoint that can be fine-tuned: {reason}") from error
    mismatched = [one[0] for one in report["mismatched_keys"]]
    for names, what in ((report["missing_keys"], "lacks"), (mismatched, "has another size of")):
        body = sorted(name for name in names if name.partition(".")[0] not in ALL_HEADS)
        if body:
            raise UserError(
                f"the checkpoint {path} is of another architecture: it {what} {body[0]}; leave out the "
                "model.overrides that change it"
            )
    if mismatched or ("id2label" in fields and told != built.id2label):
        _renew_head(model, kind, built, config.model.fast)
    return model.float().train()


def _renew_head(model: PixelBertForDownstreamTask, kind: type, built: PixelBertConfig, fast: bool) -> None:
    """A head of random weights: one for other answers would be worth nothing."""
    fresh = kind(built, fast=fast)
    for name, head in fresh.named_children():
        if name in ALL_HEADS:
            setattr(model, name, head)


class FineTuningTask(PairTask):
    """The parts of `protocol.Task` that do not depend on the task.

    A subclass sets `name`, and in its constructor calls `take` and sets `_batches`. Batches hold `input_ids`
    and `attention_mask` `[S, T]`, `pixel_values` `[B, 3, H, W]`, `image_index` `[S]`, maybe `pixel_size`
    `[B, 2]`, and `rows` `[B]`.
    """

    name: str

    def __init__(self, config, device="cpu"):
        """Raises UserError for options that fine-tuning has no use for."""
        self._config, self._device = config, device
        if config.data.sets:
            raise UserError(
                f"data.sets is for the task pretrain; a run of {config.task} has one set, data.directory"
            )
        if config.data.epoch:
            raise UserError(f"data.epoch is for the task pretrain; leave it out of a run of {config.task}")

    def take(self, prepared: Prepared) -> None:
        """Makes the model, tokenizer and image processor the task's own."""
        self.model, self.tokenizer, self.image_processor = prepared

    def flops(self, batch: Mapping[str, Tensor]) -> int:
        """Of backbone, projection, encoder and pooler; the heads are a thousandth of it."""
        return sequence_flops(self.model.config, batch, fast=self._config.model.fast)


def sequence_flops(config: PixelBertConfig, batch: Mapping[str, Tensor], *, fast: bool) -> int:
    """Operations of a forward and backward of S sequences of which `[CLS]` alone is read.

    batch: on the CPU, see `FineTuningTask`. fast: FastPixelBERT's, which reads no padding.
    """
    mask, size = batch["attention_mask"], batch["pixel_values"].shape[2:]
    own = batch.get("pixel_size")
    sizes = torch.tensor([tuple(size)]) if own is None or not fast else own
    # The map is reduced by the output stride, and then pooled in windows of two by two.
    places = (-(-sizes // config.output_stride) // 2).prod(dim=1).expand(len(batch["pixel_values"]))
    pixels = places[batch["image_index"].reshape(-1).long()]
    if config.sampled_fine_tuning and config.sampled_pixels is not None:
        pixels = pixels.clamp(max=config.sampled_pixels)
    # A statement about two images is read beside each.
    times = len(pixels) // max(len(mask), 1)
    lengths = mask.sum(dim=1) if fast else torch.full((len(mask),), mask.shape[1])
    found = training_flops(
        config,
        image_size=tuple(size),
        images=len(batch["pixel_values"]),
        sequences=len(pixels),
        text_length=lengths.repeat_interleave(times).tolist(),
        pixels=pixels.tolist(),
        fast=fast,
    )
    return sum(count for part, count in found.items() if part not in ALL_HEADS)
