"""What becomes of a round's updates, one file a strategy; new files are found by themselves.

`base.py` says what a strategy is, `local.py` what it adds to a device's training, `aggregate.py` which updates are fit
for any of them.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from fed_asi.strategies.aggregate import Update, check_update
from fed_asi.strategies.base import (
    Combined,
    Conditions,
    Round,
    State,
    Strategy,
    find,
    names,
    owners_of,
    register,
)
from fed_asi.strategies.local import AtDevice, Local

for _module in iter_modules(__path__):  # so that a new strategy is a new file and no more
    import_module(f"{__name__}.{_module.name}")

__all__ = [
    "AtDevice",
    "Combined",
    "Conditions",
    "Local",
    "Round",
    "State",
    "Strategy",
    "Update",
    "check_update",
    "find",
    "names",
    "owners_of",
    "register",
]
