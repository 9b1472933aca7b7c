"""What inference computes, as one module of static shapes: copied weights, norms folded once, plain aten ops.

Nothing in it depends on a value (no packing of rows, no draw, no check), so that it can be compiled, captured
in a CUDA graph, and exported.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.pixel_embed_reference import pixel_embed_reference
from .backbone import Block, Extent, ResNet, size_after
from .pixelbert import PixelBERT, every_place


class InferenceGraph(nn.Module):
    """:class:`PixelBERT` in evaluation mode, on a copy of its weights as they are now.

    Takes and returns tensors alone; reads any shapes, and does not look at a value.
    """

    def __init__(self, model: PixelBERT):
        super().__init__()
        self.backbone = FoldedBackbone(model.backbone)
        projection = model.pixel_projection
        self.order = model.config.projection_order
        self.projection = constant(projection.weight)
        self.pixel_vector = constant(model.pixel_type_embedding + projection.bias)
        self.embeddings = WordEmbeddings(model.embeddings)
        self.layers = nn.ModuleList(map(EncoderLayer, model.encoder.layer))
        self.pooler = linear(model.pooler.dense)

    def forward(
        self,
        input_ids: Tensor,
        pixel_values: Tensor,
        image_index: Tensor,
        attention_mask: Tensor | None = None,
        positions: Tensor | None = None,
        pixel_size: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The inputs of ``PixelBERT.forward`` by the same names and shapes, integers as int64.

        Args:
            attention_mask: None where no text is padded.
            positions: None reads every place; a place that is not there gives NaN.
            pixel_size: None where every image fills the batch.

        Returns:
            ``last_hidden_state [S, T + K, D], pooler_output [S, D], positions [S, K] int32, pixel_mask [S, K]
            int64`` as in :class:`PixelBertOutput`.
        """
        features = self.backbone(pixel_values, pixel_size)
        height, width = features.shape[2:]
        grid = (height // 2, width // 2)
        holes = positions is not None or pixel_size is not None
        if holes:
            if positions is None:
                valid_grid = self.backbone.map_size(pixel_size)[image_index] // 2
                positions = every_place(valid_grid, grid)
            pixels = pixel_embed_reference(
                features,
                positions,
                self.projection,
                None,
                self.pixel_vector,
                image_index=image_index,
                order=self.order,
            )
        else:
            pixels = self.whole_grid(features).index_select(0, image_index)
            positions = torch.arange(grid[0] * grid[1], device=pixels.device).expand(pixels.shape[:2])
        positions = positions.to(torch.int32)
        words = self.embeddings(input_ids)
        read = positions >= 0
        mask = None
        if attention_mask is not None or holes:
            words_read = torch.ones_like(input_ids) if attention_mask is None else attention_mask
            mask = torch.cat([words_read != 0, read], dim=1)
        hidden = torch.cat([words, pixels], dim=1)
        for layer in self.layers:
            hidden = layer(hidden, mask)
        if mask is not None:
            hidden = hidden.masked_fill(~mask[..., None], 0)
        pooled = torch.tanh(self.pooler(hidden[:, 0]))
        return hidden, pooled, positions, read.long()

    def whole_grid(self, features: Tensor) -> Tensor:
        """``[B, h * w, D]``: every place of each map in order, as ``pixel_embed`` would give."""
        if self.order == "project_pool":
            pooled = F.max_pool2d(F.conv2d(features, self.projection[:, :, None, None]), 2)
            return pooled.flatten(2).transpose(1, 2) + self.pixel_vector
        pooled = F.max_pool2d(features, 2).flatten(2).transpose(1, 2)
        return F.linear(pooled, self.projection, self.pixel_vector)


class FoldedBackbone(nn.Module):
    """A :class:`ResNet` in evaluation mode: every norm, frozen or trained, is part of its convolution."""

    def __init__(self, backbone: ResNet):
        super().__init__()
        self.stem = folded(backbone.conv1, backbone.bn1)
        self.maxpool = backbone.maxpool
        self.blocks = nn.ModuleList(FoldedBlock(block) for stage in backbone.stages() for block in stage)

    def forward(self, pixel_values: Tensor, pixel_size: Tensor | None) -> Tensor:
        """``[B, C, h, w]``, channels_last."""
        extent = Extent(pixel_size)
        x = extent.clear(pixel_values.contiguous(memory_format=torch.channels_last))
        extent = extent.after(self.stem)
        x = extent.clear(torch.relu(self.stem(x)))
        extent = extent.after(self.maxpool)
        x = extent.clear(self.maxpool(x))
        for block in self.blocks:
            x, extent = block(x, extent)
        return x

    def map_size(self, size: Tensor) -> Tensor:
        """Rows or columns of the map for `size` rows or columns of pixels."""
        size = size_after(self.maxpool, size_after(self.stem, size))
        for block in self.blocks:
            for convolution in block.convolutions:
                size = size_after(convolution, size)
        return size


class FoldedBlock(nn.Module):
    def __init__(self, block: Block):
        super().__init__()
        self.convolutions = nn.ModuleList(folded(*pair) for pair in block.convolutions())
        self.downsample = None if block.downsample is None else folded(*block.downsample)

    def forward(self, x: Tensor, extent: Extent) -> tuple[Tensor, Extent]:
        shortcut = x if self.downsample is None else self.downsample(x)
        *first, last = self.convolutions
        for convolution in first:
            extent = extent.after(convolution)
            x = extent.clear(torch.relu(convolution(x)))
        extent = extent.after(last)
        return extent.clear(torch.relu(last(x) + shortcut)), extent


class WordEmbeddings(nn.Module):
    """BERT's embeddings; the one token type of all words is part of the positions' table."""

    def __init__(self, embeddings: nn.Module):
        super().__init__()
        self.words = constant(embeddings.word_embeddings.weight)
        self.places = constant(
            embeddings.position_embeddings.weight + embeddings.token_type_embeddings.weight[0]
        )
        self.norm = norm(embeddings.LayerNorm)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.norm(F.embedding(input_ids, self.words) + self.places[: input_ids.shape[1]])


class EncoderLayer(nn.Module):
    """One transformers ``BertLayer`` with query, key and value in one product."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        attention = layer.attention.self
        self.heads, self.scaling = attention.num_attention_heads, attention.scaling
        self.inputs = linear(attention.query, attention.key, attention.value)
        self.context = linear(layer.attention.output.dense)
        self.attention_norm = norm(layer.attention.output.LayerNorm)
        self.up = linear(layer.intermediate.dense)
        self.activation = layer.intermediate.intermediate_act_fn
        self.down = linear(layer.output.dense)
        self.output_norm = norm(layer.output.LayerNorm)

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """``[S, L, D]`` to the same; `mask` ``[S, L]`` bool, True where a key may be read, or None."""
        rows = self.inputs(hidden).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = rows.unbind(0)
        context = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=None if mask is None else mask[:, None, None],
            scale=self.scaling,
        )
        hidden = self.attention_norm(self.context(context.transpose(1, 2).flatten(2)) + hidden)
        return self.output_norm(self.down(self.activation(self.up(hidden))) + hidden)


def constant(value: Tensor) -> nn.Parameter:
    """A copy that no training of the model changes."""
    return nn.Parameter(value.detach().clone(), requires_grad=False)


def folded(conv: nn.Conv2d, norm: nn.Module) -> nn.Conv2d:
    """The convolution and the norm behind it in evaluation mode, as one convolution, channels_last.

    An affine map with fixed numbers: its scale multiplies the weight, its shift becomes the bias. Computed in
    float64, so that a weight of bfloat16 is rounded once.
    """
    mean, var, gain, offset = (
        value.detach().double() for value in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    scale = gain * torch.rsqrt(var + norm.eps)
    weight = conv.weight.detach().double() * scale[:, None, None, None]
    result = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        stride=conv.stride,
        padding=conv.padding,
        dilation=conv.dilation,
        groups=conv.groups,
        device="meta",
    )
    result.weight = constant(weight.to(conv.weight.dtype).contiguous(memory_format=torch.channels_last))
    result.bias = constant((offset - mean * scale).to(conv.weight.dtype))
    return result


def linear(*linears: nn.Linear) -> nn.Linear:
    """Linear maps of one input as one map, their outputs side by side."""
    outputs = sum(each.out_features for each in linears)
    result = nn.Linear(linears[0].in_features, outputs, device="meta")
    result.weight = constant(torch.cat([each.weight for each in linears]))
    result.bias = constant(torch.cat([each.bias for each in linears]))
    return result


def norm(layer: nn.LayerNorm) -> nn.LayerNorm:
    result = nn.LayerNorm(layer.normalized_shape, eps=layer.eps, device="meta")
    result.weight, result.bias = constant(layer.weight), constant(layer.bias)
    return result
