"""Engines that compute a trunk instead of torch: numbers and addresses, trunks they refuse, and missing packages."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import fx, nn

from fed_asi import models
from fed_asi.compression import cut
from fed_asi.compression.tune import tune_last_
from fed_asi.data import engines
from fed_asi.data.engines import AT_ONCE, OnnxRuntime, check_installed, onnx_runtime
from fed_asi.data.features import FeatureSource, FeatureStore, key_of
from fed_asi.errors import ConfigError, UnsupportedLayerError

HALF = (0.5, 0.5, 0.5)
installed = pytest.mark.skipif(bool(engines.missing()), reason='skipped: pip install "fed-asi[fast]"')


class Session:
    """Stands in for ONNX Runtime's: notes the size of each batch, and gives a number an image, and one a place."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def run(self, _outputs: None, inputs: dict[str, object]) -> list[object]:
        (images,) = inputs.values()
        self.sizes.append(len(images))  # type: ignore[arg-type]
        return [images.mean(axis=(1, 2, 3))]  # type: ignore[attr-defined]


def trunk_of(name: str, resolution: int) -> fx.GraphModule:
    model = models.build(name, 10, resolution=resolution, seed=0).eval()
    trunk, _ = cut.cut(model, tune_last_(model, 2), torch.zeros(2, 3, resolution, resolution))
    return cut.folded(trunk)


def pictures(count: int, resolution: int = 32) -> torch.Tensor:
    return torch.randn(count, 3, resolution, resolution, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("count", [1, AT_ONCE, 20])
def test_batches_are_all_of_one_size_and_what_fills_them_is_left_out(count: int) -> None:
    session, images = Session(), pictures(count)
    found = OnnxRuntime(session, "stands in")(images)
    assert set(session.sizes) == {AT_ONCE}
    torch.testing.assert_close(found, images.mean(dim=(1, 2, 3)))


def test_its_features_have_an_address_of_their_own(tmp_path: Path) -> None:
    trunk, session = trunk_of("tiny", 32), Session()
    images = torch.randint(0, 256, (9, 32, 32, 3), generator=torch.Generator().manual_seed(0)).byte().numpy()
    sources = [
        FeatureSource(trunk, images, "a", 32, HALF, HALF, engine=engine)
        for engine in (None, OnnxRuntime(session, "1.0"), OnnxRuntime(session, "1.1"))
    ]
    assert len({key_of(one) for one in sources}) == 3
    assert "engine" not in sources[0].about(), "those of before are found"
    assert FeatureStore(tmp_path).features(sources[1], workers=1).shape == (9,)


def test_without_it_one_line_says_how_it_is_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "PACKAGES", ("numpy", "no-such-package"))
    with pytest.raises(ConfigError) as raised:
        onnx_runtime(trunk_of("tiny", 32), pictures(1))
    assert str(raised.value) == (
        '"onnxruntime" needs no-such-package, which is missing: pip install "fed-asi[fast]", or leave it "torch"'
    )
    monkeypatch.setattr(engines, "PACKAGES", ("numpy",))
    check_installed()


@pytest.mark.parametrize("why", ["raises", "another shape", "other numbers", "not a number"])
def test_a_trunk_that_it_does_not_take_is_named(monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    class Wrong(Session):
        def run(self, _outputs: None, inputs: dict[str, object]) -> list[object]:
            (images,) = inputs.values()
            if why == "raises":
                raise RuntimeError("no kernel for Frobnicate\nat line 3")
            wrong = {
                "another shape": images[:, 0],
                "other numbers": images + 1e-3,
                "not a number": images * torch.nan,
            }
            return [wrong[why]]  # type: ignore[index]

    monkeypatch.setattr(engines, "PACKAGES", ("numpy",))
    monkeypatch.setattr(engines, "_written", lambda _trunk, _example: b"")
    monkeypatch.setattr(engines, "_session", lambda _model: Wrong())
    with pytest.raises(UnsupportedLayerError) as raised:
        onnx_runtime(fx.symbolic_trace(nn.Sequential(nn.Identity())), pictures(3))
    said = {
        "raises": "no kernel for Frobnicate",
        "another shape": "it gives (3, 32, 32) where torch gives (3, 3, 32, 32)",
        "other numbers": "its numbers differ from torch's by up to 1.0e-03, of",
        "not a number": "its numbers differ from torch's by up to nan, of",
    }
    assert str(raised.value).startswith(said[why])
    assert "\n" not in str(raised.value)


@installed
@pytest.mark.slow
@pytest.mark.computes
@pytest.mark.parametrize("name", ["mcunet", "mobilenet_v2", "resnet18", "resnet34"])
def test_its_numbers_are_torchs(name: str) -> None:
    trunk, images = trunk_of(name, 64), pictures(11, 64)
    found = onnx_runtime(trunk, images)(images)
    with torch.inference_mode():
        wanted = trunk(images)
    assert float((found - wanted).abs().max()) <= 1e-4 * float(wanted.abs().max())


@installed
@pytest.mark.slow
@pytest.mark.computes
def test_an_operation_that_it_has_not_is_named() -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.svdvals(x)

    trunk = fx.GraphModule(nn.Module(), fx.Tracer().trace(Odd()))
    with pytest.raises(UnsupportedLayerError):
        onnx_runtime(trunk, pictures(2))
