"""What pre-training may start from: a saved tokenizer and an earlier checkpoint."""

from pathlib import Path

from torch import nn

from pixelbert_fast.errors import UserError
from pixelbert_fast.tasks.quiet import without_bars

_TOKENIZER_FILES = ("tokenizer*", "vocab*", "*.model")


def load_tokenizer(path: str):
    """The transformers tokenizer saved in a directory, or of a hub name.

    Raises UserError when there is none, or it is not one that pre-training can use.
    """
    from transformers import AutoTokenizer

    if Path(path).is_dir():
        if not any(any(Path(path).glob(name)) for name in _TOKENIZER_FILES):
            raise UserError(f"{path} holds no tokenizer: give a directory that save_pretrained wrote one to")
    elif path.startswith((".", "/", "~")) or path.count("/") > 1 or _lies_in_a_folder(path):
        # Not a name the hub could know, so nothing is asked of the network.
        raise UserError(f"there is no tokenizer at {path}: that directory does not exist")
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except Exception as error:  # transformers raises many kinds
        raise UserError(f"{path} holds no tokenizer that can be read: {_first_line(error)}") from error
    if tokenizer.mask_token_id is None or tokenizer.pad_token_id is None:
        raise UserError(f"the tokenizer of {path} has no mask or padding token, which pre-training needs")
    if not tokenizer.is_fast:
        # Evaluation asks which word a token belongs to, and finding out after training would be too late.
        raise UserError(
            f"the tokenizer of {path} is a slow one; save a fast one (with a tokenizer.json) there"
        )
    return tokenizer


def _lies_in_a_folder(path: str) -> bool:
    """Whether the folder that a relative path names is there, so that it is no hub name."""
    return "/" in path and Path(path).parent.is_dir()


def check_checkpoint(path: str) -> None:
    """Raises UserError unless `path` looks like a saved Pixel-BERT; nothing large is read."""
    from pixelbert_fast.model import PixelBertConfig

    if not Path(path, "config.json").is_file():
        raise UserError(f"there is no checkpoint at {path}: it holds no config.json; {_instead(Path(path))}")
    try:
        saved = PixelBertConfig.get_config_dict(path)[0]
    except OSError as error:
        raise UserError(f"{path} holds no checkpoint that can be read: {_first_line(error)}") from error
    kind = saved.get("model_type")
    if kind != PixelBertConfig.model_type:
        raise UserError(f"{path} holds a model of type {kind!r}, not a Pixel-BERT; check start.checkpoint")


def _instead(path: Path) -> str:
    """What to do where a folder is no checkpoint."""
    if (path / "checkpoint" / "config.json").is_file():
        return f"{path}/checkpoint has one"
    if (path / "run.json").is_file():
        return f"the run has not finished, but `pixelbert export {path} --out DIR` writes what it has saved"
    return "give the folder that a finished run wrote, or an export"


def load_checkpoint(model: nn.Module, path: str) -> None:
    """Loads the weights of a saved PixelBertForPreTraining into `model`.

    Raises UserError when `path` holds none, or one of another architecture than `model`.
    """
    check_checkpoint(path)
    try:
        with without_bars():
            loaded = type(model).from_pretrained(path).state_dict()
    except Exception as error:  # transformers and safetensors raise many kinds
        raise UserError(f"{path} holds no checkpoint that can be read: {_first_line(error)}") from error
    own = model.state_dict()
    for name in sorted(own.keys() | loaded.keys()):
        ours, theirs = (list(state[name].shape) if name in state else "absent" for state in (own, loaded))
        if ours != theirs:
            raise UserError(
                f"the checkpoint {path} is of another architecture: its {name} is {theirs}, this model's is "
                f"{ours}; give the model section it was trained with"
            )
    model.load_state_dict(loaded)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
