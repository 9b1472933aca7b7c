"""The backbone: torchvision's names and arithmetic, output strides, norms, and blindness to padding."""

import socket

import pytest
import torch
from torch import nn

from pixelbert_fast.model import PixelBertConfig
from pixelbert_fast.model.backbone import ResNet
from pixelbert_fast.model.config import BACKBONES
from pixelbert_fast.model.norm import BatchNorm2d, FrozenBatchNorm2d, SyncBatchNorm2d


def small(**overrides):
    fields = {"backbone": "resnet18", "backbone_channels": 8, "backbone_depths": [1, 1, 1, 1]} | overrides
    return ResNet(PixelBertConfig(**fields))


# Parameters without the classifier, from torchvision's published totals less their 1000-way fc layer.
PARAMETERS = {
    "resnet18": 11_689_512 - 513_000,
    "resnet34": 21_797_672 - 513_000,
    "resnet50": 25_557_032 - 2_049_000,
    "resnet101": 44_549_160 - 2_049_000,
    "resnet152": 60_192_808 - 2_049_000,
    "resnext50_32x4d": 25_028_904 - 2_049_000,
    "resnext101_32x8d": 88_791_336 - 2_049_000,
    "resnext101_64x4d": 83_455_272 - 2_049_000,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts_are_torchvisions(name):
    with torch.device("meta"):
        backbone = ResNet(PixelBertConfig(backbone=name))
    assert sum(p.numel() for p in backbone.parameters()) == PARAMETERS[name]


def test_resnext152_has_about_sixty_million():
    with torch.device("meta"):
        count = sum(p.numel() for p in ResNet(PixelBertConfig(backbone="resnext152_32x4d")).parameters())
    assert 57e6 < count < 61e6


def test_parameter_names_are_torchvisions():
    with torch.device("meta"):
        names = set(ResNet(PixelBertConfig()).state_dict())
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    expected = {"conv1.weight", *(f"bn1.{n}" for n in norm)}
    for stage, depth in enumerate(BACKBONES["resnet50"][1], start=1):
        for block in range(depth):
            at = f"layer{stage}.{block}"
            expected |= {f"{at}.conv{i}.weight" for i in (1, 2, 3)}
            expected |= {f"{at}.bn{i}.{n}" for i in (1, 2, 3) for n in norm}
        expected |= {
            f"layer{stage}.0.downsample.0.weight",
            *(f"layer{stage}.0.downsample.1.{n}" for n in norm),
        }
    assert names == expected


@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize("backbone", ["resnet18", "resnext50_32x4d"])
def test_output_stride_and_map_size(stride, backbone):
    net = small(backbone=backbone, output_stride=stride, backbone_channels=16).eval()
    for side in (33, 64, 71):
        out = net(torch.zeros(1, 3, side, 64))
        assert out.shape == (1, net.out_channels, net.map_size(side), 64 // stride)
        assert net.map_size(side) == -(-side // stride)


@pytest.mark.parametrize("norm", ["batch", "frozen"])
@pytest.mark.parametrize("training", [False, True])
def test_padding_never_counts(norm, training):
    """Images of three sizes in one batch, NaN in the padding: every image's map is as if it were alone."""
    torch.manual_seed(0)
    net = small(norm=norm).train(training)
    if norm == "frozen":
        for module in net.modules():
            if isinstance(module, FrozenBatchNorm2d):
                module.bias.normal_()
                module.running_mean.normal_()
    sizes = torch.tensor([[64, 96], [50, 41], [96, 33]])
    images = [torch.randn(3, int(h), int(w)) for h, w in sizes]
    batch = torch.full((3, 3, 96, 96), torch.nan)
    for i, image in enumerate(images):
        batch[i, :, : image.shape[1], : image.shape[2]] = image
    wider = torch.full((3, 3, 128, 160), torch.nan)
    wider[:, :, :96, :96] = batch
    out, out_wider = net(batch, sizes), net(wider, sizes)
    for i, image in enumerate(images):
        h, w = (net.map_size(side) for side in image.shape[1:])
        torch.testing.assert_close(out_wider[i, :, :h, :w], out[i, :, :h, :w], rtol=1e-4, atol=1e-4)
        assert out[i, :, h:].abs().sum() == 0 and out[i, :, :, w:].abs().sum() == 0
        if not training or norm == "frozen":
            torch.testing.assert_close(out[i, :, :h, :w], net(image[None])[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [BatchNorm2d, nn.BatchNorm2d])
def test_masked_statistics_are_those_of_the_valid_places(kind):
    torch.manual_seed(1)
    norm, plain = BatchNorm2d(4), nn.BatchNorm2d(4)
    x = torch.randn(2, 4, 6, 5, requires_grad=True)
    if kind is nn.BatchNorm2d:  # no mask: exactly torch's
        out = norm(x)
        expected = plain(x)
    else:
        mask = torch.zeros(2, 1, 6, 5, dtype=torch.bool)
        mask[0, :, :4, :3] = True
        mask[1, :, :2] = True
        out = norm(x, mask).permute(0, 2, 3, 1)[mask[:, 0]]
        expected = plain(x.permute(0, 2, 3, 1)[mask[:, 0]][:, :, None, None])[:, :, 0, 0]
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(norm.running_mean, plain.running_mean)
    torch.testing.assert_close(norm.running_var, plain.running_var)
    assert norm.num_batches_tracked == 1
    weights = torch.randn_like(out)
    ours = torch.autograd.grad((out * weights).sum(), x)[0]
    theirs = torch.autograd.grad((expected * weights).sum(), x)[0]
    torch.testing.assert_close(ours, theirs)


def test_frozen_norm_is_evaluated_batch_norm():
    trained, frozen = nn.BatchNorm2d(3).eval(), FrozenBatchNorm2d(3).train()
    for value in (trained.weight.data, trained.bias.data, trained.running_mean):
        value.normal_()
    trained.running_var.uniform_(0.5, 2)
    frozen.load_state_dict(trained.state_dict())
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(frozen(x), trained(x))
    assert not list(frozen.parameters())


def test_sync_norm_is_refused_on_a_cpu_when_training():
    norm = SyncBatchNorm2d(3)
    with pytest.raises(ValueError, match='norm="sync" trains on GPUs only'):
        norm(torch.randn(2, 3, 4, 4))
    norm.eval()(torch.randn(2, 3, 4, 4))


def normalise_half(rank, port, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    half = torch.load(folder / "x.pt").chunk(2)[rank].requires_grad_()
    norm = SyncBatchNorm2d(3)
    out = norm.normalise_by_parts(half, None, update=True)
    (out * torch.load(folder / "weights.pt").chunk(2)[rank]).sum().backward()
    torch.save((out.detach(), half.grad, norm.running_mean, norm.running_var), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_sync_norm_over_two_ranks_equals_the_whole_batch(tmp_path):
    torch.manual_seed(2)
    x, weights, plain = (
        torch.randn(4, 3, 5, 5, requires_grad=True),
        torch.randn(4, 3, 5, 5),
        nn.BatchNorm2d(3),
    )
    expected = plain(x)
    (expected * weights).sum().backward()
    torch.save(x.detach(), tmp_path / "x.pt")
    torch.save(weights, tmp_path / "weights.pt")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(normalise_half, (port, tmp_path), nprocs=2)
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    torch.testing.assert_close(torch.cat([part[0] for part in parts]), expected)
    torch.testing.assert_close(torch.cat([part[1] for part in parts]), x.grad)
    for part in parts:
        torch.testing.assert_close(part[2], plain.running_mean)
        torch.testing.assert_close(part[3], plain.running_var)


def test_frozen_stages_keep_weights_and_statistics():
    net = small(frozen_stages=2).train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    optimiser = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    net(torch.randn(2, 3, 64, 64)).square().mean().backward()
    optimiser.step()
    changed = {k for k, v in net.state_dict().items() if not torch.equal(v, before[k])}
    assert changed and all(k.startswith(("layer3", "layer4")) for k in changed)


def test_checkpointing_changes_neither_gradients_nor_statistics():
    torch.manual_seed(3)
    plain, saving = small().train(), small().train()
    saving.load_state_dict(plain.state_dict())
    saving.gradient_checkpointing = True
    image, sizes = torch.randn(2, 3, 64, 64), torch.tensor([[64, 64], [40, 64]])
    for net in (plain, saving):
        net(image, sizes).square().mean().backward()
    for (name, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)
    for (name, a), b in zip(plain.named_buffers(), saving.buffers(), strict=True):
        assert torch.equal(a, b), name


def test_a_checkpointed_graph_is_gone_through_twice():
    net = small().train()
    net.gradient_checkpointing = True
    out = net(torch.randn(2, 3, 64, 64)).square().mean()
    statistics = {name: value.clone() for name, value in net.named_buffers()}
    out.backward(retain_graph=True)
    once = [p.grad.clone() for p in net.parameters()]
    out.backward()
    for (name, p), grad in zip(net.named_parameters(), once, strict=True):
        torch.testing.assert_close(p.grad, 2 * grad, msg=name)
    for name, value in net.named_buffers():
        assert torch.equal(value, statistics[name]), name


def test_checkpointing_survives_compilation():
    torch.manual_seed(3)
    net = small(norm="frozen").train()
    net.gradient_checkpointing = True
    image = torch.randn(1, 3, 64, 64)
    net(image).square().mean().backward()
    expected = net.conv1.weight.grad.clone()
    net.zero_grad()
    torch.compile(net, backend="eager")(image).square().mean().backward()
    torch.testing.assert_close(net.conv1.weight.grad, expected)
