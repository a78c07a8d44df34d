"""What the kernel reports about a container's memory."""

from __future__ import annotations

import pytest

from deploy import memory


@pytest.mark.parametrize(
    ("files", "limit", "kills"),
    [
        ({"v2/memory.max": "671088640\n", "v2/memory.events": "low 0\noom 3\noom_kill 2\n"}, 671088640, 2),
        ({"v2/memory.max": "max\n", "v2/memory.events": "oom_kill 0\n"}, None, 0),
        (
            {"v1/memory.limit_in_bytes": "733\n", "v1/memory.oom_control": "under_oom 0\noom_kill 1\n"},
            733,
            1,
        ),
        ({"v1/memory.limit_in_bytes": "9223372036854771712\n"}, None, 0),
        ({}, None, 0),
    ],
)
def test_memory_reads_both_versions_of_control_groups(tmp_path, files, limit, kills):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert memory.limit_bytes(tmp_path / "v1", tmp_path / "v2") == limit
    assert memory.killed_by_kernel_count(tmp_path / "v1", tmp_path / "v2") == kills
