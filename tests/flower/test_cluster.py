"""Two Ray nodes on this machine without a shared folder: weights and records as on one machine, to the bit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fed_asi.flower.environment import QUIET
from fed_asi.results.store import RunStore
from fed_asi.rounds.run import run_loop
from runs import records, small

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]
ROOT = Path(__file__).parents[2]
ASI = {"name": "asi-published", "layers": 2}  # whose factors outlive a round
SETTINGS = {"method": ASI, "rounds": 3, "cohort": 4}

# The cluster's own process: nodes that see different folders, until its input ends.
CLUSTER = """
import json, shutil, sys, tempfile
from ray.cluster_utils import Cluster
from fed_asi.flower.ray_start import tried
temporary = tempfile.mkdtemp(prefix="fed-asi-", dir="/tmp")  # short, as the path of a socket may be
same = {"node_ip_address": "127.0.0.1", "num_cpus": 1, "include_dashboard": False, "temp_dir": temporary}
made = []
def begin():
    made.append(Cluster())
    for environment in json.loads(sys.argv[1]):
        made[0].add_node(env_vars=environment, **same)
    made[0].wait_for_nodes()
def end():
    made.pop().shutdown()
tried(begin, end)  # a busy machine may not keep Ray's 30 seconds
print(made[0].address, flush=True)
sys.stdin.read()
end()
shutil.rmtree(temporary, ignore_errors=True)
"""
# A run, begun or resumed; its server is killed by its own hand at a round's first reply, while other devices work.
RUN = """
import os, pathlib, signal, sys
from fed_asi.fleets.config import RunConfig
from fed_asi.flower.simulation import run_flower
from fed_asi.results.progress import Unwatched
folder, killed_in, resume = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "True"
class Killer(Unwatched):
    def device_done(self, record):
        if record.round == killed_in:
            os.kill(os.getpid(), signal.SIGKILL)
config = RunConfig.from_json((folder.parent / f"{folder.name}.json").read_text())
run_flower(config, folder, resume=resume, watcher=Killer())
"""


def machine(folder: Path) -> dict[str, str]:
    """What tells a machine where its own folders are; a run's workplace has there the name it has elsewhere."""
    names = {
        "FED_ASI_WORKPLACE_DIR": "workplaces",
        "FED_ASI_FEATURES_DIR": "features",
        "FED_ASI_NODE_DIR": "from_afar",
    }
    return {key: str(folder / name) for key, name in names.items()}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """The address of a cluster of two nodes, one beside the server, one with folders of its own."""
    machines = json.dumps([machine(tmp_path / "server"), machine(tmp_path / "other")])
    environment = {**os.environ, **QUIET, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    command = [sys.executable, "-c", CLUSTER, machines]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as nodes:
        assert nodes.stdin is not None
        assert nodes.stdout is not None
        address = next(line.strip() for line in nodes.stdout if line.startswith("127.0.0.1:"))
        yield address
        nodes.stdin.close()
        nodes.wait()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The records of the same run on one machine, in one go."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    run_loop(small(**SETTINGS), folder)
    return records(folder)


def run_apart(cluster: str, folder: Path, killed_in: int = 0, resume: bool = False) -> int:
    """Do a run, or the rest of one, on the cluster, beside its first node; return the exit code of its server."""
    config = small(**SETTINGS, compute={"backend": "flower", "ray_address": cluster})
    (folder.parent / f"{folder.name}.json").write_text(config.to_json())
    environment = {**os.environ, **machine(folder.parent / "server")}
    command = [sys.executable, "-c", RUN, str(folder), str(killed_in), str(resume)]
    return subprocess.run(command, check=False, cwd=ROOT, env=environment, timeout=550).returncode


def test_nodes_without_a_common_folder_give_the_bits_of_one_machine(
    cluster: str, tmp_path: Path, alone: Any
) -> None:
    assert run_apart(cluster, tmp_path / "apart") == 0
    assert records(tmp_path / "apart") == alone
    with RunStore.read(tmp_path / "apart") as store:
        assert store.exit_code() == 0
    other = tmp_path / "other"
    assert not (other / "workplaces").exists()  # it never saw the server's
    (copy,) = (other / "from_afar").glob("*/manifest.json")
    assert copy.read_bytes() == (tmp_path / "server" / "workplaces" / "apart" / "manifest.json").read_bytes()
    (marks,) = (other / "features").glob("*.rows/groups.bin")
    assert any(marks.read_bytes())  # some rows came
    assert list((tmp_path / "apart" / "devices").glob("*/round-*.pt"))  # the other node's factors among them


def test_killed_and_resumed_it_gives_the_bits_of_a_run_in_one_go(
    cluster: str, tmp_path: Path, alone: Any
) -> None:
    """The server dies twice within a round; what the other node has is used again at first, and then gone."""
    run, other = tmp_path / "apart", tmp_path / "other"
    assert run_apart(cluster, run, killed_in=2) == -signal.SIGKILL
    assert rounds_of(run) == [0, 1]
    assert list((run / "devices").glob("*/round-000002.pt"))  # a device is ahead of the records
    (copy,) = (other / "from_afar").glob("*/manifest.json")
    held = copy.stat()
    assert run_apart(cluster, run, killed_in=3, resume=True) == -signal.SIGKILL
    assert rounds_of(run) == [0, 1, 2]
    assert copy.stat() == held  # not fetched again
    for name in ("from_afar", "features"):
        shutil.rmtree(other / name)
    assert run_apart(cluster, run, resume=True) == 0
    assert records(run) == alone
    with RunStore.read(run) as store:
        assert store.exit_code() == 0
        assert not [note for note in store.notes() if "resumed" in note or "asked again" in note]


def rounds_of(run: Path) -> list[int]:
    """Return the rounds that a run has recorded."""
    with RunStore.read(run) as store:
        return [record.round for record in store.rounds()]
