"""The comparison of simulators: the same work for all, and in fed_asi as without a simulator; its table and file."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).parents[2] / "experiments" / "benchmarks" / "simulators"
CLIENTS, COHORT, ROUNDS = 6, 3, 2
SCRIPTS = ("cifar_networks", "compare", "making", "same_work", "watching", "with_fed_asi", "with_torch")


@pytest.fixture(scope="module")
def scripts() -> Iterator[SimpleNamespace]:
    """Give the scripts of the comparison, imported as they import each other."""
    sys.path.insert(0, str(FOLDER))
    try:
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in SCRIPTS})
    finally:
        sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def work(scripts: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Any:
    settings = scripts.same_work.Settings(
        network="small_cnn", layers="all", trained=(), cohorts=(), clients=CLIENTS, images=240, test_images=40,
        public_images=40, classes=0, resolution=8, batch=32, epochs=1, lr=0.05, alpha=0.5, seed=3, workers=2,
        source="digits",
    )  # fmt: skip
    return scripts.making.make(tmp_path_factory.mktemp("work"), settings, ROUNDS, COHORT)


def test_every_image_is_on_one_client_and_is_taken_once_an_epoch(scripts: SimpleNamespace, work: Any) -> None:
    found = scripts.same_work.Work.open(work.folder)
    assert found.settings == work.settings
    shards = [found.shard(client) for client in range(CLIENTS)]
    assert sorted(np.concatenate(shards)) == list(range(240))
    for round, cohort in enumerate(found.settings.cohorts):
        assert len(set(cohort)) == COHORT
        for client in cohort:
            assert sorted(found.ordered(round, client).tolist()) == sorted(shards[client])
            batches = list(found.batches(round, client))
            assert sum(len(labels) for _, labels in batches) == len(shards[client])
            assert torch.equal(batches[0][0], found.images[found.ordered(round, client)[:32]])


def test_a_run_of_fed_asi_does_the_same_work(scripts: SimpleNamespace, work: Any, tmp_path: Path) -> None:
    one, two = tmp_path / "torch", tmp_path / "fed_asi"
    scripts.with_torch.main(work.folder, one)
    scripts.with_fed_asi.main(work.folder, two, "loop")
    assert scripts.compare.difference(work, two, one) < 1e-4
    seen = scripts.watching.Watched(0.0, 1.0, 7, 0, "")
    ours, theirs = (scripts.compare.read(work, out, seen) for out in (two, one))
    assert len(ours.rounds) == len(theirs.rounds) == ROUNDS
    assert ours.accuracy == theirs.accuracy


def test_the_norms_of_resnet18_keep_their_statistics(scripts: SimpleNamespace) -> None:
    model = scripts.cifar_networks.resnet18(10, 32)
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    scripts.making.settle_(model, images)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    assert model.train().bn1.running_mean.abs().sum() > 0
    model(images)
    assert all(torch.equal(before[name], buffer) for name, buffer in model.named_buffers())
    assert sum(p.numel() for p in model.parameters()) == 11_181_642  # torchvision's, with 10 classes


def test_the_table_counts_no_first_round_and_names_what_failed(scripts: SimpleNamespace) -> None:
    compare = scripts.compare
    run = compare.Run(3.0, (9.0, 2.0, 4.0), 0.5, 3 * 1024**2, {"torch": "2"}, 1e-5)
    rows = [
        compare.Row("slow", 1, (run, replace(run, rounds=(1.0, 6.0, 8.0)))),
        compare.Row("quick", 2, (run,)),
        compare.Row("broken", 1, (), "exit code 1: no such thing"),
    ]
    lines = compare.lines(rows, 10)
    assert lines[2:] == [
        "| quick | 2 | 3.0 | 3.00 | 3.33 | 0.500 | 1e-05 | 3 |",
        "| slow | 1 | 3.0 | 5.00 | 2.00 | 0.500 | 1e-05 | 3 |",
        "| broken | 1 | exit code 1: no such thing | | | | | |",
    ]
    joined = compare.added(rows[1:2], [replace(rows[1], runs=(run, run)), rows[2]])
    assert [(row.name, len(row.runs)) for row in joined] == [("quick", 3), ("broken", 0)]


def test_a_command_is_watched_and_its_last_line_kept(scripts: SimpleNamespace, tmp_path: Path) -> None:
    words = [sys.executable, "-c", "import os; print(os.environ['OWN']); raise SystemExit('not today')"]
    seen = scripts.watching.watched(words, tmp_path, {"OWN": "mine"})
    assert (seen.code, seen.output.split("\n")[:2]) == (1, ["mine", "not today"])
    failed = scripts.compare.Simulator("fed_asi", "there_is_no_such_adapter.py", 1)
    work = SimpleNamespace(folder=tmp_path)
    found, why = scripts.compare.run(failed, sys.executable, work, tmp_path / "out")
    assert found is None
    assert why.startswith("exit code 2: ")


def test_figures_of_other_settings_are_refused(scripts: SimpleNamespace, tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    assert scripts.compare.known(path, {}) == {}
    path.write_text('{"version": 1, "settings": {"clients": 3}, "cases": {}}')
    with pytest.raises(SystemExit, match="figures of other settings"):
        scripts.compare.known(path, {"clients": 4})
