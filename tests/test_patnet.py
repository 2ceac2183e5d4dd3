"""PATNet: its transformation, model, files, source training and tuning at test time."""

import copy
import json
from types import SimpleNamespace

import numpy as np
import plain
import pytest
import torch
import torch.nn.functional as F
from conftest import balanced, episode_of
from reference import FOLDER, disks, fill, images, numbers, relative_error
from test_training import SETTINGS, source  # noqa: F401 (a fixture)

from cdfss import CdfssError, HSNet, adapt
from cdfss.backbones.facts import facts_of
from cdfss.data import index
from cdfss.data.episodes import sample
from cdfss.methods import calling, conformance, rates, training
from cdfss.methods.contract import Given
from cdfss.methods.hsnet import checkpoints
from cdfss.methods.hsnet.adaptation import Adaptation
from cdfss.methods.hsnet.hypercorrelation import SupportPlane, hypercorrelation, resize_masks
from cdfss.methods.hsnet.model import COARSE
from cdfss.methods.patnet import transformation, tuning
from cdfss.methods.patnet.method import Settings
from cdfss.methods.patnet.model import PATNet
from cdfss.running.precision import precision


def small_patnet(image_size=64, **arguments):
    torch.manual_seed(0)
    model = PATNet("resnet18", image_size=image_size, **arguments).eval()
    model.references.requires_grad_(False)
    model.learner.requires_grad_(False)
    return model


# The published transformation, literally: matrices of channels x channels.


def literal_mean(maps, mask):
    return (maps * mask).mean((2, 3)) / (mask.mean((2, 3)) + 1e-6)


def literal_transformed(query, support, mask, weight):
    """Transformed query and masked support (B, C, h, w); mask (B, 1, h, w)."""
    foreground, background = literal_mean(support, mask), literal_mean(support, 1 - mask)
    rows = torch.stack([background, foreground], 1)
    references = weight.expand(rows.shape)
    references = references / ((references * references).sum(2, keepdim=True).sqrt() + 1e-6)
    rows = rows / ((rows * rows).sum(2, keepdim=True).sqrt() + 1e-6)
    matrix = (torch.pinverse(rows) @ references).permute(0, 2, 1)  # (B, C, C)
    return [(matrix @ m.flatten(2)).view(m.shape) for m in (query, support * mask)]


def literal_logits(model, query, support, mask, weights):
    """Logits (B, 2, S, S) of two pyramids by the literal transformation and the plain learner."""
    sides = [[], []]
    for q, s, numbers_ in zip(query, support, model.reference_numbers):
        pairs = [
            literal_transformed(a, b, resize_masks(mask, b.shape[-2:]).to(b.dtype), weights[number])
            for a, b, number in zip(q, s, numbers_)
        ]
        for side, maps in zip(sides, zip(*pairs)):
            side.append(list(maps))
    stand_in = SimpleNamespace(learner=model.learner, chain=model.chain)
    return plain.compared(stand_in, *sides, torch.ones_like(mask).to(query[0][0].dtype))


def case(kind, dtype=torch.float64, channels=24):
    """Query, support (2, C, 5, 6), mask (2, 1, 5, 6) and a reference; maps like those of a backbone."""
    torch.manual_seed(2)
    query, support = (torch.randn(2, channels, 5, 6, dtype=dtype) + 0.5 for _ in range(2))
    mask = torch.zeros(2, 1, 5, 6, dtype=dtype)
    mask[0, 0, 1:3, 2:5], mask[1, 0, 3:, :2] = 1, 0.4
    if kind == "no foreground":
        mask[1] = 0
    if kind == "no background":
        mask[1] = 1
    if kind == "nothing at all":
        support[1] = 0
    if kind == "collinear":
        support[1] = torch.arange(1.0, channels + 1)[:, None, None] * (1 + mask[1])
        mask = (mask > 0).to(dtype)  # so that both prototypes are multiples of the same vector
    return query, support, mask, torch.randn(2, channels, dtype=dtype)


CASES = ["common", "no foreground", "no background", "nothing at all", "collinear"]


def found(query, support, mask, weight):
    pair = transformation.prototypes(support * (1 - mask), support * mask, mask)
    return transformation.coordinates(pair, query, support * mask)


def with_reference(weight, coordinates):
    return transformation.turned(transformation.root(weight), coordinates)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [*((kind, torch.float64) for kind in CASES), *((kind, torch.float32) for kind in CASES[:-1])],
)
def test_maps_and_correlations_equal_those_of_the_whole_matrix(kind, dtype):
    query, support, mask, weight = case(kind, dtype)
    expected = literal_transformed(query, support, mask, weight)
    coordinates = found(query, support, mask, weight)
    plane = SupportPlane.of(mask[:, 0], (5, 6))
    ours = hypercorrelation(*([with_reference(weight, c)] for c in coordinates), plane)
    theirs = hypercorrelation(*([e] for e in expected), plane)
    tolerance = 1e-9 if dtype == torch.float64 else 2e-4
    assert torch.allclose(ours.values, theirs.values, atol=tolerance)
    assert 0.5 < theirs.values.max() < 1.01
    for mine, whole in zip(coordinates, expected):
        full = transformation.transformed(weight, mine)
        two = with_reference(weight, mine)
        scale = whole.abs().max()
        assert torch.allclose(full, whole, atol=tolerance * scale)
        assert torch.allclose(two.norm(dim=1), whole.norm(dim=1), atol=tolerance * scale)


def test_without_foreground_or_background_one_prototype_is_left():
    for kind, row in (("no foreground", 1), ("no background", 0)):
        query, support, mask, weight = case(kind)
        coordinates, masked = found(query, support, mask, weight)
        assert coordinates[1, row].abs().max() == 0
        assert coordinates[1, 1 - row].abs().max() > 0.1
        assert (masked[1].abs().max() == 0) == (kind == "no foreground")


def test_collinear_prototypes_share_what_lies_along_them():
    """The pseudo-inverse's solution of least length, where singular values are cut."""
    query, support, mask, weight = case("collinear")
    (one, other), _ = found(query, support, mask, weight)
    assert one.std() > 0  # of the item whose prototypes are not collinear
    first, second = other
    assert torch.allclose(first, second, atol=1e-6)
    along = torch.arange(1.0, 25, dtype=torch.float64)
    along = torch.einsum("chw,c->hw", query[1], along / along.norm())
    assert torch.allclose(first + second, along, atol=1e-4)


def test_rounded_collinear_prototypes_are_not_cut_as_in_the_published_code():
    """In float32 what tells them apart is rounding, and is blown up by the published threshold of 1e-15."""
    query, support, mask, weight = case("collinear", torch.float32)
    literal = literal_transformed(query, support, mask, weight)[0]
    coordinates, _ = found(query, support, mask, weight)
    for maps in (literal, transformation.transformed(weight, coordinates)):
        assert maps[1].abs().max() > 1e4 * maps[0].abs().max()
        assert maps.isfinite().all()


def test_gradients_are_those_of_the_whole_matrix():
    query, support, mask, weight = case("common")
    plane = SupportPlane.of(mask[:, 0], (5, 6))
    wanted = [t.requires_grad_() for t in (query, support, weight)]
    torch.manual_seed(3)
    coordinates = found(query, support, mask, weight)
    ours = hypercorrelation(*([with_reference(weight, c)] for c in coordinates), plane)
    theirs = hypercorrelation(*([m] for m in literal_transformed(query, support, mask, weight)), plane)
    some = torch.randn_like(ours.values)
    for mine, whole in zip(
        *(torch.autograd.grad((c.values * some).sum(), wanted) for c in (ours, theirs)), strict=True
    ):
        assert whole.abs().max() > 1e-3
        assert torch.allclose(mine, whole, atol=1e-8)


def test_each_item_may_have_a_reference_of_its_own():
    query, support, mask, weight = case("common")
    coordinates, _ = found(query, support, mask, weight)
    weights = torch.stack([weight, torch.randn_like(weight)])
    for function in (with_reference, transformation.transformed):
        both = function(weights, coordinates)
        for item in range(2):
            alone = function(weights[item], coordinates[item : item + 1])
            assert torch.allclose(both[item : item + 1], alone)


@pytest.fixture(scope="module", params=["resnet50", "vgg16"])
def published(request):
    """A network with the weights of the reference numbers, its pyramids and masks, and the numbers."""
    name = request.param
    theirs = {
        key.removeprefix(f"{name}/"): value
        for key, value in numbers("patnet").items()
        if key.startswith(name)
    }
    model = fill(PATNet(name, image_size=224), theirs["decoder2.2.bias"]).eval()
    made = {kind: model.features(images(f"patnet/{name}/{kind}", 2, 224))
            for kind in ("query", "support", "support2")}  # fmt: skip
    masks = {kind: disks(f"patnet/{name}/{kind}", 2, 224)
             for kind in ("support_mask", "support_mask2", "query_mask")}  # fmt: skip
    return model, made, masks, theirs


def test_logits_equal_the_published_ones(published):
    model, pyramids, masks, theirs = published
    with torch.no_grad():
        logits = model.segment(pyramids["query"], pyramids["support"], masks["support_mask"])
    assert relative_error(logits, theirs["logits"]) < 1e-4


@torch.no_grad()
def test_transformed_maps_equal_the_published_ones(published):
    model, pyramids, masks, theirs = published
    whole = []
    for level, (query, support) in enumerate(zip(pyramids["query"], pyramids["support"])):
        plane = SupportPlane.of(masks["support_mask"], support[0].shape[-2:])
        if level == COARSE:
            query, support = torch.stack(query), torch.stack(support)
        sides = model.coordinates(level, query, support, plane)
        for number, q, s in zip(model.reference_numbers[level], *sides):
            weight = model.references[number].weight
            whole.append([transformation.transformed(weight, side) for side in (q, s)])
    for side, name in enumerate(("query", "support")):
        norms = [float(pair[side].norm()) for pair in whole]
        assert relative_error(norms, theirs[f"transformed_{name}_norms"]) < 1e-4
    assert relative_error(whole[0][0][:, :8], theirs["transformed_query_first"]) < 1e-4
    assert relative_error(whole[-1][0][:, :8], theirs["transformed_query_last"]) < 1e-4


@torch.no_grad()
def test_losses_at_test_time_equal_the_published_ones(published):
    model, pyramids, masks, theirs = published
    query, *supports = (
        tuning.of_first_reference(model, pyramids[kind]) for kind in ("query", "support", "support2")
    )
    assert len(query) == 4
    losses = [
        tuning.divergence(query, masks["query_mask"], support, masks[kind]).sum()
        for support, kind in zip(supports, ("support_mask", "support_mask2"))
    ]
    assert relative_error(losses[0], theirs["finetune_kl_1shot"]) < 1e-4
    assert relative_error(sum(losses) / 2, theirs["finetune_kl_2shot"]) < 1e-4


def test_every_map_of_vgg16_has_the_published_reference():
    with torch.device("meta"):
        assert PATNet("vgg16").reference_numbers == [[0, 0, 0], [0, 1, 1], [1]]
        assert PATNet("resnet50").reference_numbers == [[0] * 4, [1] * 6, [2] * 3]


@pytest.mark.parametrize("backbone", ["efficientnet_lite0", "convnext_tiny"])
def test_backbones_whose_maps_differ_in_width_within_a_stride_work(backbone):
    torch.manual_seed(0)
    model = PATNet(backbone, image_size=64, modules=["apm_m", "acpa"]).eval()
    with torch.no_grad():
        logits = model(*episode_of(1, 64))
    assert logits.shape == (1, 2, 64, 64)
    assert logits.isfinite().all()


def test_half_precision_keeps_nearly_equal_prototypes_apart():
    model, (query, supports, masks) = small_patnet(), episode_of(1, 64)
    with torch.no_grad():
        exact = model(query, supports, masks)
        with precision("bfloat16", torch.device("cpu")):
            rounded = model(query, supports, masks)
    assert (rounded - exact).abs().max() < 0.1 * (exact - exact.mean()).abs().max()


# Files.


def test_files_that_are_written_have_the_published_entries_and_come_back(tmp_path):
    expected = json.loads((FOLDER / "patnet_keys.json").read_text())
    for backbone in ("resnet50", "vgg16"):
        model = PATNet(backbone).eval()
        checkpoints.save_published(model, tmp_path / "m.pt")
        state = torch.load(tmp_path / "m.pt", weights_only=True)
        written = {k: [str(v.dtype).removeprefix("torch."), *v.shape] for k, v in state.items()}
        assert written == expected[f"patnet_{backbone}"]
        ours = checkpoints.load_published(tmp_path / "m.pt", backbone, PATNet)
        assert isinstance(ours, PATNet)
        assert not any(p.requires_grad for p in ours.parameters())
        assert all(torch.equal(value, model.state_dict()[key]) for key, value in ours.state_dict().items())


def test_a_published_file_is_taken_as_source(tmp_path):
    model = small_patnet()
    checkpoints.save_published(model, tmp_path / "m.pt")
    files = tmp_path / "c.safetensors", tmp_path / "c.json"
    checkpoints.take(tmp_path / "m.pt", "resnet18", *files, PATNet)
    ours = checkpoints.build(files[0], "resnet18", None, PATNet, image_size=64)
    assert not any(p.requires_grad for p in ours.parameters())
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in ours.state_dict().items())


def test_files_of_hsnet_and_of_patnet_are_not_taken_for_each_other(tmp_path):
    for network, other, message in (
        (HSNet, PATNet, r"PATNet with resnet18: entries 6 missing \(first reference_layer1\.bias\)"),
        (PATNet, HSNet, r"HSNet with resnet18: entries 6 unexpected \(first reference_layer1\.bias\)"),
    ):
        model = network("resnet18")
        checkpoints.save_published(model, tmp_path / "m.pt")
        checkpoints.save(tmp_path / "c.safetensors", model.state_dict(), "resnet18", {}, network)
        with pytest.raises(CdfssError, match=message):
            checkpoints.load_published(tmp_path / "m.pt", "resnet18", other)
        with pytest.raises(CdfssError, match=f"is no {other.FORMAT} file"):
            checkpoints.load(tmp_path / "c.safetensors", "resnet18", other)


# Adaptation and source training.


@pytest.mark.parametrize("modules", [["apm_m"], ["apm_s", "acpa"]])
@pytest.mark.parametrize("pairs", ["self", "leave_one_out"])
def test_adaptation_from_kept_parts_equals_the_plain_one(modules, pairs):
    """The plain one computes the whole model again in every step, with torch's own Adam."""
    _, supports, masks = episode_of(2)
    model = small_patnet(96, modules=modules).double()
    supports, rate = supports.double(), 0.05
    tuned = adapt(model, supports, masks, 3, rate, pairs=pairs)
    numbers_ = [(0, 0), (1, 1)] if pairs == "self" else [(0, 1), (1, 0)]
    optimiser, losses = torch.optim.Adam(model.chain.parameters(), rate), []
    for _ in range(3):
        loss = sum(
            F.cross_entropy(
                model(supports[q : q + 1], supports[s : s + 1], masks[s : s + 1]), masks[q : q + 1].long()
            )
            for q, s in numbers_
        ) / len(numbers_)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert tuned.losses.tolist() == pytest.approx(losses, rel=1e-5)
    assert len(set(losses)) == 3
    for name, value in tuned.model.state_dict().items():
        assert torch.allclose(value, model.state_dict()[name], atol=1e-5), name


class Stopped(Exception):
    pass


def test_a_resumed_training_equals_an_uninterrupted_one_and_trains_the_references(
    tmp_path, source, monkeypatch  # noqa: F811
):  # fmt: skip
    loaded = index.load(source / "index.parquet")
    listed = sample(loaded, split="trn", shot=1, seed=0, number=4)
    settings = SETTINGS | {"host": "patnet", "epochs": 1, "image_size": 192}  # stride 32 sees masks
    monkeypatch.setattr(training, "SAVE_EVERY", 0)
    save = training._State.save

    def run(name, last=None):
        def save_and_stop(state):
            save(state)
            if 3 * state.epoch + state.step == last:
                raise Stopped

        monkeypatch.setattr(training._State, "save", save_and_stop)
        files = [tmp_path / name / file for file in ("c.safetensors", "history.parquet", "state")]
        files[0].parent.mkdir(exist_ok=True)
        training.train(settings, loaded, loaded, listed, "imagenet", *files, torch.device("cpu"), 1e9)
        return files[0]

    whole = run("whole")
    with pytest.raises(Stopped):
        run("broken", 2)
    assert run("broken").read_bytes() == whole.read_bytes()
    state = checkpoints.load(whole, SETTINGS["backbone"], PATNet)
    torch.manual_seed(settings["seed"])
    before = PATNet(SETTINGS["backbone"], image_size=64)
    for number, layer in enumerate(before.references):
        step = (state[f"references.{number}.weight"] - layer.weight).abs()
        assert 1e-4 < step.max() < 0.1
    with pytest.raises(CdfssError, match="is no cdfss-hsnet-1 file"):
        checkpoints.load(whole, SETTINGS["backbone"])


# Tuning at test time, and the method.


def literal_loss(query, mask, supports):
    """The published loss of one query; maps of the first reference, and (maps, mask) of each support."""

    def distribution(maps, mask):
        resized = F.interpolate(mask[:, None], maps.shape[-2:], mode="bilinear", align_corners=True)
        return literal_mean(maps, resized).softmax(-1)

    total = 0.0
    for support, support_mask in supports:
        for ours, theirs in zip(query, support, strict=True):
            pair = distribution(ours, mask).log(), distribution(theirs, support_mask)
            total = total + F.kl_div(*pair, reduction="sum")
    return total / len(supports)


def fitted(model, k=2):
    """An adaptation to k supports that sees about half of its query as foreground, and two queries."""
    kind = next(model.parameters()).dtype
    query, supports, masks = (part.to(kind) for part in episode_of(k))
    torch.manual_seed(3)
    queries = torch.cat([query, torch.randn_like(query)])
    balanced(model, query, supports, masks)
    return Adaptation(model, supports, masks, 1e-3), queries


def test_soft_tuning_equals_the_literal_one():
    """Matrices of channels x channels, all again in every step, torch's Adam, a query alone."""
    model, rate, steps = small_patnet(96).double(), 0.02, 4
    adaptation, queries = fitted(model)
    tuned, losses = tuning.tune(adaptation, queries, steps, rate, soft=True)
    assert losses.shape == (2, steps)
    masks = adaptation._masks[:, 0].double()
    supports = [[[m[i : i + 1] for m in maps] for maps in adaptation._features] for i in range(2)]
    for item in range(2):
        query = model.features(queries[item : item + 1])
        weights = [layer.weight.detach().clone().requires_grad_() for layer in model.references]
        optimiser, expected = torch.optim.Adam(weights, rate), []
        for _ in range(steps):
            logits = [
                literal_logits(model, query, s, mask[None], weights) for s, mask in zip(supports, masks)
            ]
            mask = sum(one.softmax(1)[:, 1] for one in logits) / 2
            loss = literal_loss(query[0], mask, [(s[0], m[None]) for s, m in zip(supports, masks)])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            expected.append(loss.item())
        assert losses[item].tolist() == pytest.approx(expected, rel=1e-5)
        assert expected[-1] < expected[0]
        for layer, before, weight in zip(tuned.model.references, model.references, weights):
            assert (weight - before.weight).abs().max() > rate  # more than one step
            assert torch.allclose(layer.weight[item], weight, atol=1e-4)


def test_the_published_loss_has_no_gradient_and_changes_nothing():
    adaptation, queries = fitted(small_patnet(96))
    predicted = adaptation.segment(queries)
    assert 0 < predicted.masks.float().mean() < 1
    tuned, losses = tuning.tune(adaptation, queries, 5, 0.1, soft=False)
    assert losses.shape == (2, 1)
    assert (losses > 0).all()
    assert not losses.requires_grad
    for layer, before in zip(tuned.model.references, adaptation.model.references):
        assert layer.weight.requires_grad  # that there is none is not for want of asking
        assert layer.weight.grad is None
        assert torch.equal(layer.weight, before.weight.expand(2, -1, -1))
    assert torch.equal(tuned.segment(queries).masks, predicted.masks)


def test_a_reference_that_no_map_has_is_left_as_it_is():
    """The third one with VGG-16."""
    torch.manual_seed(0)
    model = PATNet("vgg16", image_size=64).eval()
    query, supports, masks = episode_of(1, 64)
    with torch.no_grad():
        balanced(model, query, supports, masks)
    tuned, losses = tuning.tune(Adaptation(model, supports, masks, 1e-3), query, 1, 0.1, soft=True)
    assert losses.isfinite().all()
    moved = [
        not torch.equal(layer.weight[0], before.weight)
        for layer, before in zip(tuned.model.references, model.references)
    ]
    assert moved == [True, True, False]


def test_a_trained_learner_takes_its_references_along():
    model, (_, supports, masks) = small_patnet(96), episode_of(1)
    before = copy.deepcopy(model.state_dict())
    tuned = adapt(model, supports, masks, 1, 0.05, trained=["learner"]).model
    for layer, old in zip(tuned.references, model.references):
        assert (layer.weight - old.weight).abs().mean() > 0.02  # the first step of Adam is its rate
        assert torch.equal(layer.bias, old.bias)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    frozen = adapt(small_patnet(96, modules=["apm_s"]), supports, masks, 1, 0.05).model
    assert all(map(torch.equal, frozen.references.parameters(), model.references.parameters()))


def test_tuning_of_a_query_leaves_the_fitted_state_as_it_was():
    adaptation, queries = fitted(small_patnet(96, modules=["apm_s"]))
    before = {name: value.clone() for name, value in adaptation.model.state_dict().items()}
    first = adaptation.segment(queries)
    tuned, _ = tuning.tune(adaptation, queries, 3, 0.1, soft=True)
    assert not torch.allclose(tuned.segment(queries).probabilities, first.probabilities, atol=1e-3)
    assert torch.equal(adaptation.segment(queries).probabilities, first.probabilities)
    for name, value in adaptation.model.state_dict().items():
        assert torch.equal(value, before[name]), name
    again, _ = tuning.tune(adaptation, queries, 3, 0.1, soft=True)
    assert torch.equal(again.segment(queries).probabilities, tuned.segment(queries).probabilities)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    state = {k: v for k, v in PATNet("efficientnet_lite0").state_dict().items() if k[:8] != "backbone"}
    path = tmp_path_factory.mktemp("source") / "c.safetensors"
    checkpoints.save(path, state, "efficientnet_lite0", {}, PATNet)
    return path


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": 0},
        {"modules": ["apm_m", "acpa"], "steps": 2, "learning_rate": 0.1},
        {"steps": 0, "test_time": "published"},
        {
            "trained": ["learner"],
            "steps": 1,
            "learning_rate": 1e-4,
            "test_time": "soft",
            "test_time_steps": 1,
        },
        {
            "modules": ["apm_s"],
            "steps": 1,
            "test_time": "soft",
            "test_time_steps": 2,
            "test_time_rate": 1e-3,
        },
    ],
)
def test_patnet_keeps_the_contract(settings, checkpoint):
    given = Given(64, 0, torch.device("cpu"), "efficientnet_lite0", None, checkpoint)
    conformance.check("patnet", given, settings)


def test_patnet_chooses_a_rate_for_each_episode(checkpoint):
    given = Given(64, 0, torch.device("cpu"), "efficientnet_lite0", None, checkpoint)
    settings = {"modules": ["apm_s"], "steps": 1, "learning_rate": "auto"}
    method = calling.build("patnet", settings, given)
    supports, masks, *_ = conformance.episodes(64, 1)
    method.fit(supports, masks)
    assert method.rates.shape == (len(masks),)
    assert set(method.rates) <= set(rates.CANDIDATES)


def test_tuning_at_test_time_reaches_the_predictions(checkpoint):
    given = Given(64, 0, torch.device("cpu"), "efficientnet_lite0", None, checkpoint)
    episodes = conformance.episodes(64, 1)
    found = {}
    for kind in ("none", "published", "soft"):
        settings = {"steps": 0, "test_time": kind, "test_time_steps": 3, "test_time_rate": 0.1}
        method = calling.build("patnet", settings, given)
        assert isinstance(method.model, PATNet)
        found[kind] = calling.segment("patnet", method, *episodes).probabilities
    assert np.array_equal(found["none"], found["published"])
    assert np.abs(found["soft"] - found["none"]).max() > 1e-4


def test_references_count_as_tuned_where_they_are(checkpoint):
    given = Given(64, 0, torch.device("cpu"), "efficientnet_lite0", None, checkpoint)

    def tuned(**settings):
        return calling.parameters("patnet", calling.build("patnet", settings, given))[1]

    width = facts_of("efficientnet_lite0").coarse_channels
    references = 2 * (width // 4 + width // 2 + width)
    learner = {"trained": ["learner"], "steps": 1}
    assert tuned(steps=0) == tuned(steps=0, test_time="published") == 0
    assert tuned(steps=0, test_time="soft") == references
    assert tuned(**learner) == tuned(**learner, test_time="soft") > 10 * references


def test_settings_of_a_domain_hold_what_acts_there():
    defaults = {"steps": 0, "learning_rate": 1e-2}
    rates = {"isic": 1e-3, "fss1000": 5e-5}
    soft = Settings(test_time="soft", test_time_rate=rates, test_time_steps=7)
    there = soft.of_domain("fss1000", defaults)
    assert (there["test_time"], there["test_time_rate"], there["test_time_steps"]) == ("soft", 5e-5, 7)
    assert Settings.model_validate(there).test_time_rate == 5e-5
    with pytest.raises(CdfssError, match="test_time_rate has no value for domain 'deepglobe'; it has isic"):
        soft.of_domain("deepglobe", defaults)
    for kind in ("none", "published"):
        without = Settings(test_time=kind, test_time_rate=rates).of_domain("deepglobe", defaults)
        assert {key for key in without if key.startswith("test_time")} == {"test_time"}
