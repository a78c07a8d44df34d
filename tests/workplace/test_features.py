"""Engines that compute a run's features: noted, part of the address, and torch if an engine refuses the trunk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import fx

from fed_asi.data import engines
from fed_asi.errors import RunError
from fed_asi.fleets.config import RunConfig
from fed_asi.results.progress import Unwatched
from fed_asi.workplace import features
from fed_asi.workplace.opening import open_workplace
from fed_asi.workplace.place import Workplace
from fed_asi.workplace.prepare import prepare
from runs import small


class Beside:
    """Stands in for ONNX Runtime: computes the trunk by torch, and adds what rounding might."""

    def __init__(self, trunk: fx.GraphModule) -> None:
        self.trunk = trunk

    def run(self, _outputs: None, inputs: dict[str, Any]) -> list[Any]:
        with torch.inference_mode():
            return [self.trunk(torch.from_numpy(inputs["images"])).numpy() * (1 + 1e-6)]


@pytest.fixture(autouse=True)
def _stands_in(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path_factory.getbasetemp() / "engines" / "features"))
    monkeypatch.setenv("FED_ASI_PROFILES_DIR", str(tmp_path_factory.getbasetemp() / "profiles"))
    monkeypatch.setattr(engines, "PACKAGES", ("numpy",))
    monkeypatch.setattr(engines, "_written", lambda trunk, _example: trunk)
    monkeypatch.setattr(engines, "_session", Beside)


def config(engine: str = "onnxruntime", **changes: Any) -> RunConfig:
    data = {"source": "digits", "public": 16, "limit": 80, "test_limit": 16}
    return small(data=data, method={"calibration_images": 8}, compute={"trunk_engine": engine}, **changes)


def keys(place: Workplace) -> tuple[str, str]:
    manifest = json.loads((place.folder / "manifest.json").read_text())
    return manifest["features"], manifest["test_features"]


def test_its_features_are_kept_apart_and_made_again_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path / "features"))
    by_torch = prepare(config("torch"), tmp_path / "torch")
    by_it = prepare(config(), tmp_path / "it")
    assert not set(keys(by_torch)) & set(keys(by_it))
    (note,) = set(by_it.notes) - set(by_torch.notes)
    assert note.startswith("features: computed by numpy ")
    assert by_it.features is not None
    assert by_torch.features is not None
    assert not torch.equal(by_it.features, by_torch.features)
    torch.testing.assert_close(by_it.features, by_torch.features, rtol=1e-4, atol=1e-6)

    kept = by_it.features.clone()
    shutil.rmtree(tmp_path / "features")
    again = open_workplace(by_it.folder).features
    assert again is not None
    assert torch.equal(again, kept)

    shutil.rmtree(tmp_path / "features")
    monkeypatch.setattr(engines, "PACKAGES", ("scipy",))  # another release of it, say
    with pytest.raises(RunError, match="torch or the trunk's engine are not those that the run began with"):
        open_workplace(by_it.folder)


@pytest.mark.few(1)
@pytest.mark.parametrize("why", ["no kernel", "float16"])
def test_where_it_does_not_take_the_trunk_torch_does_and_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    def refuses(_model: object) -> None:
        raise RuntimeError("no kernel")

    monkeypatch.setattr(engines, "_session", refuses)
    storage = {"frozen": "float16"} if why == "float16" else {}
    by_torch = prepare(config("torch", storage=storage), tmp_path / "torch")
    fallen_back = prepare(config(storage=storage), tmp_path / "it")
    assert keys(fallen_back) == keys(by_torch)
    (note,) = set(fallen_back.notes) - set(by_torch.notes)
    said = "storage.frozen is float16" if why == "float16" else "no kernel"
    assert note == f"features: computed by torch, ONNX Runtime does not take this trunk: {said}"


def test_whoever_makes_features_on_a_gpu_makes_them_in_whole_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    done = list[str]()

    @contextmanager
    def exact(device: str) -> Iterator[None]:
        done.append(f"exact on {device}")
        yield
        done.append("as before")

    monkeypatch.setattr(features, "exact", exact)
    store: Any = SimpleNamespace(features=lambda _source, **_: done.append("made"))
    source: Any = SimpleNamespace(images=[0], device="a GPU")
    features.made(source, store, "train", Unwatched(), lambda: None)
    assert done == ["exact on a GPU", "made", "as before"]
