"""Which weights of a file are loaded, under which names, and that they must be finite."""

import pytest
import torch
from torch import nn

from libra_d2.checkpoint import LibraCheckpointer, convert, read_checkpoint
from libra_d2.checkpoint.checkpoint_files import class_names_in
from libra_d2.engine.ema import EMA
from libra_d2.errors import UserError


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        self.head = nn.Linear(4, 2)


def weights(value=1.0):
    return {k: torch.full_like(v, value) for k, v in Net().state_dict().items()}


def load(path):
    net = Net()
    LibraCheckpointer(net).load(str(path))
    return net


@pytest.mark.parametrize(
    "rename",
    [
        lambda k: f"module.{k}",
        lambda k: f"_orig_mod.{k}",
        lambda k: f"module._orig_mod.{k}",
        lambda k: f"_orig_mod.module.{k}",
        lambda k: f"module.module.{k}",
        lambda k: k.replace("backbone.", "backbone._orig_mod."),
        lambda k: f"_orig_mod.{k}".replace("backbone.", "backbone._orig_mod."),
        lambda k: k.replace("backbone.0.", "backbone.0._orig_mod."),
        lambda k: f"model.{k}",
        lambda k: f"model._orig_mod.{k}",
    ],
)
@pytest.mark.parametrize("where", ["model", "state_dict", ""])
def test_names_that_wrappers_made_are_found(tmp_path, caplog, rename, where):
    renamed = {rename(k): v for k, v in weights(2.0).items()}
    torch.save({where: renamed} if where else renamed, tmp_path / "m.pth")
    assert all((v == 2).all() for v in load(tmp_path / "m.pth").state_dict().values())
    assert "WARNING" not in caplog.text


def test_a_model_whose_names_begin_with_model_keeps_them(tmp_path):
    net = nn.ModuleDict({"model": nn.Linear(1, 1)})
    torch.save({"model": {k: v + 1 for k, v in net.state_dict().items()}}, tmp_path / "m.pth")
    before = net["model"].weight.item()
    LibraCheckpointer(net).load(str(tmp_path / "m.pth"))
    assert net["model"].weight.item() == pytest.approx(before + 1)


def test_the_same_name_twice_is_an_error(tmp_path):
    both = {**weights(), **{f"module._orig_mod.{k}": v for k, v in weights(2.0).items()}}
    torch.save({"model": both}, tmp_path / "m.pth")
    with pytest.raises(UserError, match=r"contains backbone\.0\.weight twice"):
        load(tmp_path / "m.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("key", ["head.weight", "backbone.1.running_var"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_that_are_not_finite_are_an_error(tmp_path, value, key, dtype):
    broken = {k: v.to(dtype) for k, v in weights().items()}
    broken[key].view(-1)[1] = value
    torch.save({"model": broken}, tmp_path / "m.pth")
    message = rf"m\.pth: .* but 1 of \d+ values of {key} are NaN or infinite"
    with pytest.raises(UserError, match=message):
        load(tmp_path / "m.pth")


def test_what_is_not_loaded_may_be_anything(tmp_path):
    content = {**weights(), "other": torch.tensor([float("nan")])}
    torch.save({"model": content}, tmp_path / "m.pth")
    assert load(tmp_path / "m.pth").head.weight.sum() == 8


AVERAGED = {
    "ema_state": lambda w: {"ema_state": w},
    "model_ema": lambda w: {"model_ema": w, "epoch": 3},
    "state_dict_ema": lambda w: {"state_dict_ema": {f"module.{k}": v for k, v in w.items()}},
    "ema": lambda w: {"ema": {"module": w, "updates": 3}},
    "swa_state_dict": lambda w: {"swa_state_dict": w},
    "callbacks.EMAWeights.state_dict": lambda w: {"callbacks": {"EMAWeights": {"state_dict": w}}},
    "averaged_model": lambda w: {"averaged_model": {**w, "n_averaged": torch.tensor(3)}},
}


@pytest.mark.parametrize("part", AVERAGED)
def test_averaged_weights_are_named_and_taken_by_their_key(tmp_path, caplog, part):
    content, path = AVERAGED[part](weights(2.0)), tmp_path / "m.pth"
    torch.save({"model": weights(0.0), **content}, path)
    assert load(path).head.weight.sum() == 0
    named = "ema.module" if part == "ema" else part
    assert f'To load them, set MODEL.WEIGHTS to "{path}#{named}"' in caplog.text
    caplog.clear()
    for key in {part, named}:
        assert load(f"{path}#{key}").head.weight.sum() == 16
    assert load(f"{path}#model").head.weight.sum() == 0
    assert "averaged weights" not in caplog.text
    torch.save(content, path)  # and nothing beside them
    with pytest.raises(UserError, match=rf'no state dict, but .*To load them, .*"{path}#{named}"'):
        load(path)


def test_a_part_that_is_not_there(tmp_path):
    torch.save({"model": weights(), "ema_state": weights(), "epoch": 3}, tmp_path / "m.pth")
    for part in ("epoch", "emastate", "ema_state.head"):
        with pytest.raises(
            UserError, match=rf"under the key '{part}'. Keys .*: 'model', 'ema_state'$"
        ):
            load(f"{tmp_path}/m.pth#{part}")


def test_our_own_averages_are_not_offered(tmp_path, caplog):
    """A run with SOLVER.EMA_DECAY saves the average as "model", and the raw weights next to it."""
    net = Net()
    optimizer = torch.optim.AdamW(net.parameters())
    net.head(torch.rand(2, 4)).sum().backward()
    optimizer.step()
    ema = EMA(net, optimizer, decay=0.9, warmup=True)
    state = {"hooks": {"EMA": ema.state_dict()}, "_trainer": {"optimizer": optimizer.state_dict()}}
    LibraCheckpointer(net, str(tmp_path)).save("m", trainer=state)
    load(tmp_path / "m.pth")
    assert "averaged" not in caplog.text


def test_class_names_are_texts():
    assert class_names_in({"class_names": ["cat"]}) == ["cat"]
    assert class_names_in({"meta": {"CLASSES": "cat"}, "mmdet": 3}) == ["cat"]
    assert class_names_in({"mmdet": 3, "meta": 4}) == []
    nested = []
    for _ in range(50):
        nested = [nested, nested]
    for names in (nested, 3, [1], {"a": 1}):
        with pytest.raises(UserError, match="must be a list of strings"):
            class_names_in({"class_names": names})


def test_conversion_does_not_replace_its_source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": weights()}, "m.pth")
    for name in ("m.pth", "./m.pth", str(tmp_path / "m.pth")):
        with pytest.raises(UserError, match=r"would replace the source m\.pth"):
            convert("m.pth", name)
    assert read_checkpoint("m.pth")["model"]["head.weight"].sum() == 8
