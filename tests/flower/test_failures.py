"""The meaning of a device's error reply: one outcome, and a cause in plain words."""

from __future__ import annotations

import warnings

import pytest

from fed_asi.flower.failures import is_gone, meaning

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Flower's and Ray's own imports warn
    from flwr.clientapp.client_app import ClientAppException
    from ray import exceptions

DIED = "its worker process died; another takes its place"


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (0, "timeout: device 3 passed its deadline", ("timeout", "device 3 passed its deadline")),
        (0, "killed: signal 9", ("killed", "killed: signal 9")),
        (0, "killed", ("killed", "killed")),
        (
            0,
            "ray.exceptions.OutOfMemoryError: ...",
            ("killed", "out of memory: Ray ended its worker process"),
        ),
        (5, "", ("failed", "device unreachable (stopped, or no heartbeat)")),
        (2, "RunError: no such folder\n  at ...", ("failed", "RunError: no such folder")),
        (2, "", ("failed", "Flower error 2")),
        (2, "\n \n", ("failed", "Flower error 2")),
    ],
)
def test_an_error_reply_is_one_outcome_and_its_cause(
    code: int, reason: str, expected: tuple[str, str]
) -> None:
    assert meaning(code, reason) == expected


def words(error: BaseException) -> str:
    """Return an error as Flower's simulation engine puts it into its error reply."""
    return str(type(error)) + ":<'" + str(error) + "'>"


def test_a_worker_that_is_gone_is_told_by_rays_own_words() -> None:
    for error in (exceptions.ActorDiedError(), exceptions.WorkerCrashedError()):
        assert meaning(0, words(error)) == ("killed", DIED)
        assert is_gone(words(error))
    unavailable = exceptions.ActorUnavailableError("The actor is restarting", None)
    assert meaning(0, words(unavailable)) == ("killed", DIED)
    assert meaning(0, words(exceptions.OutOfMemoryError("node running low")))[0] == "killed"


@pytest.mark.parametrize("text", ["a device's own mistake", "ActorDied, so says a device"])
def test_an_app_that_raised_has_its_own_words_not_rays(text: str) -> None:
    raised = ClientAppException(text)
    through_ray = exceptions.RayTaskError("run", f"Traceback ...\n{raised}", raised).as_instanceof_cause()
    for error in (raised, through_ray):
        assert meaning(2, words(error)) == ("failed", text)
        assert not is_gone(words(error))
