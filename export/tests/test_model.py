"""What the model promises besides its numbers (those are test_parity's)."""

import gzip
import json
from pathlib import Path

import pytest
import torch

from refersam.model import ReferSAM, preset
from refersam.serving import recipe

torch.set_num_threads(1)

KEYS = json.loads(gzip.decompress((Path(__file__).parent / "data/reference/keys.json.gz").read_bytes()))


def build(text: str = "bert") -> ReferSAM:
    model = ReferSAM(preset("tiny", text)).eval()
    recipe.fill(model.state_dict(), seed=3)
    return model


@pytest.fixture(scope="module", params=("bert", "clip"))
def model(request: pytest.FixtureRequest) -> ReferSAM:
    return build(request.param)


@pytest.fixture
def sample() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two 64 x 96 pictures with texts of 4 and 7 of 7 tokens."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, 3, 64, 96, generator=generator)
    ids = torch.randint(1, 30000, (2, 7), generator=generator)
    mask = torch.tensor([[1, 1, 1, 1, 0, 0, 0], [1] * 7])
    return image, ids, mask


@pytest.mark.parametrize("name", sorted(KEYS))
def test_state_dict_has_the_published_layout(name):
    size, _, text = name.rpartition("_")
    with torch.device("meta"):
        model = ReferSAM(preset(size, text))
    layout = [
        [key, list(tensor.shape), str(tensor.dtype).removeprefix("torch.")]
        for key, tensor in model.state_dict().items()
    ]
    assert sorted(layout) == sorted(KEYS[name])


@torch.no_grad()
def test_shapes(model, sample):
    output = model(*sample)
    assert output.logits.shape == (2, 64, 96)
    assert output.low_res_logits.shape == output.coarse_logits.shape == (2, 1, 16, 24)
    vit, adapter, c1 = model.image_prefix(sample[0])
    assert vit.shape == (2, 4, 6, 96)
    assert adapter.shape == (2, 8 * 12 + 4 * 6 + 2 * 3, 96)
    assert c1.shape == (2, 16, 16, 24)


@pytest.mark.parametrize("size", [(144, 160), (160, 8), (0, 32)])
def test_sides_must_be_multiples_of_32(size):
    with pytest.raises(ValueError, match=f"{size[0]} x {size[1]} pixels: .* multiples of 32"):
        build().image_prefix(torch.zeros(1, 3, *size))


@torch.no_grad()
def test_padding_and_neighbours_do_not_matter(model, sample):
    image, ids, mask = sample
    logits = model(image, ids, mask).logits
    tolerance = {"rtol": 0, "atol": 1e-3 * logits.std().item()}
    other_padding = torch.where(mask == 0, 17, ids)
    assert torch.equal(model(image, other_padding, mask).logits, logits)
    alone = model(image[:1], ids[:1, :4], mask[:1, :4]).logits
    torch.testing.assert_close(alone, logits[:1], **tolerance)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bool, torch.int32, torch.float32])
def test_masks_of_any_type(model, sample, dtype):
    image, ids, mask = sample
    assert torch.equal(model(image, ids, mask.to(dtype)).logits, model(image, ids, mask).logits)


@torch.no_grad()
def test_a_text_without_tokens_spoils_its_own_sample_only(model, sample):
    image, ids, mask = sample
    logits = model(image, ids, mask).logits
    mask = mask.clone()
    mask[0] = 0
    spoilt = model(image, ids, mask).logits
    assert spoilt[0].isnan().all()
    torch.testing.assert_close(spoilt[1], logits[1], rtol=0, atol=1e-3 * logits.std().item())


@torch.no_grad()
def test_one_image_prefix_serves_several_texts(model, sample):
    image, ids, mask = sample
    expected = model(image[:1].expand(2, -1, -1, -1), ids, mask).low_res_logits
    vit, adapter, c1 = (part.expand(2, *part.shape[1:]) for part in model.image_prefix(image[:1]))
    adapter, lang, embedding = model.vli(vit, adapter, model.text(ids, mask), mask)
    sparse, prompt, _ = model.vlp(adapter, lang, mask, c1)
    low_res = model.decoder(embedding, sparse, prompt)
    torch.testing.assert_close(low_res, expected, rtol=0, atol=1e-3 * expected.std().item())


@pytest.mark.filterwarnings("ignore::FutureWarning")
@torch.no_grad()
def test_what_depends_on_the_size_alone_is_traced_as_a_constant(model, sample):
    image, ids, mask = sample
    text = model.text(ids, mask)
    vit, adapter, c1 = model.image_prefix(image)
    tokens, lang, embedding = model.vli(vit, adapter, text, mask)
    sparse, prompt, _ = model.vlp(tokens, lang, mask, c1)
    traced = torch.jit.trace_module(
        model,
        {
            "image_prefix": (image,),
            "vli": (vit, adapter, text, mask),
            "decoder": (embedding, sparse, prompt),
        },
        check_trace=False,
    )
    position_steps = ("aten::sin", "aten::cos", "aten::upsample", "aten::linspace")
    for stage in (traced.image_prefix, traced.vli, traced.decoder):
        kinds = {node.kind() for node in stage.inlined_graph.nodes()}
        assert "aten::matmul" in kinds
        assert not [kind for kind in kinds if kind.startswith(position_steps)]
    single = traced.vli(vit[1:], adapter[1:], text[1:], mask[1:])
    for whole, part in zip((tokens, lang, embedding), single, strict=True):
        torch.testing.assert_close(part, whole[1:], rtol=0, atol=1e-4)


def test_inference_mode_leaves_nothing_behind_that_training_trips_over(sample):
    model = build()
    with torch.inference_mode():
        model(*sample)
    model(*sample).logits.sum().backward()
    assert model.vl_adapter.level_embed.grad.abs().sum() > 0


def test_initial_values():
    torch.manual_seed(0)
    model = ReferSAM(preset("tiny", "bert"))
    adapter = model.vl_adapter
    layer = adapter.interactions[1]
    assert layer.vl_extractor.vis_mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not layer.vl_extractor.vis_mlp.fc1.bias.any()
    assert layer.injector.gamma.detach().numpy() == pytest.approx(1e-6)
    assert (layer.vl_extractor.gamma_l2v == 1).all()
    assert (layer.vl_extractor.gamma_v2l == 1).all()
    assert adapter.level_embed.std().item() == pytest.approx(1, rel=0.15)
    assert adapter.spm.conv4[0].weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.05)
    assert not adapter.vis_model.pos_embed.any()
    assert not adapter.vis_model.blocks[1].attn.rel_pos_h.any()
    assert model.mask_scaling.weight.item() == 1
    assert model.mask_scaling.bias.item() == 0

    attention = layer.extractor.attn
    assert not attention.sampling_offsets.weight.any()
    assert not attention.attention_weights.weight.any()
    star = attention.sampling_offsets.bias.detach().reshape(4, 1, 4, 2)  # heads, levels, points, (x, y)
    ahead = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    torch.testing.assert_close(star[:, 0, 2], 3 * ahead, atol=1e-6, rtol=0)


def test_unknown_sampler():
    with pytest.raises(ValueError, match="gather, grid_sample"):
        build().set_sampler("nearest")
