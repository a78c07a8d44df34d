"""Fixed factors as files and messages hold them: in float32, exact and comparable."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Basis:
    """One factor, (rows, columns). data: its float32 values row by row, in base64."""

    rows: int
    columns: int
    data: str

    @classmethod
    def of(cls, factor: Tensor) -> Basis:
        """Return a factor, (d, r), in the form that files hold."""
        values = np.ascontiguousarray(factor.detach().float().cpu().numpy())
        return cls(len(values), values.shape[1], base64.b64encode(values.tobytes()).decode())

    def tensor(self) -> Tensor:
        """Return the factor, (rows, columns), float32. Raises ValueError where the data have another size."""
        values = np.frombuffer(base64.b64decode(self.data), dtype=np.float32)
        return torch.from_numpy(values.reshape(self.rows, self.columns).copy())


Bases = tuple[Basis | None, ...]  # one for each mode of the input, (B, C, *S); None keeps a mode whole


def bases_of(factors: Sequence[Tensor | None]) -> Bases:
    """Return factors in the form that files hold."""
    return tuple(None if factor is None else Basis.of(factor) for factor in factors)


def factors_of(bases: Bases) -> list[Tensor | None]:
    """Return the factors, one a mode."""
    return [None if basis is None else basis.tensor() for basis in bases]


def to_rows(bases: Bases) -> list[list[int | str] | None]:
    """Return bases as JSON values."""
    return [None if basis is None else [basis.rows, basis.columns, basis.data] for basis in bases]


def from_rows(rows: Sequence[Sequence[int | str] | None]) -> Bases:
    """Return the bases that `to_rows` wrote."""
    return tuple(None if row is None else Basis(int(row[0]), int(row[1]), str(row[2])) for row in rows)
