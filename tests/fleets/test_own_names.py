"""A fleet in which every name is the user's own code: pinned, run, resumed, read; and the errors when that fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

import own_project
from fed_asi import own_code
from fed_asi.errors import ConfigError, FedAsiError
from fed_asi.fleets import own_names
from fed_asi.fleets.config import RunConfig
from fed_asi.fleets.file import load_config, read_toml
from fed_asi.results import report
from fed_asi.results.compare import compare
from fed_asi.results.store import RunStore
from fed_asi.rounds.run import run_loop
from fed_asi.workplace.address import run_fingerprint, workplace_folder
from fed_asi.workplace.ahead import look_ahead
from fed_asi.workplace.opening import open_workplace

STEMS = ["board", "half", "net", "one_size", "part", "signs", "stripes", "turns"]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A run of the project, and its fleet file, whose files note each time one of them is run."""
    folder = tmp_path_factory.mktemp("own")
    note = f"import pathlib\nwith pathlib.Path({str(folder / 'ran')!r}).open('a') as f: f.write('x')\n"
    fleet = own_project.write(folder / "project", **dict.fromkeys(STEMS, note))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FED_ASI_FEATURES_DIR", str(folder / "features"))
        run_loop(load_config(fleet), folder / "run")
    return folder, fleet


def times_run(folder: Path) -> int:
    return len((folder / "ran").read_text())


def test_every_name_is_the_projects_own_and_the_run_is_whole(project):
    folder, _ = project
    place = open_workplace(workplace_folder(folder / "run"))
    assert list(place.shards[0][:5]) == [0, 1, 2, 3, 16]
    assert "signs-and-size(scale=0.5)" in json.dumps(place.plans.profile.to_json())
    with RunStore.read(folder / "run") as store:
        assert store.exit_code() == 0
        rows = list(store.device_rounds())
        devices = {one.partition_id: one for one in store.devices()}
    assert {row.outcome for row in rows} == {"trained"}
    assert all("signs-and-size" in row.method for row in rows)
    assert {row.policy.partition("@")[0] for row in rows if row.partition_id < 2} == {"half.py"}
    assert all(row.measured_bytes <= row.planned_bytes for row in rows)
    assert {one.device_name for one in devices.values()} == {None, "board"}
    assert all(row.kept_bytes > 0 for row in rows)  # what the codec with error feedback has not sent


def test_each_file_is_run_once_in_a_process(project):
    assert times_run(project[0]) == len(STEMS)


def test_reading_a_run_runs_none_of_its_code(project, monkeypatch):
    """The code's files are gone, and the process that reads has never run them."""
    folder, _ = project
    monkeypatch.setattr(own_code, "_made", {})
    monkeypatch.setattr(own_code, "load", None)  # not even asked for
    before = times_run(folder)
    with (folder / "shown.txt").open("w") as file:
        report.show(folder / "run", Console(file=file, width=140))
    page = report.write([folder / "run"], folder / "page.html").read_text()
    assert compare(folder / "run", folder / "run").equal
    with RunStore.read(folder / "run") as store:
        assert store.config().code
        assert run_fingerprint(store.config())
    assert times_run(folder) == before
    assert "net.py@" in page
    assert "import pathlib" not in page  # its text is not among the settings that are shown


def test_settings_say_which_code_and_nothing_of_where_it_lay(project, tmp_path):
    folder, fleet = project
    config = load_config(fleet)
    assert config.model.name.startswith("net.py@")
    assert str(folder / "project") not in config.to_json().replace(str(folder / "ran"), "")
    same = load_config(own_project.write(tmp_path / "elsewhere"))
    assert run_fingerprint(same) != run_fingerprint(config)
    assert run_fingerprint(load_config(own_project.write(tmp_path / "third"))) == run_fingerprint(same)
    assert {one.partition("@")[0] for one in config.code} == {f"{stem}.py" for stem in STEMS}


def test_settings_carry_their_code_to_any_process(project, monkeypatch):
    text = load_config(project[1]).to_json()
    for kept in ("_made", "_known"):
        monkeypatch.setattr(own_code, kept, {})
    before = times_run(project[0])
    config = RunConfig.from_json(text)
    assert times_run(project[0]) == before
    assert own_code.load(config.aggregate.strategy).name == "part-of-the-way"
    damaged = json.loads(text)
    damaged["code"][next(iter(damaged["code"]))] += "#"
    with pytest.raises(ConfigError, match="other code than its name says"):
        RunConfig.from_json(json.dumps(damaged))


def test_a_run_goes_on_with_the_code_it_was_begun_with(project, tmp_path, monkeypatch):
    folder, _ = project
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(folder / "features"))
    fleet = own_project.write(tmp_path / "project")
    run_loop(load_config(fleet), tmp_path / "whole")
    run_loop(load_config(fleet), tmp_path / "half")
    with RunStore.open(tmp_path / "half") as store:
        store.forget_after(1)
        config = store.config()
    for path in fleet.parent.glob("*.py"):
        path.write_text("raise ValueError('changed')")
    run_loop(config, tmp_path / "half", resume=True)
    assert compare(tmp_path / "whole", tmp_path / "half").equal_weights


def test_what_differs_between_runs_is_the_name_with_its_hash(project, tmp_path):
    folder, _fleet = project
    other = own_project.write(tmp_path / "project")
    with RunStore.create(tmp_path / "other", load_config(other)), RunStore.read(folder / "run"):
        pass
    lines = [line for line in compare(folder / "run", tmp_path / "other").lines if line.startswith("setting")]
    assert len(lines) == len(STEMS)
    assert any(line.startswith("setting model.name: 'net.py@") for line in lines)


def test_files_of_code_are_known_without_running_them(project):
    fleet = project[1]
    found = own_names.files_of(read_toml(fleet), fleet.parent)
    assert sorted(path.stem for path in found) == STEMS


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("model.name=./none.py:build", "model.name: no file none.py in "),
        ("model.name=./net.py:bild", "model.name: net.py has no 'bild'; did you mean build?"),
        (
            "model.name=./turns.py:InTurns.owners",
            "write it as def build(num_classes, resolution, seed) -> torch.nn.Module",
        ),
        (
            "data.source=./turns.py:InTurns.owners",
            "write it as def load(folder, size) -> fed_asi.data.Dataset",
        ),
        (
            "sharding.scheme=./net.py:build",
            "sharding.scheme: net.py:build is a function, not a class; write it as a frozen",
        ),
        (
            "sharding.scheme=./part.py:Strategy",
            "is not such a dataclass; write it as a frozen dataclass with a field minimum",
        ),
        (
            "method.name=./part.py:Strategy",
            "without the base Method; write it as class Mine(fed_asi.methods.Method)",
        ),
        ("method.name=./signs.py:Method", "lacks its kind; write it as class Mine(fed_asi.methods.Method)"),
        ('method.methods=["./none.py:X"]', "method.methods[0]: no file none.py"),
        (
            "method.over_budget=./stripes.py:np.pi",
            "method.over_budget: stripes.py:np.pi is a float, not a function",
        ),
        (
            "aggregate.strategy=./part.py:Strategy",
            "aggregate.strategy: part.py:Strategy lacks its name or combine",
        ),
        ("aggregate.part=big", "aggregate.part: must be a number, not 'big'"),
        ("upload.codec=./one_size.py:Codec", "upload.codec: one_size.py:Codec lacks its name; write it as"),
        (
            'groups.roomy.device="./net.py:build"',
            "groups[1].device.preset: net.py:build is not a device; write it as Hardware.of(",
        ),
        ("model.name=no_such_package.nets:build", "a file is named ./no_such_package.py:build"),
        ("code.x=1", "code: unknown key; code is named where it is used"),
    ],
)
def test_mistakes_are_one_line_that_shows_what_is_right(project, change, said):
    with pytest.raises(ConfigError) as caught:
        load_config(project[1], [change])
    (problem,) = caught.value.problems
    assert said in problem
    assert "\n" not in problem


@pytest.mark.parametrize(
    ("stem", "was", "said"),
    [
        ("net", "return nn.Sequential(", "network 'net.py:build' cannot be built for 2 classes"),
        ("stripes", "return from_samples(", "data set 'stripes.py:load' cannot be read"),
    ],
)
def test_what_raises_when_it_is_called_is_one_line_with_its_own(tmp_path, stem, was, said):
    path = own_project.write(tmp_path / "project")
    file = path.parent / f"{stem}.py"
    file.write_text(file.read_text().replace(was, f"1 / 0\n    {was}"))
    line = file.read_text().splitlines().index("    1 / 0") + 1
    with pytest.raises(FedAsiError) as caught:
        look_ahead(load_config(path))
    assert str(caught.value).startswith(said)
    assert f"division by zero, {stem}.py, line {line}" in str(caught.value)


def test_all_mistakes_of_code_are_said_at_once(project):
    changes = ["model.name=./none.py:build", "data.source=./net.py:none", "seed=-1"]
    with pytest.raises(ConfigError) as caught:
        load_config(project[1], changes)
    assert len(caught.value.problems) == 3
