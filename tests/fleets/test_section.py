"""The base of every table: nothing is guessed, and nothing changes afterwards."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from fed_asi.fleets.section import Bytes, Count, PartitionId, Section


class Table(Section):
    size: Bytes = None
    count: Count = 1
    partition_id: PartitionId = 0
    share: float = 0.5


def test_sizes_are_bytes_and_a_key_of_a_table_may_be_text() -> None:
    made = Table.model_validate({"size": "2 KiB", "partition_id": "7", "share": 1})
    assert (made.size, made.partition_id, made.share) == (2048, 7, 1.0)
    assert Table.model_validate({"size": "unlimited"}).size is None


@pytest.mark.parametrize(
    "wrong",
    [{"size": "2 KB"}, {"count": "1"}, {"count": 0}, {"partition_id": -1}, {"share": float("nan")}, {"x": 1}],
)
def test_nothing_is_guessed(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Table.model_validate(wrong)


def test_it_stays_as_it_is() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Table().count = 2  # type: ignore[misc]
