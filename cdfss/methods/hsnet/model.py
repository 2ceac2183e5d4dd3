"""HSNet with modules on its deepest maps (HSNet section 4; paper section 4.1, figure 3)."""

import copy
import math
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cdfss.backbones.facts import BackboneFacts, why_not_hsnet
from cdfss.backbones.network import Backbone, build
from cdfss.backbones.weights import load_imagenet
from cdfss.errors import CdfssError
from cdfss.methods.hsnet.hypercorrelation import SupportPlane, hypercorrelation
from cdfss.methods.hsnet.learner import HypercorrelationLearner
from cdfss.methods.modules.chain import Chain

FINE, MIDDLE, COARSE = 0, 1, 2  # strides 8, 16 and 32


class HSNet(nn.Module):
    """Few-shot segmentation by hypercorrelation squeeze, with modules such as APM on the deepest maps.

    Args:
        backbone: a name of `cdfss.backbones.facts.PYRAMIDS`; or a backbone, which is shared as it is.
        weights: path of the backbone's published weights; "imagenet" for the installed weights of
            efficientnet_lite0; None leaves the backbone random (a checkpoint may follow).
        modules: names of `cdfss.methods.modules.known`, or {name: settings}, in order. One chain of them
            serves the L maps of stride 32.
        image_size: S, pixels; the maps that modules are made for are ceil(S / 32) positions wide.
        seed: of the modules' random first parameters.

    Raises:
        CdfssError: for an unknown backbone or one without strides 8, 16 and 32, an unknown module, or an
            image size below 32.
    """

    FORMAT = "cdfss-hsnet-1"  # of files of ours that hold its source-trained state
    KEY = "source.checkpoint"  # of a configuration that gives such a file
    SOURCE_PARTS = ("learner",)  # that source training makes

    def __init__(
        self,
        backbone: str | Backbone = "resnet50",
        weights=None,
        modules: Iterable = (),
        image_size: int = 400,
        seed: int = 0,
    ):
        super().__init__()
        if image_size < 32:
            raise CdfssError(f"HSNet: image_size={image_size}; expected at least 32 pixels")
        name = backbone if isinstance(backbone, str) else backbone.name
        if reason := why_not_hsnet(name):
            raise CdfssError(f"HSNet: {reason}")
        self.image_size = image_size
        self.backbone_name = name
        self.backbone = build(backbone) if isinstance(backbone, str) else backbone
        if weights is not None:
            load_imagenet(self.backbone, None if weights == "imagenet" else weights)
        facts = self.backbone.facts
        self.learner = HypercorrelationLearner(facts.layers)
        self.chain = self._chain(modules, seed)

    def _chain(self, modules: Iterable, seed: int) -> Chain:
        side = math.ceil(self.image_size / 32)
        return Chain(modules, self.facts.coarse_channels, side, side, seed)

    def with_modules(self, modules: Iterable, seed: int = 0) -> "HSNet":
        """A model with these modules in place of its own, all else shared with this one."""
        shared = {id(child): child for child in self.children()}
        other = copy.deepcopy(self, memo=shared)
        other.chain = self._chain(modules, seed).to(next(self.learner.parameters()).device)
        return other

    @property
    def facts(self) -> BackboneFacts:
        """The backbone's, which say how images are normalised."""
        return self.backbone.facts

    @torch.no_grad()
    def features(self, images: Tensor) -> list[list[Tensor]]:
        """Frozen pyramid of images (B, 3, S, S): lists of maps (B, C, h, w) at stride 8, 16, 32."""
        return self.backbone(images)

    def part(self, name: str) -> nn.Module:
        """Backbone, learner, or a module of the chain with its parameters.

        Raises:
            CdfssError: for anything else.
        """
        if name in self.parts:
            return self.chain.get_submodule(name) if name in self.chain.parts else getattr(self, name)
        raise CdfssError(f"adapt: the model has no part {name!r} to train; it has {', '.join(self.parts)}")

    @property
    def parts(self) -> list[str]:
        """Names of what can be trained."""
        return [*self.chain.tunable, "learner", "backbone"]

    def filtered(self, maps: list[Tensor]) -> Tensor:
        """The L stride-32 maps (B, C, h, w) as (L, B, C, h, w) after `Chain.alone`."""
        return self.chain(torch.stack(maps))

    def squeeze(
        self,
        level: int,
        query: Sequence[Tensor],
        support: Sequence[Tensor],
        plane: SupportPlane,
        query_mask: Tensor | None = None,
    ):
        """Encode one stride: L maps of query and of support (B, C, h, w), those of stride 32 `filtered`.

        Order as published for APM and ACPA: APM on both, then the support mask, then ACPA on both, then
        the correlation. All L maps of stride 32 have C channels, so modules see them as one batch; theirs
        may be split, (L, ..., C, h, w).

        Args:
            query_mask: (B, S, S), for modules that are shown it.

        Returns (B, m, m, h, w, 128).
        """
        return self.learner.squeeze(level, self.compared(level, query, support, plane, query_mask))

    def compared(self, level: int, query, support, plane: SupportPlane, query_mask: Tensor | None = None):
        """The `Hypercorrelation` of one stride; arguments as `squeeze`."""
        return hypercorrelation(*self.masked(level, query, support, plane.mask, query_mask), plane)

    def masked(self, level: int, query, support, mask: Tensor, query_mask: Tensor | None = None):
        """L maps each of query and of support times a mask (B, 1, h, w), as they are correlated.

        Those of stride 32 come in after `Chain.alone`, and have passed all modules.
        """
        if level != COARSE:
            return query, [s * mask for s in support]
        batch = support.shape[1:-3]
        if query_mask is not None:
            query_mask = query_mask.view(*batch, 1, *query_mask.shape[-2:])
        query, support = self.chain.together(
            query, support, mask.view(*batch, 1, *mask.shape[-2:]), query_mask
        )
        return query.flatten(1, -4), support.flatten(1, -4)

    def compare(self, query, support, mask: Tensor, query_mask: Tensor | None = None) -> Tensor:
        """Logits (B, 2, s, s) at the decoder's resolution.

        Args:
            query, support: pyramids whose stride-32 maps are `filtered`.
            mask: (B, S, S), 1 for foreground.
            query_mask: the same of the query, for modules that are shown it.
        """
        squeezed = []
        for level in (FINE, MIDDLE, COARSE):
            plane = SupportPlane.of(mask, support[level][0].shape[-2:])
            squeezed.append(self.squeeze(level, query[level], support[level], plane, query_mask))
        return self.learner.mix(*squeezed)

    def segment(self, query, support, mask: Tensor, query_mask: Tensor | None = None) -> Tensor:
        """`compare` of two pyramids as the backbone gives them."""
        pyramids = ([*maps[:COARSE], self.filtered(maps[COARSE])] for maps in (query, support))
        return self.compare(*pyramids, mask, query_mask)

    def forward(self, query: Tensor, support: Tensor, support_mask: Tensor, resize: bool = True):
        """Logits (B, 2, S, S) of query images (B, 3, S, S).

        Args:
            query, support: normalised images (B, 3, S, S).
            support_mask: (B, S, S), 1 for foreground.
            resize: False returns the logits at the decoder's resolution.
        """
        logits = self.segment(self.features(query), self.features(support), support_mask)
        return resize_logits(logits, query.shape[-2:]) if resize else logits


def resize_logits(logits: Tensor, size) -> Tensor:
    """Logits (B, 2, h, w) at the image's size (S, S), bilinear with aligned corners, float32 at least."""
    # In bfloat16 the gradients of a position's many pixels would be summed up in bfloat16.
    wide = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
    return F.interpolate(wide, tuple(size), mode="bilinear", align_corners=True)
