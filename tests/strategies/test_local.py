"""FedProx and SCAFFOLD in a device's steps, against the same steps written out in plain float64."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from fed_asi import seeds
from fed_asi.devices.work import LocalResult, train_locally
from fed_asi.fleets.config import RunConfig
from fed_asi.strategies import AtDevice, Local
from fed_asi.strategies.scaffold import Scaffold
from fed_asi.workplace.place import Workplace
from fed_asi.workplace.prepare import prepare
from runs import job, small

LR = 0.05
EPOCHS = 2


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FED_ASI_FEATURES_DIR", str(folder / "features"))
        return prepare(small(train={"epochs": EPOCHS}), folder / "workplace")


def trained(
    place: Workplace, tensors: Mapping[str, Tensor], state: object = None, **changes: object
) -> LocalResult:
    """Return what device 2 does under a strategy; state: what it kept after round 1."""
    config = place.config.model_dump(mode="json")
    for table, keys in changes.items():
        config[table] = {**config[table], **keys}  # type: ignore[dict-item]
    own = Workplace(
        **{name: getattr(place, name) for name in place.__dataclass_fields__ if name != "config"},
        config=RunConfig.model_validate(config),
    )
    one = job(round=2, lr=LR, factors_round=0 if state is None else 1)
    return train_locally(own, one, tensors, state or None)  # type: ignore[arg-type]


def steps_by_hand(
    place: Workplace,
    mu: float = 0.0,
    correction: Mapping[str, Tensor] | None = None,
) -> tuple[dict[str, Tensor], int]:
    """Return where the steps end, and how many they were: clip(gradient of the objective), decay, correction."""
    train, shard = place.config.train, place.shard(2)
    start = {name: tensor.double() for name, tensor in place.reference.items()}
    now, count = {name: tensor.clone() for name, tensor in start.items()}, 0
    for epoch in range(EPOCHS):
        order = seeds.rng(place.config.seed, "shuffle", 2, 2, epoch).permutation(shard.train)
        for rows in torch.split(torch.from_numpy(order), 16):
            grads = gradients(place, now, rows)
            grads = {name: g + mu * (now[name] - start[name]) for name, g in grads.items()}
            norm = sum(float(g.square().sum()) for g in grads.values()) ** 0.5
            scale = min(1.0, train.clip_norm / (norm + 1e-6))
            for name, g in grads.items():
                moves = g * scale + train.weight_decay * now[name]
                moves = moves if correction is None else moves + correction[name].double()
                now[name] = now[name] - LR * moves
            count += 1
    return now, count


def gradients(place: Workplace, now: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    tail = place.tail
    for name, parameter in tail.named_parameters():
        parameter.requires_grad_(name in now)
        if name in now:
            parameter.data.copy_(now[name])
    tail.eval()
    torch.nn.functional.cross_entropy(tail(place.inputs(rows)), place.labels[rows]).backward()
    found = {n: p.grad.double().clone() for n, p in tail.named_parameters() if p.grad is not None}
    for parameter in tail.parameters():
        parameter.grad = None
    tail.requires_grad_(False)
    return found


def agree(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], scale: Mapping[str, Tensor]) -> None:
    for name, tensor in expected.items():
        assert (found[name].double() - tensor).norm() < 1e-3 * scale[name].double().norm() + 1e-6, name


def test_fedprox_pulls_back_to_what_was_sent(place: Workplace) -> None:
    expected, _ = steps_by_hand(place, mu=3.0)
    found = trained(place, place.reference, aggregate={"strategy": "fedprox", "mu": 3.0})
    plain = trained(place, place.reference)
    start = place.reference
    moved = {name: expected[name] - start[name].double() for name in expected}
    agree(found.tensors, expected, moved)
    assert found.stats["strategy_bytes"] == sum(t.nbytes for t in start.values())  # its copy of the weights
    assert found.stats["kept_bytes"] == plain.stats["strategy_bytes"] == 0
    distance = [
        sum(float((one.tensors[n] - start[n]).square().sum()) for n in start) for one in (found, plain)
    ]
    assert distance[0] < 0.95 * distance[1]
    without = trained(place, place.reference, aggregate={"strategy": "fedprox", "mu": 0.0})
    assert all(torch.equal(without.tensors[n], plain.tensors[n]) for n in start)


def test_scaffold_steps_are_corrected_and_find_a_new_variate(place: Workplace) -> None:
    start = place.reference
    generator = torch.Generator().manual_seed(0)
    server, own = (
        {name: 0.05 * torch.randn(t.shape, generator=generator) for name, t in start.items()}
        for _ in range(2)
    )
    sent = {**start, **{f"variate..{name}": tensor for name, tensor in server.items()}}
    state = {f"variate..{name}": [tensor] for name, tensor in own.items()}
    found = trained(place, sent, state, aggregate={"strategy": "scaffold"})
    expected, steps = steps_by_hand(place, correction={n: server[n] - own[n] for n in start})
    assert found.stats["steps"] == steps
    moved = {name: expected[name] - start[name].double() for name in expected}
    agree(found.tensors, expected, moved)
    for name in start:  # option II, from where the steps ended
        far = (start[name].double() - found.tensors[name].double()) / (steps * LR)
        new = own[name].double() - server[name].double() + far
        assert (found.factors[f"variate..{name}"][0].double() - new).abs().max() < 1e-5
        assert (found.sent[f"variate..{name}"].double() - (new - own[name].double())).abs().max() < 1e-5
    size = sum(t.nbytes for t in start.values())
    assert found.stats["strategy_bytes"] == 3 * size
    assert found.stats["kept_bytes"] == size


def test_the_first_time_a_scaffold_device_does_what_fedavgs_does(place: Workplace) -> None:
    plain = trained(place, place.reference)
    found = trained(place, place.reference, aggregate={"strategy": "scaffold"})
    assert all(torch.equal(found.tensors[n], plain.tensors[n]) for n in plain.tensors)


def test_a_lost_variate_is_the_servers_for_that_round(place: Workplace) -> None:
    server = {f"variate..{name}": torch.full_like(t, 0.01) for name, t in place.reference.items()}
    found = trained(place, {**place.reference, **server}, {}, aggregate={"strategy": "scaffold"})
    plain = trained(place, place.reference)
    assert all(torch.equal(found.tensors[n], plain.tensors[n]) for n in plain.tensors)  # uncorrected
    for (
        name,
        tensor,
    ) in found.sent.items():  # what moved is told from the server's, which stands for what was lost
        if name.startswith("variate.."):
            kept = found.factors[name][0]
            assert torch.allclose(kept - tensor, server[name], atol=1e-6)


def test_what_other_rounds_trained_is_kept_on() -> None:
    scaffold = {"old": torch.ones(2)}
    given = AtDevice({"new": torch.zeros(2)}, 0.1, {}, {"variate": scaffold})
    left = Scaffold().at_device(given).finish({"new": torch.ones(2)}, 5)
    assert set(left.kept["variate"]) == {"old", "new"}
    assert set(left.extra["variate"]) == {"new"}
    assert torch.equal(left.kept["variate"]["new"], torch.full((2,), -2.0))


def test_plain_local_sgd_adds_nothing() -> None:
    local = Local(AtDevice({"w": torch.zeros(2)}, 0.1))
    gradient = torch.ones(2)
    assert local.direction("w", gradient) is gradient
    assert local.held() == {}
    assert not local.finish({"w": torch.ones(2)}, 1).kept
