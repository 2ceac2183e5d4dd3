"""Modules: the contract, ours and anyone's own; the rivals of tables 8 and 9 against their formulas."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import episode_of, small_hsnet
from torch import nn
from torch.nn import functional as F

from cdfss import CdfssError, adapt, configuration
from cdfss.commands.main import main
from cdfss.methods import calling
from cdfss.methods import conformance as of_methods
from cdfss.methods.contract import Given
from cdfss.methods.modules import conformance, known
from cdfss.methods.modules.chain import Chain
from cdfss.running.precision import precision as in_precision

DOCS = Path(__file__).parents[1] / "docs" / "how-to" / "own-method.md"
RIVALS = ("dff", "gfnet", "arp", "dac", "mmc_simple", "mmc_oracle", "srip", "whitening")
MINE = """\
from pydantic import Field
import torch
from cdfss.methods import contract
from cdfss.methods.modules.contract import Module

class Mine(Module):
    learns = True

    class Settings(contract.Settings):
        first: float = Field(1.0, description="factor before the first step")

    def parameters(self, channels, height, width):
        return {"gains": torch.full((1, channels, 1, 1), self.settings.first)}

    def change(self, parameters, prepared):
        return prepared * parameters["gains"]
"""
CHANGE, RETURN = "    def change(", "        return prepared * "


def module(name, **settings):
    return known.build(known.listed({name: settings}))


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))) + 0.3


def changed(name, maps, parameters=None, **settings):
    of = module(name, **settings)
    return of.change(parameters or of.parameters(*maps.shape[-3:]), of.prepare(maps))


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Writes mine.py into the working folder, with changes of MINE, and gives its name."""
    monkeypatch.chdir(tmp_path)

    def write(*changes):
        text = MINE
        for before, after in changes:
            assert before in text
            text = text.replace(before, after)
        Path("mine.py").write_text(text)
        known.find.cache_clear()
        return "mine.py:Mine"

    yield write
    known.find.cache_clear()


# The contract.


@pytest.mark.parametrize("name", known.MODULES)
def test_our_modules_keep_the_contract(name):
    conformance.check(name)


def test_ones_own_keeps_the_contract_and_is_checked_on_the_command_line(mine, capsys):
    assert main(["check-module", mine()]) == 0
    assert "mine.py:Mine keeps the contract" in capsys.readouterr().out
    assert main(["check-module", mine((RETURN, "        1 / 0\n" + RETURN))]) == 1
    assert re.search(r"failed: ZeroDivisionError: .*mine\.py, line 16: 1 / 0", capsys.readouterr().err)
    assert main(["check-module", "gfnot"]) == 1
    assert "did you mean 'gfnet'?" in capsys.readouterr().err


def test_the_example_of_the_docs_keeps_the_contract_and_is_tuned(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = DOCS.read_text()
    (code,) = re.findall(r'```python title="my_methods/gains.py"\n(.*?)```', text, re.S)
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    file, variants = Path("my_methods/gains.py"), re.findall(r"```yaml.*?\n(.*?)```", text, re.S)
    file.parent.mkdir()
    file.write_text(code)
    known.find.cache_clear()
    (command,) = re.findall(r"^\S*(?:python -m )?cdfss (check-module .*)$", text, re.M)
    assert main(command.split()) == 0

    (written,) = (yaml.safe_load(block)["variants"] for block in variants if "gains.py" in block)
    values = {"name": "x", "data": {"fss1000": {"format": "fss1000"}}, "domains": {"fss1000": {}}}
    values["source"] = {"data": "fss1000", "validation": {"data": "fss1000"}}
    run = configuration.parse(values | {"variants": written})
    settings = run.variants["gains"].settings
    assert settings.modules == ({"my_methods/gains.py:Gains": {"first": 0.5}},)
    model, (_, supports, masks) = small_hsnet(modules=settings.modules), episode_of()
    gains = adapt(model, supports, masks, 2, 0.1).model.chain.Gains["gains"]
    assert ((gains - 0.5).abs() > 0.01).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("prepared * ", "prepared.mean(-4, keepdim=True) + prepared * "), "for episodes one by one, maps"),
        (("prepared * ", "prepared.mean(0) + prepared * "), "without the other maps of a picture, maps"),
        (("prepared * ", "prepared.mul_(2) * "), "changed the query that it was given"),
        (("(1, channels, 1, 1)", "(channels, 1, 1)"), r"'gains' is \[8, 1, 1\]; expected a first dim"),
        (("prepared * ", "torch.randn_like(prepared) * "), "for the same input the second time, maps"),
        (("prepared * ", "prepared[..., 1:] * "), r"returned \[2, 3, 8, 5, 5\] for maps of .*; expected"),
        (("prepared * ", "None, prepared * "), "returned tuple for maps of"),
        (("learns = True", "learns = False"), "learns is False, but it has parameters Mine.gains"),
        (("self.settings.first)", "3)"), "parameter 'gains' is torch.int64; expected a floating point"),
        (('return {"gains": ', 'return {"b": torch.ones(1), "gains": '), "the gradient of Mine.b is none"),
        (('["gains"]', '["gains"].detach()'), "gradient of Mine.gains is none"),
        (('["gains"]', '["gains"].relu() - 2'), None),
        (("prepared * ", "(1 + (prepared * 0).sqrt()) * prepared * "), "the query's maps is not finite"),
        (("prepared * ", "prepared.detach() * "), "the query's maps is none"),
        (('["gains"]', '["gains"].sub(9).relu()'), "gradient of Mine.gains is zero"),
        (("prepared * ", "prepared / prepared.std() * 1e30 * 1e30 * "), "changed maps are not all finite"),
        (("prepared * ", "prepared / prepared.norm(dim=-3, keepdim=True) * "), "for maps of zeros, chang"),
        (('description="factor before the first step"', "title=''"), "setting first has no description"),
        (("learns = True", "learns = oracle = True"), "is an oracle, but not of_pairs"),
        (("learns = True", "learns = of_pairs = True"), "has no change_pair"),
        (("learns = True", "family = 'mine'\n    learns = True"), "family is 'mine'; expected one of"),
        (
            (CHANGE, "    def prepare(self, maps):\n        return [maps]\n\n" + CHANGE),
            r"failed: TypeError: .*mine\.py, line 19",
        ),
        (
            ("(1, channels, 1, 1)", "(1, channels, height, width)"),
            r"failed: RuntimeError: The size of tensor .*mine\.py, line 16",  # and is not sized
        ),
        (
            ("torch.full((1, channels, 1, 1), self.settings.first)", "torch.rand(1, channels, 1, 1)"),
            None,  # torch's, whose seed is set
        ),
        (
            (
                "torch.full((1, channels, 1, 1), self.settings.first)",
                "torch.full((1, channels, 1, 1), __import__('random').random())",
            ),
            "of the same seed a second time",
        ),
        (
            (CHANGE, "    def penalty(self, parameters):\n        return "
             "parameters['gains'].sum()\n\n" + CHANGE),
            r"penalty is tensor\(.*for parameters of 1 episodes; expected .* \(1,\)",
        ),
        (
            (CHANGE, "    def penalty(self, parameters):\n        return "
             "parameters['gains'].flatten(1).sum(1) + parameters['gains'].sum()\n\n" + CHANGE),
            "for episodes one by one, penalties differ",
        ),
        (
            (CHANGE, "    def penalty(self, parameters): return 'all'\n\n" + CHANGE),
            "penalty returned str; expected a tensor",
        ),
        ((CHANGE, "    def factors(self, parameters): return 5\n\n" + CHANGE), "factors returned 5; exp"),
        (("prepared * ", "prepared / prepared.square().sum(-3, keepdim=True).sqrt().clamp(min=1e-9) * "),
         "for maps of zeros, gradients are not all finite"),
        (('"gains": ', '"values": '), "a parameter is called 'values', as none of torch can be"),
        (('"gains": ', '"a.b": '), "a parameter is called 'a.b', as none of torch can be"),
        (
            (CHANGE, "    def factors(self, parameters): return parameters\n\n" + CHANGE),
            r"factor gains is \[1, 8, 1, 1\], .*; expected \(E, C or 1, h, w\) in 0\.\.1",
        ),
    ],
)  # fmt: skip
def test_a_module_that_breaks_the_contract_is_told_what_and_where(change, message, mine):
    if message is None:
        conformance.check(mine(change))
        return
    with pytest.raises(CdfssError, match=message):
        conformance.check(mine(change))


def test_a_module_whose_prepared_maps_do_not_last_is_told(mine):
    prepare = "    def prepare(self, maps):\n        return maps.clone()\n\n"
    name = mine((CHANGE, prepare + CHANGE), ("prepared * ", "prepared.mul_(2) * "))
    with pytest.raises(CdfssError, match="from what prepare gave, the second time, maps differ"):
        conformance.check(name)


def test_one_number_for_each_episode_may_be_a_parameter(mine):
    name = mine(
        ("torch.full((1, channels, 1, 1), self.settings.first)", "torch.ones(1)"),
        ('["gains"]', '["gains"][:, None, None, None]'),
    )
    conformance.check(name)


@pytest.mark.parametrize(
    ("called", "message"),
    [
        ("learner", r"'mine\.py:learner': its class is called as the learner of a host model; rename it"),
        ("backbone", "called as the backbone of a host model"),
        ("parts", r"'mine\.py:parts': its class is called parts, as something of a chain of modules is"),
        ("forward", "its class is called forward, as something"),
    ],
)
def test_a_class_that_is_called_as_what_a_model_has_is_refused(called, message, mine):
    mine(("class Mine(", f"class {called}("))
    with pytest.raises(CdfssError, match=message):
        conformance.check(f"mine.py:{called}")


def test_two_classes_of_one_name_are_told_what_to_do(mine):
    shutil.copy(mine().split(":")[0], "yours.py")
    with pytest.raises(CdfssError, match=r"'mine\.py:Mine' and 'yours\.py:Mine' go by .*rename one of the"):
        Chain(["mine.py:Mine", "yours.py:Mine"], 4, 3, 3)
    with pytest.raises(CdfssError, match=r"modules name 'mine\.py:Mine' twice"):
        Chain(["mine.py:Mine", "mine.py:Mine"], 4, 3, 3)


def test_settings_whose_own_check_fails_are_told_with_its_line(mine):
    name = mine(
        ("import Field\n", "import Field, model_validator\n"),
        (
            "    def parameters(",
            "        @model_validator(mode='after')\n        def _check(self):\n            1 / 0\n\n"
            "    def parameters(",
        ),
    )
    message = r"module 'mine\.py:Mine' failed: ZeroDivisionError: .*mine\.py, line 14: 1 / 0"
    with pytest.raises(CdfssError, match=message):
        Chain([name], 4, 3, 3)
    with pytest.raises(ValueError, match=message):
        known.listed(name)


def test_an_oracle_that_does_not_look_at_pairs_is_refused_where_it_is_found(mine):
    with pytest.raises(CdfssError, match="is an oracle, but not of_pairs"):
        known.find(mine(("learns = True", "learns = oracle = True")))


def test_a_mistake_in_ones_own_module_ends_a_method_with_its_file_and_line(mine, checkpoint):
    given = Given(64, 0, torch.device("cpu"), "efficientnet_lite0", None, checkpoint)
    for change, message in (
        (
            (RETURN, "        1 / 0\n" + RETURN),
            r"module 'mine\.py:Mine' failed: Zero.*mine\.py, line 16",
        ),
        (
            ("prepared * ", "prepared[:1] * "),
            r"module 'mine\.py:Mine' returned \[1, .*expected maps of the",
        ),
        ((RETURN, "        raise SystemExit(0)\n" + RETURN), "failed: SystemExit: 0"),
    ):
        settings = {"modules": [mine(change)], "steps": 1}
        method = calling.build("hsnet", settings, given)
        with pytest.raises(CdfssError, match=message):
            calling.segment("hsnet", method, *of_methods.episodes(64, 1))


def test_a_mistake_in_a_module_of_ours_is_not_hidden(monkeypatch):
    monkeypatch.setattr(known.find("whitening"), "change", lambda self, parameters, prepared: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Chain(["whitening"], 4, 3, 3)(drawn(1, 1, 4, 3, 3))


# The rivals, each against a formula that is written down another way.


def test_dff_masks_each_spectrum_by_a_convolution_of_its_amplitudes():
    maps = drawn(2, 2, 4, 5, 6)  # two maps of two episodes
    kernels = drawn(2, 2, 7, 7) / 7
    found = changed("dff", maps, {"kernel": kernels}).numpy()
    for level, episode in np.ndindex(2, 2):
        x = maps[level, episode].double().numpy()
        spectrum = np.fft.fftshift(np.fft.fft2(x, norm="ortho"), axes=(1, 2))
        pooled = np.stack([np.abs(spectrum).mean(0), np.abs(spectrum).max(0)])
        padded = np.pad(pooled, ((0, 0), (3, 3), (3, 3)))
        kernel = kernels[episode].double().numpy()
        mask = np.empty(x.shape[1:])
        for row, column in np.ndindex(*mask.shape):
            seen = (kernel * padded[:, row : row + 7, column : column + 7]).sum()
            mask[row, column] = 1 / (1 + np.exp(-seen))
        expected = np.fft.ifft2(np.fft.ifftshift(spectrum * mask, axes=(1, 2)), norm="ortho").real
        assert np.abs(found[level, episode] - expected).max() < 1e-5


def test_dff_has_98_parameters_and_halves_maps_before_the_first_step():
    first = module("dff").parameters(2048, 13, 13)
    assert sum(value.numel() for value in first.values()) == 98
    maps = drawn(1, 1, 4, 5, 6)
    assert (changed("dff", maps) - maps / 2).abs().max() < 1e-6


@pytest.mark.parametrize("size", [(4, 6), (5, 3)])
def test_gfnet_is_a_circular_convolution_of_each_channel(size):
    height, width = size
    maps, kernels = drawn(2, 2, 3, height, width), drawn(2, 3, height, width)
    factors = torch.view_as_real(torch.fft.rfft2(kernels))
    found = changed("gfnet", maps, {"filter": factors})
    expected = torch.zeros_like(maps)
    for row, column in np.ndindex(height, width):
        expected += kernels[..., row, column, None, None] * maps.roll((row, column), (-2, -1))
    assert (found - expected).abs().max() < 1e-4


def test_gfnet_has_372736_parameters_and_changes_nothing_before_the_first_step():
    first = module("gfnet").parameters(2048, 13, 13)
    assert sum(value.numel() for value in first.values()) == 372_736
    for maps in (drawn(1, 1, 4, 5, 6), drawn(1, 1, 4, 6, 5)):
        assert (changed("gfnet", maps) - maps).abs().max() < 1e-6


def test_arp_takes_the_others_amplitude_and_keeps_its_own_phase():
    query, support = drawn(1, 2, 3, 5, 5), drawn(2, 2, 3, 5, 5)[:1]
    found = module("arp").change_pair({}, query, support, None, None)
    for maps, own, other in zip(found, (query, support), (support, query)):
        spectrum, of_own, of_other = (np.fft.fft2(x.double().numpy()) for x in (maps, own, other))
        assert np.abs(spectrum - np.abs(of_other) * of_own / np.abs(of_own)).max() < 1e-4
    alone = module("arp").change_pair({}, query, query.clone(), None, None)
    assert all((maps - query).abs().max() < 1e-5 for maps in alone)


@pytest.mark.parametrize("size", [(5, 5), (4, 6)])
def test_dac_is_the_normalised_amplitude_with_the_maps_own_phase(size):
    maps = 3 * drawn(2, 2, 4, *size) - 1
    flat = maps.flatten(0, 1).double()
    normalised = nn.InstanceNorm2d(4)(flat)  # without parameters
    amplitude, phase = torch.fft.fft2(normalised).abs(), torch.fft.fft2(flat).angle()
    expected = torch.fft.ifft2(torch.polar(amplitude, phase))
    assert expected.imag.abs().max() < 1e-12
    assert (changed("dac", maps).flatten(0, 1) - expected.real).abs().max() < 1e-5


def test_mmc_simple_is_the_published_sum_of_two_branches_of_unit_vectors():
    maps = torch.cat([drawn(1, 1, 8, 5, 5), torch.zeros(1, 1, 1, 5, 5)], 2)
    for exponent in (1.3, 2.0):
        x = maps.double().numpy()
        x = x / np.linalg.norm(x, axis=2, keepdims=True)
        above, below = (1 / np.log(1 / (np.maximum(part, 0) + 1e-5) + 1) ** exponent for part in (x, -x))
        found = changed("mmc_simple", maps, exponent=exponent)
        assert np.abs(found.numpy() - (above - below)).max() < 1e-5
        assert not found[:, :, -1].any()  # of zeros
        assert (changed("mmc_simple", 100 * maps, exponent=exponent) - found).abs().max() < 1e-5


def oracle_of(query, truth):
    """Factors of channels (C,) by the query (C, n) and whether its positions are foreground (n,)."""
    unit = query / np.linalg.norm(query, axis=0)
    inside, outside = unit[:, truth], unit[:, ~truth]
    difference = np.abs(inside.mean(1) - outside.mean(1))
    weights = 2 / (inside.std(1) / difference + outside.std(1) / difference)
    return weights / np.linalg.norm(weights) / np.abs(unit).mean(1)


def test_mmc_oracle_weighs_channels_by_the_querys_foreground_and_background():
    query, support = drawn(2, 2, 6, 4, 5), drawn(2, 2, 6, 5, 4).view(2, 2, 6, 4, 5)
    truth = (drawn(2, 2, 1, 4, 5) > 0.3).float()
    found = module("mmc_oracle").change_pair({}, query, support, truth, torch.ones_like(truth))
    for place in np.ndindex(2, 2):
        factors = oracle_of(query[place].flatten(1).double().numpy(), truth[place].flatten().bool().numpy())
        for maps, before in zip(found, (query, support)):
            expected = before[place] * torch.from_numpy(factors)[:, None, None]
            assert (maps[place] - expected).abs().max() < 1e-4


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_mmc_oracle_changes_nothing_where_the_query_shows_one_class(value):
    query, support, mask = drawn(1, 2, 6, 4, 5), drawn(1, 2, 6, 4, 6)[..., :5], torch.ones(1, 2, 1, 4, 5)
    truth = torch.cat([value * mask[:, :1], (drawn(1, 1, 1, 4, 5) > 0).float()], 1)
    found = module("mmc_oracle").change_pair({}, query, support, truth, mask)
    for maps, before in zip(found, (query, support)):
        assert torch.equal(maps[:, 0], before[:, 0])
        assert not torch.equal(maps[:, 1], before[:, 1])


def test_mmc_oracle_stays_finite_for_equal_classes_and_channels_of_zeros():
    truth = (drawn(1, 1, 1, 4, 4) > 0.3).float()
    for query in (torch.ones(1, 1, 6, 4, 4), torch.zeros(1, 1, 6, 4, 4), drawn(1, 1, 6, 4, 4)):
        query[:, :, 0] = 0
        for mask in (truth, 1e-3 * truth, F.one_hot(torch.tensor(5), 16).view(1, 1, 1, 4, 4).float()):
            for maps in module("mmc_oracle").change_pair({}, query, query, mask, mask):
                assert maps.isfinite().all()


def test_mmc_oracle_has_gradients_where_a_class_has_one_position():
    query = drawn(1, 1, 6, 4, 4).requires_grad_()
    mask = F.one_hot(torch.tensor(5), 16).view(1, 1, 1, 4, 4).float()
    maps, _ = module("mmc_oracle").change_pair({}, query, query, mask, mask)
    assert torch.autograd.grad(maps.sum(), query)[0].isfinite().all()


def test_mmc_oracle_is_refused_without_the_querys_mask():
    model, (query, supports, masks) = small_hsnet(modules=["mmc_oracle"]), episode_of(1)
    with pytest.raises(CdfssError, match="is an oracle, which is shown the query's mask, and got none"):
        adapt(model, supports, masks, 0, 0.1).segment(query)


def test_srip_is_a_convolution_by_one_and_a_penalty_by_power_iteration():
    layers, maps = torch.eye(6) + 0.1 * drawn(2, 6, 6), drawn(3, 2, 6, 4, 5)
    parameters, of = {"layer": layers}, module("srip", weight=0.5)
    for episode, layer in enumerate(layers):
        expected = F.conv2d(maps[:, episode], layer[:, :, None, None])
        assert (of.change(parameters, maps)[:, episode] - expected).abs().max() < 1e-5
        deviation = (layer.T @ layer - torch.eye(6)).double()
        vector = torch.randn(6, 1, generator=torch.Generator().manual_seed(0)).double()
        for _ in range(2):
            vector = deviation @ vector / vector.norm()
        penalty = of.penalty(parameters)[episode]
        assert float(penalty) == pytest.approx(0.5 * float(vector.norm()) ** 2, rel=1e-4)
        assert float(penalty) <= 0.5 * float(torch.linalg.matrix_norm(deviation, 2)) ** 2 * (1 + 1e-5)


def test_srip_finds_the_largest_singular_value_where_there_is_but_one():
    direction = F.normalize(drawn(1, 6), dim=1)
    layer = torch.eye(6) + 0.4 * direction.T @ direction  # W^T W - I has the value 2 * 0.4 + 0.4^2
    penalty = module("srip").penalty({"layer": layer[None]})
    assert float(penalty) == pytest.approx(1e-6 * 0.96**2, rel=1e-4)


def test_srip_starts_at_the_identity_whose_penalty_and_its_gradient_are_0():
    layer = module("srip").parameters(6, 4, 5)["layer"].requires_grad_()
    penalty = module("srip").penalty({"layer": layer})
    assert penalty.item() == 0
    assert not torch.autograd.grad(penalty.sum(), layer)[0].any()
    maps = drawn(1, 1, 6, 4, 5)
    assert torch.equal(changed("srip", maps), maps)


@pytest.mark.parametrize("channels", [20, 4])  # more than the 3 * 4 positions, and fewer
def test_whitening_is_that_by_the_covariance_of_channels(channels):
    maps = drawn(2, 2, channels, 3, 4)
    for ridge in (1e-3, 0.5):
        found = changed("whitening", maps, ridge=ridge)
        for place in np.ndindex(2, 2):
            rows = maps[place].flatten(1).double().numpy()
            rows = rows - rows.mean(1, keepdims=True)
            values, vectors = np.linalg.eigh(rows @ rows.T / 12 + ridge * np.eye(channels))
            expected = vectors @ np.diag(values**-0.5) @ vectors.T @ rows
            assert np.abs(found[place].flatten(1).numpy() - expected).max() < 1e-5


def test_whitening_of_more_channels_than_positions_leaves_all_positions_equally_far():
    found = changed("whitening", drawn(1, 1, 40, 3, 4)).flatten(-2)[0, 0]
    cosines = F.normalize(found, dim=0).T @ F.normalize(found, dim=0)
    expected = torch.eye(12) * (1 + 1 / 11) - 1 / 11
    assert (cosines - expected).abs().max() < 1e-3


def test_whitening_has_the_gradients_of_its_formula_where_eigenvalues_are_equal():
    """Of fewer channels than positions, most are 0; of maps of zeros all."""
    maps = drawn(1, 1, 3, 2, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda given: changed("whitening", given, ridge=0.1), maps)
    zeros, weight = torch.zeros(1, 1, 16, 6, 6, requires_grad=True), drawn(1, 1, 16, 6, 6)
    (gradient,) = torch.autograd.grad((changed("whitening", zeros, ridge=0.01) * weight).sum(), zeros)
    assert (gradient - 10 * (weight - weight.mean((-2, -1), keepdim=True))).abs().max() < 1e-4


# In a host model.


@pytest.mark.parametrize("name", RIVALS)
def test_rivals_are_tuned_in_a_batch_as_one_by_one(name):
    learns = known.find(name).learns
    model = small_hsnet(modules=[name] if learns else ["apm_s", name])
    _, supports, masks = episode_of()
    supports, masks = torch.stack([supports, supports.flip(-1)]), torch.stack([masks, masks.roll(9, -1)])
    queries, truths = supports[:, 1].flip(-2), masks[:, 1].flip(-2)
    together = adapt(model, supports, masks, 2, 0.01)
    assert together.losses.isfinite().all()
    assert (together.losses[0] != together.losses[1]).all()
    assert not learns or (together.losses[:, 0] != together.losses[:, 1]).all()
    probabilities = together.segment(queries, truths).probabilities
    for episode in range(2):
        alone = adapt(model, supports[episode], masks[episode], 2, 0.01)
        assert (alone.losses - together.losses[episode]).abs().max() < 1e-4
        one = slice(episode, episode + 1)
        found = alone.segment(queries[one], truths[one]).probabilities
        assert (found - probabilities[one]).abs().max() < 1e-3


@pytest.mark.parametrize("name", RIVALS)
def test_rivals_in_bfloat16_are_those_of_float32_up_to_its_rounding(name):
    maps, mask = drawn(2, 2, 12, 5, 6), (drawn(2, 1, 5, 6) > 0.3).float()
    chain = Chain([name], 12, 5, 6)
    expected = chain.together(chain(maps), chain(maps.flip(-1)), mask, mask)
    with in_precision("bfloat16", torch.device("cpu")):
        low = maps.bfloat16()
        found = chain.together(chain(low), chain(low.flip(-1)), mask, mask)
        penalty = chain.penalty()
    assert penalty is None or not penalty.any()  # a product that is rounded leaves something of 0
    for coarse, fine in zip(found, expected):
        assert (coarse - fine).norm() < 0.02 * fine.norm()


@pytest.mark.parametrize("name", ["dff", "gfnet", "srip"])
def test_rivals_with_parameters_start_as_the_host_without_them(name):
    query, supports, masks = episode_of(1)
    with torch.no_grad():
        plain, inserted = (
            small_hsnet(modules=modules)(query, supports, masks) for modules in ((), (name,))
        )
    assert (plain - inserted).abs().max() < 1e-4 * plain.abs().max()
