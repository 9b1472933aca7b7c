"""Compiled inference for known shapes: what `FastPixelBERT.compile_for_inference` gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ..ops.arguments import described, reads_values, require_range
from .compilation import compiles_or_warns
from .cuda_graph import CudaGraph
from .export import trace
from .inference_call import Call
from .inference_graph import InferenceGraph
from .inference_shape import InferenceShape, example_inputs
from .inputs import integers, request
from .outputs import PixelBertOutput, PixelEmbeddings
from .pixelbert import PixelBERT, fills


class CompiledInference:
    """Called like the model: ``forward``'s inputs, :class:`PixelBertOutput`, for the shapes it was made for.

    Equivalent to ``model.eval()(...)`` under ``torch.no_grad()``, within rounding, whatever mode the model is
    in. A call runs the cheapest shape it fits, filled up with what does not count; outputs are cut back to
    the call's own sizes, and no later call overwrites them. Any thread may call.

    It holds a COPY of the weights of the moment it was made: compile again after training. On a CPU each
    shape holds them once more, laid out for its convolutions and matrix products.

    On a CPU Inductor compiles each shape, weights frozen into it, for torch's settings as they are then: the
    number of threads, default dtype, deterministic algorithms or precision of matrix products, changed later,
    make the next call compile anew. On CUDA each shape is a CUDA graph of compiled
    code, replayed on the caller's stream. Where ``torch.compile`` cannot run, the same computation runs
    eagerly and a warning says so once.

    Places are drawn outside what was compiled, so no replay repeats a draw.
    """

    def __init__(
        self,
        model: PixelBERT,
        shapes: Iterable[InferenceShape],
        *,
        sample: bool = False,
        fallback: bool = False,
    ):
        """See :meth:`FastPixelBERT.compile_for_inference`."""
        self.shapes = tuple(dict.fromkeys(shapes))
        if not self.shapes:
            raise ValueError("compile_for_inference needs one InferenceShape at least")
        for shape in self.shapes:
            shape.check(model.config)
        self.fallback = fallback
        weight = model.pixel_projection.weight
        self.dtype, self.device = weight.dtype, weight.device
        self._rules = without_weights(model).train(sample)
        self._graph = InferenceGraph(model).eval()
        compiled = compiles_or_warns(self.device, "compile_for_inference")
        self._runs = {shape: self._prepare(shape, compiled) for shape in self.shapes}

    def _prepare(self, shape: InferenceShape, compiled: bool) -> Callable[..., tuple[Tensor, ...]]:
        """What runs one shape; all that takes long happens here, not in the first call."""
        with plainly(self.device):
            run: Callable = self._graph
            inputs = example_inputs(shape, self.dtype, self.device)
            if compiled:
                # Each traced shape is code of its own: torch.compile keeps but a few variants of one code.
                module = trace(self._graph, shape, self.dtype, self.device).module(check_guards=False)
                options = {"freezing": True} if self.device.type == "cpu" else None
                run = torch.compile(module, fullgraph=True, dynamic=False, options=options)
            if self.device.type == "cuda":
                return CudaGraph(run, inputs)
            run(**inputs)
            return run

    def __call__(
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
        output_attentions: bool | None = None,
    ) -> PixelBertOutput:
        """Takes what :meth:`PixelBERT.forward` takes; its outputs carry no gradient.

        Args:
            pixel_values: of the dtype and on the device that the weights had when they were compiled.

        Raises:
            TypeError, ValueError, IndexError: as :meth:`PixelBERT.forward`.
            ValueError: a call that fits no prepared shape (without ``fallback``), that brings
                `pixel_embeddings`, or that asks for attention maps.
        """
        if pixel_embeddings is not None or output_attentions:
            what = "gives no attention maps" if pixel_embeddings is None else "reads no pixel_embeddings"
            raise ValueError(f"compiled inference {what}: call the model itself for that")
        with plainly(self.device):
            call = self._checked(
                input_ids,
                attention_mask,
                pixel_values,
                pixel_size,
                seed,
                image_index=image_index,
                positions=positions,
                sample_keys=sample_keys,
            )
            shape = call.cheapest(self.shapes)
            if shape is None and not self.fallback:
                prepared = "; ".join(map(str, self.shapes))
                raise ValueError(
                    f"no prepared shape fits {call}: prepare one that does, or compile with fallback=True; "
                    f"prepared: {prepared}"
                )
            run = self._graph if shape is None else self._runs[shape]
            shape = shape or call.own_shape()
            return call.cut(run(**call.filling(shape, self._grid(shape))), shape, self._grid(shape))

    def _checked(
        self, input_ids, attention_mask, pixel_values, pixel_size, seed, *, positions, **inputs
    ) -> Call:
        """The call, its places drawn if the model were to draw them; what it raises is ``forward``'s."""
        rules = self._rules
        asked = request(rules.config, input_ids, attention_mask, pixel_values, positions=positions, **inputs)
        if pixel_values.dtype != self.dtype or pixel_values.device != self.device:
            name = str(self.dtype).removeprefix("torch.")
            raise TypeError(
                f"pixel_values must be {name} [B, 3, H, W] on {self.device}, like the weights when they were "
                f"compiled, got {described(pixel_values)}"
            )
        # What compiled code does with a word that is not there is no error that a caller would understand.
        vocabulary = self._graph.embeddings.words.shape[0]
        require_range("forward", "input_ids", asked.input_ids, 0, vocabulary, f"{vocabulary} word pieces")
        valid_grid, grid = rules.grids(pixel_values, pixel_size)
        valid_grid = valid_grid[asked.image_index.to(self.device)]
        places = asked.positions
        if places is not None:
            places = self._inside(places.to(self.device), valid_grid, grid)
        elif rules.draws():
            places = rules.choose(valid_grid, grid, seed, asked.sample_keys).long()
        padded = attention_mask is not None
        if padded and reads_values(attention_mask):
            padded = bool((attention_mask == 0).any())
        return Call(
            asked.input_ids,
            (asked.attention_mask != 0).long(),
            pixel_values,
            asked.image_index,
            None if pixel_size is None else integers("pixel_size", pixel_size, "[B, 2]", None, 2),
            places,
            grid,
            not fills(pixel_size, pixel_values),
            padded,
        )

    @staticmethod
    def _inside(places: Tensor, valid_grid: Tensor, grid: tuple[int, int]) -> Tensor:
        """`places` where each lies in its image; the model answers any other with NaN, or raises."""
        row, column = places // grid[1], places % grid[1]
        outside = (places >= 0) & ((row >= valid_grid[:, :1]) | (column >= valid_grid[:, 1:]))
        outside |= places < -1
        if reads_values(places) and bool(outside.any()):
            raise ValueError("positions names a place outside its image")
        return places.masked_fill(outside, grid[0] * grid[1])

    def _grid(self, shape: InferenceShape) -> tuple[int, int]:
        height, width = (
            int(self._graph.backbone.map_size(side)) // 2 for side in (shape.height, shape.width)
        )
        return height, width


def without_weights(model: PixelBERT) -> PixelBERT:
    """A model of the same configuration that takes no memory: for its arithmetic on shapes and its draws."""
    with torch.device("meta"):
        return type(model)(type(model.config).from_dict(model.config.to_dict()))


@contextmanager
def plainly(device: torch.device) -> Iterator[None]:
    """No gradients, inference mode or autocast, whatever the caller is in: compiled code depends on them."""
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        torch.autocast(device.type, enabled=False),
    ):
        yield
