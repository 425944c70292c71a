"""A model with six weights, and the loop that trains it."""

import torch
from detectron2.utils.events import EventStorage

from libra_d2.engine.non_finite import NonFiniteGuard
from libra_d2.engine.train_loop import LibraTrainLoop


class Toy(torch.nn.Module):
    """
    A model whose losses are means over images. The name of an image makes it fail: "bad" makes a
    loss and its gradients NaN; "inf" makes a loss infinite, but not its gradients; "broken" raises
    the error of an RPN whose boxes are NaN.
    """

    def __init__(self, batch_norm=False):
        super().__init__()
        torch.manual_seed(0)
        self.fc = torch.nn.Linear(2, 2)
        self.norm = torch.nn.BatchNorm1d(2) if batch_norm else torch.nn.Identity()
        self.dtypes = set()

    def forward(self, batch):
        names = [d["file_name"] for d in batch]
        if "broken" in names:
            raise FloatingPointError("Predicted boxes contain NaN")
        x = torch.stack([d["x"] for d in batch])
        y = self.norm(self.fc(x.to(self.fc.weight.device)))
        self.dtypes.add(y.dtype)
        first, second = (y**2).mean(), (y - 1).abs().mean()
        if "bad" in names:
            second = second * float("nan")
        if "inf" in names:
            second = second.detach() * float("inf")
        return {"loss_a": first, "loss_b": second}


def batches(count, size=4, names=()):
    """Return batches of images; `names[i]` is the name of the last image in batch i."""
    generator = torch.Generator().manual_seed(1)
    ret = []
    for i in range(count):
        images = [f"{i}_{j}.jpg" for j in range(size)]
        images[-1] = names[i] if i < len(names) and names[i] else images[-1]
        xs = torch.randn(size, 2, generator=generator)
        ret.append([{"file_name": n, "x": x} for n, x in zip(images, xs)])
    return ret


def make_loop(data, output_dir="", model=None, optimizer=None, max_skips=0, **kwargs):
    model = model or Toy()
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    guard = NonFiniteGuard(output_dir=str(output_dir), max_skips=max_skips)
    return LibraTrainLoop(model, data, optimizer, guard=guard, **kwargs)


def run(loop, steps, start=0):
    with EventStorage(start) as storage:
        for loop.iter in range(start, start + steps):
            storage.iter = loop.iter
            loop.run_step()
    return storage


def weights(model):
    return torch.cat([p.detach().flatten().clone() for p in model.parameters()])
