"""The image is built once; afterwards it is removed, with all containers, networks and volumes of the tests."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fed_asi.results.store import RunStore
from tests.compose.stack import FLEET, IMAGE, ROOT, docker, engine_answers

ROUNDS = 3


@pytest.fixture(scope="session")
def image() -> str:
    """The image of this checkout."""
    if not engine_answers():
        if os.environ.get("FED_ASI_NEEDS_ENGINE"):  # asked for by name: a skip would look like a pass
            pytest.fail("no container engine answers; start one, or leave the container tests out")
        pytest.skip("skipped: no container engine")
    docker("compose", "--file", str(ROOT / "docker-compose.yml"), "build", timeout=1500)
    return IMAGE


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The weights (sha256) after each round of the same fleet in one plain process, without containers."""
    out = tmp_path_factory.mktemp("simulated")
    code = "import sys; from fed_asi.commands.main import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "run", str(FLEET), "--backend", "loop", "--out", str(out)]
    for setting in (f"rounds={2 * ROUNDS}", "train.lr_schedule=constant"):
        command += ["--set", setting]
    subprocess.run(command, check=True, capture_output=True, timeout=400)
    with RunStore.read(out / "compose") as store:
        return [str(record.weights_sha256) for record in store.rounds()]
