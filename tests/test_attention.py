"""Attention against its formula written out as loops, and the symmetries it must have."""

import math

import pytest
import torch

from lib.attention import Attention, CrossAttention, attend

F64 = torch.float64


def loops(q, k, v):
    """softmax(q k^T / sqrt d) v, one query and one key at a time."""
    out = torch.zeros(len(q), v.shape[1], dtype=q.dtype)
    for i in range(len(q)):
        weight = [math.exp(float(q[i] @ key) / math.sqrt(q.shape[1])) for key in k]
        for a, value in zip(weight, v, strict=True):
            out[i] += a / sum(weight) * value
    return out


def randomise(module):
    for p in module.parameters():
        torch.nn.init.normal_(p, std=0.5)
    return module


def test_attend_against_loops():
    q, k, v = (torch.randn(n, d, dtype=F64) for n, d in ((5, 3), (7, 3), (7, 2)))
    torch.testing.assert_close(attend(q[None], k[None], v[None])[0], loops(q, k, v))


def test_the_written_out_branch_is_the_same():
    q, k, v = (torch.randn(2, 3, n, 8).bfloat16() for n in (5, 7, 7))
    fused = attend(q, k, v)
    torch.testing.assert_close(attend(q.requires_grad_(), k, v), fused, atol=0.03, rtol=0.03)


def test_cross_attention_head_by_head(device):
    layer = randomise(CrossAttention(6, 3, 5)).to(device, F64)
    x = torch.randn(2, 6, 2, 4, dtype=F64, device=device)
    context = torch.randn(2, 3, 5, dtype=F64, device=device)
    got = layer(x, context)
    pixels = layer.norm(x).flatten(2).transpose(1, 2)
    query, (key, value) = layer.query(pixels), layer.key_value(context).chunk(2, 2)
    for b in range(2):
        heads = [
            loops(*(a[b, :, h : h + 3].detach().cpu() for a in (query, key, value))) for h in (0, 3)
        ]
        read = layer.out(torch.cat(heads, 1).to(device)).T.view(6, 2, 4)
        torch.testing.assert_close(got[b], x[b] + read)
    weights = layer.weights(x, context)
    assert weights.shape == (2, 2, 8, 3)
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
    read = (weights @ layer.projections(x, context)[2]).transpose(1, 2).flatten(2)
    torch.testing.assert_close(got - x, layer.out(read).transpose(1, 2).view_as(x))


def test_self_attention_head_by_head(device):
    layer = randomise(Attention(6, 3)).to(device, F64)
    x = torch.randn(3, 6, 2, 4, dtype=F64, device=device)
    query, key, value = layer.qkv(layer.norm(x).flatten(2).transpose(1, 2)).chunk(3, 2)
    for b, got in enumerate(layer(x)):
        some = [a[b].detach().cpu() for a in (query, key, value)]
        heads = [loops(*(a[:, h : h + 3] for a in some)) for h in (0, 3)]
        read = layer.out(torch.cat(heads, 1).to(device)).T.view(6, 2, 4)
        torch.testing.assert_close(got, x[b] + read)


def test_order_of_the_sequence_and_of_the_pixels():
    """No vector of the sequence has a place of its own; a pixel's answer moves with the pixel."""
    layer = randomise(CrossAttention(6, 2, 5)).double()
    x, context = torch.randn(2, 6, 3, 4, dtype=F64), torch.randn(2, 7, 5, dtype=F64)
    torch.testing.assert_close(layer(x, context[:, torch.randperm(7)]), layer(x, context))
    torch.testing.assert_close(layer(x.flip(2, 3), context).flip(2, 3), layer(x, context))
    own = randomise(Attention(6, 2)).double()
    torch.testing.assert_close(own(x.flip(2, 3)).flip(2, 3), own(x))


def test_a_sequence_of_equal_vectors_is_read_evenly():
    layer = randomise(CrossAttention(4, 4, 3)).double()
    x, vector = torch.randn(1, 4, 2, 2, dtype=F64), torch.randn(1, 1, 3, dtype=F64)
    torch.testing.assert_close(layer(x, vector.expand(1, 9, 3)), layer(x, vector))
    torch.testing.assert_close(
        layer.weights(x, vector.expand(1, 9, 3)), torch.full((1, 1, 4, 9), 1 / 9, dtype=F64)
    )


def test_fresh_layers_add_nothing_and_heads_must_divide():
    x = torch.randn(2, 6, 3, 3)
    assert torch.equal(Attention(6, 3)(x), x)
    assert torch.equal(CrossAttention(6, 3, 4)(x, torch.randn(2, 5, 4)), x)
    for make in (lambda: Attention(6, 4), lambda: CrossAttention(6, 4, 2)):
        with pytest.raises(ValueError, match="heads of 4 channels do not divide 6 channels"):
            make()
