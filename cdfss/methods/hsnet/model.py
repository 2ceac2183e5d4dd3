"""HSNet with the frequency modules of the paper (HSNet section 4; paper section 4.1, figure 3)."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cdfss.backbones.facts import why_not_hsnet
from cdfss.backbones.network import build
from cdfss.backbones.weights import load_imagenet
from cdfss.errors import CdfssError
from cdfss.methods.frequency import AmplitudePhaseMasker, PhaseAttention
from cdfss.methods.hsnet.hypercorrelation import SupportPlane, hypercorrelation
from cdfss.methods.hsnet.learner import HypercorrelationLearner

FINE, MIDDLE, COARSE = 0, 1, 2  # strides 8, 16 and 32


class HSNet(nn.Module):
    """Few-shot segmentation by hypercorrelation squeeze, with APM and ACPA on the deepest maps.

    Args:
        backbone: a name of `cdfss.backbones.facts.PYRAMIDS`.
        weights: path of the backbone's published weights; "imagenet" for the installed weights of
            efficientnet_lite0; None leaves the backbone random (a checkpoint may follow).
        masker: None, "S" (one mask for all channels) or "M" (one per channel).
        attention: whether ACPA follows.
        hidden: width of ACPA's bottleneck.
        image_size: S, pixels; the masks are ceil(S / 32) positions wide.

    Raises:
        CdfssError: for an unknown backbone or one without strides 8, 16 and 32, an unknown masker,
            or an image size below 32.
    """

    def __init__(
        self,
        backbone: str = "resnet50",
        weights=None,
        masker: str | None = None,
        attention: bool = False,
        hidden: int = 8,
        image_size: int = 400,
    ):
        super().__init__()
        if masker not in (None, "S", "M"):
            raise CdfssError(f"HSNet: masker={masker!r}; expected None, 'S' or 'M'")
        if image_size < 32:
            raise CdfssError(f"HSNet: image_size={image_size}; expected at least 32 pixels")
        if reason := why_not_hsnet(backbone):
            raise CdfssError(f"HSNet: {reason}")
        self.image_size = image_size
        self.backbone_name = backbone
        self.backbone = build(backbone)
        if weights is not None:
            load_imagenet(self.backbone, None if weights == "imagenet" else weights)
        facts = self.backbone.facts
        self.learner = HypercorrelationLearner(facts.layers)
        side = math.ceil(image_size / 32)
        channels = facts.coarse_channels
        self.masker = None
        if masker is not None:
            self.masker = AmplitudePhaseMasker((1, 1 if masker == "S" else channels, side, side))
        self.attention = PhaseAttention(channels, hidden) if attention else None

    @torch.no_grad()
    def features(self, images: Tensor) -> list[list[Tensor]]:
        """Frozen pyramid of images (B, 3, S, S): lists of maps (B, C, h, w) at stride 8, 16, 32."""
        return self.backbone(images)

    def filtered(self, maps: list[Tensor]) -> Tensor:
        """The L stride-32 maps (B, C, h, w) as (L, B, C, h, w) after APM, if the model has it."""
        stacked = torch.stack(maps)
        return stacked if self.masker is None else self.masker(stacked)

    def attended(self, maps: Tensor) -> Tensor:
        """Stride-32 maps (..., C, h, w) after ACPA, if the model has it."""
        return maps if self.attention is None else self.attention(maps)

    def squeeze(self, level: int, query: Sequence[Tensor], support: Sequence[Tensor], plane: SupportPlane):
        """Encode one stride: L maps of query and of support (B, C, h, w), those of stride 32 `filtered`.

        Order of the modules as published: APM on both, then the support mask, then ACPA on both,
        then the correlation. All L maps of stride 32 have C channels, so ACPA sees them as one
        batch; theirs may be split, (L, ..., C, h, w).

        Returns (B, 128, m, m, h, w).
        """
        if level != COARSE:
            support = [s * plane.mask for s in support]
        else:
            support = support * plane.mask.view(*support.shape[1:-3], 1, *plane.size)
            query, support = self.attended(query), self.attended(support)
            query, support = query.flatten(1, -4), support.flatten(1, -4)
        return self.learner.squeeze(level, hypercorrelation(query, support, plane))

    def compare(self, query, support, mask: Tensor) -> Tensor:
        """Logits (B, 2, s, s) at the decoder's resolution.

        Args:
            query, support: pyramids whose stride-32 maps are `filtered`.
            mask: (B, S, S), 1 for foreground.
        """
        squeezed = []
        for level in (FINE, MIDDLE, COARSE):
            plane = SupportPlane.of(mask, support[level][0].shape[-2:])
            squeezed.append(self.squeeze(level, query[level], support[level], plane))
        return self.learner.mix(*squeezed)

    def segment(self, query: list[list[Tensor]], support: list[list[Tensor]], mask: Tensor) -> Tensor:
        """Logits (B, 2, s, s) at the decoder's resolution from two pyramids and masks (B, S, S)."""
        pyramids = ([*maps[:COARSE], self.filtered(maps[COARSE])] for maps in (query, support))
        return self.compare(*pyramids, mask)

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
