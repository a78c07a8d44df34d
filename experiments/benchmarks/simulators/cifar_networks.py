"""The networks that every simulator trains, in plain PyTorch: a small CNN, and ResNet18 as in torchvision.

The fleet file names them as `./cifar_networks.py:small_cnn`; the other simulators import them. Batch norms keep their
statistics in every simulator: they stay in eval mode, whatever mode the network is set to.
"""

from __future__ import annotations

from typing import Self

from torch import Tensor, nn
from torch.nn import functional as F


class Still(nn.Module):
    """A network whose batch norms stay in eval mode."""

    def train(self, mode: bool = True) -> Self:
        """Set the mode of everything but the batch norms."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.training = False
        return self


class SmallCnn(Still):
    """Two convolutions and two linear layers, 545,098 weights."""

    def __init__(self, num_classes: int, resolution: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.fc1 = nn.Linear(64 * (resolution // 4) ** 2, 128)
        self.fc2 = nn.Linear(128, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of images (N, 3, H, W)."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


class Block(nn.Module):
    """Two 3x3 convolutions with a shortcut around them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            around = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(around, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        inner = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(inner)) + self.downsample(x))


class ResNet18(Still):
    """ResNet18 with its stem for ImageNet; its tensors have torchvision's names."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = nn.Sequential(Block(64, 64, 1), Block(64, 64, 1))
        self.layer2 = nn.Sequential(Block(64, 128, 2), Block(128, 128, 1))
        self.layer3 = nn.Sequential(Block(128, 256, 2), Block(256, 256, 1))
        self.layer4 = nn.Sequential(Block(256, 512, 2), Block(512, 512, 1))
        self.fc = nn.Linear(512, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of images (N, 3, H, W)."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, padding=1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


def small_cnn(num_classes: int, resolution: int) -> nn.Module:
    """Return the small CNN with initial weights."""
    return SmallCnn(num_classes, resolution)


def resnet18(num_classes: int, resolution: int) -> nn.Module:  # noqa: ARG001 - any size of image
    """Return ResNet18 with initial weights."""
    return ResNet18(num_classes)


NETWORKS = {"small_cnn": small_cnn, "resnet18": resnet18}
