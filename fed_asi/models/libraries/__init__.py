"""Networks of other libraries, one file a prefix, registered in `fed_asi.libraries`."""

from __future__ import annotations

import pkgutil
from importlib import import_module

for _module in pkgutil.iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
