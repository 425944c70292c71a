"""State dicts with mmdetection's names and shapes, whose values are computed from the names."""

import json
import zlib

import numpy as np
import torch

from tests.support.project import golden_folder

MANIFESTS = json.loads((golden_folder() / "mmdet_state_dict_shapes.json").read_text())


def by_rule(name: str, shape: list) -> torch.Tensor:
    """Return the tensor for a name, by the rule of tests/golden/README.md."""
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    x = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    x = torch.from_numpy(x.astype(np.float32))
    if name.endswith("running_var"):
        return 1 + 0.1 * x.abs()
    if name.endswith("running_mean"):
        return 0.05 * x
    if len(shape) == 1:
        gain = 0.3 if ".bn3." in name else 1.0
        return gain * (1 + 0.1 * x) if name.endswith("weight") else 0.05 * x
    x = x * (2 / np.prod(shape[1:])) ** 0.5
    outputs = ("rpn_cls", "rpn_reg", "fc_reg", "retina_cls", "retina_reg")
    return x * 0.05 if any(part in name for part in outputs) else x


def state_dict(model: str) -> dict:
    return {name: by_rule(name, shape) for name, shape in MANIFESTS[model].items()}
