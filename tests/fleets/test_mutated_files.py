"""Fleet files, CSVs and data sets with mistakes, run by the real command: one line per problem, or a real run.

Never a traceback, never "an error in this program", never exit 0 if no device trained.
"""

from __future__ import annotations

import contextlib
import io
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from fed_asi.commands.main import main
from fed_asi.results.store import RunStore
from fleet_file import toml
from fleet_mutations import BASE, CSV, arrays, write_case_


def check_case(folder: Path) -> int:
    """Return the exit code of the command, after holding it to what it promises."""
    said, out = io.StringIO(), folder / "runs"
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = main(["run", str(folder / "fleet.toml"), "--backend", "loop", "--out", str(out)])
    text = said.getvalue()
    assert "Traceback" not in text
    assert "an error in this program" not in text, text
    assert code in {0, 1, 2}, text
    if code == 2:
        check_lines(text)
        assert not out.exists() or not list(out.glob("*/run.sqlite")), (
            "a run that never began left its folder"
        )
        return code
    (run,) = out.iterdir()
    with RunStore.read(run) as store:
        outcomes = {row.outcome: row.cause for row in store.device_rounds()}
    assert "failed" not in outcomes, outcomes
    assert (code == 0) == ("trained" in outcomes), outcomes
    return code


def check_lines(text: str) -> None:
    """Hold what is said to one line a problem, behind whatever was said of the run before it failed."""
    lines = text[text.index("fed-asi: ") :].rstrip("\n").split("\n")
    count = lines[0].removeprefix("fed-asi: ").partition(" problems")
    expected = int(count[0]) + 1 if count[1] and not count[2] else 1
    assert len(lines) == expected, text
    assert all(len(line) < 2000 for line in lines), text


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> Iterator[None]:
    """No network, no pictures, a store of features of its own, and the signal handlers back afterwards."""

    def refuse(*_: object, **__: object) -> socket.socket:
        raise OSError("no network")

    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        for name in ("FED_ASI_DATA_DIR", "FED_ASI_WEIGHTS_DIR", "FED_ASI_WORKPLACE_DIR", "FED_ASI_DEBUG"):
            patch.delenv(name, raising=False)
        patch.setenv("FED_ASI_FEATURES_DIR", f"{folder}/features")
        patch.setenv("FED_ASI_CACHE_DIR", f"{folder}/cache")
        patch.setattr(socket, "create_connection", refuse)
        patch.setattr("fed_asi.results.figures.draw", lambda _summaries, **_how: {})
        yield
    for number, handler in kept.items():
        signal.signal(number, handler)


QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]


def run_a_case(data: st.DataObject, *, own_networks: bool = False) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_case_(data.draw, Path(folder), own_networks=own_networks)
        check_case(Path(folder))


def test_the_files_without_mistakes_run(tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text("\n".join(f"{key} = {toml(value)}" for key, value in BASE.items()))
    (tmp_path / "own.csv").write_text(CSV)
    np.savez(tmp_path / "mine.npz", **arrays())
    assert check_case(tmp_path) == 0


@settings(max_examples=10, derandomize=True, deadline=None, database=None, suppress_health_check=QUIET)
@given(st.data())
def test_ten_files_with_mistakes(data: st.DataObject) -> None:
    run_a_case(data, own_networks=True)


@pytest.mark.slow
@pytest.mark.computes
@pytest.mark.parametrize("part", range(8))
def test_two_thousand_files_with_mistakes(part: int) -> None:
    """Try 250 of them, the same in every run, so that a change alone decides; other seeds try others."""
    many = settings(max_examples=250, deadline=None, database=None, suppress_health_check=QUIET)

    def one(data: st.DataObject) -> None:
        run_a_case(data)

    seed(part)(many(given(st.data())(one)))()
