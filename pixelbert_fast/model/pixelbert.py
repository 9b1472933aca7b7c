"""PixelBERT, the reference: plain PyTorch that reads like the paper and says what is right."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.masking_utils import create_bidirectional_mask
from transformers.models.bert.modeling_bert import (
    BertEmbeddings,
    BertEncoder,
    BertLMPredictionHead,
    BertPooler,
)

from ..ops import pixel_embed, sample_positions
from .attention import AttentionMaps, AttentionRequest, maps_asked
from .backbone import ResNet
from .checkpoint_files import check_shards
from .config import PixelBertConfig
from .heads import ALL_HEADS, HeadLayer
from .inputs import Request, integers, refuse, request
from .norm import FrozenBatchNorm2d
from .outputs import PixelBertOutput, PixelEmbeddings, Tokens


class PixelBertPreTrainedModel(PreTrainedModel):
    """What all Pixel-BERT models share: configuration, initialisation, checkpointing."""

    config_class = PixelBertConfig
    config: PixelBertConfig
    base_model_prefix = "pixelbert"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # transformers.Trainer: these losses are means of a batch's own
    _supports_sdpa = True
    _supports_attention_backend = True
    _no_split_modules = ["BertEmbeddings", "BertLayer", "BasicBlock", "Bottleneck"]

    @classmethod
    def from_pretrained(cls, *arguments, **options):
        """As transformers'; the weights then lie in memory as the model's constructor had laid them out."""
        check_shards(*arguments[:1], subfolder=options.get("subfolder"))
        loaded = super().from_pretrained(*arguments, **options)
        for module in (loaded[0] if isinstance(loaded, tuple) else loaded).modules():
            if isinstance(module, PixelBERT):
                module.lay_out()
        return loaded

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Convolutions as He et al. 2015 (fan out), the rest as BERT."""
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, FrozenBatchNorm2d):
            init.ones_(module.weight)
            init.zeros_(module.bias)
            init.zeros_(module.running_mean)
            init.ones_(module.running_var)
            init.zeros_(module.num_batches_tracked)
        elif isinstance(module, PixelBERT):
            init.normal_(module.pixel_type_embedding, std=self.config.initializer_range)
        elif isinstance(module, BertEmbeddings):
            # Not in a checkpoint, so they must be made again when a model is built without memory.
            init.copy_(module.position_ids, torch.arange(module.position_ids.shape[-1])[None])
            init.zeros_(module.token_type_ids)
        elif isinstance(module, BertLMPredictionHead):
            init.zeros_(module.bias)
        else:
            if isinstance(module, HeadLayer):
                module.fresh = not getattr(module.weight, "_is_hf_initialized", False)
            super()._init_weights(module)


class PixelBERT(PixelBertPreTrainedModel):
    """One Transformer over ``[CLS] words [SEP] pixels`` (Huang et al. 2020, section 3).

    Words: LayerNorm(word + position + type). Pixels: backbone, projection, 2x2 max pooling, a random
    sample of places in training mode (section 3.4), plus one type embedding shared by all pixels.
    """

    # A checkpoint of a task model serves too; its heads are none of this model's business.
    _keys_to_ignore_on_load_unexpected = [rf"^{head}\." for head in ALL_HEADS]
    backend: str | None = "reference"  # of the ops
    samples = True
    """Whether training mode draws ``config.sampled_pixels``; where False it reads all, as evaluation does."""

    def __init__(self, config: PixelBertConfig):
        super().__init__(config)
        config.check()
        self.embeddings = BertEmbeddings(config)
        self.backbone = ResNet(config)
        self.pixel_projection = nn.Linear(self.backbone.out_channels, config.hidden_size)
        self.pixel_type_embedding = nn.Parameter(torch.zeros(config.hidden_size))
        self.encoder = BertEncoder(config)
        self.pooler = BertPooler(config)
        self.post_init()

    def lay_out(self) -> None:
        """Gives the backbone's weights the memory format that the model computes in; none here."""

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.embeddings.word_embeddings = value

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        *,
        image_index: Tensor | None = None,
        pixel_size: Tensor | None = None,
        positions: Tensor | None = None,
        pixel_embeddings: PixelEmbeddings | None = None,
        seed: int | Tensor | None = None,
        sample_keys: Tensor | None = None,
        output_attentions: AttentionRequest | bool | None = None,
    ) -> PixelBertOutput:
        """Reads S sequences of T word pieces, each beside one of B images.

        Args:
            input_ids: ``[S, T]`` integers, ``[CLS] words [SEP]`` and padding.
            attention_mask: ``[S, T]``, 0 on padding; None: no padding.
            pixel_values: ``[B, 3, H, W]``, normalised.
            image_index: ``[S]`` integers, the image each sequence reads; None: sequence s reads image s.
            pixel_size: ``[B, 2]`` integers, each image's own height and width; None: all fill the batch.
                What lies outside never counts.
            positions: ``[S, K]`` integers, places ``row * w + column`` on the pooled grid, -1 for none. None:
                in training mode ``config.sampled_pixels`` are drawn for each sequence, else all are read.
            pixel_embeddings: what :meth:`embed_pixels` returned for these images, in place of `pixel_values`.
            seed: int or 0-d int64 tensor for the draw; None takes one from torch's CPU generator.
            sample_keys: ``[S]`` integers that identify each draw; default ``0 .. S - 1``.
            output_attentions: True: every layer's whole attention map; an :class:`AttentionRequest`: chosen
                layers, heads and queries; None: as the configuration says.

        Raises:
            TypeError: an index input that is no tensor of integers, or maps asked for by something else.
            ValueError: an input of the wrong shape, an image too small for one pixel, no image at all, or a
                place outside its image (on a GPU such a pixel is NaN, see :mod:`pixelbert_fast.ops`).
            IndexError: an image, place, layer or head that is not there.
        """
        asked = maps_asked(output_attentions, self.config)
        tokens = self.embed(
            input_ids,
            attention_mask,
            pixel_values,
            image_index=image_index,
            pixel_size=pixel_size,
            positions=positions,
            pixel_embeddings=pixel_embeddings,
            seed=seed,
            sample_keys=sample_keys,
        )
        hidden, attentions = self.encode(tokens, asked)
        return PixelBertOutput(
            last_hidden_state=hidden,
            pooler_output=self.pooler(hidden),
            positions=tokens.positions,
            pixel_mask=(tokens.positions >= 0).long(),
            attentions=attentions,
        )

    def embed(
        self,
        input_ids,
        attention_mask=None,
        pixel_values=None,
        *,
        pixel_size=None,
        seed=None,
        words: Tensor | None = None,
        **inputs,
    ) -> Tokens:
        """What the Transformer reads, of the same inputs as :meth:`forward`.

        Args:
            words: ``[S, T, D]``, the embeddings of `input_ids` where they have been looked up already.
        """
        asked = request(self.config, input_ids, attention_mask, pixel_values, **inputs)
        if asked.pixel_embeddings is None:
            pixels, positions = self.read_images(pixel_values, pixel_size, asked, seed)
        else:
            pixels, positions = self.read_embeddings(asked, seed)
        words = self.embeddings(None if words is not None else asked.input_ids, inputs_embeds=words)
        mask = torch.cat([asked.attention_mask != 0, positions >= 0], dim=1)
        return Tokens(words, pixels.to(words.dtype), mask, positions)

    def encode(
        self, tokens: Tokens, asked: AttentionRequest | bool
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """The Transformer: ``[S, T + K, D]``, zeros where the mask is False, and its maps if asked for."""
        hidden, mask = torch.cat([tokens.words, tokens.pixels], dim=1), tokens.mask
        maps = AttentionMaps(asked, self.encoder, mask)
        # By place: transformers 5.0 calls the second argument input_embeds, later versions inputs_embeds.
        layer_mask = create_bidirectional_mask(self.config, hidden, mask)
        for number, layer in enumerate(self.encoder.layer):
            maps.read(number, hidden)
            if hidden.shape[0]:  # transformers' layers cannot reshape an empty batch
                hidden = layer(hidden, layer_mask)
        return hidden.masked_fill(~mask[..., None], 0), maps.result()

    def pool(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        **inputs,
    ) -> PixelBertOutput:
        """What a task reads that needs nothing but ``[CLS]``: :meth:`forward` without ``last_hidden_state``.

        Args:
            input_ids, attention_mask, pixel_values, **inputs: as :meth:`forward`, which says what is raised.
        """
        outputs = self(input_ids, attention_mask, pixel_values, **inputs)
        return PixelBertOutput(**{name: outputs[name] for name in outputs if name != "last_hidden_state"})

    def embed_pixels(self, pixel_values: Tensor, pixel_size: Tensor | None = None) -> PixelEmbeddings:
        """Every valid pixel of each image as a token, to be read by any number of sequences.

        Args:
            pixel_values: ``[B, 3, H, W]``.
            pixel_size: ``[B, 2]`` or None, as in :meth:`forward`.
        """
        valid_grid, _ = self.grids(pixel_values, pixel_size)
        return self.embed_features(self.run_backbone(pixel_values, pixel_size), valid_grid)

    def embed_features(self, features: Tensor, valid_grid: Tensor) -> PixelEmbeddings:
        """As :meth:`embed_pixels`, of maps ``[B, C, H, W]``; `valid_grid`: see :class:`FeatureMaps`."""
        grid = (features.shape[2] // 2, features.shape[3] // 2)
        positions = every_place(valid_grid, grid)
        values = self.project(features, positions, None)
        return PixelEmbeddings(values, positions, positions >= 0, valid_grid, grid)

    def read_images(self, pixel_values, pixel_size, asked: Request, seed):
        """``[S, K, D]`` tokens and ``[S, K]`` int32 places of the pixels each sequence reads."""
        image_index, positions = asked.image_index, asked.positions
        valid_grid, grid = self.grids(pixel_values, pixel_size)
        valid_grid = valid_grid[image_index]
        chosen = self.choose(valid_grid, grid, seed, asked.sample_keys) if positions is None else positions
        pixels = self.project(self.run_backbone(pixel_values, pixel_size), chosen, image_index)
        if positions is not None:
            row, column = positions // grid[1], positions % grid[1]
            outside = (positions >= 0) & ((row >= valid_grid[:, :1]) | (column >= valid_grid[:, 1:]))
            pixels = refuse(pixels, outside, "positions names a place outside its image, in the padding")
        return pixels, chosen.to(torch.int32)

    def read_embeddings(self, asked: Request, seed):
        """The same from tokens that were computed before."""
        embeddings, image_index, positions = asked.pixel_embeddings, asked.image_index, asked.positions
        if positions is None:
            if not self.draws():
                return embeddings.values[image_index], embeddings.positions[image_index]
            if embeddings.valid_grid is None or embeddings.grid is None:
                raise ValueError(
                    "pixel_embeddings needs valid_grid and grid to draw a sample from: take it whole from "
                    "embed_pixels, or give positions"
                )
            valid_grid = embeddings.valid_grid[image_index]
            positions = self.choose(valid_grid, embeddings.grid, seed, asked.sample_keys).long()
        # Places ascend in each row of the embeddings, so a search finds each one's column.
        last = torch.iinfo(torch.int64).max
        known = embeddings.positions.long().masked_fill(~embeddings.mask, last)[image_index].contiguous()
        column = torch.searchsorted(known, positions.contiguous()).clamp(max=max(known.shape[1] - 1, 0))
        pixels = embeddings.values[image_index[:, None], column]
        wrong = (positions != -1) & (known.gather(1, column) != positions)
        pixels = refuse(pixels, wrong, "positions names a place that pixel_embeddings does not hold")
        return pixels.masked_fill((positions == -1)[..., None], 0), positions.to(torch.int32)

    def run_backbone(self, pixel_values: Tensor, pixel_size: Tensor | None) -> Tensor:
        return self.backbone(pixel_values, None if fills(pixel_size, pixel_values) else pixel_size)

    def project(self, features: Tensor, positions: Tensor, image_index: Tensor | None) -> Tensor:
        return pixel_embed(
            features,
            positions,
            self.pixel_projection.weight,
            self.pixel_projection.bias,
            self.pixel_type_embedding,
            image_index=image_index,
            order=self.config.projection_order,
            backend=self.backend,
        )

    def grids(self, pixel_values: Tensor, pixel_size: Tensor | None) -> tuple[Tensor, tuple[int, int]]:
        """Each image's own pooled grid ``[B, 2]`` int32, and ``(h, w)`` of the batch's."""
        if pixel_values.dim() != 4 or pixel_values.shape[1] != 3:
            raise ValueError(f"pixel_values must be [B, 3, H, W], got {list(pixel_values.shape)}")
        batch, _, height, width = pixel_values.shape
        grid = tuple(int(self.backbone.map_size(side)) // 2 for side in (height, width))
        smallest = min(grid)
        if pixel_size is None:
            valid_grid = torch.tensor(grid, dtype=torch.int32, device=pixel_values.device).expand(batch, 2)
        else:
            pixel_size = integers("pixel_size", pixel_size, f"[{batch}, 2]", batch, 2)
            on_cpu = pixel_size.device.type == "cpu"
            if on_cpu and batch and bool((pixel_size > pixel_size.new_tensor([height, width])).any()):
                raise ValueError(
                    f"pixel_size must lie within the batch's {height} x {width}, got {pixel_size.tolist()}"
                )
            valid_grid = (self.backbone.map_size(pixel_size) // 2).to(torch.int32)
            if on_cpu and batch:
                smallest = min(smallest, int(valid_grid.min()))
            valid_grid = valid_grid.to(pixel_values.device)
        if smallest < 1:
            least = self.config.output_stride + 1  # every layer rounds up: so many pixels give two map rows
            raise ValueError(
                f"an image is too small to give one pixel: each side needs at least {least} px "
                f"at output stride {self.config.output_stride}"
            )
        return valid_grid, grid

    def draws(self) -> bool:
        """Whether a sample of the pixels is read rather than all."""
        return self.training and self.samples and self.config.sampled_pixels is not None

    def choose(self, valid_grid: Tensor, grid: tuple[int, int], seed, sample_keys) -> Tensor:
        """``[S, K]`` int32: the places that S sequences read, one row of `valid_grid` for each."""
        if not self.draws():
            return every_place(valid_grid, grid)
        if seed is None:
            seed = torch.empty((), dtype=torch.int64, device="cpu").random_()
        if sample_keys is not None:
            sample_keys = sample_keys.to(valid_grid.device)
        return sample_positions(
            valid_grid, grid, self.config.sampled_pixels, seed=seed, keys=sample_keys, backend=self.backend
        )


def every_place(valid_grid: Tensor, grid: tuple[int, int]) -> Tensor:
    """``[N, h * w]`` int32: all places of each image's own grid, ascending, then -1."""
    h, w = grid
    place = torch.arange(h * w, dtype=torch.int32, device=valid_grid.device)
    valid = (place // max(w, 1) < valid_grid[:, :1]) & (place % max(w, 1) < valid_grid[:, 1:])
    order = torch.where(valid, place, h * w).sort(dim=1).values
    return torch.where(order == h * w, -1, order)


def fills(pixel_size: Tensor | None, pixel_values: Tensor) -> bool:
    """Whether no image has padding, as far as that can be told without asking a GPU."""
    if pixel_size is None:
        return True
    if pixel_size.device.type != "cpu":
        return False
    return bool((pixel_size.long() == torch.tensor(pixel_values.shape[2:])).all())
