"""The tree of a run's settings: what a fleet file says, checked, as frozen objects.

RunConfig is what every other part of a run reads. `load_config` (file.py) makes one from TOML and
reports all problems at once; `to_json` and `from_json` carry it to workers, records and resumed runs.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, ValidationError

from fed_asi import own_code
from fed_asi.errors import ConfigError
from fed_asi.fleets.aggregate import AggregateConfig, UploadConfig
from fed_asi.fleets.clock_keys import ClockConfig
from fed_asi.fleets.device_keys import DeviceKeys
from fed_asi.fleets.faults import FaultsConfig
from fed_asi.fleets.resolution import RESOLUTIONS
from fed_asi.fleets.resources import ResourceKeys
from fed_asi.fleets.section import MOST_RATE, Bytes, Count, PartitionId, Rate, Section, Whole
from fed_asi.fleets.sharding import ShardingConfig
from fed_asi.fleets.storage import StorageConfig
from fed_asi.memory.stored import Format
from fed_asi.methods.family import Family, families
from fed_asi.methods.recipe import Recipe, recipe_of
from fed_asi.units import shown

CONFIG_VERSION: Literal[1] = 1
WEIGHTS = "imagenet", "none", "public"  # or the path of a file


def _layers(value: Any) -> int | str | tuple[str, ...]:
    if value in ("all", "any") or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value  # type: ignore[no-any-return]
    if isinstance(value, (list, tuple)) and value and all(isinstance(name, str) for name in value):
        return tuple(value)
    raise ValueError(
        f'must be a number of last convolutions, "all", "any", or a list of layer names, not {shown(value)}'
    )


def _off(value: Any) -> Any:
    return None if value == "off" else value  # TOML has no null


def folder_name(name: str) -> str:
    """Return the name of a run or study. Raises ValueError, saying why, if it cannot name a folder."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) is None:
        raise ValueError(f"{shown(name)} becomes a folder's name: use letters, digits, '.', '_' and '-'")
    return name


def _known(files: dict[str, str]) -> dict[str, str]:
    """Return files of code, now loadable in this process by their pinned names; none is run."""
    try:
        own_code.know(files)
    except ConfigError as error:
        raise ValueError(str(error)) from error
    return files


def _device(name: str) -> str:
    if re.fullmatch(r"cpu|cuda(:\d{1,3})?", name, re.ASCII) is None:
        raise ValueError(
            f'must be "cpu", "cuda" or "cuda:N", the GPU of that number, not {shown(name)}: where a run computes '
            "decides the last bits of its results, so none is chosen for it"
        )
    return name


def _twins(value: Any) -> Any:
    if isinstance(value, bool) or value == "plain":
        return value
    raise ValueError(f'must be true, false or "plain", not {shown(value)}')


class ModelConfig(Section):
    """Which network is trained, from which weights, at which input resolution (pixels)."""

    name: str = "tiny"
    weights: str = "public"  # "imagenet"; "none"; a path; "public": the server trains on its split first
    resolution: Annotated[int, Field(ge=RESOLUTIONS[0], le=RESOLUTIONS[1])] = 32


class DataConfig(Section):
    """Which images, and how many the server keeps; counts are images, shares are of a device's shard."""

    source: str = "digits"  # a known name, or the path of an .npz of the user's own arrays
    public: Whole = 300  # training images that the server keeps and no device has
    limit: Count | None = None  # the most training images that are spread over the devices
    validation: Whole = 0  # this many of the last training images are judged on, in place of the test set
    test_limit: Count | None = None  # the most test images in the server's evaluation
    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.2  # share of a shard kept for local accuracy


class MethodConfig(Section):
    """How a device keeps what its backward pass needs, and what happens where that does not fit.

    Further keys are settings of the method called `name`, such as `epsilon` of "hosvd".
    """

    model_config = ConfigDict(extra="allow")

    name: str = "asi"  # a recipe of fed_asi.methods
    methods: Annotated[tuple[str, ...] | None, Field(strict=False)] = None  # forms instead of `name`'s
    layers: Annotated[int | Literal["all", "any"] | tuple[str, ...], BeforeValidator(_layers)] = 4
    selection: Literal["exact", "published"] = "exact"
    centered: bool | None = None  # may x - mu be kept (mu from calibration)? None: as `name` does
    objective: (
        Literal["captured", "perplexity", "relative-error", "captured-per-second", "captured-per-joule"]
        | None
    ) = None  # None: the planner's
    covers: Literal["saved", "published", "training"] = "saved"
    over_budget: str = "exclude"  # a policy of over_budget.py
    calibration: Literal["server", "device", "federated"] = "server"  # whose images plans are made from
    calibration_images: Count = 128  # the most images, of the server or of each device
    calibration_devices: Count = 8  # "federated": devices that send sums

    @property
    def recipe(self) -> Recipe:
        """The recipe called `name`."""
        return recipe_of(self.name)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that are given for the method called `name`."""
        return {key: value for key, value in (self.model_extra or {}).items() if value is not None}

    @property
    def may_center(self) -> bool:
        """Whether x - mu may be kept in place of x; plain baselines do so only if asked."""
        return self.recipe.centers if self.centered is None else self.centered

    @property
    def grid(self) -> Literal["exact", "published"]:
        """How ranks are chosen: `selection`, or the choice of the recipe."""
        return "published" if self.recipe.selection == "published" else self.selection

    @property
    def families(self) -> tuple[Family, ...]:
        """The forms in which an input may be kept: `methods`, or those of the recipe; empty: none."""
        if self.methods is not None:
            return families(self.methods)
        return self.recipe.families_with(self.settings)


class TrainConfig(Section):
    """A device's local SGD (defaults of the ASI paper: lr 0.05, no momentum, clipping at norm 2, cosine)."""

    epochs: Count = 1
    lr: Rate = 0.05
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight_decay: Annotated[float, Field(ge=0, le=MOST_RATE)] = 1e-4
    clip_norm: Annotated[Rate | None, BeforeValidator(_off)] = 2.0  # or "off"
    lr_schedule: Literal["cosine", "constant"] = "cosine"  # over rounds
    final_lr_ratio: Annotated[float, Field(gt=0, le=1)] = 0.1
    update: Literal["step", "micro-batch", "layer", "any"] = (
        "step"  # when weights move; only "step" accumulates
    )

    @property
    def updates(self) -> tuple[Literal["step", "micro-batch", "layer"], ...]:
        """When weights may move: the choices of a device with a RAM or flash limit; all others take the first."""
        return ("step", "layer") if self.update == "any" else (self.update,)


class PretrainConfig(Section):
    """How the server trains on its public split before the first round: the whole network, or its head alone.

    epochs: of the whole network, where `model.weights` is "public". head_epochs: of the head, for all other weights.
    """

    epochs: Count = 20
    head_epochs: Annotated[int, Field(ge=0)] = 0
    lr: Rate = 0.05
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    batch_size: Count = 32


class MeasureConfig(Section):
    """What is measured alongside the run; it costs only computing time.

    Two runs that differ only here end with the same weights, to the bit. twins: every device that is asked trains once
    more, without its budget; "plain": without its method, too (devices/twin.py). groups: when the shared model is
    judged on the held-out images of each group: before the first round and after the last, or after every round.
    """

    twins: Annotated[bool | Literal["plain"], BeforeValidator(_twins)] = False
    groups: Literal["ends", "every-round", "never"] = "ends"


class ComputeConfig(Section):
    """What the simulation may use of this machine.

    backend, workers, cpus_per_client, gpus_per_client, ray_address, features_limit change how long a run takes, never
    its result. device, threads, features, trunk_engine and side_by_side can change the last bits of the result.
    gradients_at other than "micro-batch" is an approximation. deadline_seconds decides who is late, and so whose
    updates count; it may change when a run is resumed.
    """

    backend: Literal["flower", "loop"] = "flower"
    device: Annotated[str, AfterValidator(_device)] = "cpu"  # where devices train and the server judges
    threads: Annotated[int, Field(ge=1, le=256)] = 1  # torch threads a client
    cpus_per_client: Count = 1
    gpus_per_client: Annotated[float, Field(ge=0.001, le=1)] | None = (
        None  # None: the same share for every worker
    )
    workers: Count | None = None  # None: as many as the machine's CPUs allow
    ray_address: str | None = None  # a running cluster; None: Ray on this machine alone
    deadline_seconds: Annotated[float, Field(gt=0, le=1e9)] = 600.0  # a reply that takes longer is a timeout
    features: Literal["float32", "float16", "off"] = "float32"  # the frozen trunk's features, computed once
    features_limit: Bytes = 20 * 1024**3
    trunk_engine: Literal["torch", "onnxruntime"] = (
        "torch"  # what computes them; torch where this engine cannot
    )
    side_by_side: bool = True  # micro-batches as one batched product; same gradients, same counted bytes
    # The weights that a micro-batch's gradient is computed with, where they move within a batch: its own first ones, as
    # on the device, or those from the batch's start, so that its micro-batches go side by side.
    gradients_at: Literal["micro-batch", "batch"] | Count = "micro-batch"


class _Named(Section):  # a base of its own, so that settings are printed with the name first
    name: Annotated[str, Field(min_length=1)]
    count: Count


class GroupConfig(DeviceKeys, ResourceKeys, _Named):
    """Devices that are alike: the name of the group, how many there are, and what each has."""

    batch_size: Count = 32


class _Numbered(Section):  # for the same reason
    partition_id: PartitionId


class DeviceConfig(DeviceKeys, ResourceKeys, _Numbered):
    """One device that differs from its group; keys that are not given are the group's."""


class RunConfig(Section):
    """Everything that decides a run's result."""

    version: Literal[1] = CONFIG_VERSION
    name: Annotated[str, AfterValidator(folder_name)]
    seed: Whole = 0
    rounds: Count = 5
    cohort: Count  # devices asked in a round
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    sharding: ShardingConfig = ShardingConfig()
    method: MethodConfig = MethodConfig()
    train: TrainConfig = TrainConfig()
    pretrain: PretrainConfig = PretrainConfig()
    aggregate: AggregateConfig = AggregateConfig()
    upload: UploadConfig = UploadConfig()
    storage: StorageConfig = StorageConfig()
    clock: ClockConfig = ClockConfig()
    measure: MeasureConfig = MeasureConfig()
    faults: FaultsConfig = FaultsConfig()
    compute: ComputeConfig = ComputeConfig()
    groups: Annotated[tuple[GroupConfig, ...], Field(strict=False)]
    devices: Annotated[tuple[DeviceConfig, ...], Field(strict=False)] = ()
    # One line a device; a budgets_csv ends up here too.
    budgets: dict[PartitionId, Bytes] = Field(default_factory=dict)
    budgets_csv: str | None = None  # relative to the fleet file
    code: Annotated[dict[str, str], AfterValidator(_known)] = Field(default_factory=dict)  # files by address

    def stored_as(self, form: Format) -> Self:
        """Return the same settings with the format in which devices store what they only read."""
        return self.model_copy(update={"storage": self.storage.model_copy(update={"frozen": form})})

    def seen_at(self, pixels: int) -> Self:
        """Return the same settings with another input resolution."""
        return self.model_copy(update={"model": self.model.model_copy(update={"resolution": pixels})})

    @property
    def num_devices(self) -> int:
        """The number of devices in all groups."""
        return sum(group.count for group in self.groups)

    def to_json(self) -> str:
        """Return the resolved settings as JSON; budgets are bytes, null is unlimited."""
        return self.model_dump_json(indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the settings that `to_json` wrote.

        Raises ConfigError for anything else, such as settings of a newer version.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ConfigError(f"resolved settings: {where or 'file'}: {first['msg']}") from error
