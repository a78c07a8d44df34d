"""Every error a user can meet, as one tree.

FedAsiError
├── ConfigError            a fleet file, a command-line value (all its problems at once)
├── UnsupportedLayerError  a layer or tensor no method here can handle
├── BudgetError            no plan fits the budget
│   └── SlowPlanError      none is within the seconds or joules of a round
├── OverBudgetError        a step's measured bytes passed the budget: that device's out-of-memory
│   └── OverRamError       a whole step needs more RAM or flash than its device has
├── ProfileError           a profile or plan that is corrupt, too new, or of another model
├── MissingDataError       no images where they were looked for
├── WeightsError           no weights, or not those of this network
├── UpdateError            a client's update that must not be averaged
├── TorchMovedError        a private part of torch that this version has in another form
└── RunError               a run's folder, records or workers
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class FedAsiError(Exception):
    """Base of every error raised on purpose; its text is one line made for the user."""


class ConfigError(FedAsiError):
    """A configuration with one or more problems, all of them listed in `problems`."""

    def __init__(self, problems: Sequence[str] | str) -> None:
        self.problems: list[str] = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class UnsupportedLayerError(FedAsiError):
    """A layer, tensor or method that cannot be compressed as asked."""


class BudgetError(FedAsiError):
    """No plan fits the budget."""


class SlowPlanError(BudgetError):
    """Plans fit the budget, but none is within the seconds or joules that a round may take."""


class OverBudgetError(FedAsiError):
    """A step's measured bytes exceed the budget; no weight has moved yet. measured_bytes: of that step."""

    def __init__(self, text: str, measured_bytes: int) -> None:
        self.measured_bytes = measured_bytes
        super().__init__(text, measured_bytes)

    def __str__(self) -> str:
        return str(self.args[0])

    @property
    def columns(self) -> dict[str, int]:
        """What was measured, by column of `device_rounds`."""
        return {"measured_bytes": self.measured_bytes}


class OverRamError(OverBudgetError):
    """A step needs more RAM or flash than its device has; no weight has moved yet. measured_bytes: what it saves."""

    def __init__(self, text: str, measured_bytes: int, ram_bytes: int, flash_bytes: int) -> None:
        super().__init__(text, measured_bytes)
        self.ram_bytes, self.flash_bytes = ram_bytes, flash_bytes
        self.args = (text, measured_bytes, ram_bytes, flash_bytes)

    @property
    def columns(self) -> dict[str, int]:
        """What was counted, by column of `device_rounds`."""
        return {
            "measured_bytes": self.measured_bytes,
            "ram_bytes": self.ram_bytes,
            "flash_bytes": self.flash_bytes,
        }


class ProfileError(FedAsiError):
    """A profile or plan that is corrupt, of a newer version, or made for another model."""


class MissingDataError(FedAsiError):
    """The requested images are neither here nor available for download."""


class WeightsError(FedAsiError):
    """Weights that are missing, corrupt, or of another network."""


class UpdateError(FedAsiError):
    """A client's update that must not be averaged."""


class TorchMovedError(FedAsiError):
    """A private part of torch is not where it is expected: nothing can be measured or computed with it."""


class RunError(FedAsiError):
    """A run that cannot start, continue or be read."""


def first_line(error: BaseException) -> str:
    """Return an error's first line, or the name of its type if it has no text."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint with the closest of `known`, or with all of them if none is close."""
    names = sorted(known)
    close = get_close_matches(name, names, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(names)}"
