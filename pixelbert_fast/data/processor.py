"""Images and texts -> what a Pixel-BERT reads, by transformers' conventions for processors."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

import numpy as np
import torch
from torch import Tensor
from transformers import AutoImageProcessor, AutoProcessor, BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.processing_utils import ProcessorMixin

from ..errors import UserError, nearest
from .images import MAX_PIXELS, to_rgb
from .resizing import check_size_options, resize, target_size

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# transformers writes these beside the options when it saves, and hands them back when it loads.
_BOOKKEEPING = {"image_processor_type", "processor_class", "auto_map"}


class ImageOptions(TypedDict, total=False):
    """Options of `PixelBertImageProcessor`, each of which a call may override."""

    short_side: int
    long_side: int
    size_divisor: int
    least_side: int
    image_mean: Sequence[float]
    image_std: Sequence[float]


class PixelBertImageProcessor(BaseImageProcessor):
    """Decodes, resizes by the paper's rule, normalises and pads.

    Args:
        short_side, long_side: pixels; see `resizing.target_size`. The paper's ResNet-50 figures by default.
        size_divisor: both sides are rounded to its nearest multiple (at least one).
        least_side: no side becomes less, in pixels, whatever that does to the proportions of a very narrow
            image: what the model needs to find one place in it, its output stride + 1.
        image_mean, image_std: three numbers each (R, G, B) for values in 0..1; ImageNet's by default.

    Raises UserError for an unknown option or a value that cannot be right.
    """

    model_input_names = ["pixel_values", "pixel_size"]
    valid_kwargs = ImageOptions

    def __init__(
        self,
        short_side: int = 800,
        long_side: int = 1333,
        size_divisor: int = 1,
        image_mean: Sequence[float] = IMAGENET_MEAN,
        image_std: Sequence[float] = IMAGENET_STD,
        least_side: int = 1,
        **others: Any,
    ):
        for name in others.keys() - _BOOKKEEPING:
            close = nearest(name, ImageOptions.__annotations__)
            hint = (
                f"did you mean {close}?"
                if close
                else f"the options are {', '.join(ImageOptions.__annotations__)}"
            )
            raise UserError(f"{name} is not an option of the image processor: {hint}")
        check_size_options(short_side, long_side, size_divisor, least_side)
        super().__init__()
        self.short_side = int(short_side)
        self.long_side = int(long_side)
        self.size_divisor = int(size_divisor)
        self.least_side = int(least_side)
        self.image_mean = _three_numbers("image_mean", image_mean)
        self.image_std = _three_numbers("image_std", image_std)
        if min(self.image_std) <= 0:
            raise UserError(f"image_std is {self.image_std}: each number must be above 0")

    def pixels(self, image: Any) -> Tensor:
        """Decode, resize and normalise one image (as `images.to_rgb` takes it) -> float32 ``[3, h, w]``."""
        rgb = to_rgb(image)
        rule = self.short_side, self.long_side, self.size_divisor, self.least_side
        size = target_size(*rgb.shape[:2], *rule)
        if size[0] * size[1] > MAX_PIXELS:
            raise UserError(
                f"an image would become {size[0]} x {size[1]} pixels, more than {MAX_PIXELS:,}: lower "
                "short_side, long_side or size_divisor"
            )
        rgb = resize(rgb, size)
        values = np.empty((3, *size), dtype=np.float32)
        for channel, (mean, std) in enumerate(zip(self.image_mean, self.image_std, strict=True)):
            # (x / 255 - mean) / std with the constants folded in double precision
            np.multiply(rgb[..., channel], np.float32(1 / (255 * std)), out=values[channel], dtype=np.float32)
            values[channel] -= np.float32(mean / std)
        return torch.from_numpy(values)

    def pad(self, pixels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Batch images of different sizes.

        Args:
            pixels: tensors ``[3, h_i, w_i]`` as `pixels` returns them.

        Returns:
            ``pixel_values [B, 3, H, W]``, H and W the largest height and width, zeros on the right and at the
            bottom; ``pixel_size [B, 2]`` int32, each image's own height and width.
        """
        if not pixels:
            raise UserError("there are no images to make a batch of: give at least one")
        sizes = torch.tensor([image.shape[-2:] for image in pixels], dtype=torch.int32)
        height, width = sizes.amax(dim=0).tolist()
        values = pixels[0].new_zeros((len(pixels), 3, height, width))
        for image, padded in zip(pixels, values, strict=True):
            padded[:, : image.shape[-2], : image.shape[-1]] = image
        return values, sizes

    def preprocess(self, images: Any, *, return_tensors: str | None = "pt", **overrides: Any) -> BatchFeature:
        """One image, a list of them or a 4-d array or tensor -> ``pixel_values`` and ``pixel_size``.

        See `pad` for what they hold. `return_tensors` is "pt" for tensors, or "np" for arrays. `overrides`
        are options of the constructor for this call only. A broken image raises UserError naming its place.
        """
        _check_return_tensors(return_tensors)
        overrides = {name: value for name, value in overrides.items() if value is not None}
        processor = self
        if overrides:
            own = {name: getattr(self, name) for name in ImageOptions.__annotations__}
            processor = type(self)(**{**own, **overrides})
        many = _many_images(images)
        pixels = []
        for place, image in enumerate(many):
            try:
                pixels.append(processor.pixels(image))
            except UserError as error:
                raise (UserError(f"images[{place}]: {error}") if many is images else error) from error
        pixel_values, pixel_size = processor.pad(pixels)
        return BatchFeature(_as(return_tensors, pixel_values=pixel_values, pixel_size=pixel_size))


class EncodedTexts(NamedTuple):
    """Word pieces of S texts, padded on the right to T."""

    input_ids: Tensor
    """``[S, T]`` int64."""
    attention_mask: Tensor
    """``[S, T]`` int64, 1 for a word piece, 0 for padding."""
    truncated: Tensor
    """``[S]`` bool, whether the text was longer than the limit and lost its end."""


class PixelBertProcessor(ProcessorMixin):
    """Images and texts -> model inputs; saved and loaded with `save_pretrained` and `from_pretrained`.

    Args:
        image_processor: None for one with the paper's options.
        tokenizer: any transformers tokenizer.
        max_text_length: word pieces of a text at most, ``[CLS]`` and ``[SEP]`` included; longer texts lose
            their end, and `truncated_texts` counts them.
    """

    def __init__(self, image_processor=None, tokenizer=None, max_text_length=40):
        if image_processor is None:
            image_processor = PixelBertImageProcessor()
        try:
            super().__init__(image_processor, tokenizer)
        except TypeError as error:
            raise UserError(
                f"the processor needs an image processor and a transformers tokenizer, not a "
                f"{type(image_processor).__name__} and a {type(tokenizer).__name__}"
            ) from error
        self.max_text_length = self._checked_length(max_text_length)
        self.truncated_texts = 0
        """How many texts have lost their end since this processor was made."""

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", *self.image_processor.model_input_names]

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        *,
        return_tensors: str | None = "pt",
        padding: bool | str = True,
        truncation: bool = True,
        max_length: int | None = None,
        **image_options: Any,
    ) -> BatchFeature:
        """Prepare images, texts or both.

        Args:
            images: one image or a list; see `images.to_rgb`.
            text: one text or a list. The numbers of texts and images may differ: which text reads which image
                is the model's `image_index`.
            return_tensors: "pt" for tensors, or "np" for arrays.
            padding: True or "longest" pads the texts to the longest of them, "max_length" to `max_length`.
            truncation: False lets texts be longer than `max_length`.
            max_length: instead of the processor's `max_text_length`.
            image_options: options of `PixelBertImageProcessor`, for this call only.

        Returns:
            For texts, ``input_ids [S, T]`` and ``attention_mask [S, T]`` int64; for images,
            ``pixel_values [B, 3, H, W]`` float32 and ``pixel_size [B, 2]`` int32.

        Raises:
            UserError: neither is given, or either is not what it should be.
        """
        _check_return_tensors(return_tensors)
        if images is None and text is None:
            raise UserError("the processor was given nothing: pass images=..., text=... or both")
        data: dict[str, Any] = {}
        if text is not None:
            encoded = self.encode_texts(text, max_length=max_length, padding=padding, truncation=truncation)
            data = _as(return_tensors, input_ids=encoded.input_ids, attention_mask=encoded.attention_mask)
        if images is not None:
            data.update(self.image_processor(images, return_tensors=return_tensors, **image_options))
        elif image_options:
            raise UserError(
                f"{', '.join(image_options)}: not an option for texts alone, and there are no images"
            )
        return BatchFeature(data)

    def encode_texts(
        self,
        text: str | Sequence[str],
        *,
        max_length: int | None = None,
        padding: bool | str = True,
        truncation: bool = True,
    ) -> EncodedTexts:
        """Tokenize one text or a list; options as in `__call__`. Cut texts are marked, and counted."""
        if not isinstance(text, Iterable) or isinstance(text, (bytes, Mapping)):
            raise UserError(f"text is of type {type(text).__name__}: give a string or a list of strings")
        texts = [text] if isinstance(text, str) else _listed(text)
        for place, entry in enumerate(texts):
            if not isinstance(entry, str):
                raise UserError(f"text[{place}] is of type {type(entry).__name__}: texts must be strings")
            try:
                entry.encode()
            except UnicodeEncodeError as error:  # half a character, or bytes of a shell that are no UTF-8
                found = entry[error.start : error.end]
                raise UserError(
                    f"text[{place}] is no text, as UTF-8 has no place for its {found!r}: leave that out"
                ) from None
        if not texts:
            raise UserError("text is an empty list: give at least one text")
        if padding not in (True, "longest", "max_length"):
            raise UserError(f"padding is {padding!r}: it can be True, 'longest' or 'max_length'")
        limit = self.max_text_length if max_length is None else self._checked_length(max_length)
        ids = self._word_pieces(texts, truncation=False)
        too_long = [bool(truncation) and len(pieces) > limit for pieces in ids]
        if any(too_long):
            cut = iter(self._word_pieces([t for t, long in zip(texts, too_long, strict=True) if long], limit))
            ids = [next(cut) if long else pieces for pieces, long in zip(ids, too_long, strict=True)]
            self.truncated_texts += sum(too_long)
        length = max(limit if padding == "max_length" else 0, *map(len, ids), 1)
        # Padding is on the right whatever the tokenizer prefers: positions are counted from the first word.
        # A tokenizer without a padding token can use any: the mask hides it.
        input_ids = torch.full((len(ids), length), self.tokenizer.pad_token_id or 0, dtype=torch.int64)
        attention_mask = torch.zeros((len(ids), length), dtype=torch.int64)
        for row, pieces in enumerate(ids):
            input_ids[row, : len(pieces)] = torch.tensor(pieces, dtype=torch.int64)
            attention_mask[row, : len(pieces)] = 1
        return EncodedTexts(input_ids, attention_mask, torch.tensor(too_long))

    def _word_pieces(
        self, texts: list[str], limit: int | None = None, *, truncation: bool = True
    ) -> list[list[int]]:
        return self.tokenizer(
            texts,
            truncation=truncation,
            max_length=limit,
            padding=False,  # said aloud: a tokenizer file may ask for padding of its own
            return_token_type_ids=False,
            return_attention_mask=False,
            verbose=False,
        )["input_ids"]

    def _checked_length(self, length: Any) -> int:
        least = self.tokenizer.num_special_tokens_to_add() + 1
        if isinstance(length, bool) or not isinstance(length, (int, np.integer)) or length < least:
            raise UserError(f"the text length is {length!r}: it must be a whole number of at least {least}")
        return int(length)


def _listed(texts: Iterable[Any]) -> list[Any]:
    try:
        return list(texts)
    except TypeError as error:  # an array or tensor without dimensions calls itself iterable
        raise UserError(
            f"text is of type {type(texts).__name__} and holds no texts: give a string or a list of strings"
        ) from error


def _many_images(images: Any) -> Sequence[Any]:
    if isinstance(images, (list, tuple)):
        return images
    if isinstance(images, (np.ndarray, Tensor)) and images.ndim == 4:
        return list(images)
    return [images]


def _three_numbers(name: str, values: Any) -> list[float]:
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != 3 or not np.isfinite(numbers).all():
        raise UserError(f"{name} is {values!r}: it must be three numbers, for red, green and blue")
    return numbers


def _check_return_tensors(kind: str | None) -> None:
    if kind not in ("pt", "np", None):
        raise UserError(
            f"return_tensors is {kind!r}: it can be 'pt' (PyTorch tensors) or 'np' (NumPy arrays)"
        )


def _as(kind: str | None, **tensors: Tensor) -> dict[str, Any]:
    return tensors if kind == "pt" else {name: tensor.numpy() for name, tensor in tensors.items()}


# transformers finds both classes by the names in a saved directory's JSON files; the key is the model type.
# Its older versions, 5.0 among them, know the class by another argument, which later ones are to drop.
if "image_processor_classes" in inspect.signature(AutoImageProcessor.register).parameters:
    AutoImageProcessor.register(
        "pixelbert", image_processor_classes={"pil": PixelBertImageProcessor}, exist_ok=True
    )
else:
    AutoImageProcessor.register("pixelbert", PixelBertImageProcessor, exist_ok=True)
AutoProcessor.register("pixelbert", PixelBertProcessor, exist_ok=True)
