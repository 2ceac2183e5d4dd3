"""The plain path: HSNet and its adaptation written out literally, everything again in every step.

It is what the published code does, kept as the oracle of the fast path: tests compare numbers with
it, `make bench` compares time.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-5


def convolution(conv, x: Tensor) -> Tensor:
    """Centre-pivot convolution (B, I, hq, wq, hs, ws) as two 2-D convolutions over permuted copies."""
    batch, channels, hq, wq, hs, ws = x.shape
    stride = conv.support_stride
    pruned = x[..., ::stride, ::stride]
    n, m = pruned.shape[-2:]
    first = conv.conv1(pruned.permute(0, 4, 5, 1, 2, 3).reshape(-1, channels, hq, wq))
    first = first.view(batch, n, m, -1, hq, wq).permute(0, 3, 4, 5, 1, 2)
    second = conv.conv2(x.permute(0, 2, 3, 1, 4, 5).reshape(-1, channels, hs, ws))
    return first + second.view(batch, hq, wq, -1, n, m).permute(0, 3, 1, 2, 4, 5)


def encode(encoder, x: Tensor) -> Tensor:
    """An encoder of the learner on (B, I, hq, wq, hs, ws)."""
    for layer in encoder:
        x = convolution(layer, x) if hasattr(layer, "support_stride") else layer(x)
    return x


def masked(masks, maps: Tensor) -> Tensor:
    """APM with a centred spectrum and the inverse FFT."""
    spectrum = torch.fft.fftshift(torch.fft.fft2(maps), dim=(-2, -1))
    amplitude = spectrum.abs() * masks["mask_amplitude"].sigmoid()
    phase = spectrum.angle() * masks["mask_phase"].sigmoid()
    spectrum = torch.fft.ifftshift(torch.polar(amplitude, phase), dim=(-2, -1))
    return torch.fft.ifft2(spectrum).real


def weighted(weights, maps: Tensor) -> Tensor:
    """ACPA with the phase spectrum of the FFT; bins that are real get phase 0 or pi exactly."""
    phase = torch.fft.fft2(maps).angle().mean((-2, -1))
    squeeze, excite = weights["squeeze"][0], weights["excite"][0]
    factors = F.linear(F.linear(phase, squeeze).relu(), excite).sigmoid()
    return maps * factors[:, :, None, None]


def correlation(query: list[Tensor], support: list[Tensor]) -> Tensor:
    """(B, L, hq, wq, hs, ws) of all positions."""
    planes = []
    for q, s in zip(query, support, strict=True):
        shape = (len(q), *q.shape[-2:], *s.shape[-2:])
        q, s = q.flatten(2), s.flatten(2)
        q = q / (q.norm(dim=1, keepdim=True) + EPSILON)
        s = s / (s.norm(dim=1, keepdim=True) + EPSILON)
        planes.append((q.transpose(1, 2) @ s).clamp(min=0).view(shape))
    return torch.stack(planes, dim=1)


def resize_query(x: Tensor, size) -> Tensor:
    """(B, C, hq, wq, hs, ws) -> (B, C, *size, hs, ws)."""
    batch, channels, hq, wq, hs, ws = x.shape
    x = x.permute(0, 4, 5, 1, 2, 3).reshape(batch * hs * ws, channels, hq, wq)
    x = F.interpolate(x, tuple(size), mode="bilinear", align_corners=True)
    return x.view(batch, hs, ws, channels, *size).permute(0, 3, 4, 5, 1, 2)


@torch.no_grad()
def features(model, images: Tensor) -> list[list[Tensor]]:
    """Maps of the backbone as it is published, by stride."""
    maps = iter(model.backbone.maps(model.backbone.network, images))
    return [[next(maps) for _ in range(number)] for number in model.backbone.facts.layers]


def logits(model, query: Tensor, support: Tensor, mask: Tensor) -> Tensor:
    """Logits (B, 2, S, S) of query images (B, 3, S, S) given supports and masks (B, S, S)."""
    return compared(model, features(model, query), features(model, support), mask)


def compared(model, query_levels, support_levels, mask: Tensor) -> Tensor:
    """`logits` from the `features` of both."""
    encoded = []
    for level, encoder in enumerate(
        (model.learner.encoder_layer2, model.learner.encoder_layer3, model.learner.encoder_layer4)
    ):
        q, s = query_levels[level], support_levels[level]
        parts = list(model.chain.parts) if level == 2 else []
        for key in [key for key in parts if key.startswith("apm")]:
            q, s = ([masked(model.part(key), m) for m in maps] for maps in (q, s))
        s = [m * F.interpolate(mask[:, None], m.shape[-2:], mode="bilinear", align_corners=True) for m in s]
        if "acpa" in parts:
            q, s = ([weighted(model.part("acpa"), m) for m in maps] for maps in (q, s))
        encoded.append(encode(encoder, correlation(q, s)))
    fine, middle, coarse = encoded
    mixed = encode(model.learner.encoder_layer4to3, middle + resize_query(coarse, middle.shape[2:4]))
    mixed = encode(model.learner.encoder_layer3to2, fine + resize_query(mixed, fine.shape[2:4]))
    x = model.learner.decoder1(mixed.mean((-2, -1)))
    x = F.interpolate(x, [2 * side for side in x.shape[-2:]], mode="bilinear", align_corners=True)
    x = model.learner.decoder2(x)
    return F.interpolate(x, tuple(mask.shape[-2:]), mode="bilinear", align_corners=True)


def adapt(model, supports: Tensor, masks: Tensor, steps: int, rate: float):
    """Tuned copy of the model and its losses: mean over the self-pairs, torch's Adam.

    As published, the learner is not marked as frozen, so that gradients go to it too.
    """
    model = copy.deepcopy(model)
    model.learner.requires_grad_(True)
    optimiser = torch.optim.Adam(model.chain.parameters(), rate)
    losses = []
    for _ in range(steps):
        loss = F.cross_entropy(logits(model, supports, supports, masks), masks.long())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return model, losses


@torch.no_grad()
def predict(model, query: Tensor, supports: Tensor, masks: Tensor) -> Tensor:
    """Voted mask (S, S) of one query image (1, 3, S, S)."""
    pairs = zip(supports, masks, strict=True)
    votes = sum(logits(model, query, s[None], m[None]).argmax(1) for s, m in pairs)[0]
    return (votes / votes.max().clamp(min=1) >= 0.5).long()
