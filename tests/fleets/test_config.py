"""Fleet files: what is read, and that everything wrong in one is said at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fed_asi.errors import ConfigError
from fed_asi.fleets import fleet
from fed_asi.fleets.checks import check
from fed_asi.fleets.config import MethodConfig, RunConfig
from fed_asi.fleets.file import load_config

GOOD = """
name = "small"
rounds = 4
cohort = 3
[[groups]]
name = "tight"
count = 2
budget = "64 KiB"
batch_size = 16
micro_batch = 4
schedule = [{round = 3, budget = "32 KiB"}]
[[groups]]
name = "roomy"
count = 3
budget = "unlimited"
"""


@pytest.fixture
def write(tmp_path: Path):
    def _write(text: str, name: str = "fleet.toml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return _write


def problems_of(path: Path, *overrides: str, cpus: int = 4) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides, cpus=cpus)
    return caught.value.problems


def test_a_good_file_says_what_it_says(write):
    config = load_config(write(GOOD), cpus=4)
    assert (config.name, config.rounds, config.cohort, config.num_devices) == ("small", 4, 3, 5)
    assert config.groups[0].budget == 65536
    assert config.groups[1].budget is None
    assert config.groups[0].schedule[0].budget == 32768
    assert config.train.lr == 0.05


def test_resolved_settings_survive_json(write):
    config = load_config(
        write(GOOD + '[[devices]]\npartition_id = 1\nbudget = "1 MiB"\n[budgets]\n4 = 5000\n'), cpus=4
    )
    assert RunConfig.from_json(config.to_json()) == config
    assert config.budgets == {4: 5000}


@pytest.mark.parametrize("text", ["", "{}", '{"version": 2}', "[1]"])
def test_json_of_something_else_is_named(text):
    with pytest.raises(ConfigError, match="resolved settings"):
        RunConfig.from_json(text)


def test_five_mistakes_are_five_lines(write):
    text = (
        GOOD.replace("cohort = 3", "cohort = 30\ncolour = 3")
        .replace('"64 KiB"', '"64 KB"')
        .replace("micro_batch = 4", "micro_batch = 40")
        + '[train]\nlr_shedule = "cosine"\n[compute]\ncpus_per_client = 64\n'
    )
    problems = problems_of(write(text))
    assert len(problems) == 6
    for expected in (
        "colour: unknown key",
        "train.lr_shedule: unknown key; did you mean lr_schedule?",
        "groups[0].budget: size '64 KB': KB means 1000 to some and 1024 to others; write KiB",
        "cohort: 30 devices a round, but the groups hold only 5",
        "groups[0].micro_batch: 40 is more than its batch_size 16",
        "compute.cpus_per_client: 64, but this machine has 4 CPUs",
    ):
        assert any(problem.startswith(expected) for problem in problems), (expected, problems)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("rounds=0", "rounds: must be greater than or equal to 1, not 0"),
        ("rounds=true", "rounds: must be a whole number, not True"),
        ('rounds="4"', "rounds: must be a whole number, not '4'"),
        ("train.lr=nan", "train.lr: must be"),
        ("train.lr=-1", "train.lr: must be greater than 0, not -1"),
        ("train.epochs=1.5", "train.epochs: must be a whole number, not 1.5"),
        ('method.name="asy"', "method.name: unknown 'asy'; did you mean asi?"),
        (
            'method.methods=["asi", "quantised"]',
            "method.methods[1]: unknown 'quantised'; did you mean quantized?",
        ),
        ("method.methods=[]", "method.methods: empty"),
        (
            'method.over_budget="fewer-layer"',
            "method.over_budget: unknown 'fewer-layer'; did you mean fewer-layers?",
        ),
        ("method.over_budget=3", "method.over_budget: must be text, not 3"),
        ("method.layers=0", 'method.layers: must be a count of last convolutions, "all", "any", or'),
        ("method.layers=[]", "method.layers: must be a count"),
        ('name="../x"', "name: '../x' becomes a folder's name"),
        ("groups=3", "groups: must be a list, not 3"),
        ("groups=[]", "groups: none"),
        ("data=5", "data: must be a table, not 5"),
        ("groups.tight.count=0", "groups[0].count: must be greater than or equal to 1, not 0"),
        ("groups.roomy.budget=0", "groups[1].budget: size 0 must be above 0 bytes"),
        ("groups.roomy.budget=1.5", "groups[1].budget: size 1.5 is neither bytes nor text"),
        ("groups.1.name=tight", "groups: 2 of them are named 'tight'"),
        ("cohort=6", "cohort: 6 devices a round, but the groups hold only 5"),
        ("compute.workers=5", "compute.workers: 5 workers of 1 CPUs each, but this machine has 4"),
        ("groups.tight.schedule=[{round=9, budget=1}]", "groups[0].schedule: round 9 never comes"),
        (
            "groups.tight.schedule=[{round=2, budget=1},{round=2, budget=3}]",
            "groups[0].schedule: a round is given",
        ),
        ("budgets.7=5000", "budgets: partition_id 7: the fleet has devices 0 to 4"),
        ("data.public=0", "data.public: 0 images, but model.weights"),
        ("model.name=mcunt", "model.name: unknown network 'mcunt'; did you mean mcunet"),
        ("data.source=cifar11", "data.source: unknown 'cifar11'; did you mean cifar10"),
        ("nothing", "--set 'nothing': write key=value"),
        ("name.x=1", "--set 'name.x=1': name is not a table"),
        ("groups.huge.count=1", "--set 'groups.huge.count=1': there is no groups.huge"),
        ("groups.count=1", "--set 'groups.count=1': groups is a list"),
        ("trian.lr=1", "trian: unknown key; did you mean train"),
    ],
)
def test_each_mistake_is_one_line(write, change, expected):
    problems = problems_of(write(GOOD), change)
    assert len(problems) == 1, problems
    assert problems[0].startswith(expected)


def test_a_broken_count_hides_no_other_problem_and_makes_none_up(write):
    problems = problems_of(write(GOOD), "groups.tight.count=0", "cohort=5", "train.lr=0")
    assert len(problems) == 2


def test_devices_twice_or_outside_are_named(write):
    devices = "".join(f"[[devices]]\npartition_id = {i}\nbudget = 9000\n" for i in (1, 1, 9))
    assert problems_of(write(GOOD + devices)) == [
        "devices: partition_id 1 is given 2 times",
        "devices: partition_id 9: the fleet has devices 0 to 4",
    ]


def test_csv_gives_budgets_and_its_bad_lines_have_numbers(write):
    csv = write("partition_id,budget\n# a comment\n0,8 KiB\n\n3,unlimited\n", "budgets.csv")
    path = write(f'budgets_csv = "{csv.name}"\n' + GOOD)
    assert load_config(path, cpus=4).budgets == {0: 8192, 3: None}
    csv.write_text("0,8 KiB\nx,3\n2,lots\n0,5\n1,2,3\n99,4 KiB\n")
    problems = problems_of(path)
    assert [problem.split(":")[0] for problem in problems] == [
        "budgets.csv line 2",
        "budgets.csv line 3",
        "budgets.csv line 4",
        "budgets.csv line 5",
        "budgets.csv",
    ]
    assert "99" in problems[-1]


def test_a_missing_csv_is_one_line(write):
    (problem,) = problems_of(write('budgets_csv = "none.csv"\n' + GOOD))
    assert problem.startswith("budgets_csv:")
    assert problem.endswith("No such file or directory")


def test_files_that_are_none(write, tmp_path):
    path = write(GOOD)
    assert problems_of(tmp_path / "fleat.toml") == [
        f"no file {tmp_path}/fleat.toml; did you mean fleet.toml?"
    ]
    assert "cannot be read" in problems_of(tmp_path)[0]
    path.write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8" in problems_of(path)[0]
    path.write_text("name = \nrounds = 3")
    assert "is not TOML" in problems_of(path)[0]
    assert "line 1" in problems_of(path)[0]


@pytest.mark.parametrize(
    ("change", "read"),
    [
        ("train.lr=0.2", lambda c: c.train.lr == 0.2),
        ("name=other", lambda c: c.name == "other"),
        ('groups.tight.budget="7 KiB"', lambda c: c.groups[0].budget == 7168),
        ("groups.tight.budget=7 KiB", lambda c: c.groups[0].budget == 7168),
        ("groups.1.count=9", lambda c: c.num_devices == 11),
        ('method.layers=["a.b", "c"]', lambda c: c.method.layers == ("a.b", "c")),
        ("method.layers=all", lambda c: c.method.layers == "all"),
        ("train.clip_norm=5", lambda c: c.train.clip_norm == 5),
    ],
)
def test_overrides(write, change, read):
    assert read(load_config(write(GOOD), [change], cpus=4))


def test_what_the_allowed_methods_are(write):
    path = write(GOOD)
    for name, allowed in [("asi", ("asi",)), ("head", ()), ("bias", ("bias",))]:
        assert load_config(path, [f"method.name={name}"], cpus=4).method.allowed == allowed
    assert "quantized" in load_config(path, ["method.name=planner"], cpus=4).method.allowed
    assert load_config(path, ['method.methods=["bias"]'], cpus=4).method.allowed == ("bias",)


def test_the_loop_needs_no_free_cpus(write):
    assert load_config(write(GOOD), ["compute.backend=loop", "compute.cpus_per_client=64"], cpus=1)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is not a bug
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=5,
    ),
    st.sampled_from(["groups", "cohort", "train", "devices", "budgets", "method", "name"]),
)
def test_no_value_anywhere_makes_another_error(value, key):
    from fed_asi.fleets.file import _validate

    raw = {"name": "x", "cohort": 1, "groups": [{"name": "a", "count": 1, "budget": 5}], key: value}
    config, broken, problems = _validate(raw)
    assert config is not None
    found = [*problems, *check(config, broken, 4)]
    assert all("\n" not in problem for problem in found)


def test_fleet_follows_groups_lines_and_devices(write):
    devices = "[budgets]\n0 = 9000\n2 = 8000\n[[devices]]\npartition_id = 2\nbudget = 7000\nbatch_size = 2\n"
    built = fleet.build(load_config(write(GOOD + devices), cpus=4))
    assert [device.partition_id for device in built] == [0, 1, 2, 3, 4]
    assert [device.group for device in built] == ["tight", "tight", "roomy", "roomy", "roomy"]
    assert [device.resources.budget_bytes for device in built] == [9000, 65536, 7000, None, None]
    assert (built[2].resources.batch_size, built[0].resources.micro_batch) == (2, 4)


def test_plain_vanilla_is_not_centered_unless_it_is_asked_for() -> None:
    assert not MethodConfig(name="vanilla").may_center
    assert MethodConfig(name="vanilla", centered=True).may_center
    assert MethodConfig(name="planner").may_center
    assert not MethodConfig(name="planner", centered=False).may_center


def test_a_method_name_that_the_files_own_forms_would_hide_is_refused(write):
    path = write(GOOD)
    both = ['method.methods=["asi", "vanilla"]', "method.name=vanilla"]
    assert load_config(path, both, cpus=4).method.allowed == ("asi", "vanilla")
    demo = Path(__file__).parents[2] / "experiments" / "fleets" / "demo.toml"
    assert load_config(demo, cpus=4).method.methods == ("asi", "vanilla")
    with pytest.raises(ConfigError, match=r"--set method\.name: the file's method\.methods"):
        load_config(demo, ["method.name=vanilla"], cpus=4)
