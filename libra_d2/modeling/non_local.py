"""
Non-local block (https://arxiv.org/abs/1711.07971), with which Libra R-CNN refines its pyramid.

Shapes:
    N: number of images; C: channels; C': channels inside the block; L = H * W: positions
"""

import torch
import torch.nn.functional as F
from torch import nn

MODES = ("embedded_gaussian", "dot_product", "gaussian", "concatenation")


class NonLocal2d(nn.Module):
    """
    Compute x + conv_out(y), where y is at every position a weighted mean of g(x) over all
    positions:

        embedded_gaussian  softmax(theta(x) phi(x)^T) g(x); logits / sqrt(C') with `use_scale`
        gaussian           softmax(x x^T) g(x)
        dot_product        theta(x) phi(x)^T g(x) / L
        concatenation      ReLU(w [theta(x); phi(x)]) g(x) / L

    No mode builds the L x L matrix of weights, so memory grows only linearly with L. The softmax
    modes call `scaled_dot_product_attention`; the sums of the other two are computed in another
    order. The weights are computed in float32 even under autocast, because unscaled dot products
    overflow float16.

    A new block is the identity, because `conv_out` is initialized with zeros.
    """

    def __init__(
        self,
        in_channels: int,
        reduction: int = 2,
        use_scale: bool = True,
        mode: str = "embedded_gaussian",
    ):
        """
        Args:
            in_channels: C.
            reduction: >= 1. C' is C // reduction, but at least 1.
            use_scale: whether to scale the logits of "embedded_gaussian". Other modes have no
                scale.
            mode: one of `MODES`.

        Raises:
            ValueError: `mode` is unknown or `reduction` is below 1.
        """
        super().__init__()
        if mode not in MODES:
            raise ValueError(f"NonLocal2d: mode must be one of {MODES}, got {mode!r}")
        if reduction < 1:
            raise ValueError(f"NonLocal2d: reduction must be >= 1, got {reduction}")
        self.mode = mode
        self.use_scale = use_scale
        channels = max(in_channels // reduction, 1)

        self.g = nn.Conv2d(in_channels, channels, 1)
        self.conv_out = nn.Conv2d(channels, in_channels, 1)
        self.theta = self.phi = self.concat_project = None
        if mode != "gaussian":
            self.theta = nn.Conv2d(in_channels, channels, 1)
            self.phi = nn.Conv2d(in_channels, channels, 1)
        if mode == "concatenation":
            self.concat_project = nn.Conv2d(2 * channels, 1, 1, bias=False)

        for name, module in self.named_children():
            assert isinstance(module, nn.Conv2d)
            nn.init.normal_(module.weight, std=0.01)
            if name == "conv_out":
                nn.init.zeros_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, C, H, W), for any H and W."""
        # In channels-last format, the tokens below are views of the outputs of the convolutions.
        nhwc = x.contiguous(memory_format=torch.channels_last)
        value = _tokens(self.g(nhwc))
        if self.theta is not None and self.phi is not None:
            query = _tokens(self.theta(nhwc))
            key = _tokens(self.phi(nhwc))
        else:
            query = key = _tokens(nhwc)

        if torch.jit.is_scripting():  # TorchScript's autocast takes only constants
            y = self._mix(query, key, value)
        else:
            with torch.autocast(x.device.type, enabled=False):
                y = self._mix(query, key, value)
        y = y.to(value.dtype).transpose(1, 2).unflatten(2, x.shape[-2:])
        return x + self.conv_out(y)

    def _mix(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """(N, L, C), (N, L, C), (N, L, C') -> (N, L, C'), in float32 or a wider type."""
        if self.concat_project is not None:
            return _concatenation(query, key, value, self.concat_project.weight)
        if self.mode == "dot_product":
            return _dot_product(query, key, value)
        scaled = self.use_scale and self.mode == "embedded_gaussian"
        return _softmax(query, key, value, query.shape[-1] ** -0.5 if scaled else 1.0)


def _tokens(x: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) -> (N, L, C), contiguous."""
    return x.flatten(2).transpose(1, 2).contiguous()


def _full(x: torch.Tensor) -> torch.Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _softmax(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
) -> torch.Tensor:
    """softmax(scale * query key^T) value: (N, L, C), (N, L, C), (N, L, C') -> (N, L, C')."""
    # The fused kernel needs four dimensions and the same number of channels in all three tensors.
    # Otherwise PyTorch silently uses a kernel that builds the L x L matrix.
    channels = value.shape[-1]
    value = F.pad(_full(value), (0, query.shape[-1] - channels))
    y = F.scaled_dot_product_attention(
        _full(query)[:, None], _full(key)[:, None], value[:, None], scale=scale
    )
    return y[:, 0, :, :channels]


def _dot_product(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """query (key^T value) / L, with the small product first: (N, L, C') -> (N, L, C')."""
    return _full(query) @ (_full(key).transpose(1, 2) @ _full(value) / query.shape[1])


def _concatenation(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """
    sum_j ReLU(a_i + b_j) value_j / L, with a = w_theta . query and b = w_phi . key: -> (N, L, C').

    The terms that the ReLU does not set to zero are those with b_j > -a_i. If the positions are
    sorted by falling b, these are a prefix, whose sum is a_i * sum_j value_j + sum_j b_j value_j.
    """
    channels = query.shape[-1]
    w = _full(weight).flatten()
    a, b = _full(query) @ w[:channels], _full(key) @ w[channels:]
    b, order = b.sort(dim=1, descending=True)
    value = _full(value).gather(1, order[:, :, None].expand_as(value))
    # Sums over all positions lose too many digits in float32.
    terms = torch.stack([value, b[:, :, None] * value]).double()
    prefix = F.pad(terms.cumsum(2), (0, 0, 1, 0))
    passing = torch.searchsorted(-b.detach(), a.detach().contiguous())
    passing = passing[None, :, :, None].expand(2, -1, -1, value.shape[-1])
    value_sum, b_value_sum = prefix.gather(2, passing).unbind(0)
    return ((a[:, :, None] * value_sum + b_value_sum) / query.shape[1]).to(value.dtype)
