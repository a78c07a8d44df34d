"""The feature store: the same training as with the whole network, and entries that are complete or absent."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import fx, nn

from fed_asi import models
from fed_asi.compression import cut
from fed_asi.compression.tune import tune_last_
from fed_asi.data.features import GROUP, FeatureSource, FeatureStore
from fed_asi.data.images import to_batch
from fed_asi.errors import ConfigError, RunError

HALF = (0.5, 0.5, 0.5)


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def trunk_and_tail(seed: int = 0) -> tuple[nn.Module, fx.GraphModule, fx.GraphModule]:
    model = models.build("tiny", 10, seed=seed).eval()
    return model, *cut.cut(model, tune_last_(model, 2), torch.zeros(2, 3, 32, 32))


def source(count: int = 100, seed: int = 0, dtype: str = "float32", fingerprint: str = "a") -> FeatureSource:
    return FeatureSource(trunk_and_tail(seed)[1], images(count), fingerprint, 32, HALF, HALF, dtype)


def test_features_are_the_trunks_and_come_back_as_they_were(tmp_path: Path) -> None:
    store, made = FeatureStore(tmp_path), source()
    first = store.features(made)
    again = FeatureStore(tmp_path).features(source())
    with torch.no_grad():
        wanted = made.trunk(to_batch(made.images[:GROUP], 32, HALF, HALF))
    assert first.shape == (100, *wanted.shape[1:])
    assert torch.equal(first[:GROUP], wanted)
    assert torch.equal(first, again)
    assert len(store.entries()) == 1


def test_training_from_the_store_gives_the_weights_of_the_whole_network(tmp_path: Path) -> None:
    def train(network: nn.Module, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        parameters = [p for p in network.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(parameters, lr=0.1)
        for rows in torch.arange(96).view(-1, GROUP):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(inputs[rows]), rows % 10).backward()
            optimizer.step()
        return {name: p.detach().clone() for name, p in network.named_parameters() if p.requires_grad}

    whole, _, _ = trunk_and_tail()
    _, trunk, tail = trunk_and_tail()
    pixels = images(96)
    features = FeatureStore(tmp_path).features(FeatureSource(trunk, pixels, "a", 32, HALF, HALF))
    wanted = train(whole, to_batch(pixels, 32, HALF, HALF))
    got = train(tail.eval(), features)
    assert wanted.keys() == got.keys()
    assert all(torch.equal(wanted[name], got[name]) for name in wanted)


def test_workers_change_no_bit(tmp_path: Path) -> None:
    one = FeatureStore(tmp_path / "one").features(source(), workers=1)
    three = FeatureStore(tmp_path / "three").features(source(), workers=3)
    assert torch.equal(one, three)


def test_the_thread_count_of_the_process_is_left_as_it_was(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    FeatureStore(tmp_path).features(source(), workers=2)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    "other",
    [{"seed": 1}, {"dtype": "float16"}, {"fingerprint": "b"}, {"count": 99}],
    ids=lambda change: next(iter(change)),
)
def test_whatever_changes_the_features_changes_the_entry(tmp_path: Path, other: dict) -> None:
    store = FeatureStore(tmp_path)
    store.features(source())
    store.features(source(**other))
    assert len(store.entries()) == 2


def test_layers_with_the_same_weights_but_other_settings_are_other_trunks(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    for stride in (1, 2):
        conv = nn.Sequential(nn.Conv2d(3, 2, 3, stride=stride), nn.Flatten(), nn.Identity())
        with torch.no_grad():
            conv[0].weight.fill_(0.1)
            conv[0].bias.fill_(0.0)
        trunk = fx.symbolic_trace(conv.eval())
        store.features(FeatureSource(trunk, images(4), "a", 32, HALF, HALF))
    assert len(store.entries()) == 2


def test_float16_halves_the_bytes(tmp_path: Path) -> None:
    full, half = (
        FeatureStore(tmp_path).features(source()),
        FeatureStore(tmp_path).features(source(dtype="float16")),
    )
    assert half.dtype is torch.float16
    assert torch.equal(full.half(), half)


def test_progress_counts_every_image(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    FeatureStore(tmp_path).features(source(), progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (100, 100)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_kept_features_cannot_be_changed_through_the_tensor(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    features = store.features(source())
    wanted = features.clone()
    features.zero_()
    assert torch.equal(store.features(source()), wanted)


class StopError(Exception):
    pass


def test_an_interrupted_build_goes_on_where_it_stopped(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise StopError

    store = FeatureStore(tmp_path)
    with pytest.raises(StopError):
        store.features(source(200), workers=1, progress=stop)
    assert [name.endswith(".part") for name in store.entries()] == [True]
    seen: list[int] = []
    resumed = store.features(source(200), progress=lambda done, _: seen.append(done))
    assert seen[0] > GROUP
    assert torch.equal(resumed, FeatureStore(tmp_path / "fresh").features(source(200)))


def test_a_damaged_group_is_computed_again(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise StopError

    store = FeatureStore(tmp_path)
    with pytest.raises(StopError):
        store.features(source(200), workers=1, progress=stop)
    (part,) = tmp_path.glob("*.part/features.npy")
    with part.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 64)
    assert torch.equal(store.features(source(200)), FeatureStore(tmp_path / "fresh").features(source(200)))


def test_a_truncated_entry_is_made_again(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    wanted = store.features(source()).clone()
    (entry,) = tmp_path.glob("*/features.npy")
    os.truncate(entry, entry.stat().st_size - 1)
    assert torch.equal(store.features(source()), wanted)


BUILD = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_features import source
from fed_asi.data.features import FeatureStore
store = FeatureStore(Path({folder!r}))
print("ready", flush=True)
def told(done, total):
    print(done, flush=True)
    sys.stdin.readline()  # whoever is to be killed here is held here, however quick the machine
features = store.features(source(3000), workers=1, progress=told)
print("sum", features.double().sum().item())
"""


def builder(folder: Path, held: bool = False) -> subprocess.Popen[str]:
    script = BUILD.format(tests=str(Path(__file__).parent), folder=str(folder))
    stdin = subprocess.PIPE if held else subprocess.DEVNULL
    return subprocess.Popen([sys.executable, "-c", script], stdin=stdin, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_killed_build_and_two_builders_at_once_end_with_one_whole_entry(tmp_path: Path) -> None:
    killed = builder(tmp_path, held=True)
    assert killed.stdout is not None
    assert killed.stdout.readline().strip() == "ready"
    assert killed.stdout.readline().strip().isdigit(), "the builder ended before its first group"
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert len(list(tmp_path.glob("*.part"))) == 1
    pair = [builder(tmp_path) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0].splitlines() for process in pair]
    assert [process.returncode for process in pair] == [0, 0]
    assert sum("3000" in lines for lines in outputs) <= 1  # the other one waited and built nothing
    features = FeatureStore(tmp_path).features(source(3000))
    assert {lines[-1] for lines in outputs} == {f"sum {features.double().sum().item()}"}
    assert torch.equal(features, FeatureStore(tmp_path / "fresh").features(source(3000)))


def test_the_entry_used_longest_ago_makes_room(tmp_path: Path) -> None:
    size = source().compute(0)[:1].nbytes * 100
    store = FeatureStore(tmp_path, limit_bytes=2 * size + 1000)
    keys = []
    for fingerprint in "ab":
        store.features(source(fingerprint=fingerprint))
        keys.append((set(store.entries()) - set(keys)).pop())
    store.features(source(fingerprint="a"))
    store.features(source(fingerprint="c"))
    assert keys[0] in store.entries()
    assert keys[1] not in store.entries()
    assert len(store.entries()) == 2


def test_an_entry_in_use_is_never_evicted(tmp_path: Path) -> None:
    size = source().compute(0)[:1].nbytes * 100
    store = FeatureStore(tmp_path, limit_bytes=int(1.5 * size))
    used = store.features(source())
    with pytest.raises(ConfigError, match=r"do not fit the store's limit"):
        store.features(source(fingerprint="b"))
    del used
    store.features(source(fingerprint="b"))
    assert len(store.entries()) == 1


def test_an_entry_above_the_limit_is_an_error_with_both_sizes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"features of .* KiB do not fit .* 1.0 KiB"):
        FeatureStore(tmp_path, limit_bytes=1024).features(source())


def test_an_unknown_number_format_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'int8'"):
        FeatureStore(tmp_path).features(source(dtype="int8"))


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"the feature store in .*file"):
        FeatureStore(tmp_path / "file" / "store").features(source())


def test_whoever_builds_again_and_again_lets_others_in(tmp_path: Path) -> None:
    store, order = FeatureStore(tmp_path), list[str]()

    def wait_for_it() -> None:
        with store.building("key"):
            order.append("the other")

    with store.building("key"):
        other = threading.Thread(target=wait_for_it)
        other.start()
        while free(tmp_path / "key.turn"):
            time.sleep(0.001)
    with store.building("key"):
        order.append("the first again")
    other.join()
    assert order == ["the other", "the first again"]


def free(lock: Path) -> bool:
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
