"""What the processor is given: any text and any picture, as hypothesis draws them; what must come of it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from PIL import Image

from pixelbert_fast.data.image_files import Unusable, image_columns
from pixelbert_fast.data.images import to_rgb
from pixelbert_fast.data.processor import PixelBertImageProcessor, PixelBertProcessor
from pixelbert_fast.data.vocabulary import SPECIAL_TOKENS, train_wordpiece
from pixelbert_fast.errors import UserError
from tests.fuzzed_cases import WORKED, sentence
from tests.fuzzed_files import Mutated, mutated_file

MODES = (
    "1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "LA", "PA", "RGBX", "RGBa",
    "La", "I;16", "I;16B", "I;16L",
)  # fmt: skip
DTYPES = (
    "uint8", "bool", "int8", "int16", "int64", ">u2", "uint16", "<u4", "float16", ">f4", "float32",
    "float64", "longdouble", "complex64", "object", "U3", "S2", "datetime64[s]", "V4",
)  # fmt: skip
TENSORS = (
    torch.uint8, torch.bool, torch.int8, torch.int32, torch.int64, torch.uint16, torch.float16,
    torch.bfloat16, torch.float32, torch.float64, torch.float8_e4m3fn, torch.complex64,
)  # fmt: skip
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "ICO")
SIDES = st.one_of(st.integers(1, 40), st.sampled_from([0, 1, 2, 3, 4, 255, 257, 3000]))
WORDS = [
    "a red circle",
    "two small squares",
    "",
    " ",
    "[MASK] [CLS] [PAD]",
    "\u202eright to left",
    "e\u0301" * 50,
]

_vocabulary = train_wordpiece(["a red circle above two small blue squares", "été 東京 привет"], 120)
PROCESSOR = PixelBertProcessor(PixelBertImageProcessor(32, 64), _vocabulary, 16)

any_letter = st.characters(categories=["L", "M", "N", "P", "S", "Z", "Cc", "Cf", "Co", "Cs", "Cn"])
any_text = st.one_of(
    st.sampled_from(WORDS),
    st.text(max_size=30),
    st.text(any_letter, max_size=8),
    st.builds(
        lambda one, times: one * times, st.text(min_size=1, max_size=2), st.sampled_from([200, 5000, 100_000])
    ),
)
odd = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.binary(max_size=8), any_text,
    st.just(object()), st.just({}), st.just({"a": 1}), st.just(()), st.just([[]]), st.just(np.array("text")),
    st.just(np.array(["a", "b"])), st.just(torch.tensor(3)), st.just({"a"}), st.just(Ellipsis), st.just(str),
)  # fmt: skip


@st.composite
def pil_images(draw) -> Image.Image:
    """Any mode, noise in it, with what a file may say beside it."""
    mode, size = draw(st.sampled_from(MODES)), (draw(SIDES), draw(SIDES))
    image = Image.new(mode, size)
    rest = np.random.default_rng(draw(st.integers(0, 99)))
    if mode in ("F", "I"):
        kind = np.float32 if mode == "F" else np.int32
        scale = draw(st.sampled_from([1, 255, 65535, 1e9, -1]))
        values = (rest.random((size[1], size[0])) * scale).astype(kind)
        if mode == "F" and values.size and draw(st.booleans()):
            values[0, 0] = draw(st.sampled_from([np.nan, np.inf, -np.inf]))
        image = Image.fromarray(values) if values.size else image
    elif mode not in ("1",) and min(size) > 0:
        image.frombytes(rest.integers(0, 256, len(image.tobytes()), dtype=np.uint8).tobytes())
    if draw(st.booleans()):
        choices = [0, 255, 300, -1, (1, 2, 3), (1, 2), b"\0\1\2", b"", "x", None, 2**40]
        image.info["transparency"] = draw(st.sampled_from(choices))
    if draw(st.booleans()):
        image.getexif()[0x0112] = draw(st.sampled_from([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, -1, "6", 2**40, (6,)]))
    return image


@st.composite
def shapes(draw) -> tuple[int, ...]:
    channels = draw(st.sampled_from([1, 2, 3, 4]))
    height, width = draw(SIDES), draw(SIDES)
    picture = [
        (height, width),
        (height, width, channels),
        (channels, height, width),
        (1, channels, height, width),
    ]
    return draw(st.one_of(st.sampled_from(picture), st.lists(st.integers(0, 5), max_size=5).map(tuple)))


def _values(shape: tuple[int, ...], seed: int, scale: float, special: float | None) -> np.ndarray:
    values = np.random.default_rng(seed).random(shape) * scale
    if special is not None and values.size:
        values.reshape(-1)[-1] = special
    return values


scales = st.sampled_from([0.0, 1.0, 1.001, 255.0, 65535.0, -1.0])
specials = st.one_of(st.none(), st.sampled_from([np.nan, np.inf, -np.inf]))


@st.composite
def arrays(draw) -> Any:
    """Any dtype and layout: turned, with steps, read only, masked, of the other byte order."""
    shape, dtype = draw(shapes()), draw(st.sampled_from(DTYPES))
    values = _values(shape, draw(st.integers(0, 99)), draw(scales), draw(specials))
    with np.errstate(all="ignore"):
        array = values.astype("int64").astype(dtype) if dtype[0] in "dV" else values.astype(dtype)
    layout = draw(st.sampled_from(["", "F", "back", "steps", "read only", "masked", "list", "wide"]))
    if layout == "F":
        array = np.asfortranarray(array)
    elif layout == "back" and array.ndim:
        array = array[::-1, ...]
    elif layout == "steps" and array.ndim:
        array = np.repeat(array, 2, axis=0)[::2]
    elif layout == "read only":
        array.flags.writeable = False
    elif layout == "masked" and dtype[0] not in "oVUS":
        array = np.ma.masked_less(array, 1) if array.dtype.kind in "uif" else array
    elif layout == "list":
        return array.tolist()
    elif layout == "wide":
        array = np.broadcast_to(array, (2, *array.shape))
    return array


@st.composite
def tensors(draw) -> torch.Tensor:
    shape, dtype = draw(shapes()), draw(st.sampled_from(TENSORS))
    tensor = torch.from_numpy(_values(shape, draw(st.integers(0, 99)), draw(scales), draw(specials)))
    tensor = (
        tensor.nan_to_num(0).to(dtype)
        if not (dtype.is_floating_point or dtype.is_complex)
        else tensor.to(dtype)
    )
    layout = draw(
        st.sampled_from(
            ["", "meta", "sparse", "turned", "expanded", "grad", "conj", "inference", "parameter"]
        )
    )
    if layout == "meta":
        return tensor.to("meta")
    if layout == "sparse" and dtype in (torch.float32, torch.float64):
        return tensor.to_sparse() if tensor.ndim else tensor
    if layout == "turned":
        return tensor.mT if tensor.ndim >= 2 else tensor
    if layout == "expanded":
        return tensor.expand(3, *tensor.shape)
    if layout in ("grad", "parameter") and (dtype.is_floating_point or dtype.is_complex):
        return torch.nn.Parameter(tensor) if layout == "parameter" else tensor.requires_grad_()
    if layout == "conj" and dtype.is_complex:
        return tensor.conj()
    if layout == "inference":
        with torch.inference_mode():
            return tensor.clone()
    return tensor


def _encoded(number: int, file_format: str) -> bytes:
    noise = np.random.default_rng(number).integers(0, 256, (16 + number, 24, 3), dtype=np.uint8)
    image, stream = Image.fromarray(noise), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 1 + number % 8
    image = image.convert(("RGB", "L", "P", "CMYK", "RGBA")[number % 5]) if file_format == "TIFF" else image
    image.save(
        stream, file_format, **({"exif": exif} if file_format in ("JPEG", "PNG", "WEBP", "TIFF") else {})
    )
    return stream.getvalue()


ENCODED = [_encoded(number, file_format) for file_format in FORMATS for number in range(5)]
encoded = st.one_of(
    st.sampled_from(ENCODED), st.sampled_from(ENCODED).flatmap(mutated_file).map(lambda one: one.content)
)
files = st.one_of(
    encoded, encoded.map(bytearray), encoded.map(memoryview), encoded.map(io.BytesIO), any_text,
    any_text.map(io.StringIO), any_text.map(Path), st.binary(max_size=40), st.just(memoryview(b"abcd")[::2]),
)  # fmt: skip
images = st.one_of(pil_images(), arrays(), tensors(), files, odd)
several = st.one_of(images, st.lists(images, max_size=3), st.lists(images, max_size=3).map(tuple))
texts = st.one_of(any_text, st.lists(st.one_of(any_text, any_text, odd), max_size=4), odd)
options = st.fixed_dictionaries(
    {},
    optional={
        "return_tensors": st.sampled_from(["pt", "np", None, "tf", 3, []]),
        "padding": st.sampled_from([True, False, "longest", "max_length", None, 3, []]),
        "truncation": st.sampled_from([True, False, None, "only_first"]),
        "max_length": st.one_of(st.integers(-3, 40), st.sampled_from([2**40, 1.5, "7", True])),
        "short_side": st.sampled_from([0, 1, 16, 800, 2**31, 2**70, 1.5, "32", True, np.int64(20)]),
        "long_side": st.sampled_from([0, 64, 1333, 2**31, 2**70, None]),
        "size_divisor": st.sampled_from([0, 1, 7, 32, 2**31, -1]),
        "least_side": st.sampled_from([1, 9, 2**20]),
        "image_mean": st.sampled_from(
            [(0, 0, 0), (0.5,), "abc", "123", None, (1e308, 0, 0), [[1], [2], [3]]]
        ),
        "image_std": st.sampled_from([(1, 1, 1), (0, 1, 1), (1e-320, 1, 1), (-1, 1, 1), 3]),
        "shortside": st.just(3),
    },
)
calls = st.fixed_dictionaries({}, optional={"images": several, "text": texts, "options": options})


def judge_call(case: dict, folder: Path) -> str:
    """Tensors of the shapes, kinds and bounds that the processor promises, or a user error."""
    case = dict(case)
    given = case.pop("options", {})
    limit = given.get("max_length", PROCESSOR.max_text_length)
    try:
        found = PROCESSOR(**case, **given)
    except UserError as error:
        return sentence(error)
    found = {name: torch.as_tensor(np.asarray(value)) for name, value in found.items()}
    if case.get("text") is not None:
        ids, mask = found["input_ids"], found["attention_mask"]
        assert ids.shape == mask.shape and ids.dtype == mask.dtype == torch.int64
        assert ids.ndim == 2 and int(ids.max()) < len(PROCESSOR.tokenizer) and int(ids.min()) >= 0
        assert bool((mask.cummin(dim=1).values == mask).all()), "padding is on the right"
        assert not given.get("truncation", True) or limit is None or ids.shape[1] <= limit
    if case.get("images") is not None:
        values, size = found["pixel_values"], found["pixel_size"]
        assert values.dtype == torch.float32 and values.ndim == 4 and values.shape[1] == 3
        assert (
            size.dtype == torch.int32
            and size.amax(0).tolist() == list(values.shape[2:])
            and int(size.min()) >= 1
        )
        assert len(size) == len(values) and bool(torch.isfinite(values).all())
    return WORKED


def judge_file(case: Mutated, folder: Path) -> str:
    """What a build accepts a run can decode, at the size that was recorded; and the other way round."""
    try:
        rgb = to_rgb(case.content)
    except UserError as error:
        rgb, told = None, sentence(error)
    try:
        columns = image_columns(case.content)
    except Unusable as error:
        why = str(error)
    else:
        why = None
    if why is not None:
        assert why and "\n" not in why
        assert rgb is None, f"the build drops for {why} what can be decoded"
        return told
    assert rgb is not None, f"built, but not decoded: {told}"
    assert rgb.shape == (columns["height"], columns["width"], 3) and rgb.dtype == np.uint8
    return WORKED


def judge_vocabulary(case: tuple[list[str], int], folder: Path) -> str:
    """A vocabulary within its size, the same in any order, by which every text is read back."""
    given, size = case
    try:
        tokenizer = train_wordpiece(given, size)
    except UserError as error:
        return sentence(error)
    assert len(SPECIAL_TOKENS) < len(tokenizer) <= size
    assert train_wordpiece(given[::-1], size).get_vocab() == tokenizer.get_vocab()
    ids = tokenizer(given)["input_ids"]
    short = [one for text, one in zip(given, ids, strict=True) if max(map(len, text.split() or [""])) <= 100]
    assert not any(tokenizer.unk_token_id in one for one in short), "each letter of the texts is a piece"
    return WORKED
