import json
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from conftest import episode_of
from reference import array, disks, fill, images, keys, numbers, relative_error

from cdfss import CdfssError, HSNet, adapt
from cdfss.methods import source
from cdfss.methods.hsnet import checkpoints

KINDS = {
    "hsnet": {},
    "apm_s": {"modules": ["apm_s"]},
    "apm_m": {"modules": ["apm_m"]},
    "acpa": {"modules": ["acpa"]},
    "apm_s_acpa": {"modules": ["apm_s", {"acpa": {"hidden": 16}}]},
    "apm_m_acpa": {"modules": ["apm_m", "acpa"]},
}


def model_of(kind="hsnet", backbone="resnet18", image_size=64):
    torch.manual_seed(0)
    model = HSNet(backbone, image_size=image_size, **KINDS[kind]).eval()
    for key in {"apm_s", "apm_m"} & set(
        model.chain.parts
    ):  # masks that differ between channels and positions
        for mask in model.part(key).parameters():
            torch.nn.init.normal_(mask)
    return model


def episode(size=64):
    torch.manual_seed(1)
    mask = torch.zeros(1, size, size)
    mask[:, 10:40, 20:50] = 1
    return torch.randn(1, 3, size, size), torch.randn(1, 3, size, size), mask


@pytest.fixture
def published(tmp_path):
    """State dict of a published HSNet file."""
    checkpoints.save_published(model_of(), tmp_path / "m.pt")
    return torch.load(tmp_path / "m.pt", weights_only=True)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_comes_back_as_it_was(tmp_path, kind, prefix):
    model = model_of(kind)
    checkpoints.save_published(model, tmp_path / "m.pt")
    state = torch.load(tmp_path / "m.pt", weights_only=True)
    state = OrderedDict((prefix + key, value) for key, value in state.items())
    torch.save(state, tmp_path / "m.pt")
    for given in (tmp_path / "m.pt", str(tmp_path / "m.pt"), state):
        ours = checkpoints.load_published(given, "resnet18")
        assert not ours.training
        assert not any(p.requires_grad for p in ours.learner.parameters())
        assert all(torch.equal(value, model.state_dict()[key]) for key, value in ours.state_dict().items())
        with torch.no_grad():
            assert torch.equal(ours(*episode()), model(*episode()))


@pytest.mark.parametrize(
    ("kind", "backbone"),
    [("hsnet", "resnet50"), ("hsnet", "vgg16"), ("hsnet", "resnet101"), ("apm_m_acpa", "resnet50")],
)
def test_files_that_are_written_have_the_published_entries(tmp_path, kind, backbone):
    checkpoints.save_published(model_of(kind, backbone, 400), tmp_path / "m.pt")
    state = torch.load(tmp_path / "m.pt", weights_only=True)
    expected = keys()[f"hsnet_{backbone}"]
    expected |= keys()["hsnet_resnet50_apm_m_acpa"] if kind == "apm_m_acpa" else {}
    assert {k: [str(v.dtype).removeprefix("torch."), *v.shape] for k, v in state.items()} == expected
    assert (tmp_path / "m.pt").stat().st_size < 300e6  # the zeros of the classifier take no room


def test_the_published_numbers_follow_from_a_published_file():
    theirs = numbers("adaptation")
    shapes = keys()["hsnet_resnet50"] | keys()["hsnet_resnet50_apm_m_acpa"]
    counted = fill(HSNet("resnet50", modules=["apm_m", "acpa"]), theirs["decoder2.2.bias"])
    state = {}
    for key, (dtype, *shape) in shapes.items():
        state[key] = torch.zeros(shape, dtype=getattr(torch, dtype))
    for key, value in counted.state_dict().items():
        for ours, their_name in checkpoints.PUBLISHED_NAMES.items():
            if key.startswith(ours):
                value = value[0] if "acpa" in key else value
                state[their_name + key.removeprefix(ours)] = value
    model = checkpoints.load_published(state, "resnet50")
    assert (model.image_size, model.part("apm_m")["mask_phase"].shape) == (400, (1, 2048, 13, 13))
    with torch.no_grad():
        logits = model(
            images("adapt/query", 1, 400),
            images("adapt/support", 5, 400)[:1],
            disks("adapt/support_mask", 5, 400)[:1],
            resize=False,
        )
    assert relative_error(logits, theirs["apm_m_acpa/logits_before"]) < 1e-3


@pytest.mark.parametrize("channels", [4, 5])
def test_masks_that_differ_between_channels_act_as_published(channels):
    """The published code, literally: spectrum shifted over all four axes, masked, shifted back."""
    from cdfss import AmplitudePhaseMasker

    maps = torch.from_numpy(array("roll/x", (2, channels, 5, 6)))
    amplitude = torch.from_numpy(array("roll/amplitude", (1, channels, 5, 6)))
    phase = torch.from_numpy(array("roll/phase", (1, channels, 5, 6)))
    centred = torch.fft.fftshift(torch.fft.fft2(maps))
    masked = torch.polar(centred.abs() * amplitude.sigmoid(), centred.angle() * phase.sigmoid())
    expected = torch.fft.ifft2(torch.fft.ifftshift(masked)).real
    masker = AmplitudePhaseMasker.from_published(amplitude, phase)
    assert torch.allclose(masker(maps), expected, atol=1e-6)
    back = masker.to_published()
    assert torch.equal(back[0], amplitude)
    assert torch.equal(back[1], phase)
    with pytest.raises(CdfssError, match="expected equal shapes"):
        AmplitudePhaseMasker.from_published(amplitude, phase[..., :5])


class Unsafe:
    def __reduce__(self):
        return (print, ("ran",))


REFUSED = {
    "missing": (
        lambda s: s.pop("hpn_learner.decoder2.2.bias"),
        "1 missing \\(first hpn_learner.decoder2.2.bias",
    ),
    "foreign": (
        lambda s: s.update({"reference_layer1.weight": torch.zeros(1)}),
        "1 unexpected \\(first reference_layer1",
    ),
    "shape": (
        lambda s: s.update({"hpn_learner.decoder2.2.bias": torch.zeros(3)}),
        "1 of another shape \\(first hpn_learner.decoder2.2.bias \\[3\\], expected \\[2\\]",
    ),
    "nan": (
        lambda s: s.update({"hpn_learner.decoder2.2.bias": torch.full((2,), float("nan"))}),
        "not finite",
    ),
    "nested": (lambda s: s.update(state_dict={"a": torch.zeros(1)}), "entry 'state_dict' is a dict"),
    "number": (lambda s: s.update(epoch=3), "entry 'epoch' is a int"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_files_are_refused(tmp_path, published, case):
    change, message = REFUSED[case]
    change(published)
    torch.save(published, tmp_path / "m.pt")
    for read in (checkpoints.load, checkpoints.load_published):
        with pytest.raises(CdfssError, match=message) as error:
            read(tmp_path / "m.pt", "resnet18")
        assert str(tmp_path / "m.pt") in str(error.value)
    with pytest.raises(CdfssError, match=message):
        checkpoints.load_published(published, "resnet18")


def test_a_pickle_that_is_more_than_tensors_is_refused_and_not_run(tmp_path, published, capsys):
    torch.save(published | {"unsafe": Unsafe()}, tmp_path / "m.pt")
    for read in (checkpoints.load, checkpoints.load_published):
        with pytest.raises(CdfssError, match="cannot read it as a file of tensors") as error:
            read(tmp_path / "m.pt", "resnet18")
        assert "weights_only" not in str(error.value)  # torch advises to load it unsafely
    assert "ran" not in capsys.readouterr().out
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    with pytest.raises(CdfssError, match="holds a list"):
        checkpoints.load_published(tmp_path / "list.pt")
    with pytest.raises(CdfssError, match="is not a file"):
        checkpoints.load_published(tmp_path / "none.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"apm.mask_amplitude": torch.ones(1, 1, 2, 2)}, "1 missing \\(first apm.mask_phase"),
        ({"apm.mask_amplitude": torch.ones(2, 2), "apm.mask_phase": torch.ones(2, 2)}, "another shape"),
        (
            {"apm.mask_amplitude": torch.ones(1, 7, 2, 2), "apm.mask_phase": torch.ones(1, 7, 2, 2)},
            "7, 2, 2",
        ),
        ({"apm.mask_amplitude": torch.ones(1, 1, 2, 3), "apm.mask_phase": torch.ones(1, 1, 2, 3)}, "2, 3"),
        ({"acpa.phase_attn.0.weight": torch.ones(8, 512)}, "1 missing \\(first acpa.phase_attn.2"),
    ],
)
def test_broken_modules_are_refused(published, change, message):
    with pytest.raises(CdfssError, match=message):
        checkpoints.load_published(published | change, "resnet18")


def test_a_file_of_another_backbone_is_refused(published):
    with pytest.raises(CdfssError, match="does not hold HSNet with resnet34"):
        checkpoints.load_published(published, "resnet34")
    with pytest.raises(CdfssError, match="'alexnet' is unknown"):
        checkpoints.load_published(published, "alexnet")


def test_a_model_that_was_loaded_can_be_tuned(tmp_path):
    checkpoints.save_published(model_of("apm_m_acpa", image_size=96), tmp_path / "m.pt")
    model = checkpoints.load_published(tmp_path / "m.pt", "resnet18")
    assert model.image_size == 96
    tuned = adapt(model, *episode_of(1, 96)[1:], 1, 0.05).model
    step = (tuned.part("apm_m")["mask_phase"] - model.part("apm_m")["mask_phase"]).detach().abs()
    assert step.max() == pytest.approx(0.05, rel=2e-2)  # Adam's first step


def test_the_way_back_needs_a_backbone_of_the_published_code(tmp_path):
    with pytest.raises(CdfssError, match="no backbone like 'efficientnet_lite0'"):
        checkpoints.save_published(HSNet("efficientnet_lite0", image_size=64), tmp_path / "m.pt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_published_file_is_taken_as_source_with_its_backbone(tmp_path, published, prefix):
    torch.save({prefix + key: value for key, value in published.items()}, tmp_path / "m.pt")
    checkpoints.take(tmp_path / "m.pt", "resnet18", tmp_path / "c.safetensors", tmp_path / "c.json")
    ours = checkpoints.build(tmp_path / "c.safetensors", "resnet18", None, image_size=64)
    for key, value in model_of().state_dict().items():
        assert torch.equal(ours.state_dict()[key], value)
    identity = json.loads((tmp_path / "c.json").read_text())["identity"]
    assert identity == source.identity(tmp_path / "c.safetensors")
    # Of the weights alone: who wrote them, and when, makes no other model.
    state = {key: value.clone() for key, value in model_of().state_dict().items()}
    checkpoints.save(tmp_path / "d.safetensors", state, "resnet18", {"note": "another day"})
    assert source.identity(tmp_path / "d.safetensors") == identity
    state["learner.decoder2.2.bias"] += 1
    checkpoints.save(tmp_path / "d.safetensors", state, "resnet18", {})
    assert source.identity(tmp_path / "d.safetensors") != identity


@pytest.mark.parametrize("kind", [torch.int64, torch.bool, torch.complex64])
def test_weights_of_other_kinds_are_refused_and_not_converted(kind, tmp_path, published):
    published |= {"hpn_learner.decoder2.2.bias": torch.zeros(2, dtype=kind)}
    torch.save(published, tmp_path / "m.pt")
    with pytest.raises(CdfssError, match=r"other kinds than floating point: .*decoder2\.2\.bias \(torch"):
        checkpoints.load(tmp_path / "m.pt", "resnet18")


@pytest.mark.parametrize("metadata", [{"cdfss": "{"}, {"cdfss": "[]"}, {"cdfss": "3"}, {}])
def test_our_file_with_broken_metadata_is_refused(metadata, tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "c.safetensors", metadata)
    with pytest.raises(CdfssError, match=r"cannot read it|is no cdfss-hsnet-1 file"):
        checkpoints.load(tmp_path / "c.safetensors", "resnet18")


def test_a_file_with_modules_is_no_source(tmp_path):
    checkpoints.save_published(model_of("apm_s"), tmp_path / "m.pt")
    with pytest.raises(CdfssError, match=r"source.checkpoint: .* holds APM or ACPA"):
        checkpoints.load(tmp_path / "m.pt", "resnet18")


def test_our_file_of_another_backbone_or_none_is_refused(tmp_path):
    state = {k: v for k, v in model_of().state_dict().items() if k.startswith("learner.")}
    checkpoints.save(tmp_path / "c.safetensors", state, "resnet18", {})
    with pytest.raises(CdfssError, match="was trained with resnet18, configured is resnet34"):
        checkpoints.load(tmp_path / "c.safetensors", "resnet34")
    with pytest.raises(CdfssError, match="is not a file"):
        checkpoints.load(tmp_path / "none.safetensors", "resnet18")
    Path(tmp_path / "bad.safetensors").write_bytes(b"nonsense")
    with pytest.raises(CdfssError, match="cannot read"):
        checkpoints.load(tmp_path / "bad.safetensors", "resnet18")
