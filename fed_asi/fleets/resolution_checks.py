"""What a run must be whose devices train at several resolutions."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from fed_asi.fleets.config import RunConfig


def resolutions_fit(config: RunConfig, broken: Collection[str], _cpus: int) -> Iterator[str]:
    """Yield what cannot be where devices see their images at another resolution than the model's."""
    if config.method.calibration != "federated" or any(
        place.startswith(("groups", "devices", "model", "method")) for place in broken
    ):
        return
    own = (config.model.resolution,)
    owners = [(f"groups[{i}]", one.resolution) for i, one in enumerate(config.groups)]
    owners += [(f"devices[{i}]", one.resolution) for i, one in enumerate(config.devices)]
    for where, pixels in owners:
        if pixels is not None and pixels != own:
            yield (
                f'{where}.resolution: {", ".join(map(str, pixels))}, but method.calibration = "federated" adds up what '
                f'all devices see at {own[0]} pixels (model.resolution); use "server" or "device"'
            )
            return
