"""A JPEG filter in front of a maxout network of the zoo.

C. Guo, M. Rana, M. Cisse and L. van der Maaten, "Countering adversarial images using input
transformations", ICLR 2018.  The filter rounds the cosine transform of each block of 8 x 8 pixels,
as the JPEG standard does for brightness.  Rounding has no gradient.
"""

import math

import torch
from torch import nn
from torch.nn import functional

from gibbon_zoo.zoo import build as zoo

BLOCK = 8
# The standard's table for brightness, which is that of quality 50.
STEPS = torch.tensor(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)


class Jpeg(nn.Module):
    """Compresses and decompresses grey pictures in [0, 1], shape (N, 1, H, W)."""

    def __init__(self):
        super().__init__()
        place = torch.arange(BLOCK)
        cosine = torch.cos((2 * place + 1) * place.view(-1, 1) * math.pi / (2 * BLOCK))
        cosine[0] /= math.sqrt(2)
        self.register_buffer("cosine", cosine / 2)
        self.register_buffer("steps", STEPS / 255)

    def forward(self, pictures):
        height, width = pictures.shape[2:]
        padded = functional.pad(pictures - 0.5, (0, -width % BLOCK, 0, -height % BLOCK))
        blocks = padded.unfold(2, BLOCK, BLOCK).unfold(3, BLOCK, BLOCK)
        waves = self.cosine @ blocks @ self.cosine.T
        waves = (waves / self.steps).round() * self.steps
        blocks = self.cosine.T @ waves @ self.cosine
        whole = blocks.transpose(3, 4).flatten(4, 5).flatten(2, 3)
        return (whole[:, :, :height, :width] + 0.5).clamp(0, 1)


class Filtered(nn.Module):
    def __init__(self):
        super().__init__()
        self.jpeg, self.network = Jpeg(), zoo("maxout").module

    def forward(self, pictures):
        return self.network(self.jpeg(pictures))


build = Filtered
