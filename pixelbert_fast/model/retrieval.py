"""PixelBertForImageTextRetrieval: how well a text and an image match, as one score (paper, section 4.2)."""

from __future__ import annotations

from os import PathLike

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers.utils import SAFE_WEIGHTS_NAME, cached_file

from ..ops.arguments import require_range
from .attention import AttentionRequest
from .config import PixelBertConfig
from .downstream import PixelBertForDownstreamTask
from .hard_negatives import hardest_of, renumbered, without_dropout
from .heads import HeadLayer
from .inputs import integers
from .losses import group_loss
from .outputs import FeatureMaps, PixelBertForImageTextRetrievalOutput, PixelEmbeddings

_MATCH = 1
"""The column of the match head's logits that says that text and image belong together."""
# What from_pretrained takes to find a file with.
_WHERE = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")


class PixelBertForImageTextRetrieval(PixelBertForDownstreamTask):
    """PixelBERT with a linear score on ``[CLS]``.

    ``from_pretrained`` of a pre-training checkpoint starts the score as its logit of a match (the positive
    row of its match head, as follow-ups of the paper do), where its weights are one ``model.safetensors``.
    """

    _keys_to_ignore_on_load_missing = [r"^score_head\."]

    def __init__(self, config: PixelBertConfig, *, fast: bool = True):
        """`fast`: as PixelBertForPreTraining."""
        super().__init__(config, fast=fast)
        self.score_head = HeadLayer(config.hidden_size, 1)
        self.post_init()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path=None, *arguments, **options):
        """As transformers', see the class."""
        loaded = super().from_pretrained(pretrained_model_name_or_path, *arguments, **options)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        if model.score_head.fresh and pretrained_model_name_or_path is not None:
            where = {name: options[name] for name in _WHERE if options.get(name) is not None}
            found = match_head(pretrained_model_name_or_path, where)
            if found is not None:
                model.score_as(*found)
        return loaded

    @classmethod
    def from_pretraining(cls, checkpoint: str | PathLike, **options) -> PixelBertForImageTextRetrieval:
        """:meth:`from_pretrained`, where the checkpoint must say how its score starts.

        Raises:
            ValueError: it has neither a match head nor a score.
        """
        model = cls.from_pretrained(checkpoint, **options)
        if model.score_head.fresh:
            raise ValueError(
                f"{checkpoint} has no match head (itm_head) in {SAFE_WEIGHTS_NAME}: give the checkpoint of a "
                "pre-training, or from_pretrained where the score shall start at random"
            )
        return model

    @torch.no_grad()
    def score_as(self, weight: Tensor, bias: Tensor) -> None:
        """Makes the score the logit of a match, of the match head's weight ``[2, D]`` and bias ``[2]``."""
        self.score_head.weight.copy_(weight[_MATCH, None])
        self.score_head.bias.copy_(bias[_MATCH, None])
        self.score_head.fresh = False

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        *,
        groups: Tensor | None = None,
        hardest: int | None = None,
        image_index: Tensor | None = None,
        pixel_size: Tensor | None = None,
        positions: Tensor | None = None,
        pixel_embeddings: PixelEmbeddings | FeatureMaps | None = None,
        seed: int | Tensor | None = None,
        sample_keys: Tensor | None = None,
        output_attentions: AttentionRequest | bool | None = None,
    ) -> PixelBertForImageTextRetrievalOutput:
        """Scores each text against the image that it reads.

        Args:
            groups: ``[G, C]`` integers, sequences by number: of each group the first is the pair that belongs
                together, the others are wrong, -1 is none. None: no loss.
            hardest: with `groups`, how many wrong pairs of each group count: those with the highest scores by
                a pass without gradients and dropout, after which only they and the right pairs are read
                again (paper, section 4.2); None: all, in one pass.
            pixel_embeddings: or the backbone's maps, which are projected here.
            others: as :meth:`PixelBERT.forward`, which says what is raised.

        Raises:
            IndexError: a sequence in `groups` that is not there.
            ValueError: `groups` of another shape.
        """
        if isinstance(pixel_embeddings, FeatureMaps):
            pixel_embeddings = self.pixelbert.embed_features(*pixel_embeddings)
        inputs = {
            "image_index": image_index,
            "pixel_size": pixel_size,
            "positions": positions,
            "pixel_embeddings": pixel_embeddings,
            "seed": seed,
            "sample_keys": sample_keys,
            "output_attentions": output_attentions,
        }
        if groups is not None:
            groups = self._checked(groups, input_ids.shape[0])
            if hardest is not None:
                return self._hardest(input_ids, attention_mask, pixel_values, groups, hardest, inputs)
        outputs = self.pixelbert.pool(input_ids, attention_mask, pixel_values, **inputs)
        scores = self.score_head(outputs.pooler_output)[:, 0]
        loss = None if groups is None else group_loss(scores, groups)
        return PixelBertForImageTextRetrievalOutput(loss=loss, scores=scores, attentions=outputs.attentions)

    @staticmethod
    def _checked(groups: Tensor, there: int) -> Tensor:
        groups = integers("groups", groups, "[G, C]", None, None)
        if groups.shape[1] == 0:
            raise ValueError("groups must be [G, C] with the right pair first, got C = 0")
        told = f"there are {there} sequences"
        require_range("forward", "groups", groups, -1, there, f"{told}, and -1 is none")
        require_range("forward", "groups[:, 0]", groups[:, 0], 0, there, f"{told}, and one must be right")
        return groups

    def _hardest(
        self, input_ids, attention_mask, pixel_values, groups: Tensor, hardest: int, inputs: dict
    ) -> PixelBertForImageTextRetrievalOutput:
        """:meth:`forward` in two passes; the images go through the backbone once for both."""
        if hardest < 1:
            raise ValueError(f"hardest must be at least 1, got {hardest}")
        if inputs["pixel_embeddings"] is None:
            inputs["pixel_embeddings"] = self.pixelbert.embed_pixels(pixel_values, inputs["pixel_size"])
        if inputs["seed"] is None:  # both passes read the same pixels
            inputs["seed"] = torch.empty((), dtype=torch.int64, device="cpu").random_()
        inputs["pixel_size"], count = None, input_ids.shape[0]
        every = torch.arange(count, device=input_ids.device)
        for name in ("image_index", "sample_keys"):
            inputs[name] = every if inputs[name] is None else inputs[name]
        known = inputs["pixel_embeddings"]
        with torch.no_grad(), without_dropout(self.pixelbert):
            detached = known._replace(values=known.values.detach())
            first = {**inputs, "pixel_embeddings": detached, "output_attentions": False}
            pooled = self.pixelbert.pool(input_ids, attention_mask, **first).pooler_output
            scores = self.score_head(pooled)[:, 0]
        chosen = hardest_of(scores, groups, hardest)
        kept, chosen = renumbered(chosen, count)
        few = {
            name: value[kept] if name in ("image_index", "positions", "sample_keys") and value is not None
            else value
            for name, value in inputs.items()
        }  # fmt: skip
        mask = None if attention_mask is None else attention_mask[kept]
        outputs = self.pixelbert.pool(input_ids[kept], mask, **few)
        again = self.score_head(outputs.pooler_output)[:, 0]
        return PixelBertForImageTextRetrievalOutput(
            loss=group_loss(again, chosen),
            scores=scores.to(again.dtype).index_copy(0, kept, again.detach()),
            attentions=outputs.attentions,
        )


def match_head(checkpoint: str | PathLike, where: dict) -> tuple[Tensor, Tensor] | None:
    """Weight ``[2, D]`` and bias ``[2]`` of a checkpoint's match head; None where there is none to be read.

    Args:
        checkpoint: a folder, or a hub name.
        where: options of ``from_pretrained`` that say where it is found.
    """
    try:
        file = cached_file(checkpoint, SAFE_WEIGHTS_NAME, **where)
        with safe_open(file, framework="pt") as tensors:
            return tensors.get_tensor("itm_head.weight"), tensors.get_tensor("itm_head.bias")
    except (OSError, SafetensorError):
        return None
