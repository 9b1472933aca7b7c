"""Weights that others trained, into this package's backbone and Transformer.

Nothing is copied before every shape has been compared, so a refused checkpoint leaves the model as it was.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from .checkpoint_files import Checkpoint, Source, read_checkpoint

logger = logging.getLogger(__name__)

_TORCHVISION_ANCHOR = "layer1.0.conv1.weight"
_TRANSFORMERS_ANCHOR = "embedder.embedder.convolution.weight"
_BERT_ANCHOR = "embeddings.word_embeddings.weight"

_CLASSIFIER = re.compile(r"(fc|classifier|head\.fc)(\.\d+)?\.(weight|bias)")

# What a fresh ResNetConfig and BertConfig say, for the fields that change the function but no shape.
_RESNET_EXPECTED = {
    "downsample_in_bottleneck": False,
    "downsample_in_first_stage": False,
    "hidden_act": "relu",
}
_BERT_COMPARED = {"num_attention_heads": 12, "hidden_act": "gelu"}


@dataclass(frozen=True)
class LoadReport:
    """What came of an import."""

    source: str
    loaded: int
    """How many tensors were copied."""
    missing: tuple[str, ...]
    """Keys of the model that the checkpoint does not have; these weights stay as they were."""
    unexpected: tuple[str, ...]
    """Keys of the checkpoint that the model has no place for (a classifier and its like are not listed)."""


def load_backbone(backbone: nn.Module, source: Source, *, prefix: str | None = None) -> LoadReport:
    """Copy ResNet or ResNeXt weights into `backbone` (`model.backbone.ResNet`).

    Args:
        backbone: what is written to.
        source: a checkpoint file, a directory with one, a state dict, a module, or a hub name. Its keys may
            be torchvision's, timm's (the same for ResNets whose stem is one 7x7 convolution) or those of
            transformers' `ResNetModel` and `ResNetForImageClassification`. A prefix shared by the keys
            ("module.", "backbone.", ...) is found and dropped; the classifier is ignored. A bare state dict
            in transformers' names says nothing of its strides: those of `ResNetConfig` are assumed.
        prefix: which of several ResNets inside the checkpoint to take.

    Returns:
        missing and unexpected keys, which are also logged as a warning. `num_batches_tracked` is optional.

    Raises:
        UserError: nothing can be read, no ResNet is in it, its configuration differs in a way that shapes do
            not show, or a tensor has another shape (named, with both shapes).
    """
    checkpoint = read_checkpoint(source)
    anchors = (_TORCHVISION_ANCHOR, _TRANSFORMERS_ANCHOR)
    found = {start: anchor for anchor in anchors for start in _prefixes(checkpoint.tensors, anchor)}
    if prefix is not None:
        found = {start: anchor for start, anchor in found.items() if start == prefix}
    if len(found) != 1:
        raise UserError(_which_resnet(checkpoint, found, prefix))
    ((start, anchor),) = found.items()
    if anchor == _TRANSFORMERS_ANCHOR:
        _check_resnet_config(checkpoint)
    state = backbone.state_dict()
    renamed, unexpected = {}, []
    for key in checkpoint.tensors:
        own = key.removeprefix(start)
        own = _torchvision_name(own) if anchor == _TRANSFORMERS_ANCHOR else own
        if own in state and key.startswith(start):
            renamed[own] = key
        elif not _CLASSIFIER.fullmatch(key.removeprefix(start)) and not key.endswith("num_batches_tracked"):
            unexpected.append(key)
    return _copy(backbone, checkpoint, renamed, unexpected, state)


def load_bert(model: nn.Module, source: Source) -> LoadReport:
    """Copy a BERT's embeddings, encoder and pooler into a PixelBERT, or a model with one as `pixelbert`.

    Args:
        model: what is written to. Where it has an `mlm_head`, `cls.predictions` goes there.
        source: a checkpoint file, a directory with one (and `config.json`), a state dict, a module, or a hub
            name. Keys may start with "bert." or another prefix; the "gamma" and "beta" of old ones are known.

    Returns:
        missing and unexpected keys, which are also logged as a warning: a checkpoint without a pooler, one
        with fewer or more layers, a head that the model does not have.

    Raises:
        UserError: nothing can be read, no BERT is in it, its heads or activation differ from the model's,
            or a tensor (vocabulary, width, ...) has another shape (named, with both shapes).
    """
    checkpoint = read_checkpoint(source)
    starts = _prefixes(checkpoint.tensors, _BERT_ANCHOR)
    if len(starts) != 1:
        held = f"several BERTs, under {starts}" if starts else "no BERT"
        raise UserError(
            f"{checkpoint.name} holds {held}: expected one key that ends in {_BERT_ANCHOR}, found "
            f"{_some(list(checkpoint.tensors))}"
        )
    _check_bert_config(checkpoint, model.config)
    root = "pixelbert." if hasattr(model, "pixelbert") else ""
    parts = tuple(f"{root}{part}." for part in ("embeddings", "encoder", "pooler"))
    state = {key: value for key, value in model.state_dict().items() if key.startswith((*parts, "mlm_head."))}
    head = f"{starts[0].removesuffix('bert.')}cls.predictions."
    tied = "mlm_head.decoder.weight" if model.config.tie_word_embeddings else ""
    renamed, unexpected = {}, []
    for key, tensor in checkpoint.tensors.items():
        own = re.sub(
            r"LayerNorm\.gamma$", "LayerNorm.weight", re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", key)
        )
        if own.startswith(head):
            own = f"mlm_head.{own.removeprefix(head)}"
        elif own.startswith(starts[0]):
            own = root + own.removeprefix(starts[0])
        else:
            own = None
        if own == tied and torch.equal(tensor, checkpoint.tensors[starts[0] + _BERT_ANCHOR]):
            continue  # the word embeddings once more
        if own != tied and own in state:
            renamed[own] = key
        elif not re.search(r"embeddings\.(position|token_type)_ids$", key):
            unexpected.append(key)
    return _copy(model, checkpoint, renamed, unexpected, state)


def _copy(
    module: nn.Module,
    checkpoint: Checkpoint,
    renamed: dict[str, str],
    unexpected: list[str],
    state: dict[str, Tensor],
) -> LoadReport:
    """Copy `checkpoint[renamed[key]]` to each key of `module`, whose tensors to be filled are `state`."""
    for own in (key for key in state if key in renamed):  # in the model's order: the first tells the most
        key = renamed[own]
        theirs, ours = list(checkpoint.tensors[key].shape), list(state[own].shape)
        if theirs != ours:
            raise UserError(
                f"{checkpoint.name}: {key} has shape {theirs} where this model's {own} has {ours}; configure "
                "the model with the checkpoint's sizes, or take another checkpoint"
            )
    module.load_state_dict({own: checkpoint.tensors[key] for own, key in renamed.items()}, strict=False)
    filled = {state[own].data_ptr() for own in renamed}  # a tied tensor has two names and is filled by either
    missing = [
        key
        for key, tensor in state.items()
        if not key.endswith("num_batches_tracked") and key not in renamed and tensor.data_ptr() not in filled
    ]
    report = LoadReport(checkpoint.name, len(renamed), tuple(missing), tuple(unexpected))
    if missing:
        logger.warning("%s lacks %s; these weights stay as they were", report.source, _some(missing))
    if unexpected:
        logger.warning("%s also has %s; these weights were not used", report.source, _some(unexpected))
    return report


def _torchvision_name(key: str) -> str | None:
    """transformers' name of a ResNet tensor -> torchvision's."""
    match = re.fullmatch(r"embedder\.embedder\.(convolution|normalization)\.(\w+)", key)
    if match:
        return f"{'conv1' if match[1] == 'convolution' else 'bn1'}.{match[2]}"
    match = re.fullmatch(
        r"encoder\.stages\.(\d+)\.layers\.(\d+)\.(layer\.(\d+)|shortcut)\.(convolution|normalization)\.(\w+)",
        key,
    )
    if not match:
        return None
    stage, block, _, layer, kind, tensor = match.groups()
    if layer is None:
        place = "downsample.0" if kind == "convolution" else "downsample.1"
    else:
        place = f"{'conv' if kind == 'convolution' else 'bn'}{int(layer) + 1}"
    return f"layer{int(stage) + 1}.{block}.{place}.{tensor}"


def _check_resnet_config(checkpoint: Checkpoint) -> None:
    model_type = checkpoint.config.get("model_type", "resnet")
    if model_type != "resnet":
        raise UserError(f"{checkpoint.name} is a {model_type} model: give a transformers ResNet checkpoint")
    for name, expected in _RESNET_EXPECTED.items():
        value = checkpoint.config.get(name, expected)
        if value != expected:
            raise UserError(
                f"{checkpoint.name} was made with {name}={value!r} and this backbone computes "
                f"{name}={expected!r}: take a checkpoint made with that"
            )


def _check_bert_config(checkpoint: Checkpoint, config: Any) -> None:
    theirs = checkpoint.config
    if not theirs:
        return
    if theirs.get("model_type", "bert") != "bert":
        raise UserError(f"{checkpoint.name} is a {theirs['model_type']} model: give a BERT checkpoint")
    if theirs.get("position_embedding_type", "absolute") != "absolute":
        raise UserError(f"{checkpoint.name} does not use absolute positions: give a BERT that does")
    for name, default in _BERT_COMPARED.items():
        value = theirs.get(name, default)
        if value != getattr(config, name):
            raise UserError(
                f"{checkpoint.name} was made with {name}={value!r} and this model has "
                f"{getattr(config, name)!r}: configure the model with {name}={value!r}"
            )


def _which_resnet(checkpoint: Checkpoint, found: Iterable[str], prefix: str | None) -> str:
    if found:
        return f"{checkpoint.name} holds several ResNets, under {sorted(found)}: choose one by prefix=..."
    under = "" if prefix is None else f" under {prefix!r}"
    return (
        f"{checkpoint.name} holds no ResNet{under}: expected torchvision's keys (such as "
        f"{_TORCHVISION_ANCHOR}) or transformers' (such as {_TRANSFORMERS_ANCHOR}), found "
        f"{_some(list(checkpoint.tensors))}"
    )


def _prefixes(keys: Iterable[str], anchor: str) -> list[str]:
    """What stands before `anchor` in the keys that end with it, at a dot or at the start."""
    return sorted(key.removesuffix(anchor) for key in keys if key == anchor or key.endswith(f".{anchor}"))


def _some(keys: list[str]) -> str:
    rest = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
    return f"{', '.join(keys[:5])}{rest}"
