"""What our count predicts for "1.5 times faster on a Raspberry Pi 5": seconds of plain training over ASI's, by preset.

    python experiments/benchmarks/clock_pi.py [DEVICE]

224x224 pixels, the last two and four convolutions; ranks (8, 8, 3, 3), in the published order and in ours.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import torch
from torch import nn

from fed_asi import models
from fed_asi.compression.cut import cut
from fed_asi.compression.graph import analyse
from fed_asi.fleets import hardware
from fed_asi.fleets.clock import seconds_of
from fed_asi.memory.work import network_of, total
from fed_asi.methods import ASI, Method, Vanilla

RANKS = (8, 8, 3, 3)
FORMS = {"published": ASI(RANKS, order="published"), "ours": ASI(RANKS)}


def told(name: str, layers: int, batch: int, device: hardware.Hardware) -> list[float]:
    """Return plain training's seconds over each form's, without and with the trunk, and then its ms per image."""
    model = models.build(name, 10, None, 224).eval()
    body = [n for n, module in model.named_modules() if isinstance(module, nn.Conv2d)][-layers:]
    image = torch.zeros(1, 3, 224, 224)
    trunk, tail = cut(model, [*body, models.head_name(model)], image)
    with torch.no_grad():
        before, after = network_of(trunk, image), network_of(tail, trunk(image), analyse(tail).pooled)
    dims = {layer.name: (batch, *layer.size.dims[1:]) for layer in after.layers}

    def seconds(method: Method) -> float:
        fitted = {n: _within(method, dims[n]) for n in body} | {models.head_name(model): Vanilla()}
        return seconds_of(total([after.step(batch, fitted), after.update(fitted)]), device)

    plain, trunk_seconds = seconds(Vanilla()), seconds_of(before.forward(batch), device)
    times = [seconds(form) for form in FORMS.values()]
    ratios = [plain / one for one in times] + [
        (plain + trunk_seconds) / (one + trunk_seconds) for one in times
    ]
    return [*ratios, 1e3 * (plain + trunk_seconds) / batch]


def _within(method: Method, dims: tuple[int, ...]) -> Method:
    if not isinstance(method, ASI):
        return method
    return replace(method, ranks=tuple(min(r, d) for r, d in zip(method.ranks, dims, strict=True)))


def main() -> None:
    device = hardware.preset(sys.argv[1] if len(sys.argv) > 1 else "raspberry-pi-5").hardware
    forms = "published | ours | published, with the trunk | ours, with the trunk"
    print(f"| network | layers | batch | {forms} | ms an image, plain, with the trunk |")
    print("|---|---|---|---|---|---|---|---|")
    for name in ("mcunet", "mobilenet_v2", "resnet18", "resnet34"):
        for layers in (2, 4):
            for batch in (1, 16, 128):
                *ratios, ms = told(name, layers, batch, device)
                shown = " | ".join(f"{ratio:.2f}" for ratio in ratios)
                print(f"| {name} | {layers} | {batch} | {shown} | {ms:.3g} |")


if __name__ == "__main__":
    main()
