"""Whatever a checkpoint file holds is read as tensors or refused in a sentence, and never run."""

import json
import pickle

import pytest
import torch
from safetensors.torch import save_file

from pixelbert_fast.errors import UserError
from pixelbert_fast.model.checkpoint_files import read_checkpoint

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.count": torch.tensor(7)}


def assert_read(checkpoint, state=STATE):
    assert checkpoint.tensors.keys() == state.keys()
    for key, tensor in state.items():
        torch.testing.assert_close(checkpoint.tensors[key], tensor, rtol=0, atol=0)


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "model_state_dict"])
def test_torch_files_of_training_scripts(wrapper, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({wrapper: STATE, "epoch": 3, "best": 0.5} if wrapper else STATE, path)
    assert_read(read_checkpoint(str(path)))
    assert_read(read_checkpoint(path))


def test_safetensors_file(tmp_path):
    save_file(STATE, tmp_path / "weights.safetensors")
    assert_read(read_checkpoint(tmp_path / "weights.safetensors"))


def test_a_directory_prefers_safetensors_and_brings_its_configuration(tmp_path):
    torch.save({"old": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    save_file(STATE, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    checkpoint = read_checkpoint(tmp_path)
    assert_read(checkpoint)
    assert checkpoint.config == {"model_type": "bert"}


@pytest.mark.parametrize("kind", ["model.safetensors", "pytorch_model.bin"])
def test_shards(tmp_path, kind):
    save = save_file if kind.endswith("safetensors") else torch.save
    index = {}
    for place, (key, tensor) in enumerate(STATE.items()):
        save({key: tensor}, tmp_path / f"{place}-{kind}")
        index[key] = f"{place}-{kind}"
    (tmp_path / f"{kind}.index.json").write_text(json.dumps({"weight_map": index}))
    assert_read(read_checkpoint(tmp_path))
    (tmp_path / f"0-{kind}").unlink()
    with pytest.raises(UserError, match=f"0-{kind} cannot be read"):
        read_checkpoint(tmp_path)


def test_an_index_cannot_point_out_of_its_folder(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    save_file(STATE, tmp_path / "elsewhere.safetensors")
    index = {"weight_map": {"a.weight": "../elsewhere.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="cannot be read"):
        read_checkpoint(folder)


class Malicious:
    """Unpickled carelessly, it writes a file."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return open, (self.marker, "w")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_cannot_run_code(tmp_path, legacy):
    marker, path = tmp_path / "was-here", tmp_path / "pytorch_model.bin"
    content = {**STATE, "b": Malicious(marker)}
    if legacy:
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    for source in (path, tmp_path):
        with pytest.raises(UserError, match="unpickling could run code") as caught:
            read_checkpoint(source)
        assert "\n" not in str(caught.value)
    assert not marker.exists()
    if legacy:
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert marker.exists(), "the trap itself must work, or this test proves nothing"


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04 and nothing more"])
def test_broken_files(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=name) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_files_without_a_state_dict(tmp_path):
    for content in ([1, 2], {"epoch": 3}, {"state_dict": {"a": 1}}, torch.ones(2)):
        torch.save(content, tmp_path / "a.pt")
        with pytest.raises(UserError, match="hold no state dict"):
            read_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize(
    "source", ["./nowhere", "/no/such/directory", "resnet50.pth", "a/b/c", "~/nowhere.bin"]
)
def test_a_missing_path_is_not_looked_for_elsewhere(source, monkeypatch):
    def fetch(*arguments, **options):
        raise AssertionError("a path must not be asked of the hub")

    monkeypatch.setattr("transformers.utils.hub.cached_file", fetch)
    with pytest.raises(UserError, match="missing"):
        read_checkpoint(source)


def test_directories_without_weights_or_with_a_broken_configuration(tmp_path):
    with pytest.raises(UserError, match=r"holds no weights.*model\.safetensors"):
        read_checkpoint(tmp_path)
    save_file(STATE, tmp_path / "model.safetensors")
    for broken in ("{broken", "[]"):
        (tmp_path / "config.json").write_text(broken)
        with pytest.raises(UserError, match=r"config\.json"):
            read_checkpoint(tmp_path)


@pytest.mark.parametrize("shards", [False, True])
def test_a_hub_name_goes_through_transformers_cache(tmp_path, monkeypatch, shards):
    if shards:
        save_file(STATE, tmp_path / "one.safetensors")
        index = {"weight_map": dict.fromkeys(STATE, "one.safetensors")}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    else:
        save_file(STATE, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    asked = []

    def cached_file(name, file, **options):
        assert name == "someone/some-bert"
        asked.append(file)
        return str(tmp_path / file) if (tmp_path / file).exists() else None

    monkeypatch.setattr("transformers.utils.hub.cached_file", cached_file)
    checkpoint = read_checkpoint("someone/some-bert")
    assert_read(checkpoint)
    assert checkpoint.config == {"model_type": "bert"}
    assert {path.name for path in tmp_path.iterdir()} <= set(asked), "every file must have been asked for"


def test_a_hub_that_cannot_be_reached(monkeypatch):
    def offline(*arguments, **options):
        raise OSError("We couldn't connect\nto anything")

    monkeypatch.setattr("transformers.utils.hub.cached_file", offline)
    with pytest.raises(UserError, match=r"someone/some-bert is no local path.*couldn't connect$"):
        read_checkpoint("someone/some-bert")
