"""Scores of many texts beside many images: what they share is computed once, and padding never.

Texts of one length beside images of one number of pixels make dense sequences. In the first layer a row's
query, key and value depend on its text or its image alone, so each is projected once, not once a pair. In the
last layer only ``[CLS]`` asks, so its query is carried to the rows (``q W_k``) and their weighted mean to the
values (``W_v``) in place of projecting every row: the same sums in another order.
"""

from __future__ import annotations

import copy
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.activations import GELUActivation

from ..errors import UserError
from ..ops.split_linear import SplitLinear, can_split, why_not
from .regions import EAGER

# Rows of a pass: on a CPU so many that a layer's widest activations stay near the caches (docs/results/
# tasks-retrieval.md), elsewhere enough to fill the device.
CPU_ROWS, DEVICE_ROWS = 1024, 65536
DEFAULT_MEGABYTES = 2048.0


Precision = Literal["fp32", "bf16x2", "bf16"]
"""fp32; bf16x2: float32 by bfloat16 products, on a CPU with AMX (see `ops.split_linear`); bf16."""
DTYPES = {"fp32": torch.float32, "bf16x2": torch.float32, "bf16": torch.bfloat16}


class Side(NamedTuple):
    """Texts, or images, as the first layer meets them: ``[N, R, D]`` each, R rows (word pieces or pixels)."""

    hidden: Tensor
    query: Tensor
    key: Tensor
    value: Tensor

    def part(self, start: int, stop: int) -> Side:
        return Side(*(one[start:stop] for one in self))


class PairScorer:
    """Scores pairs by a model's weights as they are when this is made, without gradients and dropout.

    Equivalent to its ``forward`` on each pair alone, within rounding.
    """

    def __init__(self, model: nn.Module, precision: Precision = "fp32"):
        """Takes the weights.

        Args:
            model: a PixelBertForImageTextRetrieval; or a PixelBertForPreTraining, whose score is how much its
                logit of a match exceeds that of none (which orders pairs as the probability does).
            precision: what the Transformer computes in; the score itself is computed in float32.

        Raises:
            UserError: a precision that the machine, or the model's sizes, do not allow.
        """
        inner, config = model.pixelbert, model.config
        self.dtype, self.device = DTYPES[precision], inner.device
        self.width, self.heads = config.hidden_size, config.num_attention_heads
        self.widest = max(config.intermediate_size, 4 * config.hidden_size)
        self.regions = getattr(inner, "regions", EAGER)
        self.embeddings = of_dtype(inner.embeddings, self.dtype)
        self.layers = [of_dtype(layer, self.dtype) for layer in inner.encoder.layer]
        if precision == "bf16x2":
            # The last layer carries its query to the rows by the weights themselves.
            self.layers[:-1] = [split(layer) for layer in self.layers[:-1]]
            self.regions = EAGER
        self.pooler = of_dtype(inner.pooler, torch.float32)
        self.weight, self.bias = score_of(model)

    def rows_a_pass(self, megabytes: float) -> int:
        """How many rows a pass may have for its activations to take no more than `megabytes`."""
        fits = int(megabytes * 2**20 / (self.dtype.itemsize * (self.widest + 8 * self.width)))
        return max(min(CPU_ROWS if self.device.type == "cpu" else DEVICE_ROWS, fits), 1)

    @torch.inference_mode()
    def texts(self, input_ids: Tensor) -> Side:
        """Of ``[N, T]`` word pieces, none of them padding."""
        return self._side(self.embeddings(input_ids.to(self.device)))

    @torch.inference_mode()
    def images(self, values: Tensor) -> Side:
        """Of ``[N, K, D]`` pixels, none of them padding: the ``values`` of ``embed_pixels``."""
        return self._side(values.to(self.device))

    @torch.inference_mode()
    def scores(self, texts: Side, images: Side, rows: int | None = None) -> Tensor:
        """``[A, B]`` float32 of every text beside every image.

        Args:
            rows: of a pass at most, though never less than one pair; None: as fits the device.
        """
        a, b = len(texts.hidden), len(images.hidden)
        length = texts.hidden.shape[1] + images.hidden.shape[1]
        pairs = max((rows or self.rows_a_pass(DEFAULT_MEGABYTES)) // length, 1)
        out = torch.empty(a, b, dtype=torch.float32, device=self.device)
        wide = min(pairs, b)
        high = max(pairs // wide, 1)
        for top in range(0, a, high):
            for left in range(0, b, wide):
                at = slice(top, top + high), slice(left, left + wide)
                few, some = texts.part(top, top + high), images.part(left, left + wide)
                out[at] = self._pass(few, some).view(out[at].shape)
        return out

    def _side(self, hidden: Tensor) -> Side:
        hidden, attention = hidden.to(self.dtype), self.layers[0].attention.self
        if len(self.layers) == 1:  # then the first is the last, which projects no row
            return Side(hidden, hidden, hidden, hidden)
        return Side(hidden, *(linear(hidden) for linear in (attention.query, attention.key, attention.value)))

    def _pass(self, texts: Side, images: Side) -> Tensor:
        """``[A * B]``."""
        hidden = joined(texts.hidden, images.hidden)
        if len(self.layers) > 1:
            first = self.layers[0]
            hidden = self._finish(
                first,
                self._attend(first, joined(texts.query, images.query), joined(texts.key, images.key),
                             joined(texts.value, images.value)),
                hidden,
            )  # fmt: skip
        for layer in self.layers[1:-1]:
            attention = layer.attention.self
            query, key, value = (one(hidden) for one in (attention.query, attention.key, attention.value))
            hidden = self._finish(layer, self._attend(layer, query, key, value), hidden)
        first = self._last(self.layers[-1], hidden).float()
        return F.linear(self.pooler(first[:, None]), self.weight, self.bias)[:, 0]

    def _attend(self, layer: nn.Module, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        by_head = (one.unflatten(-1, (self.heads, -1)).transpose(1, 2) for one in (query, key, value))
        out = F.scaled_dot_product_attention(*by_head, scale=layer.attention.self.scaling)
        return out.transpose(1, 2).flatten(2)

    def _finish(self, layer: nn.Module, context: Tensor, residual: Tensor) -> Tensor:
        """As ``regions.finish_layer``, over what it reads no more where nothing is compiled."""
        if self.regions is not EAGER:
            shape = residual.shape
            return self.regions.finish_layer(layer, context.flatten(0, 1), residual.flatten(0, 1)).view(shape)
        hidden = layer.attention.output.LayerNorm(layer.attention.output.dense(context).add_(residual))
        inner = layer.intermediate.dense(hidden)
        activation = layer.intermediate.intermediate_act_fn
        exact = isinstance(activation, GELUActivation) and activation.act is F.gelu
        inner = torch.ops.aten.gelu_(inner) if exact else activation(inner)
        return layer.output.LayerNorm(layer.output.dense(inner).add_(hidden))

    def _last(self, layer: nn.Module, hidden: Tensor) -> Tensor:
        """``[P, D]``: the last layer at ``[CLS]``, the first row of each of ``[P, L, D]``."""
        attention, asking = layer.attention.self, hidden[:, 0]
        query = attention.query(asking).unflatten(-1, (self.heads, -1))
        # The key's bias adds the same to all of a query's products, which a softmax does not see.
        key = attention.key.weight.unflatten(0, (self.heads, -1))
        carried = torch.einsum("phc,hcd->phd", query, key)
        weights = ((carried @ hidden.transpose(1, 2)) * attention.scaling).softmax(dim=-1)
        value = attention.value.weight.unflatten(0, (self.heads, -1))
        # The weights of a query sum to 1, so its value's bias counts once.
        context = torch.einsum("phd,hcd->phc", weights @ hidden, value).flatten(1) + attention.value.bias
        return self._finish(layer, context[:, None], asking[:, None])[:, 0]


def joined(texts: Tensor, images: Tensor) -> Tensor:
    """``[A * B, T + K, D]`` of ``[A, T, D]`` and ``[B, K, D]``."""
    (a, t, width), (b, k, _) = texts.shape, images.shape
    out = texts.new_empty(a, b, t + k, width)
    out[:, :, :t] = texts[:, None]
    out[:, :, t:] = images
    return out.flatten(0, 1)


def of_dtype(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy in evaluation mode; without copying where `module` is so already."""
    if not module.training and all(one.dtype == dtype for one in module.parameters()):
        return module
    return copy.deepcopy(module).to(dtype).eval()


def split(layer: nn.Module) -> nn.Module:
    """A copy of a ``BertLayer`` whose linear maps go by bfloat16 products.

    Raises:
        UserError: the machine or the sizes do not allow it.
    """
    reason = why_not()
    if reason is not None:
        raise UserError(f"the precision bf16x2 is for CPUs with AMX, and {reason} Take fp32 or bf16")
    layer = copy.deepcopy(layer)
    for module in list(layer.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear):
                if not can_split(child):
                    raise UserError(
                        "the precision bf16x2 takes a model on the CPU with widths of multiples of 32: take "
                        "fp32 or bf16"
                    )
                setattr(module, name, SplitLinear(child))
    return layer


def score_of(model: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight ``[1, D]`` and bias ``[1]``, float32, of the score on the pooled ``[CLS]``.

    Raises:
        TypeError: the model has neither a score nor a match head.
    """
    if hasattr(model, "score_head"):
        head = model.score_head
        return head.weight.detach().float(), head.bias.detach().float()
    if getattr(model, "itm_head", None) is None:
        raise TypeError(f"{type(model).__name__} scores no pairs: it has neither a score nor a match head")
    weight, bias = model.itm_head.weight.detach().float(), model.itm_head.bias.detach().float()
    return (weight[1] - weight[0])[None], (bias[1] - bias[0])[None]
