"""PATNet (Lei et al., "Cross-Domain Few-Shot Semantic Segmentation", ECCV 2022; its model/patnet.py)."""

from torch import Tensor, nn

from cdfss.backbones.network import Backbone
from cdfss.methods.hsnet.hypercorrelation import Hypercorrelation, SupportPlane, hypercorrelation
from cdfss.methods.hsnet.model import HSNet
from cdfss.methods.patnet.transformation import coordinates, prototypes, root, turned

# How many maps, fine to coarse, share a reference, and the references' widths; those of other backbones
# follow the strides. The published code counts the seven maps of VGG-16 as it counts those of ResNet-50.
SPLITS = {"vgg16": (4, 3, 0)}
WIDTHS = {"vgg16": (512, 512, 512)}


class PATNet(HSNet):
    """HSNet whose maps are transformed by the support's prototypes and learnt references before they are
    correlated (`cdfss.methods.patnet.transformation`).

    At stride 32 the maps are those after the modules: the foreground's prototype is of the
    masked map as it is correlated, the background's of the map times 1 - mask, treated likewise.

    Args:
        as `HSNet`.

    Attributes:
        references: three linear layers. Their weights (2, width) are the references; their biases are in
            the published files and have no use. One may hold weights (B, 2, width), a pair of rows for
            each of B queries.
    """

    FORMAT = "cdfss-patnet-1"
    KEY = "source.patnet.checkpoint"
    SOURCE_PARTS = ("learner", "references")

    def __init__(self, backbone: str | Backbone = "resnet50", *others, **named):
        super().__init__(backbone, *others, **named)
        facts = self.backbone.facts
        last = facts.coarse_channels
        # Only R R^T counts: a width need not be the maps' own, and is not where a stride has several.
        widths = WIDTHS.get(self.backbone_name, (last // 4, last // 2, last))
        self.references = nn.ModuleList(nn.Linear(width, 2) for width in widths)
        for layer in self.references:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
            nn.init.zeros_(layer.bias)
        split = SPLITS.get(self.backbone_name, facts.layers)
        numbers = iter([number for number, maps in enumerate(split) for _ in range(maps)])
        self.reference_numbers = [[next(numbers) for _ in range(maps)] for maps in facts.layers]

    @property
    def used_references(self) -> list[nn.Parameter]:
        """Weights of the references that maps have: no biases, and of VGG-16 not the third."""
        numbers = {number for level in self.reference_numbers for number in level}
        return [self.references[number].weight for number in sorted(numbers)]

    def part(self, name):
        """As `HSNet.part`; to the learner belong the references, which source training makes with it."""
        part = super().part(name)
        return nn.ModuleList([part, nn.ParameterList(self.used_references)]) if name == "learner" else part

    def compared(self, level: int, query, support, plane: SupportPlane, query_mask: Tensor | None = None):
        coordinates = self.coordinates(level, query, support, plane, query_mask)
        return self.correlated(level, *coordinates, plane)

    def coordinates(
        self, level: int, query, support, plane: SupportPlane, query_mask: Tensor | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Coordinates (B, 2, h, w) of the L maps of a stride, of query and masked support.

        They do not depend on the references. Arguments as `HSNet.compared`.
        """
        _, background = self.masked(level, query, support, 1 - plane.mask, query_mask)
        query, foreground = self.masked(level, query, support, plane.mask, query_mask)
        pairs = []
        for q, f, b in zip(query, foreground, background, strict=True):
            pairs.append(coordinates(prototypes(b, f, plane.mask), q, f))
        queries, supports = zip(*pairs)
        return list(queries), list(supports)

    def correlated(
        self, level: int, query: list[Tensor], support: list[Tensor], plane: SupportPlane
    ) -> Hypercorrelation:
        """Correlations of transformed maps, by their `coordinates`."""
        numbers = self.reference_numbers[level]
        roots = {number: root(self.references[number].weight) for number in set(numbers)}
        query, support = (
            [turned(roots[number], maps) for number, maps in zip(numbers, side, strict=True)]
            for side in (query, support)
        )
        return hypercorrelation(query, support, plane)
