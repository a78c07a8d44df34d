"""Pretrained weights: a path, a folder of one's own, or their publisher's address with a checksum."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from fed_asi.errors import WeightsError

State = dict[str, torch.Tensor]


def find(name: str, weights: str | Path, folder: Path | None = None) -> Path:
    """Return the file that holds the weights asked for.

    name: the network. weights: "imagenet" or a path. folder: looked in before FED_ASI_WEIGHTS_DIR.
    Raises WeightsError that says what is missing and how to provide it.
    """
    if weights != "imagenet":
        path = Path(weights).expanduser()
        if not path.is_file():
            raise WeightsError(f"no weights file at {path}")
        return path
    for place in (folder, os.environ.get("FED_ASI_WEIGHTS_DIR")):
        if place and (Path(place) / f"{name}.pth").is_file():
            return Path(place) / f"{name}.pth"
    raise WeightsError(
        f"no ImageNet weights of {name}: put {name}.pth into FED_ASI_WEIGHTS_DIR, or name a path"
    )


def read(path: Path) -> State:
    """Return the state dict in `path`, bare or under "state_dict"; raises WeightsError if there is none."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise WeightsError(f"{path} is not a file of weights: {str(error).splitlines()[0]}") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise WeightsError(f"{path} holds no state dict")
    return state


def load_(model: nn.Module, state: State, head: str, rename: Callable[[str], str] = str) -> bool:
    """Return whether the head's weights fitted too, after copying `state` into the model.

    head: name of the layer that may have another number of classes; it then keeps its initial weights.
    Raises WeightsError where the keys or shapes are another network's.
    """
    state = {rename(key): value for key, value in state.items()}
    own = model.state_dict()
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
    model.load_state_dict({**own, **state})
    return head_fits
