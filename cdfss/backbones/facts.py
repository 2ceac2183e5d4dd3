"""What must be known of a backbone without building it; planning needs this without torch."""

from dataclasses import dataclass

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class BackboneFacts:
    """Facts about a backbone.

    Attributes:
        layers: number of maps at stride 8, 16 and 32.
        coarse_channels: channels of the stride-32 maps; the masker is made for them.
        mean, std: normalisation of RGB images in 0..1.
        weights: file name of torchvision's ImageNet weights, ending in the first eight digits of
            their sha256; None where the weights are an installed package.
    """

    layers: tuple[int, int, int]
    coarse_channels: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    weights: str | None = None

    @property
    def url(self) -> str:
        return f"https://download.pytorch.org/models/{self.weights}"

    @property
    def sha256_prefix(self) -> str:
        return self.weights.removesuffix(".pth").rsplit("-", 1)[1]


# IMAGENET1K_V1 throughout: what `pretrained=True` meant when HSNet was published.
BACKBONES = {
    "resnet18": BackboneFacts((2, 2, 2), 512, weights="resnet18-f37072fd.pth"),
    "resnet34": BackboneFacts((4, 6, 3), 512, weights="resnet34-b627a593.pth"),
    "resnet50": BackboneFacts((4, 6, 3), 2048, weights="resnet50-0676ba61.pth"),
    "resnet101": BackboneFacts((4, 23, 3), 2048, weights="resnet101-63fe2227.pth"),
    "vgg16": BackboneFacts((3, 3, 1), 512, weights="vgg16-397923af.pth"),
    "efficientnet_lite0": BackboneFacts((2, 6, 4), 192, mean=(127 / 255,) * 3, std=(128 / 255,) * 3),
}
