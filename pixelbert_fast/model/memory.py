"""How much memory a forward keeps for its backward, from the configuration and the shapes alone.

Counted are the tensors that autograd saves, each once however many operators read it, for images that fill
their batch (norms over padded images keep several maps more). What the formula leaves out (masks, statistics,
small vectors) and a kernel's own workspace come on top; tests hold it against what a CPU really keeps.
"""

from __future__ import annotations

from .config import PixelBertConfig
from .flops import convolutions, map_shape

PARTS = ("backbone", "projection", "encoder", "heads")

_WIDE = 4
"""Bytes of a number in float32, which autocast keeps layer norms and losses in."""
_INDEX = 8
"""Bytes of an index that max pooling keeps for each place."""


def kept_bytes(
    config: PixelBertConfig,
    *,
    image_size: tuple[int, int],
    images: int,
    sequences: int,
    text_length: int,
    pixels: int,
    masked: int,
    half: bool = False,
    fast: bool = True,
) -> dict[str, int]:
    """Bytes kept at the end of a forward of `PixelBertForPreTraining` in training mode, by :data:`PARTS`.

    Args:
        config: the model's.
        image_size: height and width of the batch.
        images, sequences: how many images, and texts that read them.
        text_length, pixels: word pieces, and pixels, of a sequence.
        masked: labelled word pieces, of all sequences together.
        half: whether convolutions and matrix products compute in a half precision under autocast.
        fast: FastPixelBERT's; False: PixelBERT's.
    """
    narrow = 2 if half else _WIDE
    tokens = sequences * (text_length + pixels)
    last_rows = sequences + masked if fast else tokens
    return {
        "backbone": images * _of_the_backbone(config, image_size, narrow),
        "projection": _of_the_projection(config, image_size, images, sequences * pixels, narrow, fast),
        "encoder": _of_the_encoder(config, tokens, sequences * text_length, last_rows, narrow),
        "heads": _of_the_heads(config, masked, masked if fast else sequences * text_length, narrow),
    }


def group_bytes(
    config: PixelBertConfig,
    *,
    image_size: tuple[int, int],
    images: int,
    sequences: int,
    learnt: int,
    text_length: int,
    pixels: int,
    kept: str = "none",
    frozen: bool = True,
    half: bool = False,
    fast: bool = True,
) -> int:
    """Bytes held at most in a forward of `PixelBertForImageTextRetrieval` in training mode over groups.

    Either what `learnt` of the sequences keep for the backward, or what a layer over all of them holds in the
    pass without gradients before, which is gone by then; and what is kept of the images.

    Args:
        kept, frozen: as `task_flops.retrieval_flops`; others: as :func:`kept_bytes`.
    """
    narrow, length = 2 if half else _WIDE, text_length + pixels
    of_images = 0 if frozen else images * _of_the_backbone(config, image_size, narrow)
    if kept != "embeddings":
        of_images += _of_the_projection(config, image_size, images, images * pixels, narrow, fast)
    rows = learnt if fast else learnt * length
    learning = _of_the_encoder(config, learnt * length, learnt * text_length, rows, narrow)
    # A layer's input, query, key, value, context and residual, and the MLP's hidden activations before and
    # after GELU; and all the while the pixels and the sequences that went in, in wide numbers.
    a_row = (6 * config.hidden_size + 2 * config.intermediate_size) * narrow + 2 * config.hidden_size * _WIDE
    finding = sequences * length * a_row if sequences > learnt else 0
    return of_images + max(learning, finding)


def _of_the_backbone(config: PixelBertConfig, image_size: tuple[int, int], narrow: int) -> int:
    """Of one image: what each convolution reads, and with trained norms what each writes as well.

    The map after a ReLU is both the ReLU's result and what the next convolution reads.
    """
    trained_norm = config.norm != "frozen"
    layers = convolutions(config, image_size)
    kept = 0
    for number, one in enumerate(layers):
        if not one.weight_gradient:
            continue
        if not one.input_gradient and one.place != "shortcut":
            kept += one.inputs * narrow  # of the first trained layer; a shortcut beside it reads the same
        if one.place != "shortcut":
            kept += one.outputs * narrow
        if trained_norm:
            kept += one.outputs * narrow
        if one.place == "stem":
            kept += layers[number + 1].inputs * (narrow + _INDEX)
    return kept


def _of_the_projection(
    config: PixelBertConfig, image_size: tuple[int, int], images: int, read: int, narrow: int, fast: bool
) -> int:
    channels, rows, columns = map_shape(config, image_size)
    project_first = config.projection_order == "project_pool"
    winners = read * (config.hidden_size if project_first else channels)
    if fast:
        return winners  # a byte each
    windows = 4 * winners * narrow + winners * _INDEX
    return windows + (images * rows * columns * config.hidden_size * narrow if project_first else 0)


def _of_the_encoder(config: PixelBertConfig, tokens: int, words: int, last_rows: int, narrow: int) -> int:
    """BERT's layers, and the layer norm of the embeddings.

    A row keeps in narrow numbers: a layer's input, key and value; query, context, the MLP's input and its
    hidden activations before and after GELU; in wide ones what goes into two layer norms; and a byte of each
    of two dropouts. The last layer keeps the second kind of its own rows only.
    """
    hidden, inner = config.hidden_size, config.intermediate_size
    dropout = 1 if config.hidden_dropout_prob else 0
    of_all = 3 * hidden * narrow
    of_asked = (3 * hidden + 2 * inner) * narrow + 2 * hidden * (_WIDE + dropout)
    layers = config.num_hidden_layers
    embeddings = words * hidden * (_WIDE + dropout)
    return tokens * (layers * of_all + (layers - 1) * of_asked) + last_rows * of_asked + embeddings


def _of_the_heads(config: PixelBertConfig, masked: int, rows: int, narrow: int) -> int:
    """The masked-word head: its transformation; logits, their logarithmic softmax and its gradient.

    rows: of which logits are computed, `masked` of them for a loss.
    """
    transformed = rows * config.hidden_size * 3 * _WIDE
    for_loss = masked * config.vocab_size * (2 * _WIDE + narrow)
    others = 2 * rows * config.vocab_size * narrow if rows > masked else 0
    return transformed + for_loss + others
