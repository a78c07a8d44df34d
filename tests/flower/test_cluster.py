"""Two Ray nodes on this machine without a shared folder: weights and records as on one machine, to the bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

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
RUN = """
import pathlib, sys
from fed_asi.fleets.config import RunConfig
from fed_asi.flower.simulation import run_flower
folder = pathlib.Path(sys.argv[1])
run_flower(RunConfig.from_json((folder.parent / f"{folder.name}.json").read_text()), folder)
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


def test_nodes_without_a_common_folder_give_the_bits_of_one_machine(cluster: str, tmp_path: Path) -> None:
    run_loop(small(**SETTINGS), tmp_path / "alone")
    config = small(**SETTINGS, compute={"backend": "flower", "ray_address": cluster})
    (tmp_path / "apart.json").write_text(config.to_json())
    environment = {**os.environ, **machine(tmp_path / "server")}
    command = [sys.executable, "-c", RUN, str(tmp_path / "apart")]
    subprocess.run(command, check=True, cwd=ROOT, env=environment, timeout=550)
    assert records(tmp_path / "apart") == records(tmp_path / "alone")
    with RunStore.read(tmp_path / "apart") as store:
        assert store.exit_code() == 0
    other = tmp_path / "other"
    assert not (other / "workplaces").exists()  # it never saw the server's
    (copy,) = (other / "from_afar").glob("*/manifest.json")
    assert copy.read_bytes() == (tmp_path / "server" / "workplaces" / "apart" / "manifest.json").read_bytes()
    (marks,) = (other / "features").glob("*.rows/groups.bin")
    assert any(marks.read_bytes())  # some rows came
    assert list((tmp_path / "apart" / "devices").glob("*/round-*.pt"))  # the other node's factors among them
