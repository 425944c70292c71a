"""A short run whose checkpoints contain all kinds of state, and a comparison of two such runs."""

import json

import torch

OPTIONS = (
    "INPUT.MIN_SIZE_TRAIN (64,96) INPUT.MIN_SIZE_TEST 64 DATALOADER.NUM_WORKERS 1 SEED 5 "
    "MODEL.RPN.POST_NMS_TOPK_TRAIN 100 MODEL.FPN.OUT_CHANNELS 16 MODEL.ROI_BOX_HEAD.FC_DIM 16 "
    "SOLVER.IMS_PER_BATCH 2 SOLVER.MAX_ITER 24 SOLVER.STEPS (16,) SOLVER.WARMUP_ITERS 8 "
    "SOLVER.CHECKPOINT_PERIOD 3 SOLVER.CHECKPOINTS_TO_KEEP 2 SOLVER.DETERMINISTIC True "
    "INPUT.AUGMENTATIONS ('CopyPaste()','RandomCrop(0.6)','Expand()','HorizontalFlip()') "
    "TEST.EVAL_PERIOD 6 TEST.BEST_METRIC validation/total_loss "
    "TEST.BEST_TO_KEEP 2 TEST.VALIDATION_LOSS True BALANCE.PERIOD 5 "
    "SOLVER.EMA_DECAY 0.999 SOLVER.ACCUMULATION_STEPS 2"
).split()
TIMES = ("time", "data_time", "rank_data_time", "eta_seconds")


def metrics_of(folder):
    """Return the records of a run by iteration, without measured times."""
    records = {}
    for line in (folder / "metrics.json").read_text().splitlines():
        record = {k: v for k, v in json.loads(line).items() if k not in TIMES}
        iteration = record.pop("iteration")
        assert iteration not in records or not record, f"iteration {iteration} is there twice"
        if record:
            records[iteration] = record
    return json.dumps(records, sort_keys=True)  # text, in which NaN equals NaN


def assert_same_checkpoints(folder, whole):
    """Compare the checkpoints of two runs: weights, averages, optimizer, and state of the hooks."""
    names = {p.name for p in whole.glob("*.pth")}
    assert {p.name for p in folder.glob("*.pth*")} == names
    assert "model_final.pth" in names
    for name in names:
        ours, theirs = (torch.load(f / name, weights_only=True) for f in (folder, whole))
        assert ours["iteration"] == theirs["iteration"], name
        for key, value in theirs["model"].items():
            assert torch.equal(ours["model"][key], value), f"{name}: {key}"
        states = [x["trainer"]["_trainer"]["optimizer"]["state"] for x in (ours, theirs)]
        for i, state in states[1].items():
            assert torch.equal(states[0][i]["momentum_buffer"], state["momentum_buffer"]), name
        ours, theirs = (x["trainer"]["hooks"] for x in (ours, theirs))
        for key, value in theirs["EMA"]["weights"].items():  # the raw ones
            assert torch.equal(ours["EMA"]["weights"][key], value), f"{name}: {key}"
        for hook in ("BestCheckpointer", "BalanceMonitor"):
            assert ours.get(hook) == theirs.get(hook), f"{name}: {hook}"
