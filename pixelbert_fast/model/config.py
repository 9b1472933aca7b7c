"""PixelBertConfig: every number of the model, flat, with the paper's presets."""

from __future__ import annotations

from transformers import PretrainedConfig

from ..errors import nearest

# name: (block, blocks in each stage, groups, width per group), as torchvision's constructors.
BACKBONES = {
    "resnet18": ("basic", (2, 2, 2, 2), 1, 64),
    "resnet34": ("basic", (3, 4, 6, 3), 1, 64),
    "resnet50": ("bottleneck", (3, 4, 6, 3), 1, 64),
    "resnet101": ("bottleneck", (3, 4, 23, 3), 1, 64),
    "resnet152": ("bottleneck", (3, 8, 36, 3), 1, 64),
    "resnext50_32x4d": ("bottleneck", (3, 4, 6, 3), 32, 4),
    "resnext101_32x8d": ("bottleneck", (3, 4, 23, 3), 32, 8),
    "resnext101_64x4d": ("bottleneck", (3, 4, 23, 3), 64, 4),
    "resnext152_32x4d": ("bottleneck", (3, 8, 36, 3), 32, 4),
}

PRESETS = {
    # Learns from the embedded data on a laptop's CPU: 96 px images become a 6 x 6 grid of pixels.
    "tiny": {
        "backbone": "resnet18",
        "backbone_channels": 24,
        "backbone_depths": [1, 1, 1, 1],
        "output_stride": 8,
        "hidden_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 512,
        "max_position_embeddings": 64,
        "sampled_pixels": 30,
        # BERT's 0.02 is for 768 dimensions; sums over 128 need about sqrt(768 / 128) times more.
        "initializer_range": 0.06,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "vocab_size": 2000,
        "short_side": 96,
        "long_side": 160,
    },
    "r50": {"backbone": "resnet50"},
    "x152": {"backbone": "resnext152_32x4d", "short_side": 600, "long_side": 1000},
}

CHOICES = {
    "norm": ("batch", "frozen", "sync"),
    "projection_order": ("project_pool", "pool_project"),
    "output_stride": (8, 16, 32),
    "backbone": tuple(BACKBONES),
}

# Fields that count something, of which there must be one at least.
COUNTS = (
    "backbone_channels",
    "short_side",
    "long_side",
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
)


# Fields by which transformers chooses code to run.
_CALLERS_OWN = (
    "attn_implementation",
    "_attn_implementation",
    "experts_implementation",
    "_experts_implementation",
)

# Fields that are any number from 0 to so much.
NUMBERS = {
    "hidden_dropout_prob": 1,
    "attention_probs_dropout_prob": 1,
    "layer_norm_eps": 1,
    "initializer_range": 100,
}

MOST, MOST_LAYERS = 1 << 24, 1000
"""A file with more is damaged, and building its model would not end."""


def is_count(value: object, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


class PixelBertConfig(PretrainedConfig):
    """Configuration of Pixel-BERT; the defaults are the paper's ResNet-50 model with BERT-base.

    Args:
        backbone: a name in `BACKBONES`.
        backbone_channels: channels of the stem and unit of every stage's width (64 in all published nets).
        backbone_depths: blocks in each of the four stages, or None for those of `backbone`.
        output_stride: 32, or 16 or 8 with dilation in place of the last strides.
        norm: "batch" (trained), "frozen" (statistics and affine fixed) or "sync" (trained, over all ranks).
        frozen_stages: how many of the first stages keep their weights and statistics, 0 to 4 (1: stem and
            stage 1).
        projection_order: "project_pool" (paper, Fig. 2) or "pool_project".
        sampled_pixels: pixels drawn for each sequence in training mode; None uses all of them.
        sampled_fine_tuning: whether the models of downstream tasks draw them too. They read every pixel, in
            training mode as well, unless this is set (paper, section 3.4).
        short_side, long_side: image size in pixels that the processor aims at.
        mlm, itm: which pre-training losses count.
        mlm_on_mismatched: whether masked words of mismatched captions are predicted too.
        vocab_size: word pieces the model knows; that of the tokenizer.
        hidden_size: width of the Transformer, a multiple of `num_attention_heads`.
        num_hidden_layers: layers of the Transformer.
        num_attention_heads: heads of each layer.
        intermediate_size: width inside a layer's feed-forward part.
        hidden_act: its activation, by a name that transformers knows.
        hidden_dropout_prob: dropout after embeddings and inside layers.
        attention_probs_dropout_prob: dropout of attention.
        max_position_embeddings: word pieces a text may have at most.
        type_vocab_size: segment embeddings of the words.
        initializer_range: standard deviation of initial weights.
        layer_norm_eps: added to the variance in each layer norm.
        pad_token_id: the word piece that pads a text.
        tie_word_embeddings: whether the head that predicts masked words has the embeddings' weights.

    From `vocab_size` on the fields are BERT's, under BERT's names and with BERT's defaults.

    Raises:
        ValueError: a value that is not among a field's choices, is no count where one is due, or sizes that
            do not fit together.
    """

    model_type = "pixelbert"

    def __init__(
        self,
        backbone: str = "resnet50",
        backbone_channels: int = 64,
        backbone_depths: list[int] | None = None,
        output_stride: int = 32,
        norm: str = "batch",
        frozen_stages: int = 0,
        projection_order: str = "project_pool",
        sampled_pixels: int | None = 100,
        sampled_fine_tuning: bool = False,
        short_side: int = 800,
        long_side: int = 1333,
        mlm: bool = True,
        itm: bool = True,
        mlm_on_mismatched: bool = False,
        vocab_size: int = 30522,
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        intermediate_size: int = 3072,
        hidden_act: str = "gelu",
        hidden_dropout_prob: float = 0.1,
        attention_probs_dropout_prob: float = 0.1,
        max_position_embeddings: int = 512,
        type_vocab_size: int = 2,
        initializer_range: float = 0.02,
        layer_norm_eps: float = 1e-12,
        pad_token_id: int | None = 0,
        tie_word_embeddings: bool = True,
        **kwargs,
    ):
        self.backbone = backbone
        self.backbone_channels = backbone_channels
        is_sequence = isinstance(backbone_depths, (list, tuple))
        self.backbone_depths = list(backbone_depths) if is_sequence else backbone_depths
        self.output_stride = output_stride
        self.norm = norm
        self.frozen_stages = frozen_stages
        self.projection_order = projection_order
        self.sampled_pixels = sampled_pixels
        self.sampled_fine_tuning = sampled_fine_tuning
        self.short_side = short_side
        self.long_side = long_side
        self.mlm = mlm
        self.itm = itm
        self.mlm_on_mismatched = mlm_on_mismatched
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.hidden_act = hidden_act
        self.hidden_dropout_prob = hidden_dropout_prob
        self.attention_probs_dropout_prob = attention_probs_dropout_prob
        self.max_position_embeddings = max_position_embeddings
        self.type_vocab_size = type_vocab_size
        self.initializer_range = initializer_range
        self.layer_norm_eps = layer_norm_eps
        # transformers' BERT modules read these of their configuration; an encoder has no other choice.
        self.is_decoder = False
        self.add_cross_attention = False
        self.chunk_size_feed_forward = 0
        for fixed in ("is_decoder", "add_cross_attention", "chunk_size_feed_forward"):
            kwargs.pop(fixed, None)
        super().__init__(pad_token_id=pad_token_id, tie_word_embeddings=tie_word_embeddings, **kwargs)
        self.pad_token_id = pad_token_id
        self.tie_word_embeddings = tie_word_embeddings
        self.check()

    @classmethod
    def from_dict(cls, config_dict: dict, **options):
        """As transformers', but for what a file says of how attention is computed, which is left out.

        The name of a hub's kernel would have transformers fetch and run it. A caller may still name one.
        """
        stated = {name: value for name, value in config_dict.items() if name not in _CALLERS_OWN}
        return super().from_dict(stated, **options)

    @classmethod
    def preset(cls, name: str, **overrides) -> PixelBertConfig:
        """The configuration called "tiny", "r50" or "x152", with `overrides` on top.

        Give ``vocab_size=len(tokenizer)`` when the tokenizer is not BERT's.

        Raises:
            ValueError: no preset has that name, or an override is not a field.
        """
        if name not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {name!r}")
        known = cls().to_dict()
        for key in overrides:
            if key not in known:
                meant = nearest(key, known)
                hint = f"; did you mean {meant!r}?" if meant else ""
                raise ValueError(f"PixelBertConfig has no field {key!r}{hint}")
        return cls(**{**PRESETS[name], **overrides})

    def check(self) -> None:
        """Raises ValueError when a field's value is of no use, or sizes do not fit together."""
        for field, choices in CHOICES.items():
            value = getattr(self, field)
            if value not in choices:
                raise ValueError(f"{field} must be one of {', '.join(map(str, choices))}, got {value!r}")
        for field in COUNTS:
            if not is_count(value := getattr(self, field)):
                raise ValueError(f"{field} must be an integer of at least 1, got {value!r}")
            most = MOST_LAYERS if field == "num_hidden_layers" else MOST
            if value > most:
                raise ValueError(f"{field} must be at most {most:,}, got {value}")
        for field, most in NUMBERS.items():
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= most:
                raise ValueError(f"{field} must be a number from 0 to {most}, got {value!r}")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size must be a multiple of num_attention_heads, got {self.hidden_size} "
                f"and {self.num_attention_heads}"
            )
        if self.sampled_pixels is not None and not is_count(self.sampled_pixels):
            raise ValueError(
                "sampled_pixels must be an integer of at least 1, or None for all, "
                f"got {self.sampled_pixels!r}"
            )
        if not isinstance(self.sampled_fine_tuning, bool):
            raise ValueError(f"sampled_fine_tuning must be True or False, got {self.sampled_fine_tuning!r}")
        depths = self.backbone_depths
        if depths is not None and not (
            isinstance(depths, (list, tuple))
            and len(depths) == 4
            and all(is_count(d) and d <= MOST_LAYERS for d in depths)
        ):
            raise ValueError(f"backbone_depths must be four integers of at least 1, or None, got {depths!r}")
        if not is_count(self.frozen_stages, 0) or self.frozen_stages > 4:
            raise ValueError(f"frozen_stages must be an integer in 0 .. 4, got {self.frozen_stages!r}")
