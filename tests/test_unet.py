"""The U-Net: what its output may depend on, shapes, precisions, compilation, and diffusers' twin."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lib.unet import UNet, _repeated, time_embedding

F64 = torch.float64


def awake(net: UNet, scale: float = 1.0) -> UNet:
    """Fresh networks return 0: random numbers where zeros are, so that all of it is in the output."""
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in net.parameters():
            if not p.any():
                fan = p[0].numel() if p.ndim > 1 else 100
                p.copy_(scale * torch.randn(p.shape, generator=rng, dtype=F64) / fan**0.5)
    return net.eval()


def small(**options) -> UNet:
    return UNet(1, width=16, **dict(multipliers=(1, 2), heads=16) | options)


def test_time_embedding_is_the_transformers_with_steps_for_positions():
    """Vaswani et al. (2017), section 3.5, entry by entry, at step 250 of 1000."""
    got = time_embedding(torch.tensor([0.0, 0.25], dtype=F64), 8)
    want = [math.cos(250 / 10_000 ** (i / 4)) for i in range(4)]
    want += [math.sin(250 / 10_000 ** (i / 4)) for i in range(4)]
    torch.testing.assert_close(got[1], torch.tensor(want, dtype=F64), rtol=0, atol=1e-12)
    assert got[0].tolist() == [1.0] * 4 + [0.0] * 4


def test_a_fresh_network_returns_zero_and_learns_from_the_first_steps(device):
    net = small(classes=3).to(device)
    x, t, y = torch.randn(4, 1, 8, 8, device=device), torch.rand(4, device=device), torch.arange(4)
    y = y.to(device)
    assert not net(x, t, y).any()
    opt = torch.optim.Adam(net.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        opt.zero_grad()
        loss = (net(x, t, y) - x).square().mean()
        loss.backward()
        opt.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    assert all(p.grad is not None and p.grad.any() for p in net.parameters())


@pytest.mark.parametrize(
    "options",
    [
        {},
        dict(attention=(0, 1), blocks=2),
        dict(patch=2),
        dict(fourier=(1, 2)),
        dict(multipliers=(1, 1, 2)),
    ],
)
def test_everything_reaches_the_output(options):
    """Each pixel of an image changes each pixel of its output, through the middle; no other image."""
    net = awake(small(classes=3, **options)).double()
    x = torch.randn(2, 1, 8, 12, dtype=F64)
    t, y = torch.tensor([0.3, 0.6], dtype=F64), torch.tensor([0, 2])
    out = net(x, t, y)
    assert out.shape == x.shape
    moved = x.clone()
    moved[0, 0, 7, 11] += 1
    change = (net(moved, t, y) - out).abs()
    assert change[0].min() > 0 and not change[1].any()
    for other in (net(x, t + torch.tensor([0.1, 0]), y), net(x, t, torch.tensor([1, 2]))):
        change = (other - out).abs()
        assert change[0].min() > 0 and not change[1].any()
    # an image's output does not depend on the company it is in
    torch.testing.assert_close(net(x[1:], t[1:], y[1:]), out[1:], rtol=1e-9, atol=1e-12)


def test_the_null_label_is_one_of_its_own():
    net = awake(small(classes=3)).double()
    assert net.null == 3
    x, t = torch.randn(1, 1, 8, 8, dtype=F64).expand(4, -1, -1, -1), torch.full((4,), 0.5).double()
    out = net(x, t, torch.arange(4)).flatten(1)
    assert torch.pdist(out).min() > 1e-3


def test_features_as_context():
    net = awake(small(features=5)).double()
    x, t, c = (
        torch.randn(2, 1, 8, 8, dtype=F64),
        torch.rand(2, dtype=F64),
        torch.zeros(2, 5).double(),
    )
    changed = c.clone()
    changed[0, 3] = 1
    change = (net(x, t, changed) - net(x, t, c)).abs()
    assert change[0].min() > 0 and not change[1].any()


def test_channels_out_and_colours():
    net = awake(UNet(3, 6, width=16, multipliers=(1, 2, 2), heads=32))
    assert net(torch.randn(2, 3, 16, 8), torch.rand(2)).shape == (2, 6, 16, 8)


def test_dropout_only_in_training():
    net = awake(small(dropout=0.5))
    x, t = torch.randn(2, 1, 8, 8), torch.rand(2)
    assert torch.equal(net(x, t), net(x, t))
    net.train()
    assert not torch.equal(net(x, t), net(x, t))


def test_memory_is_channels_last_throughout():
    """One layer that falls back to contiguous memory costs a copy before and after it."""
    net, seen = awake(small()), []

    def look(module, inputs, output):
        seen.append(output.is_contiguous(memory_format=torch.channels_last))

    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.GroupNorm):
            module.register_forward_hook(look)
    net(torch.randn(2, 1, 8, 8), torch.rand(2))
    assert len(seen) > 20 and all(seen)


def test_gradients_lie_as_their_weights():
    """Autograd and DistributedDataParallel copy those that do not, and the second warns of it."""
    net, hooks = awake(small()), []
    for name, p in net.named_parameters():
        p.register_hook(
            lambda grad, p=p, name=name: hooks.append((name, grad.stride(), p.stride()))
        )
    net(torch.randn(2, 1, 8, 8), torch.rand(2)).sum().backward()
    assert len(hooks) > 20
    assert [(n, g) for n, g, p in hooks if g != p] == []


def test_up_repeats_pixels_with_and_without_gradients(device):
    x = torch.randn(2, 3, 4, 5, device=device).to(memory_format=torch.channels_last)
    want = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.equal(_repeated(x), want)
    x.requires_grad_()
    out, weight = _repeated(x), torch.randn_like(want)
    assert torch.equal(out, want) and out.is_contiguous(memory_format=torch.channels_last)
    (got,) = torch.autograd.grad((weight * out).sum(), x)
    torch.testing.assert_close(got, 4 * F.avg_pool2d(weight, 2))


def test_no_gradient_changes_nothing():
    """Without gradients SiLU works in place: same numbers, and the input is left alone."""
    net = awake(small(attention=(0,)))
    x, t = torch.randn(2, 1, 8, 8), torch.rand(2)
    kept = x.clone()
    with torch.no_grad():
        plain = net(x, t)
    assert torch.equal(x, kept)
    torch.testing.assert_close(plain, net(x, t), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("grad", [False, True])
def test_bfloat16_is_close(grad, device):
    """Under autocast: within some roundings of 2^-8, in both forms of attention."""
    net = awake(small(classes=3, attention=(1,))).to(device)
    x, t, y = torch.randn(8, 1, 8, 8), torch.rand(8), torch.arange(8) % 4
    x, t, y = x.to(device), t.to(device), y.to(device)
    want = net(x, t, y)
    with torch.set_grad_enabled(grad), torch.autocast(device.type, torch.bfloat16):
        got = net(x, t, y)
    assert got.dtype == torch.bfloat16
    error = (got.float() - want).norm() / want.norm()
    assert 1e-5 < error < 0.03


def test_both_forms_of_attention_agree():
    from lib.attention import attend

    qkv = torch.randn(3, 2, 4, 9, 16, dtype=torch.bfloat16)
    plain = torch.nn.functional.scaled_dot_product_attention(*qkv.float())
    written_out = attend(*qkv.requires_grad_())
    torch.testing.assert_close(written_out.float(), plain, rtol=0.05, atol=0.02)


def test_it_compiles_as_one_graph():
    net = awake(small(classes=3, patch=2, fourier=(1,), attention=(0,)))
    x, t, y = torch.randn(2, 1, 8, 8), torch.rand(2), torch.tensor([0, 3])
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, t, y), net(x, t, y), rtol=1e-4, atol=1e-5)
    (g,) = torch.autograd.grad(compiled(x, t, y).square().sum(), [net.first.weight])
    (h,) = torch.autograd.grad(net(x, t, y).square().sum(), [net.first.weight])
    torch.testing.assert_close(g, h, rtol=1e-3, atol=1e-3)


def test_mistakes_get_a_sentence():
    net = UNet(1, width=8, multipliers=(1, 1, 1), classes=3)
    x, t, y = torch.randn(2, 1, 28, 28), torch.rand(2), torch.tensor([0, 3])
    assert net(x, t, y).shape == x.shape
    with pytest.raises(ValueError, match="halves images 2 times.*multiples of 4.*H = 28, W = 30"):
        net(torch.randn(2, 1, 28, 30), t, y)
    with pytest.raises(ValueError, match="patches of 2 x 2 pixels and halves.*multiples of 8"):
        UNet(1, width=8, multipliers=(1, 1, 1), patch=2)(x, t)
    with pytest.raises(ValueError, match=r"\(B, 1, H, W\), got shape \(2, 3, 28, 28\)"):
        net(torch.randn(2, 3, 28, 28), t, y)
    with pytest.raises(ValueError, match=r"one time for each of 2 images, got shape \(1,\)"):
        net(x, t[:1], y)
    with pytest.raises(ValueError, match=r"needs a context: integer labels \(2,\), 3 for none"):
        net(x, t)
    with pytest.raises(ValueError, match="takes no context"):
        UNet(1, width=8)(x, t, y)
    with pytest.raises(ValueError, match=r"integer labels of shape \(2,\), got torch.float32"):
        net(x, t, torch.randn(2, 3))
    with pytest.raises(ValueError, match=r"vectors of shape \(2, 5\), got torch.int64"):
        UNet(1, width=8, features=5)(x, t, y)
    with pytest.raises(ValueError, match="labels, vectors or sequences, one of them"):
        UNet(1, classes=3, features=5)
    with pytest.raises(ValueError, match=r"resolutions 0 to 1, got \(2,\)"):
        UNet(1, multipliers=(1, 2), attention=(2,))
    with pytest.raises(ValueError, match="heads of 48 channels do not divide 64"):
        UNet(1, width=64, multipliers=(1,), heads=48)
    with pytest.raises(ValueError, match="heads must be at least 1, not 0"):
        UNet(1, heads=0, tokens=4)
    with pytest.raises(ValueError, match="even width, got 7"):
        UNet(1, width=7)


def test_it_is_diffusers_unet_but_for_groups_and_the_order_in_up():
    """Same parameters, copied in order; its norms with one group, its repeat after the convolution.

    What remains is that every layer is where it should be, in both.
    """
    diffusers = pytest.importorskip("diffusers")
    types = dict(down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2)
    theirs = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(16, 32),
        attention_head_dim=16,
        norm_num_groups=1,
        norm_eps=1e-5,
        attn_norm_num_groups=1,
        **types,
    ).double()
    ours = UNet(1, width=16, multipliers=(1, 2), heads=16).double()
    state = dict(theirs.state_dict())
    assert sum(p.numel() for p in ours.parameters()) == sum(v.numel() for v in state.values())
    rng = torch.Generator().manual_seed(0)
    for v in state.values():
        v.copy_(0.3 * torch.randn(v.shape, generator=rng, dtype=F64))

    def take(module: nn.Module, name: str) -> None:
        for part in ("weight", "bias"):
            getattr(module, part).data.copy_(state.pop(f"{name}.{part}"))

    def block(ours, name):
        pairs = dict(norm1="norm1", conv1="conv1", shift="time_emb_proj", norm2="norm2")
        for mine, other in dict(pairs, conv2="conv2").items():
            take(getattr(ours, mine), f"{name}.{other}")
        if isinstance(ours.skip, nn.Conv2d):
            take(ours.skip, f"{name}.conv_shortcut")

    take(ours.first, "conv_in")
    take(ours.time[0], "time_embedding.linear_1")
    take(ours.time[2], "time_embedding.linear_2")
    block(ours.down[0], "down_blocks.0.resnets.0")
    take(ours.down[1], "down_blocks.0.downsamplers.0.conv")
    block(ours.down[2], "down_blocks.1.resnets.0")
    block(ours.middle[0], "mid_block.resnets.0")
    attention, name = ours.middle[0].attention, "mid_block.attentions.0"
    take(attention.norm, f"{name}.group_norm")
    take(attention.out, f"{name}.to_out.0")
    for part in ("weight", "bias"):
        rows = [state.pop(f"{name}.to_{a}.{part}") for a in "qkv"]
        getattr(attention.qkv, part).data.copy_(torch.cat(rows))
    block(ours.middle[1], "mid_block.resnets.1")
    for i, (mine, other) in enumerate([(0, 0), (1, 1), (3, 0), (4, 1)]):
        block(ours.up[mine], f"up_blocks.{i // 2}.resnets.{other}")
    take(ours.up[2], "up_blocks.0.upsamplers.0.conv")
    take(ours.norm, "conv_norm_out")
    take(ours.last, "conv_out")
    assert not state
    up = theirs.up_blocks[0].upsamplers[0]
    up.forward = lambda h, *a, **k: nn.functional.interpolate(up.conv(h), scale_factor=2.0)
    x, t = torch.randn(3, 1, 8, 8, dtype=F64), torch.tensor([0.1, 0.5, 0.9], dtype=F64)
    want = theirs(x, 1000 * t).sample
    assert want.std() > 0.1
    torch.testing.assert_close(ours(x, t), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_still_knows_the_time(dtype, device):
    """A thousand steps are more times than half precision has near 1."""
    net = awake(small()).to(device, torch.float32)
    x, t = torch.randn(4, 1, 8, 8, device=device), torch.tensor([0.1, 0.501, 0.83, 0.997])
    want, half = net(x, t.to(device)), net.to(dtype)
    off = (half(x.to(dtype), t.to(device)).float() - want).abs().max()
    assert off < 0.03 * want.abs().max()
