"""What is sent both ways beside plain weights: encoded, decoded, kept, counted, and checked on arrival."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fed_asi.codecs import Codec
from fed_asi.codecs.float16 import Float16
from fed_asi.codecs.int8 import Int8
from fed_asi.codecs.plain import Plain
from fed_asi.codecs.top_k import TopK
from fed_asi.devices.exchange import Exchange, Upload
from fed_asi.devices.kept import Kept
from fed_asi.errors import UpdateError
from fed_asi.strategies import AtDevice
from fed_asi.strategies.base import extra_name
from fed_asi.strategies.fedavg import FedAvg
from fed_asi.strategies.fedprox import FedProx
from fed_asi.strategies.scaffold import Scaffold

SHAPES = {"w": (3, 4), "b": (3,)}


@dataclass(frozen=True)
class Channels:
    """Some places along a dimension."""

    dim: int
    index: Tensor


SIZE = 4 * (12 + 3)


def drawn(seed: int, scale: float = 1.0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) * scale for name, shape in SHAPES.items()}


@pytest.mark.parametrize("codec", [Plain(), Float16(), Int8(), TopK(share=0.5)], ids=str)
@pytest.mark.parametrize("strategy", [FedAvg(), FedProx(), Scaffold()], ids=str)
def test_what_a_device_sends_is_what_the_server_reads(codec: Codec, strategy: object) -> None:
    exchange, start = Exchange(strategy, codec), drawn(0)  # type: ignore[arg-type]
    end = {name: start[name] + moved for name, moved in drawn(1, 0.01).items()}
    sent, _ = Upload(exchange, AtDevice(start, 0.1)).finish(end, 5)
    found, beside = exchange.read(sent, list(end), start)
    for name, after in end.items():
        largest = float((after - start[name]).abs().max())
        assert float((found[name] - after).abs().max()) <= (
            largest if isinstance(codec, TopK) else largest / 250
        )
    assert set(beside) == ({f"variate..{name}" for name in end} if isinstance(strategy, Scaffold) else set())
    sizes = exchange.sizes(start)
    assert {name: tensor.nbytes for name, tensor in sent.items()} == sizes


def test_names_are_data() -> None:
    """A network may call its layers what pieces and variates are called."""
    exchange = Exchange(Scaffold(), TopK(share=0.5))
    start = {name: drawn(0)["b"] for name in ("w", "index", "index:w", "variate:w", "variate.w")}
    end = {name: tensor + k for k, (name, tensor) in enumerate(start.items(), 1)}
    sent, kept = Upload(exchange, AtDevice(start, 0.1)).finish(end, 1)
    assert len(sent) == 3 * len(start)
    weights, beside = exchange.split({**start, **{extra_name("variate", name): t for name, t in end.items()}})
    assert weights.keys() == beside["variate"].keys() == start.keys()
    found, variates = exchange.read(sent, list(start), start)
    assert found.keys() == start.keys()
    assert len(variates) == len(start)
    for k, name in enumerate(start, 1):
        back = Kept.of(Kept({}, kept).state).by_kind["residual"][name]
        assert torch.allclose(found[name] + back, start[name] + k)


def test_bytes_on_the_wire() -> None:
    sizes = {
        type(codec).name: sum(Exchange(FedAvg(), codec).sizes(drawn(0)).values())
        for codec in (Plain(), Float16(), Int8(), TopK(share=0.25))
    }
    assert sizes == {"plain": 60, "float16": 30, "int8": 15 + 4 * (3 + 1), "top-k": 8 * (3 + 1)}


@pytest.mark.parametrize(
    ("strategy", "codec", "copies"),
    [
        (FedAvg(), Plain(), 0),
        (FedProx(), Plain(), 1),
        (Scaffold(), Plain(), 3),
        (FedAvg(), Int8(), 1),
        (FedProx(), Int8(), 1),  # both need what was sent, and it is there once
        (FedAvg(), TopK(), 2),
        (Scaffold(), TopK(), 4),
    ],
    ids=str,
)
def test_copies_that_lie_beside_the_weights_are_those_it_says(
    strategy: object, codec: Codec, copies: int
) -> None:
    upload = Upload(Exchange(strategy, codec), AtDevice(drawn(0), 0.1))  # type: ignore[arg-type]
    assert upload.held_bytes == copies * SIZE
    assert len(strategy.holds | codec.holds) == copies  # type: ignore[attr-defined]


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([TopK(share=0.2), TopK(share=0.01), Int8(error_feedback=True), Float16(error_feedback=True)]),
       st.integers(0, 99), st.integers(1, 6))  # fmt: skip
def test_error_feedback_loses_nothing(codec: Codec, seed: int, rounds: int) -> None:
    """What arrived over all rounds, and what is still kept, is what was moved; of one round to the bit."""
    exchange, kept = Exchange(FedAvg(), codec), {}
    arrived, moved_all = (
        {name: torch.zeros(shape).double() for name, shape in SHAPES.items()} for _ in range(2)
    )
    for round in range(rounds):
        start = drawn(seed + round)
        end = {name: start[name] + moved for name, moved in drawn(seed + round + 50, 0.1).items()}
        before = kept.get("residual", {})
        sent, kept = Upload(exchange, AtDevice(start, 0.1, kept=kept)).finish(end, 1)
        for name, start_of in start.items():
            pieces = {p: sent[f"{p}..{name}" if p else name] for p in codec.pieces(SHAPES[name])}
            decoded = codec.decode(name, pieces, SHAPES[name])
            moved = (end[name].double() - start_of.double()).float()
            whole = moved + before[name] if name in before else moved
            if isinstance(codec, TopK):
                assert torch.equal(decoded + kept["residual"][name], whole)
            arrived[name] += decoded.double()
            moved_all[name] += moved.double()
    for name in SHAPES:
        left = arrived[name] + kept["residual"][name].double() - moved_all[name]
        assert float(left.abs().max()) < 1e-6 * rounds


def test_without_error_feedback_nothing_is_kept() -> None:
    start = drawn(0)
    _, kept = Upload(Exchange(FedAvg(), TopK(error_feedback=False)), AtDevice(start, 0.1)).finish(drawn(1), 1)
    assert kept == {}


@pytest.mark.parametrize("codec", [Plain(), Int8(error_feedback=True), TopK(share=0.5)], ids=str)
@pytest.mark.parametrize("strategy", [FedProx(), Scaffold()], ids=str)
def test_a_part_is_to_a_device_as_a_tensor_of_its_own(codec: Codec, strategy: object) -> None:
    """Two rounds of some columns of w, other ones in each: sent, held and kept are as of a tensor of those columns."""
    exchange, start = Exchange(strategy, codec), drawn(0)  # type: ignore[arg-type]
    server, kept = {"variate": drawn(5, 0.1)}, {}
    for round, columns in enumerate(([0, 2], [1, 2])):
        parts = {"w": Channels(1, torch.tensor(columns))}
        given = AtDevice(start, 0.1, server, kept)
        alone = {kind: {**named, "w": named["w"][:, columns]} for kind, named in kept.items()}
        cut = AtDevice({**start, "w": start["w"][:, columns]}, 0.1,
                       {"variate": {**server["variate"], "w": server["variate"]["w"][:, columns]}}, alone)  # fmt: skip
        end = {name: tensor + moved for (name, tensor), moved in zip(
            cut.start.items(), (drawn(7 + round)["w"][:, columns], drawn(7 + round)["b"]), strict=True)}  # fmt: skip
        ours, its = Upload(exchange, given, parts), Upload(exchange, cut)
        assert ours.held_bytes == its.held_bytes
        (sent, left), (expected, its_left) = ours.finish(end, 3), its.finish(end, 3)
        assert sent.keys() == expected.keys()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in sent.items())
        found, _ = exchange.read(sent, ["w", "b"], start, parts)
        its_found, _ = exchange.read(expected, ["w", "b"], cut.start)
        assert all(torch.equal(tensor, its_found[name]) for name, tensor in found.items())
        for kind, named in left.items():
            assert torch.equal(named["w"][:, columns], its_left[kind]["w"])
            others = [column for column in range(4) if column not in columns]
            before = kept.get(kind, {}).get("w", torch.zeros(3, 4))
            assert torch.equal(named["w"][:, others], before[:, others])
        kept = left
    if not codec.whole:
        with pytest.raises(UpdateError, match="a part of w at places that are not ascending"):
            exchange.read(sent, ["w", "b"], start, {"w": Channels(1, torch.tensor([2, 1]))})


def test_what_is_unsent_of_a_tensor_outlives_a_round_without_it() -> None:
    exchange, start = Exchange(FedAvg(), TopK(share=0.1)), drawn(0)
    _, first = Upload(exchange, AtDevice(start, 0.1)).finish(drawn(1), 1)
    only = {"w": start["w"]}
    _, second = Upload(exchange, AtDevice(only, 0.1, kept=first)).finish({"w": drawn(2)["w"]}, 1)
    assert torch.equal(second["residual"]["b"], first["residual"]["b"])


@pytest.mark.parametrize("codec", [Plain(), Int8(), TopK()], ids=str)
def test_what_does_not_belong_is_named(codec: Codec) -> None:
    exchange, start = Exchange(Scaffold(), codec), drawn(0)
    sent, _ = Upload(exchange, AtDevice(start, 0.1)).finish(drawn(1), 1)
    if not codec.whole:
        with pytest.raises(UpdateError, match="surplus tensor other"):
            exchange.read(sent, [*start, "other"], start)
        with pytest.raises(UpdateError, match="missing tensor b"):
            exchange.read({k: t for k, t in sent.items() if k != "b"}, list(start), start)
    left, _ = exchange.read({**sent, "more": torch.zeros(1)}, list(start), start)
    assert "more" in left  # which no check of updates lets pass
    far = {name: tensor * 3e38 for name, tensor in start.items()}
    if isinstance(codec, Int8):
        huge = {**sent, "scale..w": torch.full((3,), 2e36), "w": torch.full((3, 4), 127).to(torch.int8)}
        found, _ = exchange.read(huge, list(start), far)
        assert set(found) == set(start)


def test_a_job_carries_weights_and_what_the_strategy_sends() -> None:
    tensors = {**drawn(0), "variate..w": torch.ones(3, 4)}
    weights, beside = Exchange(Scaffold(), Plain()).split(tensors)
    assert set(weights) == set(SHAPES)
    assert set(beside["variate"]) == {"w"}
    weights, beside = Exchange(FedAvg(), Plain()).split(tensors)
    assert set(weights) == set(tensors)
    assert beside == {}


def test_what_follows_a_loss_is_said() -> None:
    assert Exchange(FedAvg(), Plain()).when_lost == ""
    assert "server's control variate" in Exchange(Scaffold(), Plain()).when_lost
    assert Exchange(Scaffold(), TopK()).when_lost.endswith("; what it still had to send is lost")
    assert replace(Exchange(FedAvg(), TopK())).when_lost == "what it still had to send is lost"
