"""Pretrained weights: from a path, a folder, or the publisher, with a checksum."""

from __future__ import annotations

import difflib
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import torch
from torch import nn

from fed_asi import own_code
from fed_asi.errors import WeightsError
from fed_asi.models import download

State = dict[str, torch.Tensor]


_MCUNET = "https://hanlab18.mit.edu/projects/tinyml/mcunet/release/"
# The publisher lists no checksums. That of in3 is from a copy; those of the others are recorded at download.
_PUBLISHED: dict[str, tuple[str, str]] = {
    "mcunet-in0": (f"{_MCUNET}mcunet-10fps_imagenet.pth", ""),
    "mcunet-in1": (f"{_MCUNET}mcunet-5fps_imagenet.pth", ""),
    "mcunet-in2": (f"{_MCUNET}mcunet-256kb-1mb_imagenet.pth", ""),
    "mcunet-in3": (
        f"{_MCUNET}mcunet-320kb-1mb_imagenet.pth",
        "c0d4ccf4bb8ba93ef69a609c60ca053be2c6bab3b4ece19d9b7e66cec8a485e5",
    ),
    "mcunet-in4": (f"{_MCUNET}mcunet-512kb-2mb_imagenet.pth", ""),
}


def find(name: str, weights: str | Path, folder: Path | None = None) -> Path:
    """Return the path of the weights asked for.

    name: the network. weights: "imagenet" or a path. folder: searched before FED_ASI_WEIGHTS_DIR, for NAME.pth or the
    publisher's own file name; if the file is in neither, it is downloaded once from its publisher.
    Raises WeightsError, within seconds, naming what is missing and the three ways to provide it.
    """
    if weights != "imagenet":
        path = Path(weights).expanduser()
        if not path.is_file():
            close = difflib.get_close_matches(str(weights), ("imagenet", "none", "public"))
            raise WeightsError(
                f"no weights file at {path}" + (f"; did you mean {close[0]}?" if close else "")
            )
        return path
    url, checksum = published(name)
    for place in (folder, os.environ.get("FED_ASI_WEIGHTS_DIR"), download.cache_dir()):
        for file in (f"{name}.pth", Path(urlsplit(url).path).name):
            if place and url and (Path(place) / file).is_file():
                return Path(place) / file
    if url and download.reachable(url):
        return download.fetch(url, checksum, download.cache_dir())
    if not url:
        raise WeightsError(
            f"there are no published ImageNet weights of {own_code.shown_name(name)}; name a path or train without"
        )
    raise WeightsError(
        f"no ImageNet weights of {name}, and {urlsplit(url).hostname} does not answer: put {name}.pth "
        "into FED_ASI_WEIGHTS_DIR, name a path as weights, or connect to a network to download them"
    )


def published(name: str) -> tuple[str, str]:
    """Return (URL, checksum) of the network's ImageNet weights; ("", "") if there are none.

    torchvision's file names end in the first digits of their SHA-256.
    """
    if name in _PUBLISHED:
        return _PUBLISHED[name]
    from fed_asi.models.torchvision_shim import torchvision

    if name not in torchvision.models.list_models(module=torchvision.models):
        return "", ""
    known = torchvision.models.get_model_weights(name)
    url: str = getattr(known, "IMAGENET1K_V1", known.DEFAULT).url
    return url, Path(url).stem.rpartition("-")[2]


def read(path: Path) -> State:
    """Return the state dict in `path`, bare or under "state_dict"; raises WeightsError if there is none."""
    try:
        with warnings.catch_warnings():
            # They are refused below, so that nobody has to know how long torch looks through them.
            warnings.filterwarnings("ignore", "Validating sparse tensor invariants")
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, pickle and zipfile raise many kinds of errors for a bad file
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        if reason.startswith("Weights only load failed"):  # the rest is advice to trust the file
            reason = "it holds more than tensors, or something else"
        raise WeightsError(f"{path} is not a file of weights: {reason:.200}") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(key, str) and _plain(t) for key, t in state.items()):
        raise WeightsError(f"{path} holds no state dict of plain tensors by name")
    broken = [key for key, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise WeightsError(f"{path}: {len(broken)} tensors have NaN or infinite values, such as {broken[0]}")
    return state


def _plain(value: object) -> bool:
    """Return whether a value is a dense tensor of numbers."""
    if not isinstance(value, torch.Tensor) or value.is_quantized or value.is_complex():
        return False
    return value.layout is torch.strided and value.device.type == "cpu"


def load_(
    model: nn.Module,
    state: State,
    head: str,
    rename: Callable[[str], str] = str,
    surplus: Sequence[str] = (),
) -> bool:
    """Copy `state` into the model and return whether the weights of the head fitted, too.

    head: name of the layer that may have another number of classes; it then keeps its initial weights. surplus:
    prefixes
        of keys that are skipped. As in torch, files older than the batch counts of batch norms may lack those.
    Raises WeightsError where the keys or shapes are those of another network.
    """
    state = {rename(key): value for key, value in state.items()}
    own = model.state_dict()
    state = {key: value for key, value in state.items() if key in own or not key.startswith(tuple(surplus))}
    counts = {key for key in own if key.rpartition(".")[2] == "num_batches_tracked"}
    state = {**{key: own[key] for key in counts}, **state}
    head_keys = {key for key in own if key.startswith(f"{head}.")}
    head_fits = all(key in state and state[key].shape == own[key].shape for key in head_keys)
    if not head_fits:
        state = {key: value for key, value in state.items() if key not in head_keys}
    wanted = set(own) if head_fits else set(own) - head_keys
    odd = sorted((wanted ^ set(state)) | {k for k in wanted & set(state) if own[k].shape != state[k].shape})
    if odd:
        raise WeightsError(
            f"weights of another network: {len(odd)} tensors differ, such as {', '.join(odd[:3])}"
        )
    own.update(state)  # updated in place, which keeps the versions that torch checks for some layers
    model.load_state_dict(own)
    return head_fits
