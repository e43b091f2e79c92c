"""Small datasets and modules to train, as anyone may bring them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Table:
    """A plain dataset, as anyone may bring it: two clouds of points."""

    def __init__(self, size: int = 30) -> None:
        generator = torch.Generator().manual_seed(0)
        self.targets = torch.arange(size) % 2
        self.rows = torch.randn(size, 5, generator=generator) + 2.0 * self.targets[:, None]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.rows[index], self.targets[index]


class Subjects(Table):
    """Two modalities; ``second`` says who has the second one."""

    def __init__(self, second: list[int]) -> None:
        super().__init__(len(second))
        self.second = torch.tensor(second)

    def collate(self, items: list[tuple[Tensor, Tensor]]) -> tuple[dict[str, Tensor], Tensor]:
        rows, targets = torch.stack([row for row, _ in items]), torch.stack([t for _, t in items])
        has = torch.stack([self.second[(self.rows == row).all(dim=1)][0] for row in rows])
        inputs = {"mri": rows, "present": torch.stack([torch.ones_like(has), has], 1).float()}
        return inputs | ({"pet": rows} if has.any() else {}), targets


class Multimodal(nn.Module):
    modalities = ("mri", "pet")

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict({name: nn.Linear(5, 4) for name in self.modalities})
        self.head = nn.Linear(4, 2)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        tokens = [
            self.encoder[name](inputs[name]) * inputs["present"][:, [column]]
            for column, name in enumerate(self.modalities)
            if name in inputs
        ]
        return self.head(torch.stack(tokens).sum(dim=0))  # type: ignore[no-any-return]


class Volumes(Table):
    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.rows[index].reshape(1, 5, 1, 1).repeat(1, 1, 4, 4), self.targets[index]


def made(maker: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(3)
    return maker()


def linear() -> nn.Module:
    return nn.Linear(5, 2)


def volumetric() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU(), nn.Dropout(0.2),
        nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 2),
    )  # fmt: skip
