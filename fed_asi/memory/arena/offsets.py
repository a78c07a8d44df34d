"""Where to put places with different lifetimes, in as little memory as can be found."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence

from fed_asi.memory.arena.lifetimes import Lifetime

ALIGNMENT = 16  # bytes; the vector units of small processors read this many at once
LOOKS = 1_000_000  # at pairs of places, in the search for a better order than the fixed ones: about a second


def aligned(size: int, alignment: int) -> int:
    """Return the size, in bytes, rounded up to the alignment."""
    return -(-size // alignment) * alignment


def lower_bound(places: Iterable[Lifetime], alignment: int = ALIGNMENT) -> tuple[int, int]:
    """Return (peak of the bytes needed at one time, operation of the peak): no layout takes less."""
    changes: dict[int, int] = {}
    for one in places:
        size = aligned(one.bytes, alignment)
        changes[one.first] = changes.get(one.first, 0) + size
        changes[one.last + 1] = changes.get(one.last + 1, 0) - size
    most = held = at = 0
    for index in sorted(changes):
        held += changes[index]
        if held > most:
            most, at = held, index
    return most, at


class Fitting:
    """Puts places into memory. fit: offsets that follow from an order; top: the bytes that they take."""

    def __init__(self, places: Sequence[Lifetime], alignment: int = ALIGNMENT) -> None:
        self.places = places
        self.sizes = [aligned(one.bytes, alignment) for one in places]
        self.meets = [
            [
                j
                for j, other in enumerate(places)
                if j != i and other.first <= one.last and one.first <= other.last
            ]
            for i, one in enumerate(places)
        ]

    def fit(self, order: Iterable[int]) -> list[int]:
        """Return the offsets that result from putting places in this order, each as low as it fits.

        Some order gives the least memory possible: the order of the offsets in an optimal layout.
        """
        found = [-1] * len(self.places)
        for i in order:
            size, low = self.sizes[i], 0
            for start, end in sorted(
                (found[j], found[j] + self.sizes[j]) for j in self.meets[i] if found[j] >= 0
            ):
                if low + size <= start:
                    break
                low = max(low, end)
            found[i] = low
        return found

    def top(self, found: Sequence[int]) -> int:
        """Return the bytes that these offsets take."""
        return max((offset + size for offset, size in zip(found, self.sizes, strict=True)), default=0)

    def largest_first(self) -> list[int]:
        """Return the order by decreasing size; places of equal size by first use."""
        return sorted(range(len(self.places)), key=lambda i: (-self.sizes[i], self.places[i].first))

    def longest_first(self, at: int) -> list[int]:
        """Return the order by decreasing lifetime; places needed at operation `at` come first."""
        needed = [one.first <= at <= one.last for one in self.places]
        spans = [one.last - one.first for one in self.places]
        return sorted(range(len(self.places)), key=lambda i: (not needed[i], -spans[i]))

    def changed(self, order: list[int], tries: int) -> Iterator[list[int]]:
        """Yield offsets, each no worse than the last: a try moves the highest place, or one it meets, in the order."""
        draws = random.Random(0)
        found = self.fit(order)
        for _ in range(tries):
            highest = max(order, key=lambda i: found[i] + self.sizes[i])
            moved = draws.choice([highest, *self.meets[highest]])
            other = [i for i in order if i != moved]
            other.insert(draws.randrange(len(order)), moved)
            tried = self.fit(other)
            if self.top(tried) <= self.top(found):
                order, found = other, tried
                yield found


def offsets(places: Sequence[Lifetime], alignment: int = ALIGNMENT) -> list[int]:
    """Return an offset for every place, a multiple of the alignment; places needed at the same time do not overlap.

    First it tries largest first, each as low as it fits. If that takes more than the lower bound, it also tries
    longest first, and then orders in which one place at a time is moved, always the same ones. The smallest wins.
    """
    bound, at = lower_bound(places, alignment)
    fitting = Fitting(places, alignment)
    order = fitting.largest_first()
    best = fitting.fit(order)
    for found in _more(fitting, order, at):
        if fitting.top(best) == bound:
            break
        best = min(best, found, key=fitting.top)
    return best


def _more(fitting: Fitting, order: list[int], at: int) -> Iterator[list[int]]:
    yield fitting.fit(fitting.longest_first(at))
    looks = sum(map(len, fitting.meets))  # comparisons in one fit
    yield from fitting.changed(order, LOOKS // max(1, looks))


def top(places: Sequence[Lifetime], found: Sequence[int], alignment: int = ALIGNMENT) -> int:
    """Return the bytes that a layout takes."""
    ends = (offset + aligned(one.bytes, alignment) for one, offset in zip(places, found, strict=True))
    return max(ends, default=0)
