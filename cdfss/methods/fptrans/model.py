"""FPTrans (Zhang et al., "Feature-Proxy Transformer for Few-Shot Segmentation", NeurIPS 2022).

Query and supports pass a vision transformer side by side with prompts, which they share after every block;
the purified query map is compared with proxies of the purified support maps. The transformer is timm's.
"""

import copy
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cdfss.backbones.facts import IMAGENET_MEAN, IMAGENET_STD, BackboneFacts, why_not_fptrans
from cdfss.backbones.network import build
from cdfss.backbones.timm import whole
from cdfss.backbones.weights import load_imagenet
from cdfss.errors import CdfssError
from cdfss.methods.fptrans.background import REGIONS, Draws, DrawsAlone, means_of, regions

GROUPS = 15 * (1 + REGIONS)  # of prompts: 15 classes of a fold of PASCAL (published networks/vit.py)
LENGTH = 12  # prompts of a group (published config.py, num_prompt)
SCALE = 20.0  # of cosine similarities as logits (published networks/FPTrans.py)
LEFT_OUT = {True: 1, False: 2}  # last blocks, with a distillation token or without (published configs)


class Purifier(nn.Module):
    """Maps at twice their resolution: interpolated, plus what a small network adds.

    Args:
        channels: C.
        dropout: share of values that are dropped in training (published config.py, drop_rate).
    """

    def __init__(self, channels: int, dropout: float):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 256, 1),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.ConvTranspose2d(256, 256, 2, stride=2),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Conv2d(256, channels, 1),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """(..., C, h, w) -> (..., C, 2h, 2w)."""
        flat = maps.flatten(0, -4)
        size = [2 * side for side in maps.shape[-2:]]
        added = self.layers(flat) + F.interpolate(flat, size, mode="bilinear", align_corners=True)
        return added.unflatten(0, maps.shape[:-3])


class Encoder(nn.Module):
    """A vision transformer that is trained, and a bank of prompts.

    Args:
        network: timm's.
        groups: of prompts in the bank.
    """

    def __init__(self, network: nn.Module, groups: int):
        super().__init__()
        self.network = network
        self.prompts = nn.Parameter(torch.empty(groups, LENGTH, network.embed_dim).normal_(std=0.02))

    def forward(self, images: Tensor, prompts: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (B, n, C, h, w) of the n images of each item, (B, n, 3, S, S), and the prompts afterwards.

        Args:
            prompts: (B, P, C).
        """
        network, (batch, n) = self.network, images.shape[:2]
        patches = network.patch_embed(whole(images.flatten(0, 1), network.patch_embed.patch_size[0]))
        height, width = patches.shape[1:3]  # (B * n, h, w, C)
        tokens = network.norm_pre(network._pos_embed(patches)).unflatten(0, (batch, n))
        parts = [network.num_prefix_tokens, height * width, prompts.shape[1]]
        tokens = torch.cat([tokens, prompts[:, None].expand(-1, n, -1, -1)], 2)  # (B, n, sum of parts, C)
        for block in network.blocks:
            own, patches, prompts = block(tokens.flatten(0, 1)).unflatten(0, (batch, n)).split(parts, 2)
            # Supports and query tell each other what they hold by these alone.
            own, prompts = (t.mean(1, keepdim=True).expand_as(t) for t in (own, prompts))
            tokens = torch.cat([own, patches, prompts], 2)
        maps = network.norm(patches).transpose(2, 3).unflatten(3, (height, width))
        return maps, prompts[:, 0]


@dataclass
class Prepared:
    """What is known of B episodes before their query is looked at.

    Attributes:
        prompts: (B, P, C), as they go into the first block.
        labels: regions of the supports' background on purified maps, (B, k, 2h, 2w), -1 outside of it.
        inside: their foreground there, (B, k, 2h, 2w) bool.
    """

    prompts: Tensor
    labels: Tensor
    inside: Tensor


class FPTrans(nn.Module):
    """Few-shot segmentation by proxies of purified features.

    Args:
        network: timm's vision transformer with the blocks that are used, pretrained; a frozen copy of it
            stays as it is.
        facts: of the backbone. Images are normalised by ImageNet's mean and deviation whatever these
            say, as published (data_kits/datasets.py).
        groups: of prompts in the bank; GROUPS in the published 1-shot models for PASCAL.
        dropout: of the purifier in training.
    """

    def __init__(
        self, network: nn.Module, facts: BackboneFacts, groups: int = GROUPS, dropout: float = 0.1
    ):
        super().__init__()
        self.facts = replace(facts, mean=IMAGENET_MEAN, std=IMAGENET_STD)
        self.frozen = network.requires_grad_(False).eval()
        self.encoder = Encoder(copy.deepcopy(network).requires_grad_(True), groups)
        self.purifier = Purifier(network.embed_dim, dropout)

    @classmethod
    def on(
        cls, backbone: str, weights: str | Path | None, image_size: int, groups: int = GROUPS
    ) -> "FPTrans":
        """On a backbone of this package, without its last blocks: one of DeiT, two of others.

        The positions are interpolated to the grid of the pictures once, and trained as such, as published.

        Args:
            weights: file of the pretrained ones; None leaves them random (a checkpoint may follow).
            image_size: S, pixels.

        Raises:
            CdfssError: for an unknown backbone, or one that FPTrans cannot be built on.
        """
        if reason := why_not_fptrans(backbone):
            raise CdfssError(f"FPTrans: {reason}")
        made = build(backbone)
        if weights is not None:
            load_imagenet(made, weights)
        network = made.network
        network.blocks = network.blocks[: -LEFT_OUT[hasattr(network, "dist_token")]]
        patch = network.patch_embed.patch_size[0]
        side = -(-image_size // patch) * patch
        network.set_input_size((side, side))
        return cls(network, made.facts, groups)

    def features(self, images: Tensor) -> Tensor:
        """What no step of a training changes of images (B, 3, S, S): these themselves."""
        return images

    def frozen_maps(self, images: Tensor) -> Tensor:
        """Maps (..., C, h, w) of the frozen copy, of images (..., 3, S, S)."""
        flat = whole(images.flatten(0, -4), self.frozen.patch_embed.patch_size[0])
        with torch.no_grad():
            (maps,) = self.frozen.forward_intermediates(flat, 1, norm=True, intermediates_only=True)
        return maps.unflatten(0, images.shape[:-3])

    def prepare(self, supports: Tensor, masks: Tensor, draws: Draws | DrawsAlone) -> Prepared:
        """Prompts and regions of supports (B, k, 3, S, S) with masks (B, k, S, S), 1 for foreground.

        There is a group of prompts for the foreground, and one for each region of background.
        """
        maps = self.frozen_maps(supports)  # (B, k, C, h, w)
        there = resize_masks(masks, maps.shape[-2:])
        foreground = proxy_of(maps, there == 1, 1e-6)[:, None]
        means = torch.cat([foreground, means_of(maps, regions(there == 0, draws))], 1)  # (B, 1 + 5k, C)
        chosen = draws.groups(*means.shape[:2], len(self.encoder.prompts))
        groups = self.encoder.prompts[torch.from_numpy(chosen).to(maps.device)]  # (B, 1 + 5k, LENGTH, C)
        there = resize_masks(masks, [2 * side for side in maps.shape[-2:]])
        return Prepared((groups + means[:, :, None]).flatten(1, 2), regions(there == 0, draws), there == 1)

    def encode(self, query: Tensor, supports: Tensor, prepared: Prepared) -> tuple[Tensor, Tensor]:
        """Maps (B, k + 1, C, h, w), of the query (B, 3, S, S) the last; and the prompts afterwards."""
        return self.encoder(torch.cat([supports, query[:, None]], 1), prepared.prompts)

    def prompt_logits(self, maps: Tensor, prompts: Tensor) -> Tensor:
        """Logits (B, 2, 2h, 2w) of queries by prompts as proxies, which the training looks at.

        With k supports each of the 5 background proxies is the mean of k groups that follow each other.

        Args:
            maps: purified, as `logits_of` takes them.
            prompts: after the last block, (B, P, C).
        """
        foreground, background = prompts.tensor_split([LENGTH], 1)
        background = background.unflatten(1, (REGIONS, -1)).mean(2)
        proxies = torch.cat([foreground.mean(1, keepdim=True), background], 1)
        purified = self.purifier(proxies.flatten(0, 1)[..., None, None])[..., 0, 0]
        return compare(maps[:, -1], *purified.view_as(proxies).tensor_split([1], 1))

    def forward(self, query: Tensor, supports: Tensor, masks: Tensor, draws: Draws | DrawsAlone) -> Tensor:
        """Logits (B, 2, S, S) of normalised query images (B, 3, S, S).

        Args:
            supports: normalised, (B, k, 3, S, S).
            masks: (B, k, S, S), 1 for foreground, 0 for background.
        """
        prepared = self.prepare(supports, masks, draws)
        maps, _ = self.encode(query, supports, prepared)
        return resize_logits(logits_of(self.purifier(maps), prepared), query.shape[-2:])


def logits_of(maps: Tensor, prepared: Prepared) -> Tensor:
    """Logits (B, 2, 2h, 2w) of queries by proxies of supports: one of foreground, 5k of background.

    Args:
        maps: purified, (B, k + 1, C, 2h, 2w); the query's is the last.
    """
    supports, query = maps[:, :-1], maps[:, -1]
    foreground = proxy_of(supports, prepared.inside, 1e-5)[:, None]
    return compare(query, foreground, means_of(supports, prepared.labels))


def proxy_of(maps: Tensor, inside: Tensor, nothing: float) -> Tensor:
    """Mean of maps (B, k, C, h, w) over positions (B, k, h, w) of each support, then over supports, (B, C).

    Args:
        nothing: what is added to the number of positions, so that none gives zeros.
    """
    sums = torch.einsum("bkchw,bkhw->bkc", maps, inside.to(maps.dtype))
    return (sums / (inside.sum((2, 3)) + nothing)[..., None]).mean(1)


def compare(query: Tensor, foreground: Tensor, background: Tensor) -> Tensor:
    """Logits (B, 2, h, w), background first: cosines to the nearest proxy of each, times SCALE.

    Args:
        query: maps (B, C, h, w).
        foreground, background: proxies (B, n, C).
    """
    query = F.normalize(query, dim=1)
    nearest = [
        torch.einsum("bchw,bnc->bnhw", query, F.normalize(proxies, dim=2)).amax(1)
        for proxies in (background, foreground)
    ]
    return SCALE * torch.stack(nearest, 1)


def resize_masks(masks: Tensor, size) -> Tensor:
    """Masks (B, k, S, S) at the size (h, w) of maps, by the nearest pixel above and to the left."""
    return F.interpolate(masks.float(), tuple(size), mode="nearest")


def resize_logits(logits: Tensor, size) -> Tensor:
    """Logits (B, 2, h, w) at the image's size (S, S), bilinear with aligned corners."""
    return F.interpolate(logits, tuple(size), mode="bilinear", align_corners=True)
