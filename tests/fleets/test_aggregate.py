"""[aggregate] and [upload]: keys of strategies and codecs, and combinations refused before the start."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fed_asi.codecs.top_k import TopK
from fed_asi.fleets.aggregate import codec_of, held_copies, strategy_of
from fed_asi.fleets.config import RunConfig
from fed_asi.fleets.file import load_config
from fed_asi.strategies.fedadam import FedAdam
from fed_asi.strategies.krum import Krum
from fed_asi.workplace.address import run_fingerprint
from fleet_file import GOOD, problems_of
from runs import small


def test_keys_are_the_settings(write: Callable) -> None:
    text = f'{GOOD}[aggregate]\nstrategy = "fedadam"\nserver_lr = 1\ntau = 0.01\nbias_correction = true\n'
    config = load_config(
        write(f'{text}[upload]\ncodec = "top-k"\nshare = 0.5\nerror_feedback = false\n'), cpus=4
    )
    assert strategy_of(config.aggregate) == FedAdam(server_lr=1.0, tau=0.01, bias_correction=True)
    assert codec_of(config.upload) == TopK(error_feedback=False, share=0.5)
    again = RunConfig.from_json(config.to_json())
    assert again == config
    assert strategy_of(again.aggregate) == strategy_of(config.aggregate)
    assert held_copies(config.aggregate, config.upload) == 1


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        (
            '[aggregate]\nstrategy = "fedadm"',
            ["aggregate.strategy: unknown 'fedadm'; did you mean fedadam or fedavgm or fedavg?"],
        ),
        ("[aggregate]\nstrategy = 3", ["aggregate.strategy: must be text, not 3"]),
        ('[upload]\ncodec = "top"', ["upload.codec: unknown 'top'; did you mean top-k?"]),
        (
            "[aggregate]\nbeta2 = 0.9",
            ['aggregate.beta2: only for "fedadam" and "fedyogi"; strategy is "fedavg"'],
        ),
        (
            '[aggregate]\nstrategy = "fedadam"\nbeta3 = 1',
            ["aggregate.beta3: unknown key; did you mean beta2 or beta1?"],
        ),
        ('[aggregate]\nstrategy = "fedadam"\nbeta2 = 1', ["aggregate.beta2: must be less than 1, not 1"]),
        ('[aggregate]\nstrategy = "fedadam"\nbeta2 = "x"', ["aggregate.beta2: must be a number, not 'x'"]),
        ('[aggregate]\nstrategy = "norm-bound"', ["aggregate.max_norm: missing"]),
        ("[upload]\nshare = 0.5", ["upload.share: unknown key; known: codec, error_feedback"]),
        ('[upload]\ncodec = "top-k"\nshare = 0', ["upload.share: must be greater than 0, not 0"]),
        (
            "[upload]\nerror_feedback = true",
            ['upload: codec "plain" loses nothing: leave error_feedback out'],
        ),
        (
            '[aggregate]\nstrategy = "scaffold"\nweights = "captured"\n[train]\nmomentum = 0.5',
            [
                'aggregate.strategy: "scaffold" gives every update the same weight; leave out '
                'weights = "captured" and min_fidelity',
                'train.momentum: 0.5, but "scaffold" finds a device\'s gradient from how far plain SGD moved it; use 0',
            ],
        ),
        (
            '[aggregate]\nstrategy = "median"\nmin_fidelity = 0.1',
            [
                'aggregate.strategy: "median" gives every update the same weight; leave out '
                'weights = "captured" and min_fidelity'
            ],
        ),
        (
            '[aggregate]\nstrategy = "fednova"\n[train]\nmomentum = 0.5\nupdate = "micro-batch"',
            [
                'train.update: "micro-batch" has momentum from micro-batch to micro-batch, and "fednova" counts steps; '
                'use update = "step", or momentum = 0'
            ],
        ),
    ],
)
def test_what_is_wrong_is_a_line_before_the_start(write: Callable, tables: str, expected: list[str]) -> None:
    assert problems_of(write(f"{GOOD}{tables}\n")) == expected


def test_a_cohort_too_small_is_refused(write: Callable) -> None:
    (problem,) = problems_of(write(f'{GOOD}[aggregate]\nstrategy = "krum"\nhostile = 7\n'))
    assert problem.startswith("aggregate.hostile: 7 of ")
    assert strategy_of(small(aggregate={"strategy": "krum", "keep": 2}).aggregate) == Krum(keep=2)


def test_runs_of_before_there_was_a_choice_can_go_on() -> None:
    """Their fingerprint knows neither key; one that says what is so anyway is the same run."""
    plain = run_fingerprint(small())
    assert run_fingerprint(small(aggregate={"strategy": "fedavg"}, upload={"codec": "plain"})) == plain
    others = [small(aggregate={"strategy": "fedprox"}), small(upload={"codec": "int8"})]
    others.append(small(aggregate={"strategy": "fedprox", "mu": 1}))
    assert len({plain, *map(run_fingerprint, others)}) == 4
