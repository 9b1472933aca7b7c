"""What a run can be told: the tree of options, each with its default, its meaning and its bounds.

Reading one from YAML and the command line is `recipes.load_config`.
"""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pixelbert_fast.training.deepspeed_config import Precision, refused_keys

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1)]
BelowOne = Annotated[float, Field(ge=0.0, lt=1.0)]
NotNegative = Annotated[float, Field(ge=0.0)]


class Section(BaseModel):
    """A part of the tree; a key it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class BuildConfig(BaseModel):
    """How to build a data set that is not there yet: a builder's name and that builder's own options."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    def options(self) -> dict[str, Any]:
        """The builder's options, without its name."""
        return dict(self.model_extra or {})


class SetConfig(Section):
    """One of several built sets.

    Attributes:
        directory: as `data.directory`.
        weight: how often an epoch shows its images: 1 once, 0.5 one half of them and the next epoch the
            other, 2 twice, 0 not at all (only evaluated on).
    """

    directory: str
    weight: Annotated[float, Field(ge=0.0, le=1000.0, allow_inf_nan=False)] = 1.0


class BatchingConfig(Section):
    """Batches of one size each, within bounds.

    Attributes:
        buckets: sizes of batches, at most.
        aspect_change: an image is resized to its bucket's size where that multiplies or divides its aspect
            ratio by no more than 1 plus this; else it keeps its proportions and is padded.
        pixels: of a batch (height times width times images), at most; None: no bound but
            `training.images_per_batch`, which holds as well.
        tokens: of a batch's texts with their padding, at most; None: no bound.
        alike: batches of like size that come one after the other, so that the processes of a step all have
            such; a multiple of their number is best.
    """

    buckets: Annotated[int, Field(ge=1, le=1000)] = 8
    aspect_change: BelowOne = 0.08
    pixels: Count | None = None
    tokens: Count | None = None
    alike: Count = 8


class DataConfig(Section):
    """Which images and texts, and how they become batches.

    Attributes:
        directory: a built data set; relative to the working directory.
        sets: several built sets in one pre-training run, in place of `directory`.
        epoch: what an epoch of pre-training shows (of a set of weight 1). images: each image once, its
            captions drawn without repetition until all have been shown, over as many epochs as it takes.
            captions: each image as often as it takes to show all its captions once. None: as images, by
            the rule of the first recipes, which leaves an image's last captions out where they do not come
            out even, and draws anew; with `sets` or `batching`, images.
        batching: batches of one size each; None: of images as they come, padded to the largest.
        build: how to build it on first use; None: it must be there.
        captions_per_image: texts read with one pass of an image through the backbone.
        mismatched_share: how many of them are made not to match.
        max_text_length: word pieces a text, [CLS] and [SEP] included; longer ones are cut and counted.
        short_side, long_side: pixels; an image's short side becomes the one, unless its long side would pass
            the other (None: the model preset's).
        size_divisor: both sides are multiples of it.
        decoder: what turns files into pixels; None: PIXELBERT_FAST_DECODER, or the best that can run.
        broken_limit: the share of an epoch's images that may be broken; others are shown in their place. More
            of them end the run.
    """

    directory: str = "data/scenes"
    sets: tuple[SetConfig, ...] | None = None
    epoch: Literal["images", "captions"] | None = None
    batching: BatchingConfig | None = None
    build: BuildConfig | None = None
    captions_per_image: Count = 4
    mismatched_share: Share = 0.5
    max_text_length: Annotated[int, Field(ge=3)] = 40
    short_side: Count | None = None
    long_side: Count | None = None
    size_divisor: Count = 1
    decoder: Literal["plain", "dali"] | None = None
    broken_limit: Share = 0.01

    @property
    def directories(self) -> str | list[str]:
        """Of all sets, or of the only one."""
        return [one.directory for one in self.sets] if self.sets else self.directory

    @model_validator(mode="after")
    def _sets_or_directory(self) -> DataConfig:
        if self.sets is None:
            return self
        directories = [one.directory for one in self.sets]
        if not any(one.weight for one in self.sets):
            raise ValueError("data.sets names no set with a weight above 0")
        if len({os.path.normpath(one) for one in directories}) < len(directories):
            raise ValueError("data.sets names one directory twice; give it once, with the sum of the weights")
        if self.build is not None:
            raise ValueError("data.build builds data.directory, which data.sets replaces; give one of them")
        return self


class TokenizerConfig(Section):
    """The word pieces: a saved tokenizer's directory, or None to train `size` on captions.

    Attributes:
        texts: the built set, or sets, whose training captions they are; None: the run's own.
    """

    path: str | None = None
    texts: str | tuple[str, ...] | None = None
    size: Count = 2000


class ModelConfig(Section):
    """The model.

    Attributes:
        preset: of PixelBertConfig.
        overrides: any of its fields by name.
        fast: FastPixelBERT; false: the plain reference, which computes the same in more time.
    """

    preset: str = "tiny"
    overrides: dict[str, Any] = {}
    fast: bool = True


class ObjectivesConfig(Section):
    """What pre-training learns from: masked words, image-text matching, both, or (to compare) neither."""

    mlm: bool = True
    itm: bool = True
    mlm_probability: Share = 0.15
    mlm_on_mismatched: bool = False


class StartConfig(Section):
    """What training starts from; everything not given starts at random.

    Attributes:
        backbone: backbone weights, a file or a directory.
        backbone_recipe: a recipe of the task "objects" that trains such weights first, into OUTPUT/backbone.
        bert: a BERT directory for the Transformer.
        checkpoint: a checkpoint of the whole model.
        checkpoint_recipe: a recipe of the same task that trains such a checkpoint first, into
            OUTPUT/start, with the vocabulary of this run's captions, its objectives and its `text_only`.
        text_only: the twin that is shown no pixels, for honest comparison.
    """

    backbone: str | None = None
    backbone_recipe: str | None = None
    bert: str | None = None
    checkpoint: str | None = None
    checkpoint_recipe: str | None = None
    text_only: bool = False

    @model_validator(mode="after")
    def _one_of_each(self) -> StartConfig:
        for part in ("backbone", "checkpoint"):
            if getattr(self, part) and getattr(self, f"{part}_recipe"):
                raise ValueError(f"give start.{part} or start.{part}_recipe, not both")
        if self.backbone_recipe and self.checkpoint_recipe:
            raise ValueError("give start.backbone_recipe in the recipe that start.checkpoint_recipe names")
        return self


class GroupConfig(Section):
    """One part of the model's optimiser: `momentum` is SGD's, `betas` and `eps` are AdamW's.

    Biases and norm parameters get no weight decay whatever `weight_decay` is.
    """

    algorithm: Literal["sgd", "adamw"]
    lr: NotNegative
    weight_decay: NotNegative
    momentum: BelowOne = 0.9
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)
    eps: Annotated[float, Field(gt=0.0)] = 1e-8


class BackboneGroup(GroupConfig):
    """The paper's choice for the backbone."""

    algorithm: Literal["sgd", "adamw"] = "sgd"
    lr: NotNegative = 1e-2
    weight_decay: NotNegative = 5e-4


class TransformerGroup(GroupConfig):
    """The paper's choice for everything that is not the backbone.

    Attributes:
        layer_decay: layer-wise decay of the learning rate, for fine-tuning: of N layers, number i from 0 has
            `lr` times this to the power N - i, the embeddings N + 1; 1: none.
        head_lr_scale: what `lr` is multiplied by for the heads.
    """

    algorithm: Literal["sgd", "adamw"] = "adamw"
    lr: NotNegative = 1e-4
    weight_decay: NotNegative = 1e-2
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    head_lr_scale: Annotated[float, Field(gt=0.0)] = 1.0


class OptimizerConfig(Section):
    """Two algorithms, and the bound on the global norm of all gradients together (None: no bound)."""

    backbone: BackboneGroup = BackboneGroup()
    transformer: TransformerGroup = TransformerGroup()
    clip_norm: Annotated[float, Field(gt=0.0)] | None = 10.0


class ScheduleConfig(Section):
    """One factor on every learning rate.

    Attributes:
        kind: after the warm-up, `step` multiplies by `gamma` at each milestone, `cosine` falls to `floor` at
            the end, `constant` stays.
        warmup_steps: steps over which the factor rises linearly from `warmup_start` to 1.
        milestones: epochs, fractions allowed.
        floor: cosine's last factor.
    """

    kind: Literal["step", "cosine", "constant"] = "step"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    warmup_start: Share = 1.0 / 3.0
    milestones: tuple[NotNegative, ...] = ()
    gamma: Share = 0.1
    floor: Share = 0.0


class TrainingConfig(Section):
    """How long and how.

    Attributes:
        images_per_batch: images a process and backward pass.
        epochs, steps: how long to train; give one. A step is one update of the weights.
        accumulation: backward passes a step.
        precision: bf16 and fp16 compute under autocast, fp16 with dynamic loss scaling; weights stay fp32.
        engine: auto is DeepSpeed when its launcher started this process, else plain PyTorch.
        zero_stage: what DeepSpeed divides among processes: 0 nothing, 1 optimiser state, 2 gradients as well,
            3 weights as well.
        offload_optimizer: under DeepSpeed with zero_stage 1 to 3, keep the optimiser's state in the host's
            memory and make its steps there.
        overlap_comm: under DeepSpeed, average gradients while the backward goes on; None: its own choice, in
            version 0.19 with zero_stage 3 alone.
        reduce_bucket_size: gradients (numbers, not bytes) that DeepSpeed averages at a time; None: 25
            million, or all where there are fewer.
        contiguous_gradients: whether DeepSpeed copies gradients together as they come.
        threads: CPU threads a process; None: OMP_NUM_THREADS, or the machine's cores divided among its
            processes.
        log_every: steps between log records; what was not finite is told then.
        skip_nonfinite: updates of a run that may be left out because their loss or a gradient was not finite;
            one more ends the run.
        peak_tflops: what one device can do at most, for the log's `mfu`; None: by the GPU's name where it is
            a known one.
        checkpoint_every_minutes: how often the state to resume from is written; 0: only when interrupted.
        prefetch: batches prepared ahead by a thread; 0: none.
        keep_states: how many of the newest states to resume from are kept.
        log_samples: write which samples each step was trained on to OUTPUT/samples/, a file a process, with
            its `sample_keys`; waits for the device at every step.
    """

    images_per_batch: Count = 16
    epochs: Annotated[float, Field(gt=0.0)] | None = None
    steps: Count | None = None
    accumulation: Count = 1
    precision: Precision = "fp32"
    engine: Literal["auto", "deepspeed", "plain"] = "auto"
    zero_stage: Literal[0, 1, 2, 3] = 0
    offload_optimizer: bool = False
    overlap_comm: bool | None = None
    reduce_bucket_size: Count | None = None
    contiguous_gradients: bool = True
    threads: Count | None = None
    log_every: Count = 20
    skip_nonfinite: Annotated[int, Field(ge=0)] = 3
    peak_tflops: Annotated[float, Field(gt=0.0)] | None = None
    checkpoint_every_minutes: NotNegative = 10.0
    prefetch: Annotated[int, Field(ge=0)] = 2
    keep_states: Count = 2
    log_samples: bool = False

    @model_validator(mode="after")
    def _one_length(self) -> TrainingConfig:
        if self.epochs is None and self.steps is None:
            raise ValueError("give either training.epochs or training.steps")
        if self.epochs is not None and self.steps is not None:
            raise ValueError("either training.epochs or training.steps must be null, and both are given")
        return self

    @model_validator(mode="after")
    def _something_to_offload(self) -> TrainingConfig:
        if self.offload_optimizer and not self.zero_stage:
            raise ValueError("training.offload_optimizer=true needs training.zero_stage=1, 2 or 3")
        return self


class WandbConfig(Section):
    """A run of Weights & Biases.

    Attributes:
        project, entity, name: its own; without a name the run's folder gives it.
        mode: offline writes files for `wandb sync`, which online does as well where it cannot be reached.
    """

    project: str
    entity: str | None = None
    name: str | None = None
    mode: Literal["online", "offline"] = "online"


class LoggingConfig(Section):
    """Where the log goes beside the run's folder. wandb: None: nowhere."""

    wandb: WandbConfig | None = None


class EvaluationConfig(Section):
    """What is measured at the end, and how often on the way (0: never).

    Attributes:
        best: a figure of the task's headline, say itm_accuracy: the checkpoint with the highest one, of those
            measured on the way and at the end, is kept as OUTPUT/best/; None: none is.
    """

    splits: tuple[str, ...] = ("val", "test")
    images: Count | None = 1000
    every_epochs: Annotated[int, Field(ge=0)] = 0
    best: str | None = None

    @model_validator(mode="after")
    def _best_of_several(self) -> EvaluationConfig:
        if self.best is not None and not self.every_epochs:
            raise ValueError("evaluation.best chooses among evaluations; set evaluation.every_epochs as well")
        return self


class RunConfig(Section):
    """The whole tree. `output` is the run's folder; a recipe without one gets `runs/` and its own name.

    `deepspeed` is laid over the configuration that DeepSpeed gets, for experts; what has its place elsewhere
    in the tree is refused there.
    """

    task: Literal["pretrain", "objects"] = "pretrain"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    output: str = "runs/run"
    data: DataConfig = DataConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    model: ModelConfig = ModelConfig()
    objectives: ObjectivesConfig = ObjectivesConfig()
    start: StartConfig = StartConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    training: TrainingConfig
    evaluation: EvaluationConfig = EvaluationConfig()
    logging: LoggingConfig = LoggingConfig()
    deepspeed: dict[str, Any] = {}

    @model_validator(mode="after")
    def _one_place_for_each(self) -> RunConfig:
        refused = refused_keys(self.deepspeed)
        if refused:
            raise ValueError(f"take out of the block deepspeed: {'; '.join(refused)}")
        return self
