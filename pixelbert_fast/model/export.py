"""Inference without this package: an exported program, and a compiled package that Python and C++ load.

Both hold the weights of the moment they were made and PyTorch's own operators alone, no library of ours. They
take what :meth:`InferenceGraph.forward` names, by those names, of the shapes they were made for, and return
its tuple; nothing fills a smaller call up (:class:`CompiledInference` does).
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from ..ops.arguments import described, require_range
from .compilation import can_compile
from .inference_graph import InferenceGraph
from .inference_shape import InferenceShape, example_inputs
from .outputs import PixelBertOutput
from .pixelbert import PixelBERT

DYNAMIC = ("sequences", "words")
"""The sizes that an exported program may leave open."""
SIZES = {
    "input_ids": ("sequences", "words"),
    "attention_mask": ("sequences", "words"),
    "image_index": ("sequences",),
    "positions": ("sequences", None),
}
"""Where those sizes occur among the inputs."""


def export_for_inference(
    model: PixelBERT, shape: InferenceShape, *, dynamic: Collection[str] = ()
) -> ExportedProgram:
    """``model`` in evaluation mode as a ``torch.export`` program of this shape.

    Args:
        dynamic: which of "sequences" and "words" may be any number from 1 on at run time (words: up to the
            model's ``max_position_embeddings``). All other sizes are those of `shape`.

    Raises:
        ValueError: a shape that the model does not read, or another name in `dynamic`.
    """
    shape.check(model.config)
    weight = model.pixel_projection.weight
    with torch.no_grad():
        return trace(InferenceGraph(model), shape, weight.dtype, weight.device, dynamic)


def trace(
    graph: InferenceGraph,
    shape: InferenceShape,
    dtype: torch.dtype,
    device: torch.device,
    dynamic: Collection[str] = (),
) -> ExportedProgram:
    """`graph` at `shape`, its weights shared with it."""
    wrong = set(dynamic) - set(DYNAMIC)
    if wrong:
        raise ValueError(f"dynamic must name some of {', '.join(DYNAMIC)}, got {', '.join(sorted(wrong))}")
    # Tracing takes a size of 1 for a fixed one.
    traced = replace(shape, **{name: max(getattr(shape, name), 2) for name in dynamic})
    inputs = example_inputs(traced, dtype, device)
    most = {"words": graph.embeddings.places.shape[0]}
    open_sizes = {name: Dim(name, min=1, max=most.get(name)) for name in dynamic}
    dims = {
        name: tuple(open_sizes.get(size, Dim.STATIC) for size in SIZES.get(name, (None,) * value.dim()))
        for name, value in inputs.items()
    }
    return torch.export.export(graph.eval(), (), inputs, dynamic_shapes=dims if dynamic else None)


def save_package(
    model: PixelBERT, shape: InferenceShape, path: str | Path, *, dynamic: Collection[str] = ()
) -> Path:
    """Compiles ``model`` at this shape for its device into one file, by AOTInductor.

    In Python without this package ``torch._inductor.aoti_load_package(path)(**inputs)`` runs it, in C++
    ``torch::inductor::AOTIModelPackageLoader`` (inputs in the order of ``InferenceGraph.forward``). Both want
    contiguous inputs of the right shapes and check nothing; :func:`load_package` does. The file is for the
    kind of processor or GPU, and the version of torch, that it was made with.

    Args:
        path: ends in ``.pt2``.
        dynamic: see :func:`export_for_inference`.

    Raises:
        ValueError: as :func:`export_for_inference`.
        RuntimeError: nothing can be compiled here, and why.
    """
    reason = can_compile(model.device)
    if reason is not None:
        raise RuntimeError(f"save_package cannot compile: {reason}")
    program = export_for_inference(model, shape, dynamic=dynamic)
    options: dict = {"aot_inductor.metadata": {"pixelbert": json.dumps(contract(model, shape, dynamic))}}
    if model.device.type == "cpu":
        # The machine that loads it decides how many threads there are.
        options["cpp.dynamic_threads"] = True
    packed = torch._inductor.aoti_compile_and_package(
        program, package_path=str(path), inductor_configs=options
    )
    return Path(packed)


def contract(model: PixelBERT, shape: InferenceShape, dynamic: Collection[str]) -> dict:
    """What a package takes: of each input its dtype, device and sizes, an open size by its name."""
    inputs = {}
    for name, value in example_inputs(shape, model.dtype, model.device).items():
        sizes = [
            called if called in dynamic else size
            for size, called in zip(value.shape, SIZES.get(name, (None,) * value.dim()), strict=True)
        ]
        dtype = str(value.dtype).removeprefix("torch.")
        inputs[name] = {"dtype": dtype, "device": value.device.type, "sizes": sizes}
    vocabulary = model.get_input_embeddings().num_embeddings
    return {"inputs": inputs, "most_words": model.config.max_position_embeddings, "vocabulary": vocabulary}


def load_package(path: str | Path) -> Package:
    """What :func:`save_package` wrote, as a function of the same inputs by name."""
    return Package(path)


class Package:
    """See :func:`load_package`. `inputs` says what it takes: dtype, device and sizes."""

    def __init__(self, path: str | Path):
        self._run = torch._inductor.aoti_load_package(str(path))
        found = json.loads(self._run.get_metadata()["pixelbert"])
        self.inputs: dict[str, dict] = found["inputs"]
        self._most = {"words": found["most_words"]}
        self._vocabulary: int = found["vocabulary"]

    def __call__(self, **inputs: Tensor) -> PixelBertOutput:
        """Checks what compiled code does not look at, and runs it.

        Raises:
            TypeError: an input that is missing, unknown, or no tensor.
            ValueError: one that is not of the prepared dtype, device and sizes.
            IndexError: an image or word piece that is not there (on a GPU only with
                ``PIXELBERT_FAST_CHECK=1``).
        """
        if inputs.keys() != self.inputs.keys():
            raise TypeError(
                f"the package takes {', '.join(self.inputs)}; got {', '.join(inputs) or 'nothing'}"
            )
        sizes: dict[str, int] = {}
        for name in self.inputs:
            self._require(name, inputs[name], sizes)
        images = self.inputs["pixel_values"]["sizes"][0]
        require_range("package", "image_index", inputs["image_index"], 0, images, f"it reads {images} images")
        known = self._vocabulary
        require_range("package", "input_ids", inputs["input_ids"], 0, known, f"it knows {known} word pieces")
        flat = {name: value.contiguous() for name, value in inputs.items()}
        hidden, pooled, positions, mask = self._run(**flat)
        return PixelBertOutput(
            last_hidden_state=hidden, pooler_output=pooled, positions=positions, pixel_mask=mask
        )

    def _require(self, name: str, value: Tensor, sizes: dict[str, int]) -> None:
        """Raises where `value` is not what the package takes; `sizes` collects the open ones."""
        wanted = self.inputs[name]
        expected = f"{wanted['dtype']} [{', '.join(map(str, wanted['sizes']))}] on {wanted['device']}"
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a tensor {expected}, got {described(value)}")
        fits = value.dim() == len(wanted["sizes"]) and value.device.type == wanted["device"]
        if not fits or str(value.dtype) != f"torch.{wanted['dtype']}":
            raise ValueError(f"{name} must be {expected}, got {described(value)}")
        for got, size in zip(value.shape, wanted["sizes"], strict=True):
            if isinstance(size, int):
                if got != size:
                    raise ValueError(f"{name} must be {expected}, got {described(value)}")
            elif sizes.setdefault(size, got) != got:
                raise ValueError(
                    f"{name} must have {sizes[size]} {size} like input_ids, got {described(value)}"
                )
            elif not 1 <= got <= self._most.get(size, got):
                most = self._most.get(size, "any")
                raise ValueError(f"{name} must have 1 .. {most} {size}, got {described(value)}")
