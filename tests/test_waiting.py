"""Progress is heard by whoever listens outside, and by nobody else."""

from __future__ import annotations

from fed_asi.waiting import heard, listening, tell


def test_the_innermost_listener_hears_and_only_while_it_listens() -> None:
    outer: list[tuple[str, int, int | None]] = []
    inner: list[tuple[str, int, int | None]] = []
    tell("nobody", 1)
    assert not heard()
    with listening(lambda *told: outer.append(told)):
        assert heard()
        tell("a", 0)
        with listening(lambda *told: inner.append(told)):
            tell("b", 1, 2)
        tell("a", 2, 2)
    tell("nobody", 2)
    assert outer == [("a", 0, None), ("a", 2, 2)]
    assert inner == [("b", 1, 2)]
