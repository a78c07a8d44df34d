"""A second device that every machine has: torch treats its tensors as being elsewhere, and the CPU computes them.

It is as strict as a GPU. An operation on tensors of both devices raises, its tensors have no numpy array, and whatever
would make the host wait for a GPU is recorded: a number read, a copy back, a copy there, a size that depends on data.
Because the CPU computes, results equal the CPU's, except for the last bits where the package has a fast way only for
the CPU.

    with second_device() as device:
        model.to(device.place)
        with device.unattended():   # raises where the host would wait
            ...

Its tensors say "meta", the one other device type that torch has everywhere; a real "meta" tensor has no numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_iter, tree_map

from fed_asi import tucker
from fed_asi.layers import depthwise, masks

PLACE = torch.device("meta")
aten = torch.ops.aten
# Whose results, or their sizes, the host must know, or whose success it asks for.
READS = {
    aten._local_scalar_dense, aten.equal, aten.is_nonzero, aten.nonzero, aten.masked_select, aten._unique2,
    aten.unique_consecutive, aten._linalg_eigh, aten._linalg_svd, aten.linalg_lstsq, aten.repeat_interleave,
    aten.allclose, aten._linalg_check_errors,
}  # fmt: skip
MASKS = (torch.bool, torch.uint8)
KEPT = (
    masks._planes, masks._exponents, masks._shifts, tucker._gaussian_there, depthwise._joined_there,
)  # fmt: skip


class HostWaitsError(AssertionError):
    """The host would wait for the device where nobody may."""


class MixedDevicesError(RuntimeError):
    """An operation was given tensors of two devices, as CUDA's own error says it."""


class Elsewhere(Tensor):
    """A tensor on the second device; `numbers` are its numbers."""

    numbers: Tensor

    @staticmethod
    def __new__(cls, numbers: Tensor) -> Elsewhere:
        return Tensor._make_wrapper_subclass(
            cls, numbers.size(), strides=numbers.stride(), storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype, layout=numbers.layout, device=PLACE,
        )  # fmt: skip

    def __init__(self, numbers: Tensor) -> None:
        self.numbers = numbers

    def __repr__(self, **_: Any) -> str:
        return f"Elsewhere({self.numbers})"

    def tolist(self) -> Any:  # which torch gives no subclass
        return self.cpu().tolist()

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} on the second device, outside its block")


class SecondDevice(TorchDispatchMode):
    """What the device does and what the host waits for. waits: the operations, in order; crossed: bytes copied."""

    place = PLACE

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.operations = 0
        self._strict = False

    @contextmanager
    def unattended(self) -> Iterator[None]:
        """Raise HostWaitsError, at the line, where the host would wait for the device inside the block."""
        self._strict = True
        try:
            yield
        finally:
            self._strict = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        given = [one for one in tree_iter((args, kwargs)) if isinstance(one, Tensor)]
        ours = [one for one in given if isinstance(one, Elsewhere)]
        asked = kwargs.get("device")
        if not ours and (asked is None or torch.device(asked) != PLACE):
            return func(*args, **kwargs)
        self.operations += 1
        packet = func.overloadpacket
        if packet is aten._to_copy or packet is aten.copy_:
            return self._copied(func, args, kwargs, given)
        self._check(func, packet, args, kwargs, given)
        if asked is not None:
            kwargs["device"] = torch.device("cpu")
        found = func(*tree_map(_numbers, args), **tree_map(_numbers, kwargs))
        if packet in (aten._local_scalar_dense, aten.equal, aten.is_nonzero, aten.allclose):
            return found
        return return_and_correct_aliasing(func, args, kwargs, tree_map(_there, found))

    def _copied(self, func: Any, args: Any, kwargs: dict[str, Any], given: list[Tensor]) -> Any:
        """Copy within a device or between both: then the host waits."""
        target = (
            kwargs.get("device", given[0].device) if func.overloadpacket is aten._to_copy else args[0].device
        )
        target = given[0].device if target is None else torch.device(target)
        waits = target != PLACE or not (kwargs.get("non_blocking") or args[2:] == (True,))
        if waits and len({one.device for one in given} | {target}) > 1:
            self._wait(f"{func} from {given[-1].device.type} to {target.type}")
        if "device" in kwargs:
            kwargs["device"] = torch.device("cpu")
        found = func(*tree_map(_numbers, args), **kwargs)
        if func.overloadpacket is aten.copy_:
            return args[0]
        return _there(found) if target == PLACE else found

    def _check(self, func: Any, packet: Any, args: Any, kwargs: dict[str, Any], given: list[Tensor]) -> None:
        """Write down that the host waits, and refuse tensors of two devices."""
        if packet in READS or _picks_by_mask(packet, args):
            self._wait(str(func))
        foreign = [one for one in given if not isinstance(one, Elsewhere)]
        if packet in (aten.index, aten.index_put_, aten.index_put) and isinstance(args[0], Elsewhere):
            if any(one.dim() for one in foreign):
                self._wait(f"{func} by places on the CPU")  # torch takes them there
            return
        written = [args[i] for i, one in enumerate(func._schema.arguments) if one.is_write and i < len(args)]
        if any(one.dim() > 0 for one in foreign) or any(one is two for one in foreign for two in written):
            raise MixedDevicesError(f"Expected all tensors to be on the same device: {func} was given two")

    def _wait(self, what: str) -> None:
        self.waits.append(what)
        if self._strict:
            raise HostWaitsError(what)


def _picks_by_mask(packet: Any, args: Any) -> bool:
    if packet not in (aten.index, aten.index_put_, aten.index_put):
        return False
    return any(one is not None and one.dtype in MASKS for one in args[1])


def _numbers(value: Any) -> Any:
    return value.numbers if isinstance(value, Elsewhere) else value


def _there(value: Any) -> Any:
    return Elsewhere(value) if isinstance(value, Tensor) and not isinstance(value, Elsewhere) else value


@contextmanager
def second_device() -> Iterator[SecondDevice]:
    """Give the second device for as long as the block lasts; what the package keeps for it is forgotten after it."""
    try:
        with SecondDevice() as device:
            yield device
    finally:
        for kept in KEPT:
            kept.cache_clear()


def assert_alike(found: Any, wanted: Any) -> None:
    """Fail where two values differ by more than float32's rounding may grow to; what are no fractions must be equal."""
    if isinstance(wanted, Tensor):
        assert type(found) is type(wanted), "what is handed out is on the CPU"
        assert found.shape == wanted.shape
        assert (found - wanted).double().norm() <= 1e-4 * wanted.double().norm() + 1e-6
    elif isinstance(wanted, float):
        assert found == pytest.approx(wanted, rel=1e-4, abs=1e-6, nan_ok=True)
    elif isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            assert_alike(found[name], value)
    elif isinstance(wanted, (list, tuple)):
        assert len(found) == len(wanted)
        for one, value in zip(found, wanted, strict=True):
            assert_alike(one, value)
    else:
        assert found == wanted


def numbers_of(tensor: Tensor) -> Tensor:
    """Return the numbers of a tensor, wherever it is, without a copy that anybody waits for."""
    return tensor.numbers if isinstance(tensor, Elsewhere) else tensor
