"""Latent diffusion: what the scale does, what is trained and what is not, and the captions' path."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lib.data.captions import LENGTH, VOCABULARY, encode_captions
from lib.diffusion import Cosine, Denoiser, ancestral
from lib.diffusion.denoiser import Diffusion
from lib.diffusion.latent import Captioned, CaptionEncoder, LatentDiffusion, ReadingLayer
from lib.diffusion.shapes import captioned
from lib.train import fit
from lib.unet import UNet
from lib.vae.autoencoder import KLAutoencoder


def small(drop=0.0):
    torch.manual_seed(0)
    net = UNet(2, width=8, multipliers=(1,), heads=4, tokens=8)
    net = Captioned(net, CaptionEncoder(len(VOCABULARY), LENGTH, 8))
    model = LatentDiffusion(
        KLAutoencoder(3, latent=2, width=8),
        Denoiser(net, Cosine(), "v"),
        2,
        8,
        8,
        drop=drop,
        null=0,
    )
    for p in model.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    return model


def test_scaled_latents_have_mean_0_and_variance_1(device):
    model, (x, _) = small().to(device), captioned(50)
    x = x.to(device)
    model.fit_scale(x)
    z = model.encode(x)
    assert z.mean().abs() < 1e-4 and abs(z.std() - 1) < 1e-4
    torch.testing.assert_close(model.decode(z), model.autoencoder.reconstruct(x))
    assert {"shift", "scale"} <= set(model.state_dict())


def test_latents_are_as_fine_as_the_images_under_autocast(device):
    model, (x, tokens) = small().to(device), captioned(8)
    x, tokens = x.to(device), tokens.to(device)
    model.fit_scale(x)
    with torch.autocast(device.type, torch.bfloat16):
        assert model.encode(x).dtype == model(x, tokens).dtype == torch.float32


def test_the_loss_is_that_of_the_latents_and_the_autoencoder_stays():
    model, (x, tokens) = small().eval(), captioned(6)
    model.fit_scale(x)
    torch.manual_seed(1)
    got = model(x, tokens)
    torch.manual_seed(1)
    prior = Diffusion(model.denoiser, 2, 8, 8)
    assert torch.equal(got, prior(model.encode(x), tokens))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    for _ in fit(model, captioned, steps=2, batch_size=4, progress=False):
        assert not model.autoencoder.training and model.prior.training
    after = model.state_dict()
    changed = {k for k, v in after.items() if not torch.equal(v, before[k])}
    assert not any(k.startswith(("autoencoder", "shift", "scale")) for k in changed)
    assert {
        "prior.denoiser.net.encoder.word.weight",
        "prior.denoiser.net.net.last.weight",
    } <= changed


def test_samples_are_decoded_samples_of_the_prior():
    model, (x, tokens) = small().eval(), captioned(3)
    model.fit_scale(x)
    start = torch.randn(3, 2, 8, 8)
    step = ancestral(model.denoiser, tokens, eta=0.0)
    got = model.sample(3, tokens, 4, step, start)
    assert torch.equal(got, model.decode(model.prior.sample(3, tokens, 4, step, start)))
    assert got.shape == x.shape


def test_a_layer_is_torch_s_transformer_layer():
    ours = ReadingLayer(8).double()
    for p in ours.parameters():
        nn.init.normal_(p, std=0.5)
    theirs = nn.TransformerEncoderLayer(
        8, 4, 16, dropout=0.0, activation=F.silu, batch_first=True, norm_first=True
    ).double()
    theirs.self_attn.in_proj_weight.data.copy_(ours.qkv.weight)
    theirs.self_attn.in_proj_bias.data.copy_(ours.qkv.bias)
    pairs = [(theirs.self_attn.out_proj, ours.out), (theirs.norm1, ours.norm1)]
    pairs += [(theirs.norm2, ours.norm2), (theirs.linear1, ours.think[0])]
    for to, source in [*pairs, (theirs.linear2, ours.think[2])]:
        to.load_state_dict(source.state_dict())
    h = torch.randn(3, 5, 8, dtype=torch.float64)
    torch.testing.assert_close(ours(h), theirs(h))


def test_words_know_their_places_and_their_neighbours():
    torch.manual_seed(0)
    encoder = CaptionEncoder(len(VOCABULARY), LENGTH, 16)
    pair = ["a red circle at the left and a blue square at the right"]
    swapped = ["a blue circle at the left and a red square at the right"]
    a, b = (encoder(encode_captions(text)) for text in (pair, swapped))
    assert (a - b).abs()[0].sum(1).min() > 1e-3  # every word has read the colours
    assert encoder(encode_captions([""])).shape == (1, LENGTH, 16)  # the empty caption is one too
    with pytest.raises(ValueError, match="a row of at most 19 integer tokens"):
        encoder(torch.zeros(1, 20, dtype=torch.int64))


def test_the_unet_takes_sequences_and_says_so():
    net = UNet(1, width=8, multipliers=(1, 1), attention=(0,), heads=4, tokens=6)
    x, t = torch.randn(2, 1, 8, 8), torch.rand(2)
    for p in net.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    a, b = net(x, t, torch.randn(2, 5, 6)), net(x, t, torch.randn(2, 3, 6))
    assert a.shape == x.shape and not torch.allclose(a, b)
    with pytest.raises(ValueError, match=r"needs a context: sequences of vectors \(2, 'L', 6\)"):
        net(x, t)
    with pytest.raises(ValueError, match="must be sequences of vectors"):
        net(x, t, torch.randn(2, 6))


def test_the_autoencoder_rests_from_the_start():
    """Not only after the first call of train()."""
    autoencoder = KLAutoencoder(3, 2, width=8).train()
    model = LatentDiffusion(
        autoencoder, Denoiser(UNet(2, width=8, multipliers=(1,)), Cosine()), 2, 4, 4
    )
    assert model.training and not any(part.training for part in autoencoder.modules())


def test_no_caption_is_the_empty_caption_and_not_none():
    model = small().eval()
    with pytest.raises(ValueError, match="the empty caption is a row of tokens 0"):
        model.sample(2, steps=2)
    tokens = torch.zeros(2, LENGTH, dtype=torch.int64)
    assert torch.equal(tokens, encode_captions(["", ""]))
    assert model.sample(2, tokens, steps=2).shape == (2, 3, 32, 32)
