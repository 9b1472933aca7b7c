"""PixelBERT: the forward contract, and that a sequence's outputs are its own."""

import pytest
import torch

from pixelbert_fast import PixelBERT, PixelBertConfig, PixelBertForPreTraining
from pixelbert_fast.model import pixelbert
from pixelbert_fast.model.outputs import PixelEmbeddings
from tests.small_models import config, text

# fp32 outputs of order 1 through four layers; what DESIGN promises for the same image in another batch.
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return PixelBERT(config()).eval()


def test_parameter_counts_of_the_papers_model():
    """PAPER: 134.6 M with ResNet-50 and BERT-base; 110.7 M without any text embedding.

    ResNet-50 without classifier 23,508,032 + BERT-base with pooler 109,482,240 + projection 2048 x 768 + 768
    + type vector 768 = 134,564,672.
    """
    with torch.device("meta"):
        built = PixelBERT(PixelBertConfig.preset("r50"))
    total = sum(p.numel() for p in built.parameters())
    assert total == 23_508_032 + 109_482_240 + 2048 * 768 + 768 + 768
    assert round(total / 1e6, 1) == 134.6
    assert round((total - sum(p.numel() for p in built.embeddings.parameters())) / 1e6, 1) == 110.7


def test_shapes_and_zeros_at_padding(model):
    ids, mask = text(3), torch.ones(3, 7, dtype=torch.int32)
    mask[1, 4:] = 0
    sizes = torch.tensor([[96, 96], [50, 90]], dtype=torch.int32)
    out = model(ids, mask, torch.randn(2, 3, 96, 96), image_index=torch.tensor([1, 0, 1]), pixel_size=sizes)
    assert out.last_hidden_state.shape == (3, 7 + 36, 32)
    assert out.pooler_output.shape == (3, 32)
    assert out.positions.dtype == torch.int32 and out.positions.shape == (3, 36)
    assert out.positions[1].tolist() == list(range(36))
    valid = [row * 6 + column for row in range(3) for column in range(6)]  # 50 px: 7 map rows, 3 pooled
    assert out.positions[0].tolist() == valid + [-1] * 18
    everything = torch.cat([mask, out.pixel_mask], 1)
    zeros = out.last_hidden_state.abs().sum(-1) == 0
    assert torch.equal(zeros, everything == 0)


def test_same_outputs_alone_and_padded_in_a_batch(model):
    sizes = torch.tensor([[64, 80], [96, 50]])
    images = [torch.randn(1, 3, *size) for size in sizes.tolist()]
    batch = torch.full((2, 3, 112, 128), 7.0)
    for i, image in enumerate(images):
        batch[i, :, : image.shape[2], : image.shape[3]] = image[0]
    ids, mask = text(2), torch.ones(2, 7, dtype=torch.long)
    mask[0, 5:] = 0
    together = model(ids, mask, batch, pixel_size=sizes)
    for i, (image, words) in enumerate(zip(images, (5, 7), strict=True)):
        alone = model(ids[i : i + 1, :words], None, image)
        torch.testing.assert_close(together.pooler_output[i], alone.pooler_output[0], **CLOSE)
        torch.testing.assert_close(
            together.last_hidden_state[i, :words], alone.last_hidden_state[0, :words], **CLOSE
        )
        pixels = together.last_hidden_state[i, 7:][together.pixel_mask[i] == 1]
        torch.testing.assert_close(pixels, alone.last_hidden_state[0, words:], **CLOSE)


def test_positions_are_a_set(model):
    """The Transformer gives pixels no position: their order changes nothing but the order of the rows."""
    ids, image = text(1), torch.randn(1, 3, 96, 96)
    places = torch.tensor([[3, 17, 30, 8]])
    a = model(ids, None, image, positions=places)
    b = model(ids, None, image, positions=torch.tensor([[8, -1, 30, 17, 3]]))
    torch.testing.assert_close(a.pooler_output, b.pooler_output, **CLOSE)
    torch.testing.assert_close(a.last_hidden_state[0, 7], b.last_hidden_state[0, 11], **CLOSE)


def test_training_mode_draws_for_each_sequence(model):
    model.train()
    ids, image, index = text(2), torch.randn(1, 3, 96, 96), torch.tensor([0, 0])
    inputs = {"image_index": index, "seed": 5}
    first = model(ids, None, image, **inputs).positions
    assert first.shape == (2, 5) and (first >= 0).all()
    assert not torch.equal(first[0], first[1])
    assert torch.equal(first, model(ids, None, image, **inputs).positions)
    keys = torch.tensor([1, 0])
    assert torch.equal(first.flip(0), model(ids, None, image, sample_keys=keys, **inputs).positions)
    torch.manual_seed(1)
    free = model(ids, None, image, image_index=index).positions
    torch.manual_seed(1)
    assert torch.equal(free, model(ids, None, image, image_index=index).positions)
    assert not torch.equal(free, model(ids, None, image, image_index=index).positions)


def test_all_pixels_in_training_when_sampling_is_off(model):
    model.train().config.sampled_pixels = None
    assert model(text(1), None, torch.randn(1, 3, 96, 96)).positions.tolist() == [list(range(36))]


@pytest.mark.parametrize("training", [False, True])
def test_pixel_embeddings_stand_for_the_images(model, training):
    images, sizes = torch.randn(2, 3, 96, 96), torch.tensor([[96, 96], [60, 96]])
    pixels = model.embed_pixels(images, sizes)
    assert isinstance(pixels, PixelEmbeddings) and pixels.values.shape == (2, 36, 32)
    assert torch.equal(pixels.mask, pixels.positions >= 0)
    assert (pixels.values[~pixels.mask] == 0).all()
    model.train(training)
    model.backbone.eval()  # batch statistics would differ: the backbone ran in eval mode above
    inputs = {"image_index": torch.tensor([1, 0, 1]), "seed": 3}
    direct = model(text(3), None, images, pixel_size=sizes, **inputs)
    reused = model(text(3), None, pixel_embeddings=pixels, **inputs)
    assert torch.equal(direct.positions, reused.positions)
    torch.testing.assert_close(direct.last_hidden_state, reused.last_hidden_state, **CLOSE)
    chosen = {"positions": torch.tensor([[2, -1], [35, 1], [0, 17]]), "image_index": torch.tensor([1, 0, 1])}
    direct = model(text(3), None, images, pixel_size=sizes, **chosen)
    reused = model(text(3), None, pixel_embeddings=pixels, **chosen)
    torch.testing.assert_close(direct.last_hidden_state, reused.last_hidden_state, **CLOSE)
    with pytest.raises(ValueError, match="does not hold"):
        model(
            text(1),
            None,
            pixel_embeddings=pixels,
            positions=torch.tensor([[30]]),
            image_index=torch.tensor([1]),
        )


def test_attention_maps_are_what_the_layers_use(model):
    ids, image = text(2), torch.randn(2, 3, 96, 96)
    mask = torch.ones(2, 7, dtype=torch.long)
    mask[0, 5:] = 0
    out = model(ids, mask, image, output_attentions=True)
    assert len(out.attentions) == model.config.num_hidden_layers
    heads = model.config.num_attention_heads
    assert out.attentions[0].shape == (2, heads, 43, 43)
    torch.testing.assert_close(out.attentions[0].sum(-1), torch.ones(2, heads, 43))
    assert (out.attentions[0][0, :, :, 5:7] == 0).all()
    assert model(ids, mask, image).attentions is None
    # The first layer's own output, recomputed from its map.
    layer, recorded = model.encoder.layer[0].attention.self, {}
    layer.register_forward_hook(lambda m, args, out: recorded.update(hidden=args[0], out=out[0]))
    model(ids, mask, image)
    value = layer.value(recorded["hidden"]).view(2, 43, heads, -1).transpose(1, 2)
    by_map = (out.attentions[0] @ value).transpose(1, 2).reshape(2, 43, -1)
    torch.testing.assert_close(by_map, recorded["out"], rtol=1e-4, atol=1e-5)


def test_the_configuration_can_ask_for_attention_maps():
    model = PixelBERT(config(output_attentions=True)).eval()
    inputs = (text(1), None, torch.randn(1, 3, 96, 96))
    assert len(model(*inputs).attentions) == model.config.num_hidden_layers
    assert model(*inputs, output_attentions=False).attentions is None


def test_gradients_reach_every_parameter_of_the_backbone():
    torch.manual_seed(0)
    model = PixelBertForPreTraining(config()).train()
    ids = text(4)
    out = model(
        ids, None, torch.randn(2, 3, 96, 96), image_index=torch.tensor([0, 0, 1, 1]), labels=ids,
        matched=torch.tensor([1, 0, 1, 0]), seed=1,
    )  # fmt: skip
    out.loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_gradient_of_a_stem_weight_by_finite_difference():
    torch.manual_seed(0)
    model = PixelBertForPreTraining(config()).double().train()
    ids, image = text(2), torch.randn(2, 3, 96, 96, dtype=torch.float64)

    def loss():
        return model(ids, None, image, labels=ids, matched=torch.tensor([1, 1]), seed=1).loss

    loss().backward()
    weight = model.pixelbert.backbone.conv1.weight
    at, step = (3, 1, 2, 4), 1e-6
    analytic = weight.grad[at].item()
    with torch.no_grad():
        weight[at] += step
        above = loss()
        weight[at] -= 2 * step
        below = loss()
    numeric = ((above - below) / (2 * step)).item()
    assert abs(analytic) > 1e-6
    # Central difference in float64: error of order step^2 plus 1e-16 / step.
    assert numeric == pytest.approx(analytic, rel=1e-4)


def test_gradient_checkpointing_changes_no_gradient():
    grads = []
    for saving in (False, True):
        torch.manual_seed(0)
        model = PixelBertForPreTraining(config(hidden_dropout_prob=0.1)).train()
        if saving:
            model.gradient_checkpointing_enable()
            assert model.pixelbert.backbone.gradient_checkpointing
        torch.manual_seed(1)
        ids = text(2)
        model(ids, None, torch.randn(2, 3, 96, 96), labels=ids, matched=torch.tensor([1, 1])).loss.backward()
        grads.append({name: p.grad for name, p in model.named_parameters()})
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("order", ["project_pool", "pool_project"])
def test_both_projection_orders(order):
    torch.manual_seed(0)
    model = PixelBERT(config(projection_order=order)).eval()
    image = torch.randn(1, 3, 96, 96)
    features = model.backbone(image)
    pool = torch.nn.functional.max_pool2d
    if order == "project_pool":
        grid = pool(model.pixel_projection(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), 2)
    else:
        grid = model.pixel_projection(pool(features, 2).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    expected = grid.flatten(2).transpose(1, 2) + model.pixel_type_embedding
    torch.testing.assert_close(model.embed_pixels(image).values, expected, **CLOSE)


def test_free_draws_come_from_the_cpus_generator_whatever_the_default_device(model):
    valid_grid = torch.tensor([[6, 6]])
    torch.manual_seed(4)
    expected = model.train().choose(valid_grid, (6, 6), None, None)
    torch.manual_seed(4)
    drawn = []
    sample = pixelbert.sample_positions
    with pytest.MonkeyPatch.context() as patch, torch.device("meta"):
        # Only the seed's device is under test: on "meta" nothing can be drawn.
        patch.setattr(pixelbert, "sample_positions", lambda *_, seed, **__: drawn.append(seed))
        model.choose(valid_grid, (6, 6), None, None)
    assert torch.equal(sample(valid_grid, (6, 6), 5, seed=drawn[0]), expected)
