import pytest
import torch

from refersam.model.deformable import DeformableAttention

torch.set_num_threads(1)

GRIDS = {
    "injector": (((4, 6),), ((8, 12), (4, 6), (2, 3))),
    "extractor": (((8, 12), (4, 6), (2, 3)), ((4, 6),)),
}


def attention(levels: int) -> DeformableAttention:
    torch.manual_seed(1)
    module = DeformableAttention(32, heads=4, levels=levels, points=4, value_ratio=0.5)
    torch.nn.init.normal_(module.sampling_offsets.weight, std=0.2)
    torch.nn.init.normal_(module.sampling_offsets.bias, std=3.0)  # far enough to leave the grids
    return module


def tokens(levels) -> int:
    return sum(rows * columns for rows, columns in levels)


@pytest.mark.parametrize("kind", GRIDS)
def test_gather_equals_grid_sample(kind):
    query_levels, value_levels = GRIDS[kind]
    module = attention(len(value_levels))
    torch.manual_seed(2)
    query = torch.randn(2, tokens(query_levels), 32, requires_grad=True)
    value = torch.randn(2, tokens(value_levels), 32, requires_grad=True)
    wanted = torch.randn(2, tokens(query_levels), 32)
    leaves = {"query": query, "value": value} | dict(module.named_parameters())

    results, gradients = [], []
    for sampler in ("gather", "grid_sample"):
        module.sampler = sampler
        result = module(query, query_levels, value, value_levels)
        results.append(result)
        gradients.append(torch.autograd.grad((result * wanted).sum(), leaves.values()))

    torch.testing.assert_close(*results, rtol=0, atol=1e-5)
    for name, gathered, sampled in zip(leaves, *gradients, strict=True):
        scale = sampled.abs().max().item()
        torch.testing.assert_close(gathered, sampled, rtol=0, atol=1e-5 * max(1, scale), msg=name)


def test_reads_the_value_under_the_reference_point():
    """With no offset and equal weights a token reads its own place of an equally large grid."""
    module = DeformableAttention(8, heads=2, levels=1, points=4, value_ratio=1.0)
    for parameter in module.parameters():
        torch.nn.init.zeros_(parameter)
    torch.nn.init.eye_(module.value_proj.weight)
    torch.nn.init.eye_(module.output_proj.weight)
    grid = ((3, 5),)
    value = torch.randn(1, 15, 8)
    for module.sampler in ("gather", "grid_sample"):
        torch.testing.assert_close(module(torch.randn(1, 15, 8), grid, value, grid), value, rtol=0, atol=1e-5)


def test_offsets_are_pixels_of_the_sampled_level_in_xy_order():
    module = DeformableAttention(8, heads=2, levels=1, points=1, value_ratio=1.0)
    for parameter in module.parameters():
        torch.nn.init.zeros_(parameter)
    torch.nn.init.eye_(module.value_proj.weight)
    torch.nn.init.eye_(module.output_proj.weight)
    with torch.no_grad():
        module.sampling_offsets.bias.copy_(torch.tensor([1.0, 0.0, 1.0, 0.0]))  # one pixel right, both heads
    value = torch.randn(1, 15, 8)
    read = module(torch.randn(1, 15, 8), ((3, 5),), value, ((3, 5),)).reshape(3, 5, 8)
    shifted = torch.zeros(3, 5, 8)
    shifted[:, :4] = value.reshape(3, 5, 8)[:, 1:]  # zero outside
    torch.testing.assert_close(read, shifted, rtol=0, atol=1e-5)
