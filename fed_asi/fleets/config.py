"""The tree of a run's settings: what a fleet file says, checked, as frozen objects.

RunConfig is what every other part of a run reads. `load_config` (config_file.py) makes one from TOML and
reports all problems at once; `to_json` and `from_json` carry it to workers, records and resumed runs.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from fed_asi.errors import ConfigError, nearest
from fed_asi.methods.family import Family, families, family_names
from fed_asi.methods.recipe import Recipe, recipe_of
from fed_asi.units import parse_bytes

CONFIG_VERSION: Literal[1] = 1


def _budget(value: Any) -> int | None:
    try:
        return parse_bytes(value)
    except ConfigError as error:
        raise ValueError(str(error)) from error


def _layers(value: Any) -> int | str | tuple[str, ...]:
    if value in ("all", "any") or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value  # type: ignore[no-any-return]
    if isinstance(value, (list, tuple)) and value and all(isinstance(name, str) for name in value):
        return tuple(value)
    raise ValueError(
        f'must be a count of last convolutions, "all", "any", or a list of layer names, not {value!r}'
    )


def _recipe(name: str) -> str:
    try:
        return recipe_of(name).name
    except ConfigError as error:
        raise ValueError(str(error)) from error


def _family(name: str) -> str:
    known = family_names()
    if name not in known:
        raise ValueError(f"unknown {name!r}; {nearest(name, known)}")
    return name


def _off(value: Any) -> Any:
    return None if value == "off" else value  # TOML has no null


def _folder_name(name: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) is None:
        raise ValueError(f"{name!r} becomes a folder's name: use letters, digits, '.', '_' and '-'")
    return name


Bytes = Annotated[int | None, BeforeValidator(_budget)]


Count = Annotated[int, Field(ge=1)]


PartitionId = Annotated[int, Field(ge=0, strict=False)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ModelConfig(_Section):
    """Which network is trained, from which weights, at which input resolution (pixels)."""

    name: str = "tiny"
    weights: str = "public"  # "imagenet"; "none"; a path; "public": the server trains on its split first
    resolution: Annotated[int, Field(ge=8, le=1024)] = 32


class DataConfig(_Section):
    """Which images, and how many the server keeps; counts are images, shares are of a device's shard."""

    source: str = "digits"  # a known name, or the path of an .npz of the user's own arrays
    public: Annotated[int, Field(ge=0)] = 300  # training images the server keeps; they are on no device
    limit: Count | None = None  # at most so many training images are spread over the devices
    validation: Annotated[int, Field(ge=0)] = 0  # the last so many training images judge, not the test set
    test_limit: Count | None = None  # at most so many test images in the server's evaluation
    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.2  # share of a shard kept for local accuracy


class ShardingConfig(_Section):
    """How the training images are spread over the devices."""

    scheme: Literal["iid", "dirichlet", "classes"] = "dirichlet"
    alpha: Annotated[float, Field(gt=0)] = 0.5  # dirichlet: small is uneven
    minimum: Count = 1  # images every device has at least
    classes_per_device: Count = 2  # scheme "classes"


class MethodConfig(_Section):
    """How a device keeps what its backward pass needs, and what happens where that does not fit.

    Further keys are the settings of the method that `name` stands for, such as `epsilon` of "hosvd".
    """

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False)

    name: Annotated[str, AfterValidator(_recipe)] = "asi"
    methods: Annotated[tuple[Annotated[str, AfterValidator(_family)], ...] | None, Field(strict=False)] = None
    layers: Annotated[int | Literal["all", "any"] | tuple[str, ...], BeforeValidator(_layers)] = 4
    selection: Literal["exact", "published"] = "exact"
    centered: bool | None = None  # may x - mu be kept (mu from calibration)? None: what `name` stands for
    objective: Literal["captured", "perplexity", "relative-error"] | None = None  # None: the planner's
    covers: Literal["saved", "published", "training"] = "saved"
    over_budget: Literal["exclude", "fewer-layers", "smaller-micro-batch", "lower-ranks"] = "exclude"
    calibration: Literal["server", "device", "federated"] = "server"  # whose images plans are made from
    calibration_images: Count = 128  # at most so many, of the server or of each device
    calibration_devices: Count = 8  # "federated": devices that send sums

    @property
    def recipe(self) -> Recipe:
        """What `name` stands for."""
        return recipe_of(self.name)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the method that `name` stands for, those that are given."""
        return {key: value for key, value in (self.model_extra or {}).items() if value is not None}

    @property
    def may_center(self) -> bool:
        """Whether x - mu may be kept in place of x; the plain baselines do so only where it is asked for."""
        return self.recipe.centers if self.centered is None else self.centered

    @property
    def grid(self) -> Literal["exact", "published"]:
        """How ranks are chosen: `selection`, or what `name` stands for."""
        return "published" if self.recipe.selection == "published" else self.selection

    @property
    def families(self) -> tuple[Family, ...]:
        """The forms a layer's input may be kept in: `methods`, or what `name` stands for; empty: none."""
        if self.methods is not None:
            return families(self.methods)
        return self.recipe.families_with(self.settings)


class TrainConfig(_Section):
    """A device's local SGD (as the ASI paper has it: lr 0.05, no momentum, clipping at norm 2, cosine)."""

    epochs: Count = 1
    lr: Annotated[float, Field(gt=0)] = 0.05
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    clip_norm: Annotated[Annotated[float, Field(gt=0)] | None, BeforeValidator(_off)] = 2.0  # or "off"
    lr_schedule: Literal["cosine", "constant"] = "cosine"  # over rounds
    final_lr_ratio: Annotated[float, Field(gt=0, le=1)] = 0.1
    update: Literal["step", "micro-batch"] = "step"  # when weights move; "micro-batch" accumulates nothing


class PretrainConfig(_Section):
    """How the server trains on its public split where `model.weights` is "public"."""

    epochs: Count = 20
    lr: Annotated[float, Field(gt=0)] = 0.05
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    batch_size: Count = 32


class AggregateConfig(_Section):
    """How updates are weighted against each other, tensor by tensor."""

    weights: Literal["examples", "captured"] = "examples"  # captured: examples times gradient captured
    min_fidelity: Annotated[float, Field(ge=0, le=1)] = 0.0  # tensors captured less than this are left out


class ComputeConfig(_Section):
    """What the simulation may use of this machine; it changes time, never results."""

    backend: Literal["flower", "loop"] = "flower"
    threads: Count = 1  # torch threads a client; part of the result's last bits
    cpus_per_client: Count = 1
    workers: Count | None = None  # None: as many as the machine's CPUs allow
    ray_address: str | None = None  # a running cluster; None: Ray on this machine alone
    deadline_seconds: Annotated[float, Field(gt=0)] = 600.0  # a device's reply later than this is a timeout
    features: Literal["float32", "float16", "off"] = "float32"  # the frozen trunk's features, computed once
    features_limit: Bytes = 20 * 1024**3
    side_by_side: bool = True  # micro-batches as one batched product; same gradients, same counted bytes


class BudgetChange(_Section):
    """From this round on (counted from 1), the budget is this."""

    round: Count
    budget: Bytes


class GroupConfig(_Section):
    """Devices alike: how many, and what each may keep for its backward pass."""

    name: Annotated[str, Field(min_length=1)]
    count: Count
    budget: Bytes
    batch_size: Count = 32
    micro_batch: Count | None = None  # None: the planner chooses
    schedule: Annotated[tuple[BudgetChange, ...], Field(strict=False)] = ()


class DeviceConfig(_Section):
    """One device told apart from its group; what is not given is its group's."""

    partition_id: PartitionId
    budget: Bytes
    batch_size: Count | None = None
    micro_batch: Count | None = None
    schedule: Annotated[tuple[BudgetChange, ...], Field(strict=False)] = ()


class RunConfig(_Section):
    """Everything that decides a run's result."""

    version: Literal[1] = CONFIG_VERSION
    name: Annotated[str, AfterValidator(_folder_name)]
    seed: Annotated[int, Field(ge=0)] = 0
    rounds: Count = 5
    cohort: Count  # devices asked in a round
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    sharding: ShardingConfig = ShardingConfig()
    method: MethodConfig = MethodConfig()
    train: TrainConfig = TrainConfig()
    pretrain: PretrainConfig = PretrainConfig()
    aggregate: AggregateConfig = AggregateConfig()
    compute: ComputeConfig = ComputeConfig()
    groups: Annotated[tuple[GroupConfig, ...], Field(strict=False)]
    devices: Annotated[tuple[DeviceConfig, ...], Field(strict=False)] = ()
    budgets: dict[PartitionId, Bytes] = {}  # one line a device; a budgets_csv ends up here too
    budgets_csv: str | None = None  # relative to the fleet file

    @property
    def num_devices(self) -> int:
        """How many devices the groups add up to."""
        return sum(group.count for group in self.groups)

    def to_json(self) -> str:
        """Return the resolved settings as JSON; budgets are bytes, null is unlimited."""
        return self.model_dump_json(indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the settings that `to_json` wrote.

        Raises ConfigError for anything else, such as the file of a newer version.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ConfigError(f"resolved settings: {where or 'file'}: {first['msg']}") from error
