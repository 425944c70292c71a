"""Classifiers of torchvision with random batch norms."""

from torch import nn

RES = ("res2", "res3", "res4", "res5")


def randomise_norms(net):
    """So that a norm or a scale that was lost or not loaded shows."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
        if hasattr(module, "layer_scale"):  # 1e-6 in a new ConvNeXt
            nn.init.uniform_(module.layer_scale, 0.5, 1.5)
    return net
