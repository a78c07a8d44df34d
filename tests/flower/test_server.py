"""The server under `flwr run`: its fleet file, its folder, its run, and an error if a run is incomplete."""

from __future__ import annotations

from pathlib import Path

import pytest
from flwr.app import Context, RecordDict

from fed_asi.errors import ConfigError, RunError
from fed_asi.flower import server
from fed_asi.flower.server import find_fleet, run_folder, serve, waiting_for
from fed_asi.results.store import RunStore
from memory_grid import Error, MemoryGrid, Message, brief
from runs import small

FLEET = """
name = "served"
rounds = 1
cohort = 2
[model]
name = "tiny"
weights = "none"
[data]
public = 32
limit = 60
test_limit = 32
[method]
name = "vanilla"
layers = 1
calibration_images = 8
[[groups]]
name = "all"
count = 2
budget = "unlimited"
batch_size = 16
"""


@pytest.fixture(autouse=True)
def _settings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path_factory.getbasetemp() / "features"))
    monkeypatch.setenv("FED_ASI_PROFILES_DIR", str(tmp_path_factory.getbasetemp() / "profiles"))
    monkeypatch.setattr(server, "waiting_for", lambda deployed, _config: brief(one_by_one=deployed))


def context(**run_config: str | bool) -> Context:
    return Context(1, 1, {}, RecordDict(), {"fleet": "fleet.toml", **run_config})


@pytest.mark.parametrize("deployed", [False, True])
def test_a_run_is_served_and_recorded(deployed: bool, tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text(FLEET)
    serve(tmp_path, MemoryGrid.of(2), context(out=str(tmp_path / "runs"), deployed=deployed))
    with RunStore.read(tmp_path / "runs" / "served") as store:
        assert store.exit_code() == 0
        assert [row.outcome for row in store.device_rounds(1)] == ["trained", "trained"]


def test_a_node_that_gets_no_jobs_is_noted_in_the_records(tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text(FLEET)
    grid = MemoryGrid.of(2)
    grid.instead[grid.node_of(1)] = lambda message, _context: Message(Error(2, "broken"), reply_to=message)
    serve(tmp_path, grid, context(out=str(tmp_path / "runs")))
    with RunStore.read(tmp_path / "runs" / "served") as store:
        assert f"node {grid.node_of(1)} gets no jobs: broken" in store.notes()
        assert [row.outcome for row in store.device_rounds(1)] == ["trained", "failed"]


def test_a_run_that_is_not_whole_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fleet.toml").write_text(FLEET)
    monkeypatch.setattr(server, "conduct", lambda *_given: None)
    with pytest.raises(RunError, match=r"1 of 1 rounds did not happen \(exit code 1\)"):
        serve(tmp_path, MemoryGrid.of(2), context(out=str(tmp_path / "runs")))


def test_a_fleet_file_is_looked_for_here_and_beside_the_app(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "fleet.toml").touch()
    monkeypatch.chdir(tmp_path)
    assert find_fleet("fleet.toml", tmp_path / "app") == tmp_path / "app" / "fleet.toml"
    (tmp_path / "fleet.toml").touch()
    assert find_fleet("fleet.toml", tmp_path / "app") == Path("fleet.toml")
    with pytest.raises(ConfigError, match="no fleet file nothing"):
        find_fleet("nothing.toml", tmp_path)


def test_a_run_goes_on_in_its_folder_or_has_a_new_one(tmp_path: Path) -> None:
    config, out = small(), str(tmp_path)
    assert run_folder(config, out, resume=True) == (tmp_path / "small", False)
    assert run_folder(config, out, resume=False) == (tmp_path / "small", False)
    RunStore.create(tmp_path / "small", config).close()
    assert run_folder(config, out, resume=True) == (tmp_path / "small", True)
    assert run_folder(config, out, resume=False) == (tmp_path / "small-2", False)


def test_deployed_devices_all_work_at_once_and_are_heard_one_by_one() -> None:
    config = small(compute={"workers": 2})
    deployed, simulated = waiting_for(True, config), waiting_for(False, config)
    assert (deployed.parallel, deployed.one_by_one) == (None, True)
    assert (simulated.parallel, simulated.one_by_one) == (2, False)
    assert not deployed.stop()
