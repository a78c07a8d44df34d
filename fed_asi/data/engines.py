"""What computes a frozen trunk's features: torch, or ONNX Runtime if it is asked for and supports the trunk.

ONNX Runtime is quicker for networks of depthwise convolutions (docs/results/trunk_engines.md). Its numbers differ from
torch's by float32 rounding, so features that it computed have an address of their own.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, fx

from fed_asi.errors import ConfigError, UnsupportedLayerError, first_line
from fed_asi.texts import clipped

PACKAGES: Final = ("onnxruntime", "onnxscript")  # the second exports the trunk for the first
EXTRA: Final = "fast"
AT_ONCE: Final = 8  # images; ONNX Runtime is quickest with so few, one thread a call
AGREES: Final = 1e-4  # largest difference from torch, as a share of its largest number


@dataclass(frozen=True, slots=True)
class OnnxRuntime:
    """A trunk in ONNX Runtime. Several threads may call it at once; each call uses one thread."""

    session: Any
    about: str  # all that its numbers depend on besides the trunk and torch
    at_once: int = AT_ONCE  # images in each call of the session

    def __call__(self, images: Tensor) -> Tensor:
        """Return the trunk's output (N, ...) for images (N, 3, H, W), float32."""
        whole = -len(images) % self.at_once
        padded = torch.cat([images, images.new_zeros(whole, *images.shape[1:])]) if whole else images
        parts = torch.split(padded, self.at_once)
        found = [self.session.run(None, {"images": part.contiguous().numpy()})[0] for part in parts]
        return torch.from_numpy(np.concatenate(found)[: len(images)])


def missing() -> list[str]:
    """Return the packages that ONNX Runtime needs here and that are not installed, importing none."""
    return [name for name in PACKAGES if _version(name) is None]


def check_installed() -> None:
    """Raise ConfigError, saying how to install it, where ONNX Runtime is not installed."""
    if gone := missing():
        are = "is" if len(gone) == 1 else "are"
        raise ConfigError(
            f'"onnxruntime" needs {" and ".join(gone)}, which {are} missing: pip install "fed-asi[{EXTRA}]", '
            'or leave it "torch"'
        )


def onnx_runtime(trunk: fx.GraphModule, images: Tensor, at_once: int = AT_ONCE) -> OnnxRuntime:
    """Return a trunk in ONNX Runtime.

    images: (N, 3, H, W), on which its numbers are compared with torch's. at_once: images in each batch. Do not call it
    beside other threads: importing the packages parses Python code.
    Raises ConfigError where the packages are missing, UnsupportedLayerError, with the reason, for a trunk that it does
    not support.
    """
    check_installed()
    example = torch.zeros(at_once, *images.shape[1:])
    try:
        session = _session(_written(trunk, example))
        made = OnnxRuntime(session, f"{_versions()}, batches of {at_once}", at_once)
        found = made(images)
    except Exception as error:  # export and runtime raise many kinds of errors for what they do not support
        raise UnsupportedLayerError(clipped(first_line(error), 200)) from error
    with torch.inference_mode():
        wanted = trunk(images)
    _check_agrees(found, wanted)
    return made


def _check_agrees(found: Tensor, wanted: Tensor) -> None:
    if found.shape != wanted.shape:
        raise UnsupportedLayerError(f"it gives {tuple(found.shape)} where torch gives {tuple(wanted.shape)}")
    largest = float(wanted.abs().max())
    apart = float((found - wanted).abs().max())
    if not apart <= AGREES * largest:
        raise UnsupportedLayerError(
            f"its numbers differ from torch's by up to {apart:.1e}, of {largest:.1e} at most"
        )


def _written(trunk: fx.GraphModule, example: Tensor) -> bytes:
    """Return the trunk in ONNX, for batches of the size of the example."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own deprecated parts
        program = torch.onnx.export(trunk, (example,), input_names=["images"], dynamo=True, verbose=False)
    if program is None:
        raise UnsupportedLayerError("torch wrote nothing")
    return bytes(program.model_proto.SerializeToString())


def _session(model: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _versions() -> str:
    return ", ".join(f"{name} {_version(name)}" for name in PACKAGES)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
