"""The private parts of Ray in use: a part that has moved fails here by name."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from fed_asi.errors import RunError
from fed_asi.flower import ray_private
from fed_asi.flower.flower_private import ENGINE
from fed_asi.flower.private import Private

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own imports warn


@pytest.mark.parametrize("part", ray_private.PARTS, ids=[part.name for part in ray_private.PARTS])
def test_each_part_of_ray_is_where_it_was(part: Private) -> None:
    assert part.moved() == ""


@pytest.fixture
def actor(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Flower's actor, in a process in which Flower simulates."""
    from flwr.simulation.ray_transport import ray_actor

    monkeypatch.setitem(sys.modules, ENGINE, sys.modules.get(ENGINE) or ray_actor)
    monkeypatch.setattr(ray_actor.ClientAppActor, "_default_options", {"num_cpus": 1})
    return ray_actor.ClientAppActor


def test_workers_that_die_are_started_anew(actor: Any) -> None:
    ray_private.keep_actors_alive()
    assert actor._default_options == {"num_cpus": 1, "max_restarts": -1}


def test_without_a_place_to_say_so_it_is_an_error(actor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actor, "_default_options", None)
    with pytest.raises(RunError, match=r"_default_options has .*NoneType.*let Ray start workers anew"):
        ray_private.keep_actors_alive()


def test_where_flower_does_not_simulate_nothing_is_touched(
    actor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, ENGINE)
    ray_private.keep_actors_alive()
    assert actor._default_options == {"num_cpus": 1}


def test_a_printer_of_another_form_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._private import worker

    def printed(text: str) -> None: ...

    shown: Any = worker
    monkeypatch.setattr(shown, "print_to_stdstream", shown.print_to_stdstream)
    assert ray_private.quieten()
    assert shown.print_to_stdstream({"lines": ["a worker died"]}, ignore_prefix=False) is None
    monkeypatch.setattr(shown, "print_to_stdstream", printed)
    assert not ray_private.quieten()
    assert shown.print_to_stdstream is printed
