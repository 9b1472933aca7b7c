"""The task that starts a backbone: naming single objects, for want of ImageNet weights."""

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor, nn

from pixelbert_fast.data.records import open_set
from pixelbert_fast.errors import UserError
from pixelbert_fast.model.backbone import ResNet
from pixelbert_fast.model.flops import training_flops
from pixelbert_fast.model.weights import load_backbone
from pixelbert_fast.tasks.architecture import evaluation_splits, image_processor, model_config, seeded
from pixelbert_fast.tasks.batched import BatchedTask
from pixelbert_fast.tasks.objects.batches import ObjectBatches
from pixelbert_fast.tasks.objects.naming import ObjectNaming, evaluate_naming, naming_loss
from pixelbert_fast.tasks.protocol import Progress, percent, unwrapped


class ObjectsTask(BatchedTask):
    """Supervised naming of single objects (see `protocol.Task`); saves the backbone for `start.backbone`.

    Raises UserError for a set that is not of single objects, or an option that does not fit.
    """

    name = "objects"
    _backbone = "backbone."

    def __init__(self, config, device="cpu"):
        self._config, self._device = config, device
        unused = [name for name in ("sets", "epoch", "batching") if getattr(config.data, name, None)]
        if unused:
            raise UserError(f"data.{unused[0]} is for the task pretrain; leave it out of a run of objects")
        self._set = open_set(config.data.directory)
        self._attributes = self._set.card.get("attributes")
        if not self._attributes:
            raise UserError(
                f"{config.data.directory} does not list what its objects can be; build one of -objects"
            )
        self._built = model_config(config)
        self.image_processor = image_processor(config, self._built)
        self.headlines = tuple(f"{attribute}_accuracy" for attribute in self._attributes)
        with seeded(config.seed):
            backbone = ResNet(self._built)
            for module in backbone.modules():
                if isinstance(module, nn.Conv2d):
                    # As the whole model starts its backbone (He et al. 2015).
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            self.model = ObjectNaming(backbone, self._attributes)
        if config.start.backbone:
            load_backbone(backbone, config.start.backbone)
        self._batches = self._of(self._set.split("train"))
        self._evaluated = evaluation_splits(self._set, config)

    def size(self, batch: Mapping[str, Tensor]) -> dict[str, int]:
        return {"images": len(batch["pixel_values"]), "pairs": len(batch["pixel_values"])}

    def flops(self, batch: Mapping[str, Tensor]) -> int:
        images, _, *size = batch["pixel_values"].shape
        # The heads are a thousandth of it.
        counted = training_flops(
            self._built, image_size=tuple(size), images=images, sequences=0, text_length=0, pixels=0
        )
        return counted["backbone"]

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        return naming_loss(model(batch["pixel_values"], batch["pixel_size"]), batch["targets"])

    def evaluate(self, model: nn.Module, progress: Progress | None = None, limit: int | None = None) -> dict:
        limit = limit or self._config.evaluation.images
        return {
            name: evaluate_naming(unwrapped(model), self._of(split), limit=limit, progress=progress)
            for name, split in self._evaluated.items()
        }

    def headline(self, metrics: Mapping) -> dict[str, float | None]:
        """The accuracy of each attribute, as `{attribute}_accuracy`."""
        first = next(iter(metrics.values()), {"accuracy": {}})
        return {f"{attribute}_accuracy": share for attribute, share in first["accuracy"].items()}

    def save(self, model: nn.Module, directory: str | Path) -> None:
        """Writes `backbone.safetensors` (torchvision's names) and `attributes.json` (what it tells apart)."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        state = unwrapped(model).backbone.state_dict()
        save_file(
            {name: value.detach().cpu().contiguous() for name, value in state.items()},
            directory / "backbone.safetensors",
        )
        text = json.dumps({"attributes": self._attributes}, indent=1, ensure_ascii=False)
        (directory / "attributes.json").write_text(text + "\n", encoding="utf-8")

    def summary(self, metrics: Mapping) -> list[tuple[str, str]]:
        return [
            (f"{split}: {attribute}", percent(share))
            for split, figures in metrics.items()
            for attribute, share in figures["accuracy"].items()
        ]

    def _of(self, split) -> ObjectBatches:
        return ObjectBatches(
            split,
            self.image_processor,
            self._attributes,
            self._config.training.images_per_batch,
            self._config.seed,
            decoder=self._config.data.decoder,
            device=self._device,
            broken_limit=self._config.data.broken_limit,
        )
