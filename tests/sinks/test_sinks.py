"""Each sink against a stand-in for its package: the calls, where its files go, and how a resumed run continues."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from fed_asi import sinks
from fed_asi.errors import ConfigError
from fed_asi.sinks import SINKS

VALUES = {"accuracy": 0.5, "group/a [b]/accuracy": 0.25}


class Calls(list[tuple[Any, ...]]):
    """A module, an object and a function that note how they are called."""

    def said(self, name: str, answer: Any = None) -> Any:
        def call(*args: Any, **named: Any) -> Any:
            self.append((name, *args, *named.items()))
            return answer

        return call


@pytest.fixture
def calls() -> Calls:
    return Calls()


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **parts: Any) -> None:
    module = ModuleType(name)
    vars(module).update(parts)
    monkeypatch.setitem(sys.modules, name, module)


def send(name: str, run: Path, *, resumed: bool = False) -> None:
    sink = sinks.make(name, run)
    sink.begin("a run", '{"seed": 0}', resumed)
    sink.round(3, VALUES)
    sink.end(not resumed)


def test_tensorboard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, calls: Calls) -> None:
    methods = ("add_text", "add_scalar", "flush", "close")
    writer = SimpleNamespace(**{name: calls.said(name) for name in methods})
    stand_in(monkeypatch, "torch.utils.tensorboard", SummaryWriter=calls.said("opened", writer))

    send("tensorboard", tmp_path)

    assert calls == [
        ("opened", str(tmp_path / "tensorboard")),
        ("add_text", "settings", '```json\n{"seed": 0}\n```'),
        ("add_scalar", "accuracy", 0.5, 3),
        ("add_scalar", "group/a [b]/accuracy", 0.25, 3),
        ("flush",),
        ("close",),
    ]
    calls.clear()
    send("tensorboard", tmp_path, resumed=True)
    assert "add_text" not in {name for name, *_ in calls}


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch, calls: Calls) -> None:
    begun = SimpleNamespace(info=SimpleNamespace(run_id="abc"))
    names = ("set_tracking_uri", "create_experiment", "set_experiment", "log_text", "log_metrics", "end_run")
    parts = {name: calls.said(name) for name in names}
    parts["get_experiment_by_name"] = lambda _name: None
    stand_in(monkeypatch, "mlflow", **parts, start_run=calls.said("start_run", begun))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.mark.usefixtures("mlflow")
def test_mlflow_keeps_its_files_in_the_run(tmp_path: Path, calls: Calls) -> None:
    send("mlflow", tmp_path)

    folder = tmp_path / "mlflow"
    assert calls == [
        ("set_tracking_uri", f"sqlite:///{folder}/mlflow.db"),
        ("create_experiment", "fed_asi", ("artifact_location", f"file://{folder}/artifacts")),
        ("set_experiment", "fed_asi"),
        ("start_run", ("run_name", "a run")),
        ("log_text", '{"seed": 0}', "fleet.json"),
        ("log_metrics", {"accuracy": 0.5, "group/a _b_/accuracy": 0.25}, ("step", 3)),
        ("end_run", "FINISHED"),
    ]


@pytest.mark.usefixtures("mlflow")
def test_mlflow_goes_on_with_its_run(tmp_path: Path, calls: Calls) -> None:
    send("mlflow", tmp_path)
    calls.clear()

    send("mlflow", tmp_path, resumed=True)

    assert ("start_run", ("run_id", "abc")) in calls
    assert calls[-1] == ("end_run", "FAILED")
    assert "log_text" not in {name for name, *_ in calls}


@pytest.mark.usefixtures("mlflow")
def test_mlflow_uses_a_server_that_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, calls: Calls
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")

    send("mlflow", tmp_path)

    assert calls[0][0] == "start_run"


def test_wandb_is_offline_unless_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, calls: Calls) -> None:
    run = SimpleNamespace(log=calls.said("log"), finish=calls.said("finish"))
    stand_in(monkeypatch, "wandb", init=calls.said("init", run))
    monkeypatch.delenv("WANDB_MODE", raising=False)

    send("wandb", tmp_path)
    first, log, finish = calls
    begun = dict(first[1:])

    assert (begun["mode"], begun["dir"], begun["config"]) == ("offline", str(tmp_path), {"seed": 0})
    assert log == ("log", VALUES, ("step", 3))
    assert finish == ("finish", ("exit_code", 0))
    calls.clear()
    monkeypatch.setenv("WANDB_MODE", "online")
    send("wandb", tmp_path, resumed=True)
    again = dict(calls[0][1:])
    assert (again["mode"], again["id"]) == ("online", begun["id"]), "a resumed run goes on with its own"
    assert calls[-1] == ("finish", ("exit_code", 1))


@pytest.mark.parametrize(("name", "package"), [("mlflow", "mlflow"), ("wandb", "wandb")])
def test_a_missing_package_is_one_line(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(
        ConfigError, match=rf'^sink {name}: {package} is missing: pip install "fed-asi\[{name}\]"$'
    ):
        sinks.make(name, tmp_path)


def test_an_unknown_sink_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown sink 'tensorbord'; did you mean tensorboard"):
        sinks.make("tensorbord", tmp_path)


def test_every_sink_has_an_extra() -> None:
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert all(f"\n{name} = [" in project for name in SINKS)
