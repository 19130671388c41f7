"""Random resizing and padding in front of a maxout network of the zoo.

C. Xie, J. Wang, Z. Zhang, Z. Ren and A. Yuille, "Mitigating adversarial effects through
randomization", ICLR 2018.  Each picture is shrunk to a random size and put at a random place.
"""

import torch
from torch import nn
from torch.nn import functional

from gibbon_zoo.zoo import build as zoo

SMALLEST = 24  # of 28 pixels


class RandomResize(nn.Module):
    """Shrinks and moves pictures, shape (N, 1, H, H), and pads them with zeros."""

    def forward(self, pictures):
        count, side = len(pictures), pictures.shape[3]
        size = torch.randint(SMALLEST, side + 1, (count,), device=pictures.device)
        room = (side - size).view(-1, 1)
        place = (torch.rand(count, 2, device=pictures.device) * (room + 1)).floor()
        scale = side / size
        shift = (side - size.view(-1, 1) - 2 * place) * scale.view(-1, 1) / side
        maps = torch.zeros(count, 2, 3, device=pictures.device)
        maps[:, 0, 0] = maps[:, 1, 1] = scale
        maps[:, :, 2] = shift
        grid = functional.affine_grid(maps, list(pictures.shape), align_corners=False)
        return functional.grid_sample(pictures, grid, align_corners=False)


class Randomised(nn.Module):
    def __init__(self):
        super().__init__()
        self.resize, self.network = RandomResize(), zoo("maxout").module

    def forward(self, pictures):
        return self.network(self.resize(pictures))


build = Randomised
