"""What can be known before the long part of a run is said before it, all at once; nothing is trained until then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from fed_asi import data, models
from fed_asi.errors import ConfigError, FedAsiError
from fed_asi.fleets.config import RunConfig
from fed_asi.workplace import prepare as preparing
from fed_asi.workplace.splits import split_images
from fed_asi.workplace.start import check_network, check_start
from pictures import imagenet, pixels
from runs import small

PINNED = {"name": "a", "count": 6, "budget": "unlimited", "batch_size": 16, "micro_batch": 16}


def problems(config: RunConfig) -> list[str]:
    with pytest.raises(FedAsiError) as caught:
        start(config)
    return caught.value.problems if isinstance(caught.value, ConfigError) else [str(caught.value)]


def start(config: RunConfig, source: data.Dataset | None = None) -> Any:
    source = source or data.load(config.data.source)
    model = models.build(config.model.name, source.num_classes, resolution=config.model.resolution)
    return check_start(config, split_images(config, source), model, source.num_classes)


def test_what_fits_gives_the_shards() -> None:
    assert start(small()).sizes.sum() == 240


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"method": {"calibration_images": 4}, "groups": [PINNED]},
            "micro_batch: 6 devices (first 0) hold up to 16 examples at once, but plans know no more than the 4 images "
            "of the calibration; set method.calibration_images to 16 or more, or a smaller micro_batch",
        ),
        (
            {"data": {"public": 8}, "groups": [PINNED]},
            "micro_batch: 6 devices (first 0) hold up to 16 examples at once, but plans know no more than the 8 images "
            "of the calibration; set data.public to 16 or more, or a smaller micro_batch",
        ),
        (
            {"method": {"calibration": "device"}, "data": {"limit": 72}, "groups": [PINNED]},
            'method.calibration: "device", but 6 devices have fewer images to calibrate on than the micro_batch that '
            "they pin (device 0: 10 of 16)",
        ),
        (
            {"method": {"calibration": "federated"}, "data": {"limit": 72}, "groups": [PINNED]},
            'method.calibration: "federated", but 6 devices have fewer images',
        ),
        (
            {"sharding": {"minimum": 50}},
            "sharding: Dirichlet(alpha=0.5, minimum=50, balanced=True) over 6 devices needs",
        ),
        ({"sharding": {"scheme": "classes", "classes_per_device": 1}}, "sharding: ClassesPerDevice"),
        ({"data": {"limit": 5}}, "data.limit: 5 training images for 6 devices, each of which needs one"),
        (
            {"data": {"public": 1436}},
            "data: digits has 1437 training images; data.public = 1436 and data.validation = 0",
        ),
        (
            {"method": {"layers": 999}},
            "method.layers: the network has 9 convolutions, so the last 999 cannot train",
        ),
        ({"method": {"layers": ["nope"]}}, "method.layers: no layer or block 'nope'"),
        ({"method": {"layers": ["pool"]}}, "method.layers: 'pool' is a AdaptiveAvgPool2d"),
        (
            {"method": {"name": "head", "layers": ["classifer"]}},
            "method.layers: no layer or block 'classifer'",
        ),
        (
            {"model": {"name": "squeezenet1_1", "resolution": 8}},
            "network 'squeezenet1_1' at 8 x 8 pixels: it cannot",
        ),
    ],
)
def test_what_cannot_be_is_said(change: dict[str, Any], words: str) -> None:
    change = {"sharding": {"scheme": "iid", "minimum": 1}, **change}
    (problem,) = problems(small(**change))
    assert problem.startswith(words)


def test_all_is_said_at_once() -> None:
    said = problems(
        small(sharding={"minimum": 50}, method={"layers": 999, "calibration_images": 4}, groups=[PINNED])
    )
    assert [problem.partition(":")[0] for problem in said] == ["sharding", "micro_batch", "method.layers"]


def test_a_network_is_tried_at_every_resolution_that_a_device_may_take() -> None:
    group = {"name": "all", "count": 2, "budget": "unlimited", "resolution": [64, 16]}
    config = small(groups=[group], cohort=2, method={"layers": 1})
    flat = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten(), nn.Linear(2 * 32**2, 10))
    with pytest.raises(ConfigError, match="network 'tiny' at 64 x 64 pixels: it cannot take"):
        check_network(config, flat.eval(), 10)
    large = nn.Sequential(nn.Conv2d(3, 1, 17), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 10))
    with pytest.raises(ConfigError, match="network 'tiny' at 16 x 16 pixels: it cannot take"):
        check_network(config, large.eval(), 10)
    pooled = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 10))
    check_network(config, pooled.eval(), 10)


def test_where_no_test_image_is_validation_has_to_judge() -> None:
    digits = data.load("digits")
    empty = data.from_arrays(
        "own", (digits.x_train[:], digits.y_train), (pixels(0), np.zeros(0, int)), "0123456789"
    )
    with pytest.raises(ConfigError, match="own has no test images"):
        start(small(), empty)
    start(small(data={"validation": 10}), empty)


def test_an_image_that_cannot_be_read_is_found_first(tmp_path: Path) -> None:
    found = data.load("imagenet", imagenet(tmp_path), size=8)
    config = small(
        data={"public": 2, "limit": 8}, groups=[{**PINNED, "micro_batch": 1, "count": 3}], cohort=1
    )
    config = config.model_copy(update={"sharding": config.sharding.model_copy(update={"minimum": 1})})
    start(config, found)
    (tmp_path / "imagenet" / "val" / "b" / "1.png").write_bytes(b"no image")
    with pytest.raises(ConfigError, match=r"1\.png is not a readable image"):
        start(config, found)


def test_no_pretraining_begins_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "_pretrain_", lambda *_: pytest.fail("the long part began"))
    config = small(model={"weights": "public"}, method={"layers": ["nope"]})
    with pytest.raises(ConfigError, match="no layer or block"):
        preparing.prepare(
            config, tmp_path / "workplace", found=lambda _bytes: pytest.fail("said to be found")
        )


def test_methods_that_no_layer_can_take_end_the_run_before_its_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, every device failed in every round by it."""
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path / "features"))
    with pytest.raises(ConfigError, match="can be kept as mean"):
        preparing.prepare(small(method={"methods": ["mean"]}), tmp_path / "workplace")


def test_a_block_trains_its_layers_and_the_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path / "features"))
    place = preparing.prepare(small(method={"layers": ["blocks.2"]}), tmp_path / "workplace")
    assert [layer.name for layer in place.plans.profile.layers] == [
        "blocks.2.inverted_bottleneck.conv",
        "blocks.2.depth_conv.conv",
        "blocks.2.point_linear.conv",
        "classifier",
    ]
