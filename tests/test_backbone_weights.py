"""Imported backbones must compute what they computed where they came from; anything amiss must be said."""

import logging

import pytest
import torch
from torch import nn
from transformers import ResNetConfig, ResNetForImageClassification, ResNetModel

from pixelbert_fast.errors import UserError
from pixelbert_fast.model import PixelBertConfig
from pixelbert_fast.model.backbone import ResNet
from pixelbert_fast.model.weights import load_backbone

torch.set_num_threads(1)


def small_backbone(kind="resnet50", **fields):
    config = PixelBertConfig(backbone=kind, backbone_channels=8, backbone_depths=[1, 2, 1, 1], **fields)
    return ResNet(config).eval()


def randomised(module):
    """Every tensor random, running statistics too, so that no key can be mixed up unnoticed."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.2)
                if name.endswith(("running_var", "normalization.weight")):
                    tensor.abs_().add_(0.5)
    return module.eval()


def torchvision_state(kind, depths, unit=64, groups=1, width_per_group=64, classes=1000, device="cpu"):
    """Names and shapes of torchvision's ResNets (its documented layout), written apart from our backbone."""
    generator = torch.Generator(device).manual_seed(1) if device == "cpu" else None

    def tensor(*shape):
        return (
            torch.randn(shape, generator=generator) if device == "cpu" else torch.empty(shape, device=device)
        )

    state = {}

    def norm(name, channels):
        for part in ("weight", "bias", "running_mean", "running_var"):
            state[f"{name}.{part}"] = tensor(channels)
        state[f"{name}.num_batches_tracked"] = torch.tensor(7)

    state["conv1.weight"] = tensor(unit, 3, 7, 7)
    norm("bn1", unit)
    inputs = unit
    for stage, depth in enumerate(depths):
        planes = unit * 2**stage
        outputs = planes * (4 if kind == "bottleneck" else 1)
        width = int(planes * width_per_group / 64) * groups
        for block in range(depth):
            if kind == "bottleneck":
                convs = [(width, inputs, 1), (width, width // groups, 3), (outputs, width, 1)]
            else:
                convs = [(planes, inputs, 3), (planes, planes, 3)]
            name = f"layer{stage + 1}.{block}"
            for place, (out, into, kernel) in enumerate(convs, start=1):
                state[f"{name}.conv{place}.weight"] = tensor(out, into, kernel, kernel)
                norm(f"{name}.bn{place}", out)
            if inputs != outputs:
                state[f"{name}.downsample.0.weight"] = tensor(outputs, inputs, 1, 1)
                norm(f"{name}.downsample.1", outputs)
            inputs = outputs
    state["fc.weight"], state["fc.bias"] = tensor(classes, inputs), tensor(classes)
    return state


def small_state(kind="bottleneck", **options):
    return torchvision_state(kind, (1, 2, 1, 1), unit=8, classes=5, **options)


def assert_loaded(module, state):
    own = module.state_dict()
    for key, value in own.items():
        torch.testing.assert_close(value, state[key].to(value.dtype), rtol=0, atol=0, msg=key)


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [  # parameters with a classifier of 1000, as torchvision's documentation lists them
        ("resnet18", ("basic", (2, 2, 2, 2)), 11_689_512),
        ("resnet34", ("basic", (3, 4, 6, 3)), 21_797_672),
        ("resnet50", ("bottleneck", (3, 4, 6, 3)), 25_557_032),
        ("resnet101", ("bottleneck", (3, 4, 23, 3)), 44_549_160),
        ("resnet152", ("bottleneck", (3, 8, 36, 3)), 60_192_808),
        ("resnext50_32x4d", ("bottleneck", (3, 4, 6, 3), 64, 32, 4), 25_028_904),
        ("resnext101_32x8d", ("bottleneck", (3, 4, 23, 3), 64, 32, 8), 88_791_336),
        ("resnext101_64x4d", ("bottleneck", (3, 4, 23, 3), 64, 64, 4), 83_455_272),
        ("resnext152_32x4d", ("bottleneck", (3, 8, 36, 3), 64, 32, 4), None),
    ],
)
def test_the_backbones_have_torchvision_s_layout(name, options, parameters):
    theirs = torchvision_state(*options, device="meta")
    if parameters is not None:
        buffers = ("running_mean", "running_var", "num_batches_tracked")
        assert sum(t.numel() for k, t in theirs.items() if not k.endswith(buffers)) == parameters
    with torch.device("meta"):
        ours = ResNet(PixelBertConfig(backbone=name)).state_dict()
    shapes = {key: list(tensor.shape) for key, tensor in theirs.items() if not key.startswith("fc.")}
    assert {key: list(tensor.shape) for key, tensor in ours.items()} == shapes


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "model.backbone.body.", "_orig_mod.net."])
@pytest.mark.parametrize("norm", ["batch", "frozen"])
def test_torchvision_and_timm_names_under_any_prefix(prefix, norm):
    # timm's ResNets with a plain stem have torchvision's names, the classifier included.
    state = small_state()
    backbone = small_backbone(norm=norm)
    report = load_backbone(backbone, {prefix + key: tensor for key, tensor in state.items()})
    assert_loaded(backbone, state)
    assert report.missing == report.unexpected == ()
    assert report.loaded == len(backbone.state_dict())


@pytest.mark.parametrize(
    "classifier",
    [{}, {"fc.weight": torch.ones(3, 3)}, {"fc.0.weight": torch.ones(2), "fc.0.bias": torch.ones(2)}],
)
def test_the_classifier_and_batch_counts_do_not_matter(classifier, caplog):
    state = {
        key: tensor
        for key, tensor in small_state().items()
        if not key.startswith("fc.") and not key.endswith("num_batches_tracked")
    }
    backbone = small_backbone()
    report = load_backbone(backbone, {**state, **classifier})
    assert report.missing == report.unexpected == ()
    assert not caplog.records
    torch.testing.assert_close(backbone.conv1.weight.detach(), state["conv1.weight"])


def test_half_precision_weights_are_widened():
    state = {key: t.half() if t.is_floating_point() else t for key, t in small_state().items()}
    backbone = small_backbone()
    load_backbone(backbone, state)
    assert backbone.conv1.weight.dtype == torch.float32
    assert_loaded(backbone, state)


def test_missing_and_unexpected_keys_are_reported_and_logged(caplog):
    state = small_state()
    del state["layer2.1.bn2.running_var"]
    state["layer2.1.se.fc1.weight"] = torch.ones(2)
    backbone = small_backbone()
    before = backbone.layer2[1].bn2.running_var.clone()
    with caplog.at_level(logging.WARNING):
        report = load_backbone(backbone, state)
    assert report.missing == ("layer2.1.bn2.running_var",)
    assert report.unexpected == ("layer2.1.se.fc1.weight",)
    messages = [record.getMessage() for record in caplog.records]
    assert any("layer2.1.bn2.running_var" in message for message in messages)
    assert any("layer2.1.se.fc1.weight" in message for message in messages)
    torch.testing.assert_close(backbone.layer2[1].bn2.running_var, before)


def test_a_wrong_shape_names_the_key_and_changes_nothing():
    backbone = small_backbone()
    before = {key: tensor.clone() for key, tensor in backbone.state_dict().items()}
    wrong = small_state()
    wrong["layer4.0.conv2.weight"] = torch.ones(64, 64, 5, 5)
    with pytest.raises(UserError, match=r"layer4\.0\.conv2\.weight.*\[64, 64, 5, 5\].*\[64, 64, 3, 3\]"):
        load_backbone(backbone, wrong)
    with pytest.raises(UserError, match=r"layer1\.0\.conv1\.weight"):
        load_backbone(backbone, small_state("basic"))
    with pytest.raises(UserError, match=r"conv2\.weight"):
        load_backbone(backbone, small_state(groups=4, width_per_group=16))
    assert_loaded(backbone, before)


def test_two_resnets_in_one_checkpoint_need_a_prefix():
    state = small_state()
    both = {f"encoder_q.{key}": tensor for key, tensor in state.items()}
    both |= {f"encoder_k.{key}": tensor + 1 for key, tensor in state.items()}
    backbone = small_backbone()
    with pytest.raises(UserError, match=r"encoder_k.*encoder_q.*prefix="):
        load_backbone(backbone, both)
    load_backbone(backbone, both, prefix="encoder_q.")
    assert_loaded(backbone, state)
    with pytest.raises(UserError, match=r"no ResNet under 'encoder_z\.'"):
        load_backbone(backbone, both, prefix="encoder_z.")


def test_a_checkpoint_without_a_resnet():
    with pytest.raises(UserError, match=r"no ResNet.*layer1\.0\.conv1\.weight.*found a\.weight"):
        load_backbone(small_backbone(), {"a.weight": torch.ones(1)})


def test_a_plain_module_is_a_source():
    backbone, other = randomised(small_backbone()), small_backbone()
    load_backbone(other, nn.ModuleDict({"net": backbone}))
    assert_loaded(other, backbone.state_dict())


def resnet_config(layer_type, **fields):
    widths = [32, 64, 128, 256] if layer_type == "bottleneck" else [8, 16, 32, 64]
    return ResNetConfig(
        embedding_size=8,
        hidden_sizes=widths,
        depths=[1, 2, 1, 1],
        layer_type=layer_type,
        num_labels=3,
        **fields,
    )


@pytest.mark.parametrize(("layer_type", "kind"), [("bottleneck", "resnet50"), ("basic", "resnet18")])
@pytest.mark.parametrize("given", ["module", "state dict", "directory", "classifier directory"])
def test_transformers_resnet_computes_the_same(layer_type, kind, given, tmp_path):
    config = resnet_config(layer_type)
    whole = randomised(ResNetForImageClassification(config))
    model = whole.resnet
    if given == "directory":
        model.save_pretrained(tmp_path)
    elif given == "classifier directory":
        whole.save_pretrained(tmp_path)
    source = {"module": model, "state dict": model.state_dict()}.get(given, tmp_path)
    backbone = small_backbone(kind)
    report = load_backbone(backbone, source)
    assert report.missing == report.unexpected == ()
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = model(images).last_hidden_state
        result = backbone(images)
    assert expected.std() > 1e-3, "the comparison must not be between zeros"
    # The same float32 operations: only the order inside a convolution may differ.
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"downsample_in_bottleneck": True}, "downsample_in_bottleneck=True"),
        ({"downsample_in_first_stage": True}, "downsample_in_first_stage=True"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu'"),
    ],
)
def test_a_resnet_that_computes_something_else_is_refused(fields, words, tmp_path):
    model = ResNetModel(resnet_config("bottleneck", **fields))
    model.save_pretrained(tmp_path)
    for source in (model, tmp_path):
        with pytest.raises(UserError, match=words):
            load_backbone(small_backbone(), source)
