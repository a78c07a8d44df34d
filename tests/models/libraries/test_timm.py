"""Networks of timm by name, on a stand-in with timm's functions: the calls made, and the errors."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from fed_asi import models
from fed_asi.errors import ConfigError, WeightsError
from stand_ins import installed, without_a_hub


class _Tiny(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.conv(x).mean(dim=(2, 3)))


class _Timm:
    """timm's functions, of two networks: one for any size of image, one that is built for a size."""

    def __init__(self) -> None:
        self.asked: list[dict[str, object]] = []
        self.hub: object = {}
        about = SimpleNamespace(
            mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2), input_size=(3, 160, 160), has_weights=True
        )
        self.made_for = {
            "tinynet": about,
            "tinynet.one": about,
            "sized": SimpleNamespace(**{**vars(about), "fixed_input_size": True, "has_weights": False}),
        }

    def is_model(self, name: str) -> bool:
        return name.partition(".")[0] in self.made_for

    def list_models(self) -> list[str]:
        return ["tinynet", "sized"]

    def get_pretrained_cfg(self, name: str) -> SimpleNamespace:
        if name not in self.made_for:
            raise RuntimeError(f"Invalid pretrained tag ({name})")
        return self.made_for[name]

    def create_model(
        self, name: str, *, pretrained: bool = False, num_classes: int = 7, **own: object
    ) -> nn.Module:
        self.asked.append({"name": name, "pretrained": pretrained, "num_classes": num_classes, **own})
        if isinstance(self.hub, Exception) and pretrained:
            raise self.hub
        model = _Tiny(num_classes)
        if pretrained:
            nn.init.constant_(model.conv.weight, 0.25)
        return model


@pytest.fixture
def timm(monkeypatch, tmp_path):
    made = _Timm()
    holds = {
        one: getattr(made, one) for one in ("is_model", "list_models", "get_pretrained_cfg", "create_model")
    }
    installed(monkeypatch, tmp_path, "timm", **holds)
    without_a_hub(monkeypatch)
    return made


def test_a_network_is_built_with_its_own_statistics(timm):
    model = models.build("timm:tinynet", 5, resolution=32)
    assert timm.asked == [{"name": "tinynet", "pretrained": False, "num_classes": 5}]
    assert model.head.out_features == 5
    assert models.canonical("timm:tinynet") == "timm:tinynet"
    assert models.resolution_of("timm@1.0.31:tinynet") == 160
    assert models.normalisation("timm:tinynet") == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.2))


def test_the_seed_decides_the_weights(timm):
    one, same, other = (models.build("timm:tinynet", 5, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.conv.weight, same.conv.weight)
    assert not torch.equal(one.conv.weight, other.conv.weight)


def test_one_that_is_built_for_a_size_of_image_is_told_the_size(timm):
    models.build("timm:sized", 5, resolution=32)
    assert timm.asked == [{"name": "sized", "pretrained": False, "num_classes": 5, "img_size": 32}]


def test_weights_are_downloaded_where_they_are_asked_for_alone(timm):
    assert not torch.all(models.build("timm:tinynet", 5).conv.weight == 0.25)
    assert not any(one["pretrained"] for one in timm.asked)
    model = models.build("timm:tinynet.one", 5, "imagenet")
    assert torch.all(model.conv.weight == 0.25)
    assert model.head.out_features == 5  # the head, of another number of classes, keeps its own weights
    assert timm.asked[-1] == {"name": "tinynet.one", "pretrained": True, "num_classes": 7}


def test_weights_that_cannot_be_had_are_one_line(timm):
    timm.hub = OSError("We couldn't connect\nand much more")
    with pytest.raises(WeightsError) as caught:
        models.build("timm@1.0.31:tinynet", 5, "imagenet")
    assert str(caught.value) == (
        "no weights of timm:tinynet here, and they cannot be downloaded (We couldn't connect): connect to a network, "
        "name a path as weights, or train without weights"
    )
    with pytest.raises(WeightsError, match="timm publishes no weights of sized; name a path"):
        models.build("timm:sized", 5, "imagenet")


def test_weights_of_a_path_are_read(timm, tmp_path):
    torch.save(_Tiny(5).state_dict(), tmp_path / "mine.pth")
    models.build("timm:tinynet", 5, tmp_path / "mine.pth")
    assert not any(one["pretrained"] for one in timm.asked)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("timm:tinynett", "timm has no network 'tinynett'; did you mean tinynet?"),
        ("timm:tinynet.two", r"timm:tinynet.two: Invalid pretrained tag \(tinynet.two\)"),
        ("timm@1.0.9:tinynet", "timm:tinynet was asked of timm 1.0.9, here is 1.0.31"),
    ],
)
def test_what_timm_has_not(timm, name, said):
    with pytest.raises(ConfigError, match=said):
        models.canonical(name)
