"""Checks of every run before the first one starts: images, shards, networks; each done once for all that share it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fed_asi import data
from fed_asi.data.dataset import Dataset
from fed_asi.errors import ConfigError, FedAsiError
from fed_asi.fleets.config import RunConfig
from fed_asi.machine import threads
from fed_asi.studies.grid import PlannedRun, grouped
from fed_asi.workplace.prepare import build_model
from fed_asi.workplace.splits import Splits, split_images
from fed_asi.workplace.start import check_images, check_network


class Checks:
    """The checks of `fed_asi.workplace.start` for many runs. data_dir, weights_dir: as for `fed-asi run`."""

    def __init__(self, data_dir: Path | None = None, weights_dir: Path | None = None) -> None:
        self._data_dir, self._weights_dir = data_dir, weights_dir
        self._sets: dict[str, Dataset | FedAsiError] = {}
        self._splits: tuple[object, Splits] | None = None  # only the last: each holds a copy of the images
        self._networks: dict[str, FedAsiError | None] = {}
        self.largest_bytes = 0  # of the networks that runs start from

    def check(self, run: PlannedRun) -> None:
        """Raise ConfigError with everything that is wrong with a run, or another FedAsiError for what is missing."""
        config = run.config
        source = self._set(config.data.source)
        problems: list[str] = []
        for one in (
            lambda: check_images(config, self._split(config, source)),
            lambda: self._network(config, source),
        ):
            problems += _problems_of(one)
        if problems:
            raise ConfigError(problems)

    def _set(self, name: str) -> Dataset:
        if name not in self._sets:
            try:
                self._sets[name] = data.load(name, self._data_dir)
            except FedAsiError as error:  # a missing answer takes seconds to detect: once is enough
                self._sets[name] = error
        found = self._sets[name]
        if isinstance(found, FedAsiError):
            raise found
        return found

    def _split(self, config: RunConfig, source: Dataset) -> Splits:
        key = (config.data, config.seed, config.num_devices)
        if self._splits is None or self._splits[0] != key:
            self._splits = (key, split_images(config, source))
        return self._splits[1]

    def _network(self, config: RunConfig, source: Dataset) -> None:
        key = _json((config.data.source, config.model.model_dump(), config.method.model_dump()))
        if key not in self._networks:
            self._networks[key] = None
            try:
                model = build_model(config, source.num_classes, self._weights_dir)
                size = sum(tensor.nbytes for tensor in model.state_dict().values())
                self.largest_bytes = max(self.largest_bytes, size)
                check_network(config, model, source.num_classes)
            except FedAsiError as error:
                self._networks[key] = error
        wrong = self._networks[key]
        if wrong is not None:
            raise wrong


def _problems_of(check: Callable[[], object]) -> Sequence[str]:
    try:
        check()
    except FedAsiError as error:
        return error.problems if isinstance(error, ConfigError) else [str(error)]
    return ()


def _json(content: Any) -> str:
    return json.dumps(content, sort_keys=True, default=str)


def check_starts(runs: Sequence[PlannedRun], data_dir: Path | None, weights_dir: Path | None) -> int:
    """Return the bytes of the largest network, after checking that all of these runs can begin.

    Raises ConfigError with every problem, each once.
    """
    checks = Checks(data_dir, weights_dir)
    with threads(1):
        problems = grouped(((run.label, run) for run in runs), checks.check)
    if problems:
        raise ConfigError(problems)
    return checks.largest_bytes
