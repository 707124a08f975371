"""Vector quantisation against brute force, k-means, and the gradients that define it."""

import math

import pytest
import torch
from torch import nn

from lib.vae.vq import VectorQuantizer, VQAutoencoder

F64 = torch.float64


def quantiser(codes=6, width=3, device="cpu", **kwargs):
    kwargs = {"warm": False} | kwargs
    return VectorQuantizer(codes, width, **kwargs).to(device, F64)


def latents(*shape, device="cpu", scale=1.0, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=generator, dtype=F64).to(device)


class TestNearest:
    def test_is_the_nearest_by_brute_force(self, device):
        vq = quantiser(device=device).eval()
        z = latents(2, 3, 4, 5, device=device)
        got = vq(z)
        for b in range(2):
            for i in range(4):
                for j in range(5):
                    distance = [(z[b, :, i, j] - e).square().sum().item() for e in vq.codebook]
                    k = distance.index(min(distance))
                    assert got.indices[b, i, j] == k
                    assert torch.equal(got.z[b, :, i, j], vq.codebook[k])
        assert torch.equal(vq.indices(z), got.indices)
        assert torch.equal(vq.lookup(got.indices), got.z)

    def test_codes_are_their_own_nearest_and_cost_nothing(self, device):
        vq = quantiser(device=device).eval()
        z, indices, loss = vq(vq.codebook[None].mT)
        assert torch.equal(z[0].mT, vq.codebook)
        assert indices.tolist() == [list(range(6))] and loss.item() == 0

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
    def test_indices_of_any_integers_are_numbers_and_no_mask(self, dtype, device):
        vq = quantiser(codes=6, device=device)
        k = torch.arange(6, device=device).repeat(3).view(6, 3)  # of the codebook's own shape
        assert torch.equal(vq.lookup(k.to(dtype)), vq.lookup(k))

    def test_takes_any_number_of_positions(self, device):
        vq = quantiser(device=device).eval()
        flat, grid = latents(5, 3, device=device), latents(5, 3, 2, 2, 2, device=device)
        assert vq(flat).indices.shape == (5,) and vq(flat).z.shape == (5, 3)
        assert vq(grid).indices.shape == (5, 2, 2, 2)
        assert torch.equal(vq(grid).indices[:, 1, 0, 1], vq.indices(grid[:, :, 1, 0, 1]))


class TestGradients:
    @pytest.mark.parametrize("decay", [None, 0.9])
    def test_straight_through_is_the_decoders_gradient_to_the_bit(self, device, decay):
        vq = quantiser(device=device, commitment=0.0, decay=decay).eval()
        decoder = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Conv2d(4, 2, 1)).to(device, F64)
        z = latents(2, 3, 5, 5, device=device).requires_grad_()
        out = vq(z)
        decoder(out.z).square().sum().backward()
        code = vq.lookup(vq.indices(z)).detach().requires_grad_()
        decoder(code).square().sum().backward()
        if device.type == "cpu":  # a GPU may choose another algorithm for the second convolution
            assert torch.equal(z.grad, code.grad)
        torch.testing.assert_close(z.grad, code.grad, rtol=1e-12, atol=1e-14)
        assert z.grad.abs().min() > 0
        assert decay is not None or vq.codebook.grad is None

    def test_commitment_pulls_latents_to_their_codes(self, device):
        vq = quantiser(device=device, commitment=0.37).eval()
        z = latents(4, 3, 2, 2, device=device).requires_grad_()
        out = vq(z)
        gap = z.detach() - out.z.detach()
        torch.testing.assert_close(out.loss, 0.37 * gap.square().sum((1, 2, 3)))
        (grad,) = torch.autograd.grad(out.loss.sum(), z)
        torch.testing.assert_close(grad, 2 * 0.37 * gap)

    def test_codebook_loss_pulls_codes_to_their_latents(self, device):
        vq = quantiser(device=device, commitment=0.37, decay=None)
        z = latents(4, 3, 2, 2, device=device).requires_grad_()
        out = vq(z)
        gap = z.detach() - out.z.detach()
        torch.testing.assert_close(out.loss, 1.37 * gap.square().sum((1, 2, 3)))
        to_z, to_codes = torch.autograd.grad(out.loss.sum(), [z, vq.codebook])
        torch.testing.assert_close(to_z, 2 * 0.37 * gap)
        rows, k = z.detach().movedim(1, -1).reshape(-1, 3), out.indices.flatten()
        for code in range(6):
            pulled = 2 * (vq.codebook[code].detach() - rows[k == code]).sum(0)
            torch.testing.assert_close(to_codes[code], pulled)


class TestMovingAverages:
    def test_decay_zero_is_a_step_of_k_means(self, device):
        vq = quantiser(device=device, decay=0.0)
        z, before = latents(50, 3, device=device, scale=0.5), vq.codebook.clone()
        k = vq(z).indices
        assert 0 < len(k.unique()) < 6  # a code is left over, and stays
        for code in range(6):
            mine = z[k == code]
            torch.testing.assert_close(
                vq.codebook[code], mine.mean(0) if len(mine) else before[code]
            )

    def test_after_some_batches_it_is_the_weighted_mean(self, device):
        decay, vq = 0.8, quantiser(device=device, decay=0.8)
        start, seen = vq.codebook.clone(), []
        for seed in range(4):
            z = latents(40, 3, device=device, seed=seed)
            seen.append((z, vq(z).indices))
        for code in range(6):
            weight, total = decay**4, decay**4 * start[code]
            for step, (z, k) in enumerate(seen):
                w = (1 - decay) * decay ** (3 - step)
                weight, total = weight + w * (k == code).sum(), total + w * z[k == code].sum(0)
            torch.testing.assert_close(vq.codebook[code], total / weight)

    def test_k_means_of_two_clusters_finds_their_means(self, device):
        vq = quantiser(2, 2, device=device, decay=0.9)
        vq.place(torch.tensor([[-1.0, 0.0], [1.0, 0.5]]))
        z = latents(400, 2, device=device, scale=0.3)
        z[:200] += torch.tensor([3.0, 1.0], device=device)
        z[200:] -= torch.tensor([2.0, 2.0], device=device)
        for _ in range(200):
            vq(z)
        want = torch.stack([z[200:].mean(0), z[:200].mean(0)])
        torch.testing.assert_close(vq.codebook, want, rtol=1e-6, atol=1e-6)

    def test_nothing_moves_in_eval_mode(self, device):
        vq = quantiser(device=device, warm=True).eval()
        before = {k: v.clone() for k, v in vq.state_dict().items()}
        vq(latents(20, 3, device=device))
        for name, value in vq.state_dict().items():
            assert torch.equal(value, before[name]), name

    def test_long_idle_codes_stay_finite(self, device):
        vq = quantiser(device=device, decay=0.5).float()
        vq.place(torch.cat([vq.codebook[:1] * 0 + 100, vq.codebook[1:]]))
        z = latents(30, 3, device=device).float()
        for _ in range(400):  # 0.5^400 is 0 in float32
            vq(z)
        assert torch.equal(vq.codebook[0], torch.full_like(vq.codebook[0], 100.0))
        vq(z + 100)  # and it can come back
        assert vq.codebook.isfinite().all()
        torch.testing.assert_close(vq.codebook[0], (z + 100).mean(0), rtol=1e-4, atol=1e-4)

    def test_idle_codes_move_to_latents(self, device):
        vq = quantiser(device=device, decay=0.0, reseed=0.01)
        z = latents(60, 3, device=device)
        z[:5] += 50.0  # far from all codes: whoever moves goes there
        idle = torch.tensor([False, True, False, False, True, False], device=device)
        vq.place(torch.where(idle[:, None], vq.codebook + 1e4, vq.codebook))
        vq(z)
        for code in vq.codebook[idle]:
            assert (z == code).all(1).any()
        assert (vq.codebook[idle].norm(dim=1) > 50).all()
        equal = torch.full_like(vq.counts[idle], 10.0)
        torch.testing.assert_close(vq.counts[idle], equal)
        torch.testing.assert_close(vq.sums[idle], 10 * vq.codebook[idle])

    @pytest.mark.parametrize(("n", "moves"), [(2, True), (3, False)])
    def test_idle_is_below_a_share_of_the_mean_count(self, device, n, moves):
        """100 latents for two codes are 50 on average: idle is below 2.5 of them, and not below 0.05."""
        vq = quantiser(2, 1, device=device, decay=0.0, reseed=0.05)
        vq.place(torch.tensor([[0.0], [10.0]]))
        vq(torch.tensor([[0.0]] * n + [[10.0]] * (100 - n), dtype=F64, device=device))
        assert vq.counts.tolist() == [50 if moves else n, 100 - n]

    @pytest.mark.parametrize("n", [4, 60])
    def test_warm_start_places_the_codes_on_the_first_batch(self, device, n):
        vq = quantiser(device=device, warm=True, decay=None)
        z = latents(n, 3, device=device)
        vq(z)
        assert all((z == code).all(1).any() for code in vq.codebook)
        if n > 6:
            assert len(vq.codebook.unique(dim=0)) == 6
        placed = vq.codebook.clone()
        vq(z + 1)
        assert torch.equal(vq.codebook, placed)  # once only


class TestRate:
    def test_usage_of_known_counts(self, device):
        vq = quantiser(4, device=device)
        used, entropy, perplexity = vq.usage(torch.tensor([[0, 0, 1], [0, 2, 0]], device=device))
        want = -(4 * math.log2(4 / 6) + 2 * math.log2(1 / 6)) / 6
        assert used == 0.75 and math.isclose(entropy, want) and math.isclose(perplexity, 2**want)

    def test_rate_is_that_of_a_fixed_length_or_the_entropy(self, device):
        vq = quantiser(8, device=device)
        equal = vq.usage(torch.arange(8, device=device).repeat(5))
        one = vq.usage(torch.zeros(9, dtype=torch.int64, device=device))
        assert vq.rate(64) == 192 == vq.rate(64, equal)
        assert vq.rate(64, one) == 0 and one.perplexity == 1 and one.used == 1 / 8


class TestAutoencoder:
    def model(self, device, **kwargs):
        torch.manual_seed(0)
        model = VQAutoencoder(2, 3, width=8, codes=5, **kwargs).to(device, F64)
        for p in model.parameters():  # else the residual branches are 0
            p.data += 0.05 * torch.randn_like(p)
        return model

    def test_loss_is_error_in_nats_and_the_quantisers(self, device):
        model = self.model(device, noise=0.3, commitment=0.7, warm=False).eval()
        x = latents(3, 2, 8, 8, device=device)
        z = model.encoder(x)
        code = model.quantizer.lookup(model.indices(x))
        error = (x - model.decoder(code)).square().sum((1, 2, 3)) / (2 * 0.09)
        pull = 0.7 * (z - code).square().sum((1, 2, 3))
        torch.testing.assert_close(model(x), error + pull)

    def test_decoding_rounds(self, device):
        model = self.model(device, warm=False).eval()
        x = latents(3, 2, 8, 8, device=device)
        z, k = model.latents(x), model.indices(x)
        assert z.shape == (3, 3, 2, 2) and k.shape == (3, 2, 2)
        code = model.quantizer.lookup(k)
        assert (z - code).abs().max() > 0.1  # the latents are not rounded yet
        assert torch.equal(model.decode(z), model.decode(code))
        assert torch.equal(model.reconstruct(x), model.decode(code))

    def test_encoder_learns_through_the_rounding(self, device):
        model = self.model(device, commitment=0.0)
        model(latents(3, 2, 8, 8, device=device)).sum().backward()
        assert all(p.grad.abs().max() > 0 for p in model.encoder.parameters())

    def test_training_beats_the_best_constant(self, device):
        model = self.model(device, noise=0.2).float()
        flat = torch.rand(16, 2, 1, 1, generator=torch.Generator().manual_seed(3))
        x = (flat - 0.5).sign().expand(16, 2, 8, 8).to(device)  # four kinds of images
        optimiser = torch.optim.Adam(model.parameters(), 3e-3)
        for _ in range(120):
            optimiser.zero_grad()
            model(x).mean().backward()
            optimiser.step()
        model.eval()
        error = (model.reconstruct(x) - x).square().mean()
        assert error < 0.1 * x.var(0).mean()

    def test_mistakes_are_explained(self):
        with pytest.raises(ValueError, match="noise is above 0, got 0"):
            VQAutoencoder(noise=0.0)
        with pytest.raises(ValueError, match=r"latents must be \(B, 4, ...\)"):
            VQAutoencoder(width=8).decode(torch.zeros(1, 3, 2, 2))


class TestRest:
    def test_no_value_is_looked_at(self, device):
        """So that nobody waits for a GPU; training stops at a loss that is not finite."""
        vq, z = quantiser(width=4, device=device), latents(5, 4, 3, 3, device=device)
        one_by_one = torch.func.vmap(lambda z: vq.indices(z[None])[0])(z)
        assert torch.equal(one_by_one, vq.indices(z))

    def test_works_under_autocast(self, device):
        vq = quantiser(width=4, device=device).float()
        z = latents(2, 4, 3, 3, device=device).bfloat16()
        with torch.autocast(device.type, torch.bfloat16):
            out = vq(z)
        assert out.z.dtype == torch.bfloat16
        assert out.loss.dtype == vq.codebook.dtype == torch.float32
        assert out.loss.isfinite().all() and vq.codebook.isfinite().all()

    def test_distances_are_in_float32_under_autocast(self, device):
        """With products in bfloat16 one latent in ten or so would take another code."""
        vq = quantiser(codes=256, width=4, device=device).float().eval()
        z = latents(4000, 4, device=device).float()
        want = vq.indices(z)
        with torch.autocast(device.type, torch.bfloat16):
            assert torch.equal(vq.indices(z), want)
            assert torch.equal(vq(z).indices, want)

    def test_overflowing_latents_are_left_to_the_loss(self, device):
        """`fit` then says at which step, and puts the model back."""
        vq = quantiser(width=4, device=device, reseed=0.1).float().train()
        for z in (torch.full((8, 4), 1e30), torch.full((8, 4), math.nan)):
            vq(z.to(device))

    def test_state_travels(self, device):
        one, two = quantiser(device=device, warm=True), quantiser(device=device, warm=True)
        z = latents(30, 3, device=device)
        one(z)
        two.load_state_dict(one.state_dict())
        one(z + 0.1), two(z + 0.1)
        assert torch.equal(one.codebook, two.codebook)

    def test_mistakes_are_explained(self):
        with pytest.raises(ValueError, match="at least 1"):
            VectorQuantizer(0, 3)
        with pytest.raises(ValueError, match=r"commitment is 0 or more, got -1"):
            VectorQuantizer(4, 3, commitment=-1)
        with pytest.raises(ValueError, match=r"\[0, 1\), such as 0.99; got 1"):
            VectorQuantizer(4, 3, decay=1.0)
        with pytest.raises(ValueError, match="which decay=None does not keep"):
            VectorQuantizer(4, 3, decay=None, reseed=0.1)
        vq = VectorQuantizer(4, 3)
        with pytest.raises(ValueError, match=r"\(B, 3, ...\), not \(2, 4, 5\)"):
            vq(torch.zeros(2, 4, 5))
        with pytest.raises(TypeError, match="floating point"):
            vq(torch.zeros(2, 3, dtype=torch.int64))
        with pytest.raises(TypeError, match="indices must be integers"):
            vq.lookup(torch.zeros(2))
        with pytest.raises(TypeError, match="indices must be integers, not torch.bool"):
            vq.lookup(torch.zeros(4, 3, dtype=torch.bool))
        with pytest.raises(ValueError, match=r"codes are \(4, 3\), the vectors \(3, 4\)"):
            vq.place(torch.zeros(3, 4))


@pytest.mark.parametrize(("offset", "gap"), [(3.0, 1e-3), (100.0, 0.1), (1000.0, 0.1)])
def test_the_nearest_code_far_from_the_origin_in_float32(offset, gap, device):
    vq = quantiser(codes=16, width=4, device=device).float()
    generator = torch.Generator().manual_seed(0)
    codes = offset + gap * torch.randn(16, 4, generator=generator)
    vq.codebook.copy_(codes)
    z = codes[torch.arange(16)] + 0.1 * gap * torch.randn(16, 4, generator=generator)
    want = torch.cdist(z.double(), codes.double()).argmin(1)
    assert torch.equal(vq.indices(z.to(device)).cpu(), want)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_counts_on(dtype, device):
    vq = VectorQuantizer(1, 1, decay=0.0, warm=False).to(device, dtype).train()
    vq(torch.cat([torch.zeros(3000, 1), torch.ones(3000, 1)]).to(device, dtype))
    assert vq.counts.item() == 6000 and vq.codebook.item() == pytest.approx(0.5)


@pytest.mark.parametrize(("first", "n"), [(None, 1000), (20, 1000)])
def test_codes_in_full_use_are_not_moved(first, n, device):
    """Running counts are compared with one another, not with the size of this batch."""
    corners = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], device=device)
    q = VectorQuantizer(4, 2, decay=0.99, reseed=0.1, warm=False).to(device).train()
    q.place(corners) if first is None else q.place(corners, first / 4)
    q(corners.repeat(n // 4, 1) + 1e-3 * torch.randn(n, 2, device=device))
    assert torch.cdist(q.codebook, corners).amin(0).max() < 0.01


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_finds_the_nearest_code(dtype, device):
    q = VectorQuantizer(256, 4, decay=None, warm=False).to(device).to(dtype)
    z = torch.randn(4000, 4, device=device).to(dtype)
    code, wide = q.codebook.double(), z.double()
    chosen = (wide - code[q(z).indices]).norm(dim=1)
    assert (chosen - torch.cdist(wide, code).amin(1)).max() < 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_running_counts_do_not_pass_through_half_precision(dtype, device):
    quantiser = VectorQuantizer(2, 3, decay=0.9).to(device)
    with torch.no_grad():
        quantiser.counts.copy_(torch.tensor([17896.25, 3.0]))
        quantiser.sums.mul_(1e6)
    before = {name: value.clone() for name, value in quantiser.named_buffers()}
    quantiser.to(dtype)
    for name, value in quantiser.named_buffers():
        assert torch.equal(value, before[name]), name
