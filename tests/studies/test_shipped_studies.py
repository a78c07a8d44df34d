"""Every study file that is shipped or in the documents is valid, and every key is documented."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fed_asi.studies.grid import expand
from fed_asi.studies.study_file import StudyConfig, VariantConfig, load_study

ROOT = Path(__file__).parents[2]
STUDIES = sorted((ROOT / "experiments" / "studies").glob("*.toml"))
PAGE = (ROOT / "docs" / "howto" / "study.md").read_text()
KEYS = (ROOT / "docs" / "reference" / "study_file.md").read_text()


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_shipped_study_is_right_and_has_a_baseline(path: Path, tmp_path: Path) -> None:
    study = load_study(path)
    runs = expand(study, tmp_path, cpus=4)
    assert study.name == path.stem
    assert study.baseline is not None
    assert len({run.cell.folder.name.casefold() for run in runs}) == len(runs)
    assert len(study.seeds) >= 3


def test_all_three_kinds_are_shipped() -> None:
    assert {load_study(path).kind for path in STUDIES} == {"quality", "cost", "robustness"}


def test_the_documented_study_is_right(tmp_path: Path) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    fleets = ROOT / "experiments" / "fleets"
    (tmp_path / "study.toml").write_text(text.replace("../fleets", str(fleets)))
    runs = expand(load_study(tmp_path / "study.toml"), tmp_path, cpus=4)
    assert [run.cell.variant for run in runs[:3]] == [
        "planner, 64 KiB",
        "planner, unlimited",
        "the fleet's own budgets",
    ]
    assert runs[0].cell.folder.name == "planner-64-kib-seed-0"  # which the page opens
    assert len(runs) == 9


@pytest.mark.parametrize(
    ("title", "model"), [("## Keys", StudyConfig), ("### Entries of variants", VariantConfig)]
)
def test_every_key_is_documented(title: str, model: type[StudyConfig]) -> None:
    part = KEYS.partition(f"{title}\n")[2].partition("\n\n| key | meaning")[0].partition("\n#")[0]
    documented = set(re.findall(r"^\| `([a-z_]+)`", part, re.MULTILINE))
    assert documented == set(model.model_fields) - {"version"}
