"""Partitioners of flwr-datasets as sharding schemes, on stand-ins: settings as keys, and the shards it gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal

import numpy as np
import pytest

from fed_asi.data import shards
from fed_asi.errors import ConfigError
from fed_asi.fleets.sharding import ShardingConfig, problems, scheme_of
from stand_ins import installed

LABELS = np.arange(24) % 4
COLUMNS = {"writer": np.array([f"w{row % 3}" for row in range(24)])}


class Rows:
    """What of datasets.Dataset partitioners use here."""

    def __init__(self, columns: dict[str, list[Any]]) -> None:
        self.columns = columns

    @classmethod
    def from_dict(cls, columns: dict[str, list[Any]]) -> Rows:
        return cls(columns)

    def __getitem__(self, name: str) -> list[Any]:
        return self.columns[name]

    def select(self, rows: list[int]) -> Rows:
        return Rows({name: [values[row] for row in rows] for name, values in self.columns.items()})


class Partitioner(ABC):
    dataset: Rows

    @property
    @abstractmethod
    def num_partitions(self) -> int: ...

    @abstractmethod
    def load_partition(self, partition_id: int) -> Rows: ...


class DealtPartitioner(Partitioner):
    """Samples shuffled and dealt; the last `lost` are on nobody."""

    def __init__(
        self,
        num_partitions: int,
        alpha: int | float | list[float] | np.ndarray,
        lost: int = 0,
        mode: Literal["dealt", "raise"] = "dealt",
        seed: int | None = 42,
    ) -> None:
        self._n, self.alpha, self.lost, self.mode = num_partitions, alpha, lost, mode
        self.order = np.random.default_rng(seed)

    @property
    def num_partitions(self) -> int:
        return self._n

    def load_partition(self, partition_id: int) -> Rows:
        if self.mode == "raise":
            raise ValueError("no such partition\nand more")
        if partition_id == 0:
            count = len(self.dataset["label"])
            self.dealt = self.order.permutation(count)[: count - self.lost]
        return self.dataset.select(self.dealt[partition_id :: self._n].tolist())


class NaturalPartitioner(Partitioner):
    def __init__(self, partition_by: str) -> None:
        self._by = partition_by

    @property
    def num_partitions(self) -> int:
        return len(set(self.dataset[self._by]))

    def load_partition(self, partition_id: int) -> Rows:
        values = self.dataset[self._by]
        value = sorted(set(values))[partition_id]
        return self.dataset.select([row for row, one in enumerate(values) if one == value])


@pytest.fixture(autouse=True)
def flwr_datasets(monkeypatch, tmp_path):
    from types import SimpleNamespace

    holds = (Partitioner, DealtPartitioner, NaturalPartitioner)
    module = SimpleNamespace(**{one.__name__: one for one in holds})
    installed(monkeypatch, tmp_path / "a", "flwr-datasets", "0.6.1", partitioner=module)
    installed(monkeypatch, tmp_path / "b", "datasets", "4.8.5", Dataset=Rows)


def made(devices: int, seed: int = 0, **keys: object) -> shards.Shards:
    scheme = scheme_of(ShardingConfig.model_validate(keys))
    return shards.make(LABELS, devices, scheme, seed, COLUMNS)


def test_the_seed_of_the_run_decides_the_shards():
    keys = {"scheme": "flwr-datasets:DealtPartitioner", "alpha": 0.3}
    one, same, other = made(5, 1, **keys), made(5, 1, **keys), made(5, 2, **keys)
    assert np.array_equal(np.sort(one.indices), np.arange(24))
    assert one.sizes.tolist() == [5, 5, 5, 5, 4]
    assert np.array_equal(one.indices, same.indices)
    assert not np.array_equal(one.indices, other.indices)


def test_a_column_of_the_data_makes_natural_shards_as_label_does_by_default():
    by_writer = made(3, scheme="flwr-datasets@0.6.1:NaturalPartitioner", partition_by="writer")
    assert [set(COLUMNS["writer"][shard]) for shard in by_writer] == [{"w0"}, {"w1"}, {"w2"}]
    by_label = made(4, scheme="flwr-datasets:NaturalPartitioner")
    assert [set(LABELS[shard]) for shard in by_label] == [{0}, {1}, {2}, {3}]


def test_arguments_are_keys_with_their_types():
    scheme = scheme_of(
        ShardingConfig.model_validate(
            {"scheme": "flwr-datasets:DealtPartitioner", "alpha": 2.0, "lost": 3, "minimum": 4}
        )
    )
    assert (scheme.alpha, scheme.lost, scheme.mode, scheme.minimum) == (2.0, 3, "dealt", 4)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            {"scheme": "flwr-datasets:DealPartitioner"},
            "no partitioner 'DealPartitioner'; did you mean DealtPartitioner or",
        ),
        ({"scheme": "flwr-datasets:Partitioner"}, "no partitioner 'Partitioner'"),
        (
            {"scheme": "flwr-datasets:DealtPartitioner", "lots": 1},
            "sharding.lots: unknown key; did you mean lost?",
        ),
        ({"scheme": "flwr-datasets:DealtPartitioner", "seed": 1}, "sharding.seed: unknown key"),
        ({"scheme": "flwr-datasets:DealtPartitioner", "lost": "x"}, "sharding.lost: must be a whole number"),
        ({"scheme": "flwr-datasets:DealtPartitioner", "mode": "x"}, "sharding.mode"),
    ],
)
def test_a_wrong_key_is_one_line(keys, said):
    (problem,) = problems(ShardingConfig.model_validate(keys))
    assert said in problem
    assert "\n" not in problem


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"scheme": "flwr-datasets:NaturalPartitioner"}, "NaturalPartitioner makes 4 shards for 5 devices"),
        (
            {"scheme": "flwr-datasets:DealtPartitioner", "lost": 2},
            "DealtPartitioner leaves 2 of 24 samples on no device and puts 0 on several",
        ),
        (
            {"scheme": "flwr-datasets:DealtPartitioner", "mode": "raise"},
            "DealtPartitioner over 5 devices: ValueError: no such partition",
        ),
        (
            {"scheme": "flwr-datasets:NaturalPartitioner", "partition_by": "nobody"},
            "NaturalPartitioner over 5 devices: KeyError: 'nobody'",
        ),
    ],
)
def test_what_gives_no_shards_says_why(keys, said):
    with pytest.raises(ConfigError) as caught:
        made(5, **keys)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
