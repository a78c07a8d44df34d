"""Training some input channels only: gradients against autograd's, what trains and what stays, and a plan's bytes."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from fed_asi import layers
from fed_asi.compression.compress import compress_
from fed_asi.errors import ConfigError, UnsupportedLayerError
from fed_asi.layers.base import LayerState, attach_
from fed_asi.layers.compressed import weight_kind_of
from fed_asi.layers.gradient import WeightGradient
from fed_asi.memory.meter import ActivationMeter
from fed_asi.methods import Channels, Method, Quantized, Vanilla
from fed_asi.methods.family import with_settings
from fed_asi.methods.forms import LowBits
from fed_asi.planning.calibration import profile
from fed_asi.planning.plan import Plan
from fed_asi.planning.profile import Profile
from fed_asi.planning.search import plan
from fed_asi.training.sgd import Sgd
from fed_asi.training.steps import Stepper, training_mode_
from layers.test_thin import Taken, agrees, close
from strategies import Case, case_of, convolutions, fill_, linears, seeded

pytestmark = [pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")]
FAST = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def of_channels(case: Case, method: Method, sink: Taken | None = None) -> tuple[nn.Module, Tensor, Tensor]:
    """The compressed layer, its channels and the mean of its input."""
    layer = copy.deepcopy(case.layer)
    kind = weight_kind_of(layer)
    assert kind is not None
    x = case.x.movedim(-1, 1) if isinstance(layer, nn.Linear) else case.x
    mean = x.transpose(0, 1).flatten(1).mean(1) + 0.25
    channels = method.choose(seeded(x.shape[1], seed=4).abs(), 0)
    assert channels is not None
    state = LayerState("layer", method, type(layer), seed=5, mean=mean, channels=channels, sink=sink)
    attach_(layer, state)
    state.slice = kind.slice_of(layer, channels)
    return layer.train(), channels, mean


def oracle(case: Case, method: Channels, channels: Tensor, mean: Tensor) -> Tensor:
    """Autograd's dW of the plain layer on an input that is zero but in the channels kept, rounded where they are."""
    plain, linear = copy.deepcopy(case.layer), isinstance(case.layer, nn.Linear)
    x = case.x.movedim(-1, 1) if linear else case.x
    part = x[:, channels]
    if method.centered:
        part = part - mean[channels].view(1, -1, *[1] * (x.dim() - 2))
    if method.bits == 8:
        part = LowBits.of(part, 8).restore()
    whole = torch.zeros_like(x)
    whole[:, channels] = part
    out = plain(whole.movedim(1, -1) if linear else whole)
    return torch.autograd.grad((out * case.g).sum(), plain.weight)[0]


@st.composite
def cases(draw: st.DrawFn) -> tuple[Case, Channels]:
    case = draw(st.one_of(convolutions(), linears()))
    channels = case.x.shape[-1 if isinstance(case.layer, nn.Linear) else 1]
    assume(isinstance(case.layer, nn.Linear) or case.layer.groups in (1, channels))
    count, bits = draw(st.integers(1, channels)), draw(st.sampled_from([32, 8]))
    return case, Channels(
        count, bits, centered=draw(st.booleans()), pick=draw(st.sampled_from(["energy", "round"]))
    )


@given(cases())
@FAST
def test_the_gradient_of_the_channels_kept_is_autograds(drawn: tuple[Case, Channels]) -> None:
    case, method = drawn
    layer, channels, mean = of_channels(case, method)
    expected = oracle(case, method, channels, mean)
    x = case.x.clone(memory_format=torch.preserve_format).requires_grad_()
    plain = copy.deepcopy(case.layer)
    plain_dx, *plain_bias = torch.autograd.grad(
        (plain(x) * case.g).sum(), [x, *([plain.bias] if plain.bias is not None else [])]
    )
    out = layer(x)
    close(out, case.layer(case.x))
    (out * case.g).sum().backward()
    close(x.grad, plain_dx)
    close(layer.weight.grad, expected)
    if layer.bias is not None and not method.centered:
        close(layer.bias.grad, plain_bias[0])


@given(cases())
@FAST
def test_what_a_sink_takes_is_of_the_parts_size(drawn: tuple[Case, Channels]) -> None:
    case, method = drawn
    sink = Taken()
    layer, channels, mean = of_channels(case, method, sink)
    (layer(case.x) * case.g).sum().backward()
    (gradient,) = [g for _, g in sink.parts if isinstance(g, WeightGradient)]
    expected = oracle(case, method, channels, mean)
    part = layer._asi.slice
    small = torch.zeros(part.shape_of(layer.weight), dtype=torch.float64)
    gradient.add_to_(small, 2.0)
    close(small, 2.0 * part.of(expected))
    agrees(gradient, expected, layer)


@given(cases())
@settings(FAST, max_examples=40)
def test_promised_bytes_are_measured_bytes(drawn: tuple[Case, Channels]) -> None:
    case, method = drawn
    layer, _, _ = of_channels(case, method)
    x = case.x.clone()
    with ActivationMeter(layer) as meter:
        y = layer(x)
    assert y.grad_fn is not None
    kind = weight_kind_of(layer)
    assert kind is not None
    assert meter.saved_bytes == kind.saved_bytes(case.layer, method, case.x.shape, torch.float64)


def test_the_gradient_is_never_whole_where_a_sink_takes_it() -> None:
    case = case_of(fill_(nn.Conv2d(64, 8, 3, padding=1, dtype=torch.float64)), seeded(2, 64, 3, 3))
    sink = Taken()
    layer, channels, _ = of_channels(case, Channels(4), sink)
    (layer(case.x) * case.g).sum().backward()
    (gradient,) = [g for _, g in sink.parts if isinstance(g, WeightGradient)]
    assert gradient.inner.whole().shape == (8, 4, 3, 3)
    assert sorted(channels.tolist()) == channels.tolist()


def test_channels_are_those_of_most_energy_or_drawn_by_it() -> None:
    energies = torch.tensor([1.0, 5.0, 0.0, 5.0, 2.0])
    assert Channels(2).choose(energies, 1).tolist() == [1, 3]
    assert Channels(3).choose(energies, 2).tolist() == [1, 3, 4]
    drawn = [Channels(2, pick="round").choose(energies, seed).tolist() for seed in range(400)]
    assert drawn == [Channels(2, pick="round").choose(energies, seed).tolist() for seed in range(400)]
    often = np.bincount([one for pair in drawn for one in pair], minlength=5)
    assert often[2] == 0
    assert 0 < often[0] < often[4] < min(often[1], often[3])


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (nn.ConvTranspose2d(8, 4, 3), "a transposed convolution"),
        (nn.Conv2d(8, 4, 3, groups=2), "2 groups"),
        (nn.Conv2d(2, 4, 3), "keeps 4 of 2 channels"),
    ],
    ids=str,
)
def test_a_layer_without_parts_says_why(layer: nn.Module, why: str) -> None:
    assert why in weight_kind_of(layer).unsupported(layer, Channels(4))


@pytest.mark.parametrize(
    "wrong", [{"count": 0}, {"count": True}, {"count": 1, "bits": 4}, {"count": 1, "pick": "rand"}]
)
def test_wrong_settings_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"channels: .*{list(wrong)[-1]}"):
        Channels(**wrong)


@pytest.mark.parametrize("pick", ["rand", 1])
def test_an_unknown_pick_is_found_before_anything_is_proposed(pick: object) -> None:
    with pytest.raises(ConfigError, match=r"'channels': unknown pick .*(did you mean|known: energy, round)"):
        with_settings(Channels, {"pick": pick})


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.expand, self.norm1 = nn.Conv2d(6, 24, 1, bias=False), nn.BatchNorm2d(24)
        self.depth, self.norm2, self.act = (
            nn.Conv2d(24, 24, 3, padding=1, groups=24, bias=False),
            nn.BatchNorm2d(24),
            nn.ReLU6(),
        )
        self.head = nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.head.weight.dtype)
        return self.head(self.act(self.norm2(self.depth(self.act(self.norm1(self.expand(x)))))).mean([2, 3]))


PLANNED = {"expand": Channels(2, centered=True), "depth": Channels(5, bits=8), "head": Channels(7)}
ENERGIES = {"expand": seeded(6).abs(), "depth": seeded(24).abs(), "head": seeded(24, seed=1).abs()}
MEANS = {"expand": seeded(6, seed=2)}
TRAINED = {
    "expand.weight",
    "norm1.bias",
    "depth.weight",
    "norm2.bias",
    "head.weight",
    "head.bias",
}


def network() -> nn.Module:
    torch.manual_seed(1)
    net = Net().double().eval()
    for norm in (net.norm1, net.norm2):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2.0)
    return net


def stepper(net: nn.Module, **options: Any) -> Stepper:
    tail = copy.deepcopy(net).train()
    sgd = {key: options.pop(key) for key in ("momentum", "weight_decay", "clip_norm") if key in options}
    report = compress_(tail, PLANNED, means=MEANS, energies=ENERGIES)
    assert set(report.trained) == TRAINED
    training_mode_(tail)
    optimizer = Sgd(tail.named_parameters(), slices=layers.slices_of(tail), **sgd)
    options = {"micro_batch": 4, "budget_bytes": None, "side_by_side": False, **options}
    return Stepper(tail, optimizer, **options)


def batch(count: int = 8) -> tuple[Tensor, Tensor]:
    return seeded(count, 6, 4, 4, dtype=torch.float32).double(), torch.arange(
        count
    ) % 3  # a stepper's are float32


@pytest.mark.parametrize("update", ["step", "micro-batch", "layer"])
@pytest.mark.parametrize("sgd", [{}, {"momentum": 0.9, "weight_decay": 0.01}, {"clip_norm": 1e-3}], ids=str)
def test_the_rest_of_a_weight_stays_to_the_bit_and_the_part_is_sgds(
    update: str, sgd: dict[str, float]
) -> None:
    """Against torch's SGD over the whole weights, whose gradients autograd gives, where nothing decays."""
    one, before = stepper(network(), update=update, **sgd), network()
    for _ in range(3):
        one.step_(*batch(), 0.1)
    for name, parameter in one.tail.named_parameters():
        part, was = one.optimizer.slices.get(name), before.get_parameter(name)
        if name not in TRAINED:
            assert torch.equal(parameter, was)
        elif part is not None:
            rest = parameter.detach().clone()
            part.load_(rest, part.of(was.detach()))
            assert torch.equal(rest, was)
            assert not torch.equal(part.of(parameter), part.of(was))
    kept = {"expand": 24 * 2, "depth": 5 * 9, "head": 3 * 7}
    trained = 8 * (sum(kept.values()) + 24 + 24 + 3)
    assert one.optimizer.gradient_bytes == trained
    assert one.optimizer.state_bytes == (trained if "momentum" in sgd else 0)
    expected = {"step": trained, "micro-batch": 0, "layer": 8 * (5 * 9 + 24)}
    assert one.accumulator_bytes == expected[update]


@pytest.mark.parametrize("sgd", [{}, {"momentum": 0.9}, {"momentum": 0.9, "weight_decay": 0.01}], ids=str)
def test_a_step_is_torchs_on_the_part(sgd: dict[str, float]) -> None:
    ours = stepper(network(), micro_batch=8, **sgd)
    tail = copy.deepcopy(network()).train()
    compress_(tail, PLANNED, means=MEANS, energies=ENERGIES)
    training_mode_(tail)
    slices = layers.slices_of(tail)
    parts = {
        n: nn.Parameter(slices[n].of(p.detach()) if n in slices else p.detach().clone())
        for n, p in tail.named_parameters()
        if n in TRAINED
    }
    reference = torch.optim.SGD(parts.values(), lr=0.1, foreach=False, **sgd)
    x, y = batch()
    for _ in range(3):
        ours.step_(x, y, 0.1)
        tail.zero_grad()
        F.cross_entropy(tail(x), y).backward()
        for name, part in parts.items():
            grad = tail.get_parameter(name).grad
            part.grad = slices[name].of(grad) if name in slices else grad.clone()
        reference.step()
        with torch.no_grad():
            for name, part in parts.items():
                whole = tail.get_parameter(name)
                slices[name].load_(whole, part) if name in slices else whole.copy_(part)
    for name, parameter in ours.tail.named_parameters():
        torch.testing.assert_close(parameter, tail.get_parameter(name), rtol=1e-10, atol=1e-12, msg=name)


def test_at_once_is_a_step_of_all_parts() -> None:
    at_once, step = (stepper(network(), micro_batch=8, update=update) for update in ("layer", "step"))
    for _ in range(3):
        at_once.step_(*batch(), 0.1)
        step.step_(*batch(), 0.1)
    for (name, ours), theirs in zip(at_once.tail.named_parameters(), step.tail.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12, msg=name)


def test_a_layer_whose_weight_is_anothers_too_is_refused() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    net[2].weight = net[0].weight
    with pytest.raises(UnsupportedLayerError, match="another layer shares it"):
        compress_(net, {"0": Channels(2)}, energies={"0": [1.0] * 4})


def test_without_energies_or_with_wrong_ones_it_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"expand: .*chooses channels .* calibrate first"):
        compress_(network(), {"expand": Channels(2)})
    with pytest.raises(ConfigError, match=r"expand: energies of shape \(3,\), and it has 6 channels"):
        compress_(network(), {"expand": Channels(2)}, energies={"expand": [1.0] * 3})


def test_gamma_is_never_trained_with_some_channels() -> None:
    net = network().train()
    compress_(net, {"expand": Channels(2)}, energies=ENERGIES)
    net.norm1.weight.requires_grad_(True)
    with pytest.raises(
        UnsupportedLayerError, match=r"keeps some channels of the input, so the batch norm's gamma"
    ):
        net(seeded(2, 6, 4, 4))


@pytest.fixture(scope="module")
def made() -> Profile:
    x, y = batch(16)
    return profile(network().float(), x.float(), y, micro_batches=(1, 4), methods=("channels", "vanilla"))


@pytest.mark.few(2)
@pytest.mark.parametrize("count", ["saved", "training"])
@pytest.mark.parametrize("update", ["step", "layer"])
def test_planned_bytes_are_those_of_the_step(made: Profile, count: str, update: str) -> None:
    kinds = set()
    for budget in (1200, 2000, 4000, 8000):
        chosen = plan(made, budget, count=count, update=update, methods=("channels", "vanilla"))
        kinds |= {method.kind for method in chosen.methods.values()}
        tail = network().float().train()
        compress_(tail, Plan.from_json(chosen.to_json()))
        training_mode_(tail)
        optimizer = Sgd(tail.named_parameters(), slices=layers.slices_of(tail))
        one = Stepper(
            tail,
            optimizer,
            micro_batch=chosen.micro_batch,
            budget_bytes=None,
            update=update,
            side_by_side=False,
        )
        x, y = batch()
        one.step_(x.float(), y, 0.1)
        assert (
            one.largest.saved_bytes + (one.accumulator_bytes if count == "training" else 0)
            == chosen.planned_bytes
        )
    assert "channels" in kinds


def test_what_a_candidate_captures_is_the_energy_of_its_channels(made: Profile) -> None:
    again = Profile.from_json(made.to_json())
    assert again == made
    for layer in made.layers:
        energies = torch.tensor(layer.channel_energies, dtype=torch.float64)
        assert float(energies.sum()) == pytest.approx(layer.centered_energy, rel=1e-4)
        for found in layer.candidates[4]:
            if isinstance(found.method, Channels) and found.method.centered and found.method.bits == 32:
                kept = found.method.choose(energies, 0)
                assert found.captured == pytest.approx(float(energies[kept].sum()), rel=1e-3)


@pytest.mark.parametrize("bits", [8, 32])
def test_the_form_of_an_input_that_is_centred_already(bits: int) -> None:
    x, mean = seeded(3, 5, 2, 2), seeded(5, seed=1)
    state = LayerState("layer", Channels(2, bits), nn.Conv2d, mean=mean, channels=torch.tensor([1, 4]))
    centred = Channels(2, bits, centered=True).keep(x, state)
    close(Channels(2, bits).form(x - mean.view(1, -1, 1, 1), state).restore(), centred.restore())
    with pytest.raises(UnsupportedLayerError, match="its channels were not chosen"):
        Channels(2).form(x, LayerState("layer", Channels(2), nn.Conv2d))


def test_text() -> None:
    assert Channels(3).text() == "3 channels"
    assert (
        Channels(3, 8, centered=True, pick="round").text()
        == "3 channels in 8 bits, drawn each round, centred"
    )
    assert Quantized(8).choose(torch.ones(3), 0) is None
    assert Vanilla().trained_parameters(10, 2, 4) == 10
