"""A study that several test files read: made once, and never changed."""

from __future__ import annotations

import pytest

from fed_asi.studies.cells import StudyRuns
from made_study import FINALS, study


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> StudyRuns:
    """Five variants: one of them has a single seed, one no finished run at all."""
    return study(
        tmp_path_factory.mktemp("study"),
        FINALS,
        baseline="plain",
        target=0.75,
        gaps={("gone", 0): "killed: out of memory"},
    )
