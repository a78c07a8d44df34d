"""A fleet file with names of other libraries: that of docs/howto/libraries.md, on stand-ins for the packages."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch import nn

from fed_asi import libraries
from fed_asi.errors import ConfigError
from fed_asi.fleets import own_names
from fed_asi.fleets.config import RunConfig
from fed_asi.fleets.file import load_config, read_toml
from fed_asi.fleets.sharding import scheme_of
from fed_asi.workplace.address import run_fingerprint
from stand_ins import installed

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "libraries.md"
NET = "mobilenetv4_conv_small_035"


def have(monkeypatch: pytest.MonkeyPatch, folder: Path, version: str) -> None:
    """Install stand-ins, of which nothing but names is asked."""
    about = SimpleNamespace(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), input_size=(3, 64, 64))
    timm = {
        "is_model": lambda name: name == NET,
        "list_models": lambda: [NET],
        "get_pretrained_cfg": lambda _name: about,
        "create_model": lambda _name, **_given: nn.Linear(1, 1),
    }
    installed(monkeypatch, folder / "timm", "timm", version, **timm)
    installed(monkeypatch, folder / "datasets", "datasets", "4.8.5")


@pytest.fixture
def fleet(tmp_path):
    path = tmp_path / "writers.toml"
    path.write_text(re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)[0])
    return path


def test_versions_are_part_of_the_settings(fleet, tmp_path, monkeypatch):
    have(monkeypatch, tmp_path / "old", "1.0.31")
    config = load_config(fleet)
    assert config.model.name == f"timm@1.0.31:{NET}"
    assert config.data.source == "hf@4.8.5:flwrlabs/femnist?label=character&test=0.1"
    assert str(scheme_of(config.sharding)) == "ByColumn(column='writer_id', minimum=1)"
    assert run_fingerprint(RunConfig.from_json(config.to_json())) == run_fingerprint(config)
    have(monkeypatch, tmp_path / "new", "1.0.32")
    assert run_fingerprint(load_config(fleet)) != run_fingerprint(config)


def test_containers_need_the_packages(fleet):
    raw = read_toml(fleet)
    assert own_names.packages_of(raw) == [("model.name", "timm"), ("data.source", "hf")]
    assert own_names.files_of(raw, fleet.parent) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("model.name=timm:mobilenet", "model.name: timm has no network 'mobilenet'"),
        (
            "model.name=timm@1.0.2:resnet18",
            "model.name: timm:resnet18 was asked of timm 1.0.2, here is 1.0.31",
        ),
        ("model.name=hf:me/cats", "model.name: hf:me/cats: hf names a data set, not a network"),
        ("data.source=timm:x", "data.source: timm:x: timm names a network, not a data set"),
        (
            "data.source=hf:me/cats?lable=x",
            "data.source: unknown 'lable' in hf:me/cats?lable=x; did you mean label?",
        ),
        (
            "sharding.scheme=hf:me/cats",
            "sharding.scheme: hf:me/cats: hf names a data set, not a sharding scheme",
        ),
        ("method.name=timm:x", "method.name: unknown 'timm:x'"),
    ],
)
def test_mistakes_are_one_line(fleet, tmp_path, monkeypatch, change, said):
    have(monkeypatch, tmp_path, "1.0.31")
    with pytest.raises(ConfigError) as caught:
        load_config(fleet, [change])
    assert any(said in problem and "\n" not in problem for problem in caught.value.problems), (
        caught.value.problems
    )


def test_packages_that_are_missing_are_said_together(fleet, monkeypatch):
    def missing(name):
        raise libraries.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(libraries.metadata, "version", missing)
    with pytest.raises(ConfigError) as caught:
        load_config(fleet)
    assert caught.value.problems == [
        'model.name: a name of timm needs timm, which is missing: pip install "fed-asi[timm]"',
        'data.source: a name of hf needs datasets, which is missing: pip install "fed-asi[hf]"',
    ]
