"""A profile is calibrated once for all runs with the same numbers, and never used for others."""

from __future__ import annotations

from pathlib import Path

import pytest

from fed_asi.planning import calibration
from fed_asi.planning.profile import Profile
from fed_asi.workplace.kept_profiles import PROFILES_DIR, kept_profile
from fed_asi.workplace.prepare import prepare
from runs import small

BASE: dict[str, object] = {"method": {"calibration_images": 8, "layers": 1}}


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What has been calibrated so far."""
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path / "features"))
    monkeypatch.delenv(PROFILES_DIR, raising=False)  # other tests keep theirs, and may have made this one
    calls: list[object] = []
    profile = calibration.profile
    monkeypatch.setattr(
        calibration, "profile", lambda *given, **more: calls.append(given) or profile(*given, **more)
    )
    return calls


def group(budget: str) -> list[dict[str, object]]:
    return [{"name": "all", "count": 6, "budget": budget, "batch_size": 16}]


def test_runs_that_differ_in_budgets_share_it_to_the_bit(
    made: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(small(**BASE), tmp_path / "alone")
    monkeypatch.setenv(PROFILES_DIR, str(tmp_path / "profiles"))
    for number, budget in enumerate(("96 KiB", "1 MiB", "unlimited")):
        prepare(small(**BASE, groups=group(budget)), tmp_path / str(number))
    assert len(made) == 2
    texts = {(tmp_path / name / "profile.json").read_text() for name in ("alone", "0", "1", "2")}
    assert len(texts) == 1


@pytest.mark.few(2)
@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 2},
        {"method": {"calibration_images": 12, "layers": 1}},
        {"method": {"calibration_images": 8, "layers": 2}},
        {"method": {"calibration_images": 8, "layers": 1, "name": "bias"}},
        {"model": {"weights": "none", "resolution": 40}},
    ],
    ids=str,
)
def test_whatever_changes_its_numbers_makes_another(
    made: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object]
) -> None:
    monkeypatch.setenv(PROFILES_DIR, str(tmp_path / "profiles"))
    prepare(small(**BASE), tmp_path / "one")
    prepare(small(**{**BASE, **changes}), tmp_path / "two")
    assert len(made) == 2


def test_a_damaged_one_is_made_again(
    made: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PROFILES_DIR, str(tmp_path / "profiles"))
    prepare(small(**BASE), tmp_path / "one")
    (kept,) = (tmp_path / "profiles").glob("*.json")
    whole = kept.read_text()
    kept.write_text(whole[:100])
    prepare(small(**BASE), tmp_path / "two")
    assert len(made) == 2
    assert kept.read_text() == whole


def test_without_a_folder_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PROFILES_DIR, raising=False)
    made = Profile.__new__(Profile)
    assert kept_profile({}, lambda: made) is made
