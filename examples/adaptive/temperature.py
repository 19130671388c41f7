"""A softmax with a temperature behind a maxout network of the zoo.

N. Papernot, P. McDaniel, X. Wu, S. Jha and A. Swami, "Distillation as a defense to adversarial
perturbations against deep neural networks", S&P 2016.  A network that is trained at a high
temperature and used at 1 has logits so large that its softmax is 1 for one class and 0 for the
others in float32: the gradient of its loss is zero.
"""

from torch import nn

from gibbon_zoo.zoo import build as zoo

TEMPERATURE = 100


class Distilled(nn.Module):
    def __init__(self):
        super().__init__()
        self.network, self.softmax = zoo("maxout").module, nn.Softmax(1)

    def forward(self, pictures):
        return self.softmax(self.network(pictures) * TEMPERATURE)


build = Distilled
