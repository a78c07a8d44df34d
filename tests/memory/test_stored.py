"""Bytes of frozen tensors, counted by hand."""

from __future__ import annotations

import pytest
import torch

from fed_asi.errors import ConfigError
from fed_asi.memory.stored import FORMATS, activation_bytes, format_of, stored_bytes


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("float32", 4 * (24 + 4 + 12) + 8),
        ("float16", 2 * (24 + 4 + 12) + 8),
        (
            "int8",
            (24 + 4 * 4) + 4 * 4 + (12 + 3 * 4) + 8,
        ),  # numbers and a scale a row; biases; a count as it is
    ],
)
def test_by_hand(form: str, expected: int) -> None:
    tensors = [torch.ones(4, 3, 2, 1), torch.ones(4), torch.ones(3, 4), torch.tensor(7)]
    assert stored_bytes(tensors, form) == expected  # type: ignore[arg-type]


def test_activations_by_hand() -> None:
    assert [activation_bytes(400, form) for form in FORMATS] == [400, 200, 100]


def test_formats_have_names() -> None:
    assert [format_of(name) for name in FORMATS] == list(FORMATS)
    with pytest.raises(ConfigError, match="storage: unknown format 'int9'; did you mean int8"):
        format_of("int9")
