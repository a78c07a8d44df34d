"""The grid: every run once, with its own checked settings; a problem of several runs is reported once."""

from __future__ import annotations

from pathlib import Path

import pytest

from fed_asi.errors import ConfigError
from fed_asi.fleets.fleet import build
from fed_asi.studies.grid import PlannedRun, count, expand, folder_names
from fed_asi.studies.study_file import load_study
from study_files import STUDY, write_study

HEAD = 'name = "a"\nfleet = "fleet.toml"\n'


def runs_of(folder: Path, text: str = STUDY) -> tuple[PlannedRun, ...]:
    return expand(load_study(write_study(folder, text)), folder / "runs", cpus=2)


def problems_of(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        runs_of(folder, text)
    return caught.value.problems


def test_every_variant_has_every_seed_and_its_own_settings(tmp_path: Path) -> None:
    runs = runs_of(tmp_path)
    assert [(run.cell.variant, run.cell.seed) for run in runs] == [
        ("96 KiB", 0),
        ("unlimited", 0),
        ("96 KiB", 1),
        ("unlimited", 1),
    ]
    assert count(load_study(tmp_path / "study.toml")) == 4
    first, last = runs[0], runs[-1]
    assert first.cell.settings == {"budget": "96 KiB"}
    assert first.cell.folder == tmp_path / "runs" / "96-kib-seed-0"
    assert first.cell.gap is None
    assert (first.config.seed, first.config.name, first.config.train.lr) == (0, "96-kib-seed-0", 0.1)
    assert first.config.compute.backend == "loop"
    assert last.config.seed == 1
    assert len({run.cell.folder for run in runs}) == 4


def test_a_budget_for_everyone_is_every_devices_in_every_round(tmp_path: Path) -> None:
    fleet = build(runs_of(tmp_path)[0].config)
    found = {device.resources_at(round).budget_bytes for device in fleet for round in (1, 2)}
    assert found == {96 * 1024}


def test_variants_set_keys_at_once_and_keep_the_files_own_elsewhere(tmp_path: Path) -> None:
    text = f"""{HEAD}
[grid]
seed = [0, 1]
train.lr = [0.1, 0.2]
[[variants]]
name = "as it is"
[[variants]]
name = "head, less"
set = {{ method.name = "head", budget = "8 KiB", groups.roomy.budget = "16 KiB" }}
axes = []
"""
    runs = runs_of(tmp_path, text)
    assert [run.cell.variant for run in runs[:3]] == ["as it is, lr 0.1", "as it is, lr 0.2", "head, less"]
    assert runs[2].cell.settings == {"variant": "head, less"}
    assert runs[0].cell.settings == {"variant": "as it is", "train.lr": 0.1}
    config = runs[2].config
    assert config.method.name == "head"
    assert [group.budget for group in config.groups] == [8 * 1024, 16 * 1024]
    assert runs[0].config.groups[0].schedule


def test_keys_can_be_taken_out_and_every_group_meant_at_once(tmp_path: Path) -> None:
    text = f"""unset = ["groups.*.schedule", "method.layers"]\n{HEAD}[grid]\ngroups.*.batch_size = [8]"""
    (run,) = runs_of(tmp_path, text.replace("groups.*.batch_size", '"groups.*.batch_size"'))
    assert [group.batch_size for group in run.config.groups] == [8, 8]
    assert [group.schedule for group in run.config.groups] == [(), ()]
    assert run.config.method.layers == 4
    assert run.cell.variant == "batch_size 8"
    wrong = f"""unset = ["groups.*.micro_batch", "methd.name"]\n{HEAD}"""
    assert problems_of(tmp_path, wrong) == [
        "unset: there is no groups.*.micro_batch",
        "unset: there is no methd",
    ]


def test_faults_are_shared_out_and_named(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, f"{HEAD}[grid]\nfaults = [0.0, 0.3]")
    assert [run.cell.variant for run in runs] == ["no device fails", "30 % of devices fail"]
    assert [run.config.faults.late for run in runs] == [0.0, pytest.approx(0.1)]


def test_exclusions_leave_runs_out(tmp_path: Path) -> None:
    text = f'{STUDY}\n[[exclude]]\nbudget = "96 KiB"\nseed = 1\n'
    assert [run.cell.folder.name for run in runs_of(tmp_path, text)] == [
        "96-kib-seed-0",
        "unlimited-seed-0",
        "unlimited-seed-1",
    ]
    everything = f'{HEAD}[grid]\nbudget = ["8 KiB"]\n[[exclude]]\nbudget = "8 KiB"\n'
    assert problems_of(tmp_path, everything) == ["exclude: no run is left"]
    nothing = (
        f"{HEAD}[grid]\ntrain.lr = [1.0]\n[[exclude]]\ntrain.lr = 1\n"  # a whole number is another value
    )
    assert problems_of(tmp_path, nothing) == ["exclude[0]: no run has train.lr = 1"]


def test_a_baseline_must_be_in_the_grid(tmp_path: Path) -> None:
    assert problems_of(tmp_path, STUDY.replace('baseline = "unlimited"', 'baseline = "unlimted"')) == [
        "baseline: 'unlimted' is not a variant of the grid;  did you mean unlimited?"
    ]
    many = f'baseline = "x"\n{HEAD}[grid]\ntrain.epochs = {list(range(1, 15))}'
    assert problems_of(tmp_path, many) == [
        "baseline: 'x' is not a variant of the grid;  there are 14, such as 'epochs 1'"
    ]


def test_a_problem_of_many_runs_is_said_once_with_how_many(tmp_path: Path) -> None:
    text = f"""{HEAD}
[grid]
seed = [0, 1, 2]
method.name = ["asi", "asii"]
train.lr = [0.1, -0.1]
groups.tihgt.budget = ["8 KiB"]
trian.lr = [1]
"""
    said = problems_of(tmp_path, text)
    assert said[0] == "groups.tihgt.budget: there is no groups.tihgt"
    assert "trian: unknown key; did you mean train or pretrain?" in said
    wrong = [one for one in said if one.endswith("and 1 more)")]
    assert wrong[0].startswith("train.lr: must be greater than 0, not -0.1 (asi, train.lr -0.1, ")
    assert wrong[1].startswith("method.name: unknown 'asii'; did you mean asi? (asii, train.lr 0.1, ")
    assert len(said) == 4


def test_a_method_that_the_files_own_forms_would_hide_is_said(tmp_path: Path) -> None:
    fleet = write_study(tmp_path).parent / "fleet.toml"
    text = fleet.read_text().replace("[method]", '[method]\nmethods = ["asi"]')
    path = write_study(tmp_path, f'{HEAD}[grid]\nmethod.name = ["asi", "vanilla"]', text)
    with pytest.raises(ConfigError) as caught:
        expand(load_study(path), tmp_path)
    (said,) = caught.value.problems
    assert said.startswith("method.name: the file's method.methods")


def test_labels_that_would_share_a_folder_are_told_apart_by_what_they_say() -> None:
    labels = ["8 KiB", "8-kib", "变体", "a" * 300, "tight"]
    names = folder_names(labels)
    assert names["tight"] == "tight"
    assert len({name.casefold() for name in names.values()}) == len(labels)
    assert all(len(name) < 100 and name[0].isalnum() for name in names.values())
    assert folder_names(["变体", "b"])["变体"] == names["变体"]


def test_two_variants_that_come_out_alike_are_said(tmp_path: Path) -> None:
    text = f"""{HEAD}
[grid]
train.lr = [0.1]
[[variants]]
name = "a"
[[variants]]
name = "a, lr 0.1"
axes = []
"""
    assert problems_of(tmp_path, text) == ["variants: 2 of them come out as 'a, lr 0.1'; name them apart"]
