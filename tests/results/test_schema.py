"""The records' names, which other people's queries use: none may be removed or change its meaning."""

from __future__ import annotations

from dataclasses import fields

import pytest

from fed_asi.results.schema import (
    FILE_NAME,
    SCHEMA_VERSION,
    TIMES,
    DeviceRecord,
    DeviceRoundRecord,
    GroupRoundRecord,
    RoundRecord,
    RunRecord,
)

COLUMNS = {
    RunRecord: """name status config versions seed threads backend created_at ended_at cause weights_sha256
        schema_version""",
    DeviceRecord: "partition_id group_name budget_bytes batch_size micro_batch num_examples",
    RoundRecord: """round asked trained loss accuracy worst_class_accuracy lr host_seconds bytes_up bytes_down
        weights_sha256""",
    DeviceRoundRecord: """round partition_id outcome cause policy method budget_bytes planned_bytes measured_bytes
        published_bytes micro_batch ranks trained_layers num_examples steps loss_before loss_after accuracy_before
        accuracy_after host_seconds bytes_up bytes_down accumulator_bytes optimizer_bytes weight_bytes
        transient_bytes factors_bytes gradient_captured twin_measured_bytes twin_loss_after twin_accuracy_after
        twin_cosine twin_norm_ratio strategy_bytes kept_bytes""",
    GroupRoundRecord: "round group_name devices num_examples loss accuracy device_accuracy device_accuracy_error",
}


@pytest.mark.parametrize("record", COLUMNS, ids=lambda record: record.__name__)
def test_columns_of_version_1_are_there(record):
    assert set(COLUMNS[record].split()) <= {field.name for field in fields(record)}


def test_the_file_and_its_version_are_what_runs_already_have():
    assert (FILE_NAME, SCHEMA_VERSION) == ("run.sqlite", 1)


def test_only_times_may_differ_between_equal_runs():
    assert {"host_seconds", "created_at", "ended_at"} == TIMES
