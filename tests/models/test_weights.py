"""Weights: found in folders, downloaded once and checked, and refused in one line if they do not fit."""

from __future__ import annotations

import hashlib
import re
import socket
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fed_asi import models
from fed_asi.errors import WeightsError
from fed_asi.models import download, registry, weights
from fed_asi.waiting import listening


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No weights folder, an empty cache, no proxy, and a network that answers nobody."""

    def refuse(*_: object, **__: object) -> socket.socket:
        raise OSError("no network")

    monkeypatch.delenv("FED_ASI_WEIGHTS_DIR", raising=False)
    monkeypatch.setenv("FED_ASI_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(socket, "create_connection", refuse)


def saved(path: Path, name: str = "tiny", classes: int = 10) -> Path:
    torch.save({"state_dict": models.build(name, classes, seed=5).state_dict()}, path)
    return path


def test_a_path_is_loaded_whole_or_without_its_head(tmp_path: Path) -> None:
    path = saved(tmp_path / "own.pth")
    wanted = models.build("tiny", 10, seed=5).state_dict()
    same = models.build("tiny", 10, path).state_dict()
    assert all(torch.equal(same[key], value) for key, value in wanted.items())
    other = models.build("tiny", 7, str(path)).state_dict()
    assert torch.equal(other["first_conv.conv.weight"], wanted["first_conv.conv.weight"])
    assert other["classifier.weight"].shape[0] == 7


def test_a_folder_comes_before_the_environment_and_both_before_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("argument", "environment"):
        (tmp_path / folder).mkdir()
        saved(tmp_path / folder / "mcunet-in1.pth", "mcunet")
    monkeypatch.setenv("FED_ASI_WEIGHTS_DIR", str(tmp_path / "environment"))
    assert weights.find("mcunet-in1", "imagenet").parent.name == "environment"
    assert weights.find("mcunet-in1", "imagenet", tmp_path / "argument").parent.name == "argument"


def test_the_publishers_file_name_is_found_too(tmp_path: Path) -> None:
    (tmp_path / "resnet18-f37072fd.pth").touch()
    assert weights.find("resnet18", "imagenet", tmp_path).name == "resnet18-f37072fd.pth"


def test_published_addresses_and_checksums() -> None:
    assert weights.published("resnet18") == (
        "https://download.pytorch.org/models/resnet18-f37072fd.pth",
        "f37072fd",
    )
    assert weights.published("mcunet-in3")[0].endswith("mcunet-320kb-1mb_imagenet.pth")
    assert weights.published("tiny") == ("", "")


def test_no_network_is_one_line_with_three_ways() -> None:
    with pytest.raises(WeightsError) as caught:
        models.build("mcunet", 10, "imagenet")
    text = str(caught.value)
    assert "\n" not in text
    for way in ("mcunet-in1", "FED_ASI_WEIGHTS_DIR", "name a path", "network"):
        assert way in text


def test_a_name_server_that_never_answers_is_given_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    hanging = threading.Event()

    def hang(*_: object, **__: object) -> socket.socket:
        hanging.wait(60)
        raise OSError("at last")

    monkeypatch.setattr(socket, "create_connection", hang)
    monkeypatch.setattr(download, "PATIENCE_SECONDS", 0.05)
    assert not download.reachable("https://hanlab18.mit.edu/x")
    hanging.set()


def test_a_network_nobody_publishes_weights_of_is_said() -> None:
    with pytest.raises(WeightsError, match="there are no published ImageNet weights of tiny"):
        models.build("tiny", 10, "imagenet")


def published_at(folder: Path, name: str = "weights.pth") -> tuple[str, str]:
    folder.mkdir()
    path = saved(folder / name)
    return path.as_uri(), hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_download_is_checked_and_kept(tmp_path: Path) -> None:
    url, checksum = published_at(tmp_path / "publisher")
    path = download.fetch(url, checksum[:8], tmp_path / "cache")
    Path(url.removeprefix("file://")).unlink()
    assert download.fetch(url, checksum, tmp_path / "cache") == path
    assert not list((tmp_path / "cache").glob("*.part"))


def test_building_downloads_what_the_publisher_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(weights._PUBLISHED, "tiny", published_at(tmp_path / "publisher", "tiny-1.pth"))
    wanted = models.build("tiny", 10, seed=5).classifier.weight
    assert torch.equal(models.build("tiny", 10, "imagenet").classifier.weight, wanted)
    assert (tmp_path / "cache" / "tiny-1.pth").is_file()


def test_a_wrong_checksum_is_refused_and_removed(tmp_path: Path) -> None:
    url, _ = published_at(tmp_path / "publisher")
    with pytest.raises(WeightsError, match=r"checksum .* is not the expected 00000000"):
        download.fetch(url, "00000000", tmp_path / "cache")
    assert not (tmp_path / "cache" / "weights.pth").exists()


def test_a_file_that_changed_since_its_first_download_is_refused(tmp_path: Path) -> None:
    url, _ = published_at(tmp_path / "publisher")
    path = download.fetch(url, "", tmp_path / "cache")
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(WeightsError, match="is not the expected"):
        download.fetch(url, "", tmp_path / "cache")


def test_an_address_without_a_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot be downloaded"):
        download.fetch((tmp_path / "none.pth").as_uri(), "", tmp_path / "cache")


@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04 broken"])
def test_a_file_that_holds_no_weights_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"bad\.pth"):
        models.build("tiny", 10, path)


def test_weights_of_another_network_name_the_difference(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"weights of another network: \d+ tensors differ, such as"):
        models.build("mcunet", 10, saved(tmp_path / "tiny.pth"))


def test_a_path_that_is_not_there_is_named() -> None:
    with pytest.raises(WeightsError, match="no weights file at /nowhere/x"):
        models.build("tiny", 10, "/nowhere/x")


@pytest.mark.slow
@pytest.mark.computes
def test_pretrained_features_tell_cifar10_classes_apart(weights_dir: Path, cifar10_dir: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    from fed_asi.data.images import to_batch

    with np.load(cifar10_dir / "cifar10.npz") as arrays:  # the smaller part of it
        images, labels = arrays["x_test"][:240], arrays["y_test"][:240]
    model = models.build("mcunet", 10, "imagenet", weights_dir=weights_dir).eval()
    model.classifier = torch.nn.Identity()
    with torch.no_grad():
        x = model(to_batch(images, 96, *models.normalisation("mcunet"))).numpy()
    probe = LogisticRegression(max_iter=1000).fit(x[:180], labels[:180])
    assert probe.score(x[180:], labels[180:]) > 0.35  # chance is 0.1


def test_a_file_of_before_batch_norms_counted_is_loaded(tmp_path: Path) -> None:
    """torch loads it; many published files are such."""
    wanted = models.build("tiny", 10, seed=5).state_dict()
    old = {key: value for key, value in wanted.items() if not key.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "old.pth")
    found = models.build("tiny", 10, tmp_path / "old.pth").state_dict()
    assert all(torch.equal(found[key], value) for key, value in wanted.items())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_named(tmp_path: Path, value: float) -> None:
    state = models.build("tiny", 10).state_dict()
    state["classifier.bias"][3] = value
    torch.save(state, tmp_path / "bad.pth")
    with pytest.raises(
        WeightsError, match=r"bad\.pth: 1 tensors have NaN or infinite values, such as classifier"
    ):
        models.build("tiny", 10, tmp_path / "bad.pth")


@pytest.mark.parametrize(
    "state",
    [
        {1: torch.zeros(2)},
        {"x": torch.zeros(2, device="meta")},
        {"x": torch.zeros(2).to_sparse()},
        {"x": torch.zeros(2, dtype=torch.complex64)},
        {"x": 3},
    ],
)
def test_what_is_no_plain_tensor_by_name_is_refused(tmp_path: Path, state: dict) -> None:
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(WeightsError, match="holds no state dict of plain tensors by name"):
        models.build("tiny", 10, tmp_path / "odd.pth")


def test_a_misspelt_word_for_weights_gets_the_nearest() -> None:
    with pytest.raises(WeightsError, match=r"no weights file at imagnet; did you mean imagenet\?"):
        models.build("tiny", 10, "imagnet")


class Older(nn.Module):
    """A layer that asks for the version of its weights, as torchvision's mnasnet does."""

    _version = 2

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)

    def _load_from_state_dict(self, state: dict, prefix: str, metadata: dict, *rest: object) -> None:
        assert metadata.get("version") == 2
        super()._load_from_state_dict(state, prefix, metadata, *rest)


def test_versions_of_layers_are_not_lost_on_the_way() -> None:
    weights.load_(Older(), dict(Older().state_dict()), "fc")


def test_torchvisions_files_of_older_names_and_other_heads_are_loaded() -> None:
    """densenet's norm.1, and the auxiliary heads that googlenet and inception are trained with."""
    rename = registry.find("densenet121").rename
    assert (
        rename("features.denseblock1.denselayer2.norm.1.weight")
        == "features.denseblock1.denselayer2.norm1.weight"
    )
    assert rename("features.norm0.weight") == "features.norm0.weight"
    model = nn.Sequential(nn.Linear(2, 2))
    state = {**model.state_dict(), "aux1.conv.conv.weight": torch.zeros(1)}
    assert weights.load_(model, state, "0", surplus=registry.find("googlenet").surplus)
    with pytest.raises(WeightsError, match="another network"):
        weights.load_(model, state, "0", surplus=registry.find("inception_v3").surplus)


@pytest.mark.slow
@pytest.mark.computes
@pytest.mark.parametrize(
    "name", ["densenet121", "googlenet", "inception_v3", "mnasnet0_5", "resnet18", "squeezenet1_1"]
)
def test_what_torchvisions_own_loader_accepts_is_accepted(tmp_path: Path, name: str) -> None:
    from fed_asi.models.torchvision_shim import torchvision

    quick = {"init_weights": False} if name in {"googlenet", "inception_v3"} else {}
    state = torchvision.models.get_model(name, weights=None, **quick).state_dict()
    older = re.compile(r"(denselayer\d+\.(?:norm|conv))([12])")
    published = {older.sub(r"\1.\2", k): v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    torch.save(published, tmp_path / "w.pth")
    found = models.build(name, 1000, tmp_path / "w.pth").state_dict()
    assert all(torch.equal(value, state[key]) for key, value in found.items())


def test_a_download_tells_how_far_it_is(tmp_path: Path) -> None:
    source = tmp_path / "there" / "big.pth"
    source.parent.mkdir()
    source.write_bytes(bytes(5 << 19))
    told: list[tuple[str, int, int | None]] = []
    with listening(lambda *one: told.append(one)):
        download.fetch(source.as_uri(), "", tmp_path / "kept")
    assert {text for text, _, _ in told} == {"downloading big.pth, MiB"}
    assert [(done, total) for _, done, total in told] == [(0, 3), (1, 3), (2, 3), (2, 3), (1, 1)]


def test_bars_of_another_library_are_hidden_where_anyone_listens(capsys: pytest.CaptureFixture[str]) -> None:
    def fetch() -> None:
        with download.fetching("downloading a set"):
            print("45 %", file=sys.stderr)

    told: list[int] = []
    with listening(lambda _text, done, _total: told.append(done)):
        fetch()
    assert told == [0, 1]
    assert capsys.readouterr().err == ""
    fetch()
    assert capsys.readouterr().err == "45 %\n"
