"""What a name under [method] in a fleet file stands for: the forms that plans may use, and how they are chosen.

Every method is a recipe of its own name; others are made here or by `register_recipe`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fed_asi import own_code
from fed_asi.errors import ConfigError, nearest
from fed_asi.methods import base
from fed_asi.methods.asi import ASI
from fed_asi.methods.base import Method
from fed_asi.methods.family import Family, default_families, register_family, settings_of, with_settings
from fed_asi.methods.vanilla import Vanilla

Selection = Literal["exact", "published"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the devices of a run keep what their backward pass needs.

    families: the forms a plan may use; empty trains only the classifier, None allows all that plans use by default.
    chooses_layers: plans choose which layers train. selection: "published" chooses ranks from the papers' grid.
    centers: forms of the centred input are allowed. method: takes the settings of the fleet file.
    recomputes: the network runs in segments whose forward is computed twice, and keeps less than any plan says.
    """

    name: str
    families: tuple[Family, ...] | None = ()
    chooses_layers: bool = False
    selection: Selection = "exact"
    centers: bool = True
    method: type[Method] | None = None
    recomputes: bool = False

    @property
    def settings(self) -> list[str]:
        """The keys under [method] that this recipe takes besides the common ones."""
        return [] if self.method is None else settings_of(self.method)

    def families_with(self, settings: Mapping[str, Any]) -> tuple[Family, ...]:
        """Return the forms a plan may use. Raises ConfigError for an unknown or wrong setting."""
        if self.method is not None:
            return (with_settings(self.method, settings),)
        if settings:
            raise ConfigError(f"{self.name!r} takes no setting {next(iter(settings))!r}")
        return default_families() if self.families is None else self.families


_RECIPES: dict[str, Recipe] = {}


def register_recipe(recipe: Recipe) -> Recipe:
    """Return the recipe, which fleet files may now name."""
    _RECIPES[recipe.name] = recipe
    return recipe


def recipe_names() -> list[str]:
    """Return the names a fleet file may give."""
    return [*_RECIPES, *(name for name in _methods() if name not in _RECIPES)]


def recipe_of(name: str) -> Recipe:
    """Return the recipe of that name. Raises ConfigError, naming the nearest ones."""
    if name in _RECIPES:
        return _RECIPES[name]
    if own_code.is_own(name):
        return Recipe(name, method=base.own(name))
    cls = _methods().get(name)
    if cls is None:
        raise ConfigError(f"unknown {name!r}; {nearest(name, recipe_names())}")
    return Recipe(name, method=cls)


def _methods() -> dict[str, type[Method]]:
    """Return the methods that any layer may take, by their names in fleet files."""
    found = {cls.fleet_name or kind: cls for kind, cls in base.KINDS.items()}
    return {name: cls for name, cls in found.items() if cls.plannable and not cls.needs_pool}


PUBLISHED_ASI = Family(ASI, (("order", "published"),))
register_family("asi-published", PUBLISHED_ASI)
register_recipe(Recipe("planner", None, chooses_layers=True))
register_recipe(Recipe("head"))
register_recipe(Recipe("asi", (Family(ASI),)))
register_recipe(Recipe("asi-published", (PUBLISHED_ASI,), selection="published"))
register_recipe(Recipe("vanilla", (Family(Vanilla),), centers=False))
register_recipe(Recipe("checkpointing", (Family(Vanilla),), centers=False, recomputes=True))
