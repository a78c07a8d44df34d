"""What docs/own_code.md shows of networks of timm and data sets of Hugging Face, on stand-ins for both."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from torch import nn

import own_project
from fed_asi import data, models, own_code


@pytest.fixture
def named(tmp_path, monkeypatch):
    """Write a file of the page, let it find a library, and return the pinned name of what is in it."""

    def _named(file, what, library, **holds):
        module = ModuleType(library)
        vars(module).update(holds)
        monkeypatch.setitem(sys.modules, library, module)
        monkeypatch.setattr(own_code, "_made", {})
        (tmp_path / file).write_text(own_project.of_the_page()[file])
        pinned = own_code.pin(f"./{file}:{what}", tmp_path)
        own_code.know(pinned.files)
        return pinned.name

    return _named


def test_a_network_of_timm(named):
    asked = []

    def create_model(name, *, num_classes):
        asked.append(name)
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, num_classes))

    model = models.build(named("timm_net.py", "build", "timm", create_model=create_model), 5, resolution=8)
    assert model[1].out_features == 5
    assert asked == ["mobilenetv2_035"]


def test_a_data_set_of_hugging_face(named, tmp_path):
    image = SimpleNamespace(convert=lambda mode: np.full((4, 4, len(mode)), 7, dtype=np.uint8))
    rows = [{"img": image, "label": 1}, {"img": image, "label": 0}]
    asked = []

    class Part(list):
        features: ClassVar = {"label": SimpleNamespace(names=["a", "b"])}

    def load_dataset(name, *, cache_dir):
        asked.append((name, cache_dir))
        return {"train": Part(rows * 2), "test": Part(rows)}

    name = named("hf_images.py", "load", "datasets", load_dataset=load_dataset)
    found = data.load(name, tmp_path)
    assert asked == [("uoft-cs/cifar10", str(tmp_path))]
    assert found.x_train.shape == (4, 4, 4, 3)
    assert list(found.y_test) == [1, 0]
    assert list(found.class_names) == ["a", "b"]
