"""The texts and figures of plans, and `fed-asi plan` itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fed_asi.commands import main as command
from fed_asi.methods import ASI, BiasOnly, Quantized, Vanilla
from fed_asi.planning.plan import Plan
from fed_asi.planning.profile import Profile
from fed_asi.planning.rivals import captured_share, next_better
from fed_asi.planning.search import plan, smallest_plan_bytes
from fed_asi.planning.tables import breakdown, diff_table


def main(words: list[str]) -> int:
    return command.main(["plan", *words])


TINY = ["--model", "tiny", "--weights", "none", "--resolution", "16", "--last", "2", "--micro-batch", "1"]


@pytest.fixture(scope="module", autouse=True)
def _few_images() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fed_asi.commands.plan.EXAMPLES", 16)
        yield


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile and two plans that the command wrote."""
    folder = tmp_path_factory.mktemp("plans")
    common = [*TINY, "--profile", str(folder / "profile.json")]
    assert main([*common, "--budget", "1 KiB", "--save", str(folder / "a.json")]) == 0
    figure = ["--figure", str(folder / "new" / "$x$" / "plan.svg")]
    assert main([*common, "--budget", "8 KiB", "--save", str(folder / "b.json"), *figure]) == 0
    return folder


def test_forms_are_said_in_words() -> None:
    assert ASI((1, 8, 4, 4), bits=8, centered=True).text() == "Tucker 1x8x4x4 in 8 bits, centred"
    assert Quantized(4).text() == "4 bits"
    assert Vanilla().text() == "whole"
    assert BiasOnly().text() == "bias only"


def test_the_command_says_what_is_kept_and_what_rivals_reach(
    saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TINY, "--profile", str(saved / "profile.json"), "--budget", "300 B"]) == 0
    text = capsys.readouterr().out
    for word in (
        "budget 300 B",
        "micro-batch 1",
        "classifier",
        "masks",
        "head only",
        "bias only",
        "captured",
    ):
        assert word in text
    assert "time of 16 samples" in text


def test_the_plan_of_the_command_is_the_planners(saved: Path) -> None:
    profile = Profile.load(saved / "profile.json")
    assert Plan.load(saved / "a.json") == plan(profile, "1 KiB", micro_batch=1)
    assert (saved / "new" / "$x$" / "plan.svg").read_text().startswith("<?xml")


def test_the_next_better_budget_is_the_smallest_one(saved: Path) -> None:
    profile = Profile.load(saved / "profile.json")
    ours = plan(profile, smallest_plan_bytes(profile, micro_batch=1), micro_batch=1)
    better = next_better(profile, ours, micro_batch=1)
    assert better is not None
    wanted = ours.value + 0.01 * plan(profile, None, micro_batch=1).value
    assert better.value >= wanted
    assert plan(profile, better.planned_bytes - 1, micro_batch=1).value < wanted
    whole = plan(profile, None, micro_batch=1)
    assert next_better(profile, whole, micro_batch=1) is None
    assert "No larger budget captures" in breakdown(profile, whole, micro_batch=1)


def test_two_plans_side_by_side(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--diff", str(saved / "a.json"), str(saved / "b.json")]) == 0
    text = capsys.readouterr().out
    assert "planned_bytes" in text
    assert "budget_bytes" in text
    one = Plan.load(saved / "a.json")
    assert diff_table(one, one) == "the plans are equal"


def test_a_schedule_is_planned_ahead(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    profile = str(saved / "profile.json")
    ahead = ["--schedule", "9=1 B", "--schedule", "5=1 KiB", "--wide"]
    assert main([*TINY, "--profile", profile, "--budget", "8 KiB", *ahead]) == 0
    _, first, second, third = capsys.readouterr().out.strip().splitlines()
    assert first.split()[:3] == ["1", "8.0", "KiB"]
    assert second.split()[0] == "5"
    assert "layers" in second
    assert "below the smallest plan" in third
    for wrong in ("5", "1=1 KiB", "x=1 KiB"):
        assert main([*TINY, "--profile", profile, "--schedule", wrong]) == 2
        assert "write ROUND=BUDGET" in capsys.readouterr().err


def test_a_whole_device_is_planned_by_ram_and_flash(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    device = [*TINY, "--profile", str(saved / "profile.json"), "--methods", "vanilla", "--flash", "1 MiB"]
    save = ["--save", str(tmp_path / "plan.json"), "--update", "layer", "--reserve", "1 KiB"]
    assert main([*device, "--ram", "64 KiB", *save]) == 0
    text = capsys.readouterr().out
    for word in ("classifier", "trained weights", "trunk", "RAM", "flash", "largest there"):
        assert word in text
    for row in ("this plan", "with 16 KiB more RAM", "head only", "last ", "biases"):
        assert f"\n{row}" in text
    assert main([*device, "--ram", "64 KiB", "--update", "any", "--storage", "any"]) == 0
    assert "frozen weights are stored as float32" in capsys.readouterr().out
    assert Plan.load(tmp_path / "plan.json").methods
    assert main([*device, "--ram", "64 KiB", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["captured"] == captured_share(
        Plan.from_json(json.dumps(told["plan"])), Profile.load(saved / "profile.json")
    )
    assert told["ram_bytes"] <= 64 * 1024
    assert main([*device, "--ram", "2 KiB"]) == 2
    assert "ram 2.0 KiB is below the smallest step" in capsys.readouterr().err
    assert main([*device, "--ram", "64 KiB", "--trunk-by", "channel", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ram_bytes"] <= told["ram_bytes"]
    assert main([*device, "--ram", "64 KiB", "--trained-as", "float16", "--json"]) == 0
    half = json.loads(capsys.readouterr().out)
    assert half["captured"] >= told["captured"]
    assert half["ram_bytes"] <= 64 * 1024
    for words in (["--reserve", "1 KiB"], ["--trunk-by", "channel"], ["--trained-as", "float16"]):
        assert main([*TINY, *words]) == 2
        assert f"{' '.join(words)}: needs --ram or --flash" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.computes
def test_of_several_resolutions_the_largest_with_a_plan_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    words = [*TINY, "--resolution", "16,32", "--methods", "bias,vanilla", "--update", "layer", "--wide"]
    assert main([*words, "--ram", "20 KiB"]) == 0
    text = capsys.readouterr().out
    table = {line.split("  ")[0]: line for line in text.splitlines() if " x " in line.split("  ")[0]}
    assert "does not fit: ram 20.0 KiB is below the smallest step" in table["32 x 32"]
    assert "%" in table["16 x 16"]
    assert text.index("32 x 32") < text.index("16 x 16") < text.index("classifier")
    assert main([*words, "--ram", "20 KiB", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["resolution"] == 16
    assert told["ram_bytes"] <= 20 * 1024
    assert main([*words, "--ram", "2 KiB"]) == 2
    assert "at 16 x 16 pixels: ram 2.0 KiB is below the smallest step" in capsys.readouterr().err


def test_several_resolutions_need_what_chooses_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    for words, why in (
        (["--resolution", "16,32"], "--resolution 16,32: of several a plan chooses with --ram or --flash"),
        (["--resolution", "16,16", "--ram", "1 MiB"], "names a resolution twice: [16, 16]"),
        (["--resolution", "16,", "--ram", "1 MiB"], "--resolution 16,: pixels of a square input"),
        (
            ["--resolution", "16,32", "--ram", "1 MiB", "--profile", "p.json"],
            "--profile: keeps the calibration",
        ),
    ):
        assert main([*TINY, *words]) == 2
        assert why in capsys.readouterr().err


def test_tables_print_as_profiles_and_plans_do(saved: Path) -> None:
    profile = Profile.load(saved / "profile.json")
    assert "classifier" in str(profile)
    assert "kept as" in str(plan(profile, None))


def test_what_is_wrong_is_said_in_one_line(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = str(tmp_path / "none.json")
    for words, said in (
        (["--budget", "16 KiB"], "--model"),
        (["--model", "mcunett"], "unknown network"),
        (["--diff", str(saved / "a.json"), nowhere], "none.json cannot be read"),
        (
            ["--model", "tiny", "--weights", "none", "--source", "cifar10", "--data-dir", str(tmp_path)],
            "cifar10",
        ),
        ([*TINY, "--resolution", "24", "--profile", str(saved / "profile.json")], "input_shape"),
    ):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert said in error
        assert len(error.splitlines()) == 1


def test_what_cannot_be_written_is_said_before_the_long_part(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("fed_asi.commands.plan._calibration", lambda _arguments: pytest.fail("too late"))
    (tmp_path / "file").touch()
    for words, said in (
        (["--save", str(tmp_path / "file" / "a.json")], f"{tmp_path / 'file'} is not a folder"),
        (["--profile", str(tmp_path / "file" / "b.json")], f"{tmp_path / 'file'} is not a folder"),
        (["--figure", str(tmp_path / "file" / "c.svg")], f"{tmp_path / 'file'} is not a folder"),
        (["--figure", "x.xyz"], "--figure x.xyz: a picture's name ends in .svg or .png or .pdf"),
        (["--figure", "x"], "--figure x: a picture's name ends in .svg or .png or .pdf"),
        (["--save", str(tmp_path)], "it is a folder"),
    ):
        assert main([*TINY, *words]) == 2
        err = capsys.readouterr().err
        assert said in err
        assert len(err.splitlines()) == 1


NEW = ["--model", "tiny", "--weights", "none"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--last", "999"], "--last 999: the network has 9 convolutions"),
        (["--last", "-2"], "--last -2: a count of last convolutions"),
        (["--resolution", "0"], "--resolution 0: pixels of a square input, from 8 to 1024"),
        (["--micro-batch", "0"], "--micro-batch 0: examples in memory at one time, from 1 to 1024"),
        (["--ram", "banana"], "--ram: size 'banana' is not understood"),
        (["--schedule", "2=banana"], "size 'banana' is not understood"),
        (["--layers", ","], "--layers ',': names with commas"),
        (["--methods", " "], "--methods ' ': names with commas"),
        (["--layers", "nope"], "no layer or block 'nope'"),
        (
            ["--resolution", "8", "--model", "squeezenet1_1"],
            "network 'squeezenet1_1' at 8 x 8 pixels: it cannot take",
        ),
    ],
)
def test_numbers_and_names_that_are_nothing_are_said(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*NEW, *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"fed-asi: {said}")
    assert len(error.splitlines()) == 1


def test_wrong_arguments_are_said_together(capsys: pytest.CaptureFixture[str]) -> None:
    several = ["--last", "-1", "--resolution", "0", "--micro-batch", "0", "--budget", "2MB"]
    assert main([*NEW, *several]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1 + 4


def test_a_count_of_zero_is_the_head_alone_and_a_block_its_layers(capsys: pytest.CaptureFixture[str]) -> None:
    small = [*NEW, "--resolution", "8", "--micro-batch", "1"]
    assert main([*small, "--last", "0"]) == 0
    assert "point_linear" not in capsys.readouterr().out
    assert main([*small, "--last", "2", "--layers", "blocks.2.point_linear,classifier"]) == 0
    assert "blocks.2.point_linear.conv" in capsys.readouterr().out
