"""Inference without this package: an exported program, and a compiled package that Python and C++ load.

Both hold the weights of the moment they were made and PyTorch's own operators alone, no library of ours. They
take what :meth:`InferenceGraph.forward` names, by those names, of the shapes they were made for, and return
its tuple; nothing fills a smaller call up (:class:`CompiledInference` does).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from pathlib import Path

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from ..ops.arguments import described
from .compilation import can_compile
from .inference_graph import InferenceGraph
from .inference_shape import InferenceShape, example_inputs
from .outputs import PixelBertOutput
from .pixelbert import PixelBERT

DYNAMIC = ("sequences", "words")
"""The sizes that an exported program may leave open."""


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
    inputs = example_inputs(shape, dtype, device)
    sequences = Dim("sequences", min=1) if "sequences" in dynamic else Dim.STATIC
    words = Dim("words", min=1, max=graph.embeddings.places.shape[0]) if "words" in dynamic else Dim.STATIC
    rows = {"input_ids": (sequences, words), "attention_mask": (sequences, words)}
    rows |= {"image_index": (sequences,), "positions": (sequences, Dim.STATIC)}
    dims = {name: rows.get(name, (Dim.STATIC,) * value.dim()) for name, value in inputs.items()}
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
    options: dict = {"aot_inductor.metadata": {"pixelbert_inputs": json.dumps(described_inputs(program))}}
    if model.device.type == "cpu":
        # The machine that loads it decides how many threads there are.
        options["cpp.dynamic_threads"] = True
    packed = torch._inductor.aoti_compile_and_package(
        program, package_path=str(path), inductor_configs=options
    )
    return Path(packed)


def described_inputs(program: ExportedProgram) -> dict[str, dict]:
    """Of each input by name its dtype, device, and sizes: a number, or "least" and "most"."""
    bounds = {
        str(symbol): (int(range_.lower), range_.upper) for symbol, range_ in program.range_constraints.items()
    }

    def size(value: int | torch.SymInt) -> list[int]:
        if isinstance(value, int):
            return [value, value]
        least, most = bounds[str(value)]
        return [least, min(int(most), 2**31 - 1) if most.is_Integer else 2**31 - 1]

    found = {}
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in program.graph_signature.user_inputs:
            value = node.meta["val"]
            found[node.name] = {
                "dtype": str(value.dtype).removeprefix("torch."),
                "device": value.device.type,
                "sizes": [size(each) for each in value.shape],
            }
    return found


def load_package(path: str | Path) -> Callable[..., PixelBertOutput]:
    """What :func:`save_package` wrote, as a function of the same inputs by name.

    It raises TypeError or ValueError where an input is missing, unknown, or not of the prepared dtype, device
    and shape: compiled code itself does not look.
    """
    return Package(path)


class Package:
    """See :func:`load_package`. `inputs` says what it takes: dtype, device, and of each size the bounds."""

    def __init__(self, path: str | Path):
        self._run = torch._inductor.aoti_load_package(str(path))
        self.inputs: dict[str, dict] = json.loads(self._run.get_metadata()["pixelbert_inputs"])

    def __call__(self, **inputs: Tensor) -> PixelBertOutput:
        if inputs.keys() != self.inputs.keys():
            raise TypeError(
                f"the package takes {', '.join(self.inputs)}, got {', '.join(inputs) or 'nothing'}"
            )
        for name, wanted in self.inputs.items():
            self._require(name, inputs[name], wanted)
        hidden, pooled, positions, mask = self._run(
            **{name: value.contiguous() for name, value in inputs.items()}
        )
        return PixelBertOutput(
            last_hidden_state=hidden, pooler_output=pooled, positions=positions, pixel_mask=mask
        )

    @staticmethod
    def _require(name: str, value: Tensor, wanted: dict) -> None:
        sizes = [str(low) if low == high else f"{low} .. {high}" for low, high in wanted["sizes"]]
        expected = f"{wanted['dtype']} [{', '.join(sizes)}] on {wanted['device']}"
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a tensor {expected}, got {described(value)}")
        fits = len(sizes) == value.dim() and all(
            low <= size <= high for size, (low, high) in zip(value.shape, wanted["sizes"], strict=True)
        )
        if (
            not fits
            or described(value).split()[0] != wanted["dtype"]
            or value.device.type != wanted["device"]
        ):
            raise ValueError(f"{name} must be {expected}, got {described(value)}")
