"""A workplace opened on a machine without access to its folder: the same inputs, plans and weights, and no more."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fed_asi.devices.reply import do_job
from fed_asi.devices.warm_factors import OnDisk
from fed_asi.errors import RunError
from fed_asi.workplace import afar
from fed_asi.workplace.afar import Lender, Listing, open_afar
from fed_asi.workplace.place import Workplace
from fed_asi.workplace.prepare import prepare
from runs import job, small

CONFIG = small(data={"limit": 96}, cohort=3)


class Counted(Lender):
    """The server's machine, which remembers what it was asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.pieces: list[str] = []
        self.lent: set[int] = set()

    def piece(self, name: str, start: int) -> bytes:
        if start == 0:
            self.pieces.append(name)
        return super().piece(name, start)

    def rows(self, rows: Sequence[int], use: str = "train") -> Any:
        self.lent |= set(rows)
        return super().rows(rows, use)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    """A workplace that the server prepared on its own machine."""
    folder = tmp_path_factory.mktemp("server")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FED_ASI_FEATURES_DIR", str(folder / "features"))
        patch.setenv("FED_ASI_PROFILES_DIR", str(tmp_path_factory.getbasetemp() / "profiles"))
        yield prepare(CONFIG, folder / "run" / "workplace")


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another machine's own folder."""
    monkeypatch.setenv("FED_ASI_NODE_DIR", str(tmp_path / "node"))
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path / "node" / "features"))
    return tmp_path / "node"


def test_a_device_does_the_same_and_only_its_own_rows_come(
    server: Workplace, node: Path, tmp_path: Path
) -> None:
    source = Counted(server.folder)
    place = open_afar(source, tmp_path / "nowhere")
    assert place.folder.parent == node
    assert not source.lent
    replies = [
        do_job(where, job(partition_id=2), where.reference, OnDisk(tmp_path / str(number)))
        for number, where in enumerate((server, place))
    ]
    assert replies[0].to_json() == replies[1].to_json()
    assert replies[0].tensors
    assert all(torch.equal(one, replies[1].tensors[name]) for name, one in replies[0].tensors.items())
    assert source.lent == {int(row) for row in server.shards[2]}
    again = Counted(server.folder)
    other = open_afar(again, tmp_path / "nowhere")  # another process of the same machine
    other.inputs(torch.from_numpy(other.shard(2).train))
    assert (again.pieces, again.lent) == ([], set())


def test_a_folder_that_is_seen_is_taken_as_it_is(server: Workplace, node: Path) -> None:
    source = Counted(server.folder)
    place = open_afar(source, server.folder)
    assert (place.folder, place.bring, place.fetch) == (server.folder, None, None)
    assert not node.exists()
    assert not source.pieces


@pytest.mark.parametrize("name", ["manifest.json", "base.pt", "index.npz"])
def test_a_folder_of_the_same_name_with_other_files_is_not(
    server: Workplace, node: Path, tmp_path: Path, name: str
) -> None:
    old = tmp_path / "old"
    shutil.copytree(server.folder, old)
    content = (old / name).read_bytes()
    (old / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert open_afar(Lender(server.folder), old).folder.parent == node


def test_a_copy_that_was_harmed_is_made_again(server: Workplace, node: Path, tmp_path: Path) -> None:
    folder = open_afar(Lender(server.folder), tmp_path / "nowhere").folder
    (folder / "base.pt").write_bytes(b"")
    source = Counted(server.folder)
    assert open_afar(source, tmp_path / "nowhere").folder == folder
    assert "base.pt" in source.pieces


def test_files_come_in_pieces_and_later_ones_when_they_are_asked_for(
    server: Workplace, node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(afar, "FILE_PIECE_BYTES", 1000)
    place = open_afar(Lender(server.folder), tmp_path / "nowhere")
    for name in ("base.pt", "index.npz"):
        assert (place.folder / name).read_bytes() == (server.folder / name).read_bytes()
    later = server.folder / "later.json"
    later.write_text("{}")
    assert place.file("later.json").read_text() == "{}"
    later.write_text("[]")
    assert place.file("later.json").read_text() == "[]"  # not that of another run
    later.unlink()
    with pytest.raises(RunError, match=r"never\.json cannot be read: No such file"):
        place.file("never.json")


def test_without_features_the_images_come(node: Path, tmp_path: Path) -> None:
    config = small(data={"limit": 96}, cohort=3, compute={"features": "off"})
    here = prepare(config, tmp_path / "server" / "workplace")
    place = open_afar(Lender(here.folder), tmp_path / "nowhere")
    assert place.whole is not None
    rows = torch.tensor([3, 1])
    assert torch.equal(place.inputs(rows), here.inputs(rows))


def test_what_came_otherwise_is_one_line(server: Workplace, node: Path, tmp_path: Path) -> None:
    class Lies(Lender):
        def piece(self, name: str, start: int) -> bytes:
            return super().piece(name, start)[:-1] if name == "index.npz" else super().piece(name, start)

    with pytest.raises(RunError, match=r"^index\.npz came to .* other than it was sent; start again$"):
        open_afar(Lies(server.folder), tmp_path / "nowhere")


def test_a_folder_that_cannot_be_made_is_one_line(
    server: Workplace, node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FED_ASI_NODE_DIR", str(tmp_path / "file"))
    with pytest.raises(RunError, match="set FED_ASI_NODE_DIR to another folder"):
        open_afar(Lender(server.folder), tmp_path / "nowhere")


def test_a_source_without_its_workplace_or_features_says_so(
    server: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RunError, match="no prepared workplace in"):
        Lender(tmp_path / "nowhere").listing()
    copy = tmp_path / "copy"
    shutil.copytree(server.folder, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "store": str(tmp_path / "empty")}))
    with pytest.raises(RunError, match=r"the features of this run are gone from .*; go on with --resume"):
        Lender(copy).rows([0])


def test_a_listing_names_a_folder_by_all_its_files() -> None:
    several: list[dict[str, str]] = [{"a": "1"}, {"a": "2"}, {"b": "1"}, {"a": "1", "b": "1"}]
    assert len({Listing(files, {}, code).name for files in several for code in ("x", "y")}) == 8
    assert Listing({"b": "1", "a": "2"}, {}, "x").name == Listing({"a": "2", "b": "1"}, {}, "x").name


def test_only_files_of_the_workplace_are_lent(server: Workplace) -> None:
    with pytest.raises(RunError, match="cannot be read"):
        Lender(server.folder).piece("../../../etc/hostname", 0)
    assert np.array_equal(Lender(server.folder).rows([1]), server.features[1:2].numpy())  # type: ignore[index]
