"""Strategies and codecs on Flower and Ray: the same bits as the loop, also when devices keep state between rounds."""

from __future__ import annotations

from pathlib import Path

import pytest

from fed_asi.results.store import RunStore
from fed_asi.rounds.run import run_loop
from flower_runs import flower
from runs import records, small

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]
CASES = {
    "scaffold": {"aggregate": {"strategy": "scaffold"}},
    "fedadam, top-k": {"aggregate": {"strategy": "fedadam"}, "upload": {"codec": "top-k"}},
}


@pytest.mark.parametrize("case", CASES)
def test_flower_gives_the_loops_bits_also_when_it_goes_on(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path / "features"))
    changes = {"rounds": 3, "cohort": 4, **CASES[case]}
    run_loop(small(**changes), tmp_path / "loop")
    on_flower = {**changes, "compute": {"backend": "flower", "workers": 2}}
    flower(tmp_path / "flower", **on_flower)
    assert records(tmp_path / "flower") == records(tmp_path / "loop")
    with RunStore.open(tmp_path / "flower") as store:
        assert any(row.kept_bytes for row in store.device_rounds())
        store.forget_after(2)
    flower(tmp_path / "flower", resume=True, **on_flower)  # in new processes: Flower's own state is gone
    assert records(tmp_path / "flower") == records(tmp_path / "loop")
