"""Fleet files: what is read, and that all errors are reported at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from fed_asi.errors import ConfigError
from fed_asi.fleets.config import MethodConfig, RunConfig
from fed_asi.fleets.file import load_config
from fleet_file import GOOD, problems_of


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
            'method.methods=["bias", "channels(pick=\'rounds\')"]',
            "method.methods[1]: method 'channels': unknown pick 'rounds'; did you mean round?",
        ),
        (
            'method.over_budget="fewer-layer"',
            "method.over_budget: unknown 'fewer-layer'; did you mean fewer-layers?",
        ),
        ("method.over_budget=3", "method.over_budget: must be text, not 3"),
        ("method.layers=0", 'method.layers: must be a number of last convolutions, "all", "any", or'),
        ("method.layers=[]", "method.layers: must be a number of last"),
        ('name="../x"', "name: '../x' becomes a folder's name"),
        ("groups=3", "groups: must be a list, not 3"),
        ("groups=[]", "groups: none"),
        ("data=5", "data: must be a table, not 5"),
        ("groups.tight.count=0", "groups[0].count: must be greater than or equal to 1, not 0"),
        ("groups.roomy.budget=0", "groups[1].budget: size 0 must be above 0 bytes"),
        ("groups.roomy.budget=1.5", "groups[1].budget: size 1.5 is neither bytes nor text"),
        ("groups.1.name=tight", "groups: 2 of them are named 'tight'"),
        ("cohort=6", "cohort: 6 devices a round, but the groups have only 5"),
        ("groups.tight.count=999999", "groups: 1,000,002 devices in all, and a run takes at most 1,000,000"),
        ("compute.workers=5", "compute.workers: 5 workers of 1 CPUs each, but this machine has 4"),
        ("groups.tight.schedule=[{round=9, budget=1}]", "groups[0].schedule: round 9 is never reached"),
        (
            "groups.tight.schedule=[{round=2, budget=1},{round=2, budget=3}]",
            "groups[0].schedule: a round is given",
        ),
        ("budgets.7=5000", "budgets: partition_id 7: the fleet has devices 0 to 4"),
        ("data.public=0", "data.public: 0 images, but model.weights"),
        ("model.name=mcunt", "model.name: unknown network 'mcunt'; did you mean mcunet"),
        ("data.source=cifar11", "data.source: unknown 'cifar11'; did you mean cifar10"),
        ("measure.twins=plan", "measure.twins: must be true, false or \"plain\", not 'plan'"),
        ("measure.groups=end", "measure.groups: unknown 'end'; did you mean ends?"),
        ("nothing", "--set 'nothing': write key=value"),
        ("name.x=1", "--set 'name.x=1': name is not a table"),
        ("groups.huge.count=1", "--set 'groups.huge.count=1': there is no groups.huge"),
        ("groups.count=1", "--set 'groups.count=1': groups is a list"),
        ("trian.lr=1", "trian: unknown key; did you mean train"),
        ("seed=9223372036854775808", "seed: must be less than or equal to 9223372036854775807"),
        ("rounds=9223372036854775808", "rounds: must be less than or equal to"),
        (
            "groups.tight.budget=9223372036854775808",
            "groups[0].budget: size 9223372036854775808 is more than 2**63 - 1",
        ),
        ("compute.threads=1000", "compute.threads: must be less than or equal to 256"),
        ("train.lr=1e300", "train.lr: must be less than or equal to 1000000000000, not 1e+300"),
        (
            "data.public=1",
            'data.public: 1 image, but model.weights = "public" trains on them first, and batch norm has',
        ),
        (
            "pretrain.batch_size=1",
            "pretrain.batch_size: 1, but batch norm has no variance of one image; use 2 or more",
        ),
        (
            "pretrain.head_epochs=3",
            'pretrain.head_epochs: 3, but model.weights = "public" trains the whole network, its head included; use',
        ),
    ],
)
def test_each_mistake_is_one_line(write, change, expected):
    problems = problems_of(write(GOOD), change)
    assert len(problems) == 1, problems
    assert problems[0].startswith(expected)


def kinds(config):
    return [family.kind for family in config.method.families]


def test_what_the_allowed_methods_are(write):
    path = write(GOOD)
    for name, allowed in [("asi", ["asi"]), ("head", []), ("bias", ["bias"])]:
        assert kinds(load_config(path, [f"method.name={name}"], cpus=4)) == allowed
    assert "quantized" in kinds(load_config(path, ["method.name=planner"], cpus=4))
    assert kinds(load_config(path, ['method.methods=["bias"]'], cpus=4)) == ["bias"]


def test_plain_vanilla_is_not_centered_unless_it_is_asked_for() -> None:
    assert not MethodConfig(name="vanilla").may_center
    assert MethodConfig(name="vanilla", centered=True).may_center
    assert MethodConfig(name="planner").may_center
    assert not MethodConfig(name="planner", centered=False).may_center


def test_a_method_name_that_the_files_own_forms_would_hide_is_refused(write):
    path = write(GOOD)
    both = ['method.methods=["asi", "vanilla"]', "method.name=vanilla"]
    assert kinds(load_config(path, both, cpus=4)) == ["asi", "vanilla"]
    demo = Path(__file__).parents[2] / "experiments" / "fleets" / "demo.toml"
    assert load_config(demo, cpus=4).method.methods == ("asi", "vanilla")
    with pytest.raises(ConfigError, match=r"--set method\.name: the file's method\.methods"):
        load_config(demo, ["method.name=vanilla"], cpus=4)


def test_storage_says_a_format_and_how_many_images(write):
    path = write(GOOD + '[storage]\nfrozen = "int8"\ncalibration_images = 16\n')
    config = load_config(path, cpus=4)
    assert (config.storage.frozen, config.storage.calibration_images) == ("int8", 16)
    plain = load_config(write(GOOD), cpus=4).storage
    assert (plain.frozen, plain.trained, plain.trunk_by) == ("float32", "float32", "layer")
    assert load_config(path, ["storage.trunk_by=channel"], cpus=4).storage.trunk_by == "channel"
    wrong = (
        'storage.frozen="int9"',
        "storage.calibration_images=0",
        "storage.trunk_by=channels",
        "storage.trained=int8",
    )
    assert problems_of(path, *wrong) == [
        "storage.frozen: unknown 'int9'; did you mean int8?",
        "storage.calibration_images: must be greater than or equal to 1, not 0",
        "storage.trained: unknown 'int8'; known: float16, float32",
        "storage.trunk_by: unknown 'channels'; did you mean channel?",
    ]
