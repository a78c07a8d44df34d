"""A watcher that passes on what it is told, and sends each round's numbers to sinks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import fmean
from types import TracebackType
from typing import Self

from fed_asi.errors import first_line
from fed_asi.results.progress import Watcher
from fed_asi.results.schema import DeviceRoundRecord, RoundRecord
from fed_asi.results.store import RunStore
from fed_asi.sinks import Sink
from fed_asi.texts import visible

# Of a round's record. Other columns are only in the run's own records.
OF_THE_ROUND = (
    "accuracy",
    "worst_class_accuracy",
    "loss",
    "lr",
    "asked",
    "trained",
    "bytes_up",
    "bytes_down",
    "sim_end_seconds",
    "energy_joules",
)
OF_DEVICES = (
    "measured_bytes",
    "accuracy_before",
    "accuracy_after",
    "gradient_captured",
)  # of which the means are sent


class Sending:
    """A watcher that forwards to another watcher and to sinks; a sink that fails is dropped from then on."""

    def __init__(
        self, watcher: Watcher, sinks: Mapping[str, Sink], run: Path, *, resumed: bool = False
    ) -> None:
        self._watcher, self._run, self._resumed = watcher, run, resumed
        self._sinks = dict(sinks)
        self._begun = False
        self.stage, self.advance, self.note = watcher.stage, watcher.advance, watcher.note
        self.round_started, self.device_done = watcher.round_started, watcher.device_done

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._begun:
            self._each(lambda sink: sink.end(kind is None))

    def round_done(self, record: RoundRecord) -> None:
        """Forward the record, and send its numbers, which are in the run's file by now."""
        self._watcher.round_done(record)
        if not self._sinks:
            return
        with RunStore.read(self._run) as store:
            run, values = store.run(), dict(_values(store, record))
        if not self._begun:
            self._begun = True
            self._each(lambda sink: sink.begin(run.name, run.config, self._resumed))
        self._each(lambda sink: sink.round(record.round, values))

    def _each(self, call: Callable[[Sink], None]) -> None:
        for name, sink in list(self._sinks.items()):
            try:
                call(sink)
            except (
                Exception
            ) as error:  # a sink is foreign code that may raise anything, and the run has its own records
                del self._sinks[name]
                self.note(
                    f"sink {name} gets nothing from here on: {type(error).__name__}: {first_line(error)}"
                )


def _values(store: RunStore, record: RoundRecord) -> Iterator[tuple[str, float]]:
    """Yield a round's numbers by name: the round's own, devices' means and largest step, and groups' accuracies."""
    for name in OF_THE_ROUND:
        yield from _known(name, getattr(record, name))
    devices = list(store.device_rounds(record.round))
    for outcome, count in sorted(Counter(one.outcome for one in devices).items()):
        yield f"outcome/{outcome}", float(count)
    yield from _known("devices/largest_measured_bytes", max((_bytes(one) for one in devices), default=None))
    for name in OF_DEVICES:
        found = [value for one in devices if (value := getattr(one, name)) is not None]
        yield from _known(f"devices/mean_{name}", fmean(found) if found else None)
    for group in store.group_rounds():
        if group.round == record.round:
            yield from _known(f"group/{visible(group.group_name)}/accuracy", group.accuracy)


def _bytes(device: DeviceRoundRecord) -> int:
    return device.measured_bytes or 0


def _known(name: str, value: float | None) -> Iterator[tuple[str, float]]:
    if value is not None:
        yield name, float(value)
