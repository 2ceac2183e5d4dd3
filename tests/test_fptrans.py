"""FPTrans: the published numbers, checkpoints, source training, and what the method promises."""

import copy
import dataclasses
import json
import zipfile

import numpy as np
import pytest
import torch
from reference import FOLDER, array, disks, images, numbers, relative_error
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer

from cdfss import CdfssError
from cdfss.backbones import facts
from cdfss.methods import calling, conformance, rates, source
from cdfss.methods.contract import Given
from cdfss.methods.fptrans import checkpoints, losses
from cdfss.methods.fptrans.adaptation import PLACES, Adaptation, chain_for
from cdfss.methods.fptrans.background import Draws, DrawsAlone, regions
from cdfss.methods.fptrans.method import Settings
from cdfss.methods.fptrans.model import FPTrans, logits_of, resize_logits
from cdfss.running import provenance

CPU = torch.device("cpu")
BACKBONE = "test_vit"  # of timm, small as the published numbers' network, with six blocks
TUNED = [
    {"modules": ["apm_s"], "place": place, "steps": 3, "learning_rate": 0.1}
    for place in ("tokens", "purified")
]
KINDS = {"vit": VisionTransformer, "deit": VisionTransformerDistilled}


@pytest.fixture(autouse=True)
def backbone(monkeypatch):
    """A small backbone beside the known ones."""
    known = dataclasses.replace(facts.facts_of("vit_small_patch16_384"), coarse_channels=64)
    monkeypatch.setitem(facts.BACKBONES, BACKBONE, known)


def small_network(kind="vit"):
    arguments = {"img_size": 160, "patch_size": 16, "embed_dim": 64, "depth": 3, "num_heads": 2}
    return KINDS[kind](**arguments, num_classes=0, dynamic_img_size=True)


def published_model(kind, shot):
    """With the weights that the reference numbers were made with."""
    model = FPTrans(small_network(kind), facts.facts_of(BACKBONE), 15 * (1 + 5 * shot), dropout=0.0)
    state = model.state_dict()
    for key, value in state.items():
        names = checkpoints.PUBLISHED_NAMES.items()
        name = next(theirs + key.removeprefix(ours) for ours, theirs in names if key.startswith(ours))
        normal = array(f"weights/{name}", tuple(value.shape))
        if value.dim() == 1:
            normal = 1 + 0.1 * normal if name.endswith(".weight") else 0.1 * normal
        elif name.endswith(("cls_token", "dist_token", "pos_embed", "prompt_tokens")):
            normal = 0.5 * normal
        else:
            normal = normal / np.float32(np.sqrt(np.prod(value.shape[1:])))
        state[key] = torch.from_numpy(np.float32(normal))
    model.load_state_dict(state)
    return model.eval()


def draws():
    return Draws(np.random.RandomState(1289), np.random.RandomState(1234))


def batch_of(kind, shot):
    tag = f"fptrans/{kind}/{shot}"
    supports = images(f"{tag}/support", 2 * shot, 160).unflatten(0, (2, shot))
    masks = disks(f"{tag}/support_mask", 2 * shot, 160).unflatten(0, (2, shot))
    return images(f"{tag}/query", 2, 160), supports, masks, disks(f"{tag}/query_mask", 2, 160)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shot", [1, 5])
def test_the_published_predictions(kind, shot):
    theirs, model = numbers("fptrans"), published_model(kind, shot)
    query, supports, masks, _ = batch_of(kind, shot)
    with torch.no_grad():
        logits = model(query, supports, masks, draws())
    assert relative_error(logits[..., ::4, ::4], theirs[f"{kind}/{shot}/logits"]) < 1e-3
    foreground = (logits[:, 1] > logits[:, 0]).sum((1, 2)).numpy()
    np.testing.assert_allclose(foreground, theirs[f"{kind}/{shot}/foreground"], rtol=5e-3, atol=1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_published_outputs_of_a_training_pass(kind):
    theirs, model = numbers("fptrans"), published_model(kind, 1).train()
    query, supports, masks, query_mask = batch_of(kind, 1)
    with torch.no_grad():
        prepared = model.prepare(supports, masks, draws())
        maps, prompts = model.encode(query, supports, prepared)
        maps = model.purifier(maps)
        logits = [logits_of(maps, prepared), model.prompt_logits(maps, prompts)]
        train_logits, prompt_logits = (resize_logits(found, (160, 160))[..., ::4, ::4] for found in logits)
        pairwise = losses.pairwise(maps, masks, query_mask)
    found = {"train_logits": train_logits, "prompt_logits": prompt_logits, "pairwise_loss": pairwise}
    for name, value in found.items():
        assert relative_error(value, theirs[f"{kind}/1/{name}"]) < 1e-3, name


def test_the_published_boundary_cross_entropy():
    logits = torch.from_numpy(array("fptrans/loss/logits", (2, 2, 80, 80)))
    target = disks("fptrans/loss/target", 2, 80).long()
    found = losses.boundary_cross_entropy(logits, target, losses.boundary_weights(target)).item()
    assert found == pytest.approx(float(numbers("fptrans")["boundary_cross_entropy"]), rel=1e-4)


def small_model(seed=0, size=64):
    torch.manual_seed(seed)
    return FPTrans.on(BACKBONE, None, size).eval()


@pytest.mark.parametrize("kind", KINDS)
def test_the_published_entries_are_those_of_our_model(kind):
    theirs = json.loads((FOLDER / "fptrans_keys.json").read_text())[f"fptrans_{kind}_tiny_1shot"]
    model = FPTrans(small_network(kind), facts.facts_of(BACKBONE))
    ours = {key: ["float32", *value.shape] for key, value in model.state_dict().items()}
    entries = {key: torch.empty(shape) for key, (_, *shape) in theirs.items()}
    found = {key: ["float32", *v.shape] for key, v in checkpoints.of_published(entries).items()}
    assert found == ours


def as_published(model):
    state = {}
    for key, value in model.state_dict().items():
        ours = next(name for name in checkpoints.PUBLISHED_NAMES if key.startswith(name))
        state[f"module.{checkpoints.PUBLISHED_NAMES[ours]}{key.removeprefix(ours)}"] = value
    return state


@pytest.mark.parametrize("numpy_core", ["numpy._core", "numpy.core"])
def test_a_published_file_is_read_with_the_scores_in_it(tmp_path, numpy_core):
    model = small_model()
    path, old = tmp_path / "new.pth", tmp_path / "bestckpt.pth"
    torch.save({"epoch": 3, "miou": np.float64(0.5), "model_state": as_published(model)}, path)
    with zipfile.ZipFile(path) as new, zipfile.ZipFile(old, "w") as written:
        for name in new.namelist():  # as an old NumPy writes its numbers
            written.writestr(name, new.read(name).replace(b"numpy._core", numpy_core.encode()))
    read = checkpoints.build(old, BACKBONE, None)
    assert not read.training
    assert not any(p.requires_grad for p in read.parameters())
    state = model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in read.state_dict().items())


def test_a_checkpoint_of_ours_comes_back_and_others_are_refused_in_words(tmp_path):
    model, path = small_model(), tmp_path / "c.safetensors"
    checkpoints.save(path, model.state_dict(), BACKBONE, {"note": "x"})
    state = model.state_dict()
    assert all(
        torch.equal(v, state[k]) for k, v in checkpoints.build(path, BACKBONE, None).state_dict().items()
    )
    checkpoints.take(path, BACKBONE, tmp_path / "d.safetensors", tmp_path / "d.json")
    assert source.identity(path) == source.identity(tmp_path / "d.safetensors")
    with pytest.raises(CdfssError, match=f"trained with {BACKBONE}, configured is vit_small_patch16_384"):
        checkpoints.load(path, "vit_small_patch16_384")
    checkpoints.save(path, {k: v for k, v in state.items() if not k.startswith("frozen.")}, BACKBONE, {})
    with pytest.raises(CdfssError, match="holds no frozen copy of test_vit; download"):
        checkpoints.build(path, BACKBONE, None)
    checkpoints.save(path, {k: v for k, v in state.items() if "fc1" not in k}, BACKBONE, {})
    with pytest.raises(CdfssError, match="does not hold FPTrans with test_vit: entries 16 missing"):
        checkpoints.load(path, BACKBONE)


@pytest.mark.parametrize(
    ("name", "why"), [("resnet50", "is none"), ("vit_small_patch16_dinov3", "have none")]
)
def test_a_backbone_without_room_for_prompts_is_refused(name, why):
    with pytest.raises(CdfssError, match=f"{why}; take one of vit_small_patch16_384"):
        FPTrans.on(name, None, 64)


@pytest.mark.parametrize("name", ["vit_small_patch14_reg4_dinov2", "deit_base_distilled_patch16_384"])
def test_other_transformers_segment_pictures_of_any_size(name):
    with torch.device("meta"):
        model = FPTrans.on(name, None, 70)
    assert len(model.encoder.network.blocks) == (11 if name.startswith("deit") else 10)
    del model.encoder.network.blocks[1:], model.frozen.blocks[1:]
    model = model.to_empty(device="cpu").eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    query, supports, masks, _ = episode_of_size(100)
    with torch.no_grad():
        assert model(query, supports, masks, draws()).shape == (2, 2, 100, 100)


def episode_of_size(size, shot=1):
    supports = images("fptrans/made/support", 2 * shot, 160).unflatten(0, (2, shot))[..., :size, :size]
    masks = disks("fptrans/made/mask", 2 * shot, size).unflatten(0, (2, shot))
    return images("fptrans/made/query", 2, 160)[..., :size, :size], supports, masks, None


def test_a_batch_draws_for_each_episode_what_it_draws_alone():
    model = small_model(size=96)
    query, supports, masks, _ = episode_of_size(96, 3)
    with torch.no_grad():
        both = model(query, supports, masks, DrawsAlone(2, 7))
        for episode in (1, 0):
            one = slice(episode, episode + 1)
            alone = model(query[one], supports[one], masks[one], DrawsAlone(1, 7))
            assert (alone - both[one]).abs().max() < 1e-4
        other = model(query, supports, masks, DrawsAlone(2, 8))
    assert (other - both).abs().max() > 1e-2


def test_regions_cover_the_background_and_are_nearest_to_their_centres():
    background = torch.zeros(1, 2, 9, 9, dtype=torch.bool)
    background[0, 0, :3] = True
    background[0, 1, 4, 2:5] = True  # fewer positions than regions
    found = regions(background, draws())
    assert ((found[0, 0] >= 0) == background[0, 0]).all()
    assert set(found[0, 0].unique().tolist()) == {-1, 0, 1, 2, 3, 4}
    for number in range(5):  # stripes of a flat piece lie beside each other
        columns = (found[0, 0] == number).any(0).nonzero().ravel()
        assert columns.max() - columns.min() < 6
    assert (found[0, 1] >= 0).sum() == 8  # the first five of the map are added
    assert (found[0, 1, 0, :5] >= 0).all()


@pytest.fixture
def given(tmp_path):
    """A small model whose prediction is neither all foreground nor none."""
    checkpoints.save(tmp_path / "c.safetensors", small_model().state_dict(), BACKBONE, {})
    checkpoint = tmp_path / "c.safetensors"
    return Given(64, device=CPU, backbone=BACKBONE, checkpoint=checkpoint)


@pytest.mark.parametrize("settings", [{}, *TUNED], ids=["plain", "tokens", "purified"])
def test_the_method_keeps_the_contract(given, settings):
    assert conformance.check("fptrans", given, settings)


def test_each_episode_is_tuned_at_the_rate_that_was_chosen_for_it(monkeypatch, given):
    supports, masks, *_ = conformance.episodes(64, 2)
    wanted = torch.tensor([0.1] + [0.0] * (len(masks) - 1), dtype=torch.float64)
    original, found = rates.choose, []
    monkeypatch.setattr(rates, "choose", lambda *how: found.append(original(*how)) or wanted)
    method = calling.build("fptrans", TUNED[0] | {"steps": 2, "learning_rate": "auto"}, given)
    method.fit(supports, masks)
    assert set(found[0].tolist()) <= set(rates.CANDIDATES)
    assert method.rates.tolist() == wanted.tolist()
    assert (method.losses[1:, 0] == method.losses[1:, 1]).all()
    by_hand = calling.build("fptrans", TUNED[0] | {"steps": 2, "learning_rate": 0.1}, given)
    by_hand.fit(supports, masks)
    assert by_hand.rates is None
    assert method.losses[0].tolist() == by_hand.losses[0].tolist()
    assert method.losses[0, 0] != method.losses[0, 1]


def test_a_prediction_has_foreground_and_background(given):
    supports, masks, queries, *_ = conformance.episodes(64, 1)
    found = calling.segment("fptrans", calling.build("fptrans", {}, given), supports, masks, queries)
    assert 0.02 < found.masks.mean() < 0.98


def adaptation(place, modules=("apm_s",), shot=2, batch=2, rate=0.1):
    model = small_model().requires_grad_(False)
    _, supports, masks, _ = episode_of_size(64, shot)
    chain = chain_for(model, modules, place, 64, 0)
    return Adaptation(model, chain, place, supports[:batch], masks[:batch], 0, rate)


@pytest.mark.parametrize("place", PLACES)
def test_tuning_equals_gradients_through_the_whole_model(place):
    """Of each episode alone, by torch's own Adam, with all that is kept computed anew."""
    found = adaptation(place)
    for _ in range(3):
        found.step()
    for episode in range(2):
        other = adaptation(place)
        model, chain = other.model, copy.deepcopy(other.chain)
        one = slice(episode, episode + 1)
        supports, masks = other.supports[one], other.masks[one]
        for parameter in chain.parameters():
            parameter.data = parameter.data[:1]
        optimiser = torch.optim.Adam(chain.parameters(), 0.1)
        losses = []
        for _ in range(3):
            loss = 0.0
            for number in range(2):
                prepared = model.prepare(supports, masks, DrawsAlone(1, 0))
                maps, _ = model.encode(supports[:, number], supports, prepared)
                maps = model.purifier(maps) if place == "purified" else maps
                maps = chain(maps.transpose(0, 1)).transpose(0, 1)
                maps = maps if place == "purified" else model.purifier(maps)
                logits = resize_logits(logits_of(maps, prepared), (64, 64))
                loss = loss + torch.nn.functional.cross_entropy(logits, masks[:, number]) / 2
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        assert found.losses[episode].tolist() == pytest.approx(losses, rel=1e-4)
        for mine, plain in zip(found.chain.parameters(), chain.parameters()):
            assert (mine[episode] - plain[0]).abs().max() < 5e-3
            assert (plain - 1).abs().max() > 0.1


def test_tuning_lowers_the_loss_and_leaves_model_and_given_modules_as_they_were():
    found = adaptation("tokens", shot=1, rate=0.05)
    before = {key: value.clone() for key, value in found.model.state_dict().items()}
    for _ in range(20):
        found.step()
    assert (found.losses[:, -1] < found.losses[:, 0]).all()
    assert all(torch.equal(value, before[key]) for key, value in found.model.state_dict().items())


def test_settings_name_what_is_left_out_of_fptrans():
    with pytest.raises(ValueError, match="module 'acpa' stands behind the support mask"):
        Settings(modules=["apm_s", "acpa"])
    with pytest.raises(ValueError, match="nothing to tune"):
        Settings(steps=3)
    defaults = {"steps": 60, "learning_rate": {"lungs": 0.1}}
    plain = {"modules": [], "steps": 0, "learning_rate": None}
    assert Settings().of_domain("lungs", defaults) == plain
    assert Settings(modules=["apm_s"]).of_domain("lungs", defaults) == {
        "modules": [{"apm_s": {}}],
        "steps": 60,
        "learning_rate": 0.1,
        "place": "tokens",
    }


def test_rows_do_not_depend_on_the_code_of_another_host():
    found = provenance.code("methods.fptrans.method")
    seen = []
    original = provenance._code_of
    provenance._code_of = lambda file: seen.append(file.parent.name) or original(file)
    try:
        assert provenance.code.__wrapped__("methods.fptrans.method") == found
    finally:
        provenance._code_of = original
    assert "fptrans" in seen
    assert "hsnet" not in seen
