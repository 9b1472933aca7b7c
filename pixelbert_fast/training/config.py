"""What a run can be told: the tree of options, each with its default, its meaning and its bounds.

Reading one from YAML and the command line is `recipes.load_config`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pixelbert_fast.training.data_config import DataConfig, TokenizerConfig
from pixelbert_fast.training.deepspeed_config import Precision, refused_keys
from pixelbert_fast.training.section import BelowOne, Count, NotNegative, Section, Share
from pixelbert_fast.training.task_config import Nlvr2Config, RetrievalConfig, VqaConfig


class ModelConfig(Section):
    """The model.

    Attributes:
        preset: of PixelBertConfig: tiny, r50 or x152. A fine-tuning that starts from a checkpoint has that
            one's sizes in its place.
        overrides: any of its fields by name; it says what each means and may be.
        fast: FastPixelBERT; false: the plain reference, which computes the same in more time.
    """

    preset: str = "tiny"
    overrides: dict[str, Any] = {}
    fast: bool = True


class ObjectivesConfig(Section):
    """What pre-training learns from: masked words, image-text matching, both, or (to compare) neither.

    Attributes:
        mlm: whether masked words are predicted.
        itm: whether matching is; without it no mismatched pairs are made.
        mlm_probability: how likely a word piece is to be masked, 0 to 1.
        mlm_on_mismatched: whether masked words of mismatched pairs are predicted too.
    """

    mlm: bool = True
    itm: bool = True
    mlm_probability: Share = 0.15
    mlm_on_mismatched: bool = False


class StartConfig(Section):
    """What training starts from; everything not given starts at random.

    Attributes:
        backbone: backbone weights, a file, a directory or a hub name, see `model.weights.load_backbone`;
            weights that show no training are refused.
        backbone_recipe: a recipe of the task "objects" that trains such weights first, into OUTPUT/backbone.
        bert: a BERT directory or hub name for the Transformer, whose tokenizer is used.
        checkpoint: a checkpoint of the whole model; for fine-tuning that of a pre-training, whose tokenizer
            is used, or of an earlier fine-tuning.
        checkpoint_recipe: a recipe of the task "pretrain" that trains such a checkpoint first, into
            OUTPUT/start; before a pre-training, with the vocabulary of this run's captions, its objectives
            and its `text_only`.
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
    """One part of the model's optimiser.

    Biases and norm parameters get no weight decay whatever `weight_decay` is.

    Attributes:
        algorithm: sgd (with momentum, weight decay added to the gradient) or adamw.
        lr: the learning rate that the schedule multiplies, at least 0.
        weight_decay: at least 0.
        momentum: SGD's, 0 to below 1.
        betas: AdamW's, each 0 to below 1.
        eps: AdamW's, above 0.
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
    """Two algorithms.

    Attributes:
        backbone: for the backbone.
        transformer: for everything else.
        clip_norm: the bound on the global norm of all gradients together, above 0; None: no bound.
    """

    backbone: BackboneGroup = BackboneGroup()
    transformer: TransformerGroup = TransformerGroup()
    clip_norm: Annotated[float, Field(gt=0.0)] | None = 10.0


class ScheduleConfig(Section):
    """One factor on every learning rate.

    Attributes:
        kind: after the warm-up, `step` multiplies by `gamma` at each milestone, `cosine` falls to `floor` at
            the end, `constant` stays.
        warmup_steps: steps over which the factor rises linearly from `warmup_start` to 1; 0: none.
        warmup_start: the factor of the first step, 0 to 1.
        milestones: epochs, fractions allowed, none below 0.
        gamma: what each milestone multiplies by, 0 to 1.
        floor: cosine's last factor, 0 to 1.
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
        images_per_batch: images a process and backward pass, at least 1.
        epochs, steps: how long to train; give one. A step is one update of the weights.
        accumulation: backward passes a step, at least 1.
        pairs_per_step: the global batch: image-text pairs of all processes in one step, reached by as many
            backward passes as that takes on however many processes there are (an image's texts are
            `data.captions_per_image` pairs). An error where it does not come out even. None: `accumulation`
            says how many passes, and the global batch grows with the processes.
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
        log_every: steps, at least 1, between log records; what was not finite is told then.
        skip_nonfinite: updates of a run that may be left out because their loss or a gradient was not finite;
            one more ends the run.
        peak_tflops: what one device can do at most, for the log's `mfu`; None: by the GPU's name where it is
            a known one.
        checkpoint_every_minutes: how often the state to resume from is written; 0: only when interrupted.
        prefetch: batches prepared ahead by a thread; 0: none.
        keep_states: how many of the newest states to resume from are kept.
        log_samples: write which samples each step was trained on to OUTPUT/samples/, a file a process, with
            its `sample_keys`; waits for the device at every step.
        report: write OUTPUT/report.html: curves at each evaluation and when a run stops, and at its end with
            examples of what the model gets right and wrong. `pixelbert report` writes it at any time.
    """

    images_per_batch: Count = 16
    epochs: Annotated[float, Field(gt=0.0)] | None = None
    steps: Count | None = None
    accumulation: Count = 1
    pairs_per_step: Count | None = None
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
    report: bool = True

    @model_validator(mode="after")
    def _one_length(self) -> TrainingConfig:
        if self.epochs is None and self.steps is None:
            raise ValueError("give either training.epochs or training.steps")
        if self.epochs is not None and self.steps is not None:
            raise ValueError("either training.epochs or training.steps must be null, and both are given")
        return self

    @model_validator(mode="after")
    def _one_batch(self) -> TrainingConfig:
        if self.pairs_per_step is not None and self.accumulation > 1:
            raise ValueError(
                "training.pairs_per_step decides the accumulation, and training.accumulation ="
                f" {self.accumulation} is given too; make it 1 or training.pairs_per_step null"
            )
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
    """Where the log goes beside the run's folder.

    Attributes:
        wandb: to Weights & Biases; None: it does not.
    """

    wandb: WandbConfig | None = None


class EvaluationConfig(Section):
    """What is measured at the end, and on the way.

    Attributes:
        splits: of the data set, the headline's first.
        images: of a split, at most: of retrieval the first ones, else spread over it; None: all.
        every_epochs: how often on the way; 0: never.
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
    """The whole tree.

    Attributes:
        task: pretrain, objects (names single objects, which teaches a backbone), or what a pre-trained model
            is fine-tuned to: vqa, nlvr2, retrieval.
        seed: of everything that is drawn: initial weights, order, captions, masks; 0 to 2**31 - 1.
        output: the run's folder; a recipe without one gets `runs/` and its own name.
        data, tokenizer, model, objectives, start, optimizer, schedule, training, evaluation, logging: the
            sections.
        vqa, nlvr2, retrieval: the sections of these tasks.
        deepspeed: laid over the configuration that DeepSpeed gets, for experts; what has its place elsewhere
            in the tree is refused there.
    """

    task: Literal["pretrain", "objects", "vqa", "nlvr2", "retrieval"] = "pretrain"
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
    vqa: VqaConfig = VqaConfig()
    nlvr2: Nlvr2Config = Nlvr2Config()
    retrieval: RetrievalConfig = RetrievalConfig()
    deepspeed: dict[str, Any] = {}

    @model_validator(mode="after")
    def _one_place_for_each(self) -> RunConfig:
        refused = refused_keys(self.deepspeed)
        if refused:
            raise ValueError(f"take out of the block deepspeed: {'; '.join(refused)}")
        return self
