"""The clock's figures, as matplotlib received them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fed_asi.results import figures
from fed_asi.results.clock_figures import OVER_TIME, accuracy_over_clock, draw_round, title_of
from fed_asi.results.store import RunStore
from fed_asi.results.summary import Summary, summarise
from made_clock import HOUR, with_clock
from made_run import make


@pytest.fixture(scope="module")
def clocked(tmp_path_factory) -> Summary:
    with RunStore.read(with_clock(make(tmp_path_factory.mktemp("runs") / "clocked"))) as store:
        return summarise(store)


def test_accuracy_over_hours_and_joules(clocked: Summary) -> None:
    figure = Figure()
    accuracy_over_clock(figure, [clocked])
    hours, energy = figure.axes
    assert list(hours.lines[0].get_xdata()) == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert list(hours.lines[0].get_ydata()) == [one.accuracy for one in clocked.rounds]
    total = sum(one.energy_joules or 0.0 for one in clocked.rounds)
    assert energy.lines[0].get_xdata()[-1] == pytest.approx(total / 1e3)
    assert (hours.get_xlabel(), energy.get_xlabel()) == ("simulated hours", "kJ of all devices")


def test_without_power_there_are_hours_alone(clocked: Summary) -> None:
    figure = Figure()
    accuracy_over_clock(
        figure, [replace(clocked, rounds=tuple(replace(one, energy_joules=None) for one in clocked.rounds))]
    )
    assert len(figure.axes) == 1


def test_a_round_is_a_bar_a_device_to_its_end(clocked: Summary) -> None:
    last = clocked.timeline
    assert last is not None
    figure = Figure()
    draw_round(figure, last)
    (axes,) = figure.axes
    bars = [one for one in axes.patches if isinstance(one, Rectangle)]
    assert len(bars) == 4 * 8
    ends = {place: max(one.get_x() + one.get_width() for one in bars[place::8]) for place in range(8)}
    assert set(ends.values()) == {HOUR}
    assert [text.get_text() for text in axes.texts] == ["excluded", "late"]
    early = replace(last, bars=(replace(last.bars[0], begun=-90.0), *last.bars[1:]))
    figure = Figure()
    draw_round(figure, early)
    first = [one for one in figure.axes[0].patches if isinstance(one, Rectangle)][0::8]
    assert (first[0].get_x(), first[-1].get_x() + first[-1].get_width()) == (-90.0, HOUR)
    assert figure.axes[0].get_xlim()[0] == -90.0
    assert title_of(last) == f"Round {last.round}, device by device"


def test_a_report_has_them_where_every_run_has_a_clock(
    clocked: Summary, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RunStore.read(make(tmp_path / "plain")) as store:
        plain = summarise(store)
    monkeypatch.setattr(figures, "saved", lambda _figure, _kind: b"")
    assert [*figures.draw([clocked])][-2:] == [OVER_TIME, "Round 4, device by device"]
    assert OVER_TIME in figures.draw([clocked, clocked])
    assert OVER_TIME not in {*figures.draw([plain]), *figures.draw([clocked, plain])}
