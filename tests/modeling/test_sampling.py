import math
from collections import Counter

import pytest
import torch
from detectron2.modeling.sampling import subsample_labels
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from libra_d2.modeling import sample_proposals

from ..support.project import Golden

GOLDEN = Golden("samplers")
EMPTY = torch.empty(0), torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)


def scene(num_proposals=2000, num_objects=10, num_fg=300, num_far=500):
    """Positives with IoU in [0.5, 1), negatives in [0, 0.5), `num_far` of them at 0."""
    ious = torch.rand(num_proposals) / 2
    ious[:num_fg] += 0.5
    ious[num_fg : num_fg + num_far] = 0
    return ious, torch.randint(0, num_objects, (num_proposals,)), (ious >= 0.5).long()


# -- The reference's frequencies ---------------------------------------------------------------


@pytest.mark.parametrize("case", [pytest.param(c, id=c["name"]) for c in GOLDEN.cases])
def test_frequencies_equal_the_reference(case):
    """
    Every proposal is chosen as often as the reference chooses it. Both frequencies are estimates
    from D draws, so their difference has a standard error of sqrt(p(1-p)(1/D + 1/D')). 5.5 of
    them: with some 2000 proposals, one fair sampler in ten thousand would fail. The spread of all
    z-scores (1 if the two samplers are the same) finds a small bias shared by many proposals.
    """
    name, draws = case["name"], 3000
    ious, gt = GOLDEN.array(name, "iou"), GOLDEN.array(name, "gt").long()
    labels, matched_idxs = (gt > 0).long(), (gt - 1).clamp(min=0)
    counts = {"pos": torch.zeros(len(ious)), "neg": torch.zeros(len(ious))}
    generator = torch.Generator().manual_seed(1)
    for _ in range(draws):
        fg_idxs, bg_idxs = sample_proposals(
            ious,
            matched_idxs,
            labels,
            case["num"],
            case["pos_fraction"],
            floor_thresh=case["floor_thr"],
            floor_fraction=case["floor_fraction"],
            num_bins=case["num_bins"],
            bin_range="mmdet",
            generator=generator,
        )
        counts["pos"][fg_idxs] += 1
        counts["neg"][bg_idxs] += 1
    z_scores = []
    for kind, count in counts.items():
        ours, theirs = count.double() / draws, GOLDEN.array(name, f"{kind}_freq").double()
        p = (ours * draws + theirs * case["draws"]) / (draws + case["draws"])
        error = (p * (1 - p) * (1 / draws + 1 / case["draws"])).sqrt()
        certain = error == 0
        assert torch.equal(ours[certain], theirs[certain])
        z_scores.append(((ours - theirs) / error)[~certain])
    z = torch.cat(z_scores)
    if len(z):
        assert z.abs().max() < 5.5
        assert z.std() < 1.15


# -- The paper's bins --------------------------------------------------------------------------


def test_each_third_of_the_papers_range_gets_its_third():
    ious, matched_idxs, labels = scene(num_objects=3, num_fg=200)
    for _ in range(20):
        fg_idxs, bg_idxs = sample_proposals(ious, matched_idxs, labels, 512, 0.25)
        assert len(fg_idxs) == 128
        thirds = torch.bucketize(ious[bg_idxs], torch.tensor([1 / 6, 2 / 6]), right=True)
        assert torch.bincount(thirds).tolist() == [128, 128, 128]


def test_paper_range_draws_the_middle_third_that_mmdet_range_thins_out():
    """
    With IoUs up to 1, mmdet's bins are thirds of [0, 1): the negatives from 1/6 to 1/3 share the
    first bin with all easy ones, and the third bin holds no negative at all.
    """
    ious, matched_idxs, labels = scene(num_objects=3, num_fg=200, num_far=0)
    ious[200:1700] = torch.rand(1500) / 10
    middle = (ious >= 1 / 6) & (ious < 1 / 3)
    assert 64 < middle.sum() < 128
    drawn = {}
    for bin_range in ("paper", "mmdet"):
        _, bg_idxs = sample_proposals(ious, matched_idxs, labels, 512, 0.25, bin_range=bin_range)
        drawn[bin_range] = middle[bg_idxs].sum()
    assert drawn["paper"] == middle.sum()
    assert drawn["mmdet"] < middle.sum() / 2


def test_what_a_bin_lacks_comes_from_the_others():
    ious = torch.tensor([0.05] * 200 + [0.2] * 10 + [0.4] * 200)
    zeros = torch.zeros(410, dtype=torch.int64)
    _, bg_idxs = sample_proposals(ious, zeros, zeros, 300, 0.25)
    counts = Counter(round(v, 2) for v in ious[bg_idxs].tolist())
    assert counts[0.2] == 10
    assert counts[0.05] >= 100 and counts[0.4] >= 100 and sum(counts.values()) == 300


def test_floor_set_gets_its_share():
    ious = torch.cat([torch.rand(500) * 0.1, 0.1 + torch.rand(500) * 0.4])
    zeros = torch.zeros(1000, dtype=torch.int64)
    _, bg_idxs = sample_proposals(
        ious, zeros, zeros, 400, 0.25, floor_thresh=0.1, floor_fraction=0.25
    )
    assert (ious[bg_idxs] < 0.1).sum() == 100
    # Too few beyond the floor: the floor set fills up, then nothing is lost.
    _, bg_idxs = sample_proposals(
        ious[:600], zeros[:600], zeros[:600], 400, 0.25, floor_thresh=0.1, floor_fraction=0.25
    )
    assert (ious[:600][bg_idxs] >= 0.1).sum() == 100 and len(bg_idxs) == 400


def test_floor_at_zero_holds_what_touches_nothing():
    ious, matched_idxs, labels = scene(num_fg=0, num_far=1000)
    _, bg_idxs = sample_proposals(
        ious, matched_idxs, labels, 400, 0.25, floor_thresh=0.0, floor_fraction=0.5
    )
    assert (ious[bg_idxs] == 0).sum() == 200


# -- Positives ---------------------------------------------------------------------------------


def test_objects_share_the_positives():
    """3 objects with 900, 60 and 40 proposals, 90 positives: round(90 / 3) + 1 each, cut to 90."""
    matched_idxs = torch.tensor([0] * 900 + [1] * 60 + [2] * 40)
    ious, labels = torch.full((1000,), 0.7), torch.ones(1000, dtype=torch.int64)
    fg_idxs, _ = sample_proposals(ious, matched_idxs, labels, 360, 0.25)
    counts = torch.bincount(matched_idxs[fg_idxs])
    assert counts.sum() == 90 and counts.max() <= 31 and counts.min() >= 28


def test_rare_objects_keep_all_and_the_rest_tops_up():
    matched_idxs = torch.tensor([0] * 500 + [1] * 3 + [2] * 3)
    ious, labels = torch.full((506,), 0.7), torch.ones(506, dtype=torch.int64)
    fg_idxs, _ = sample_proposals(ious, matched_idxs, labels, 360, 0.25)
    assert torch.bincount(matched_idxs[fg_idxs]).tolist() == [84, 3, 3]


# -- Invariants --------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    num_proposals=st.integers(0, 300),
    num_objects=st.integers(0, 40),
    num_samples=st.integers(0, 200),
    positive_fraction=st.floats(0, 1),
    floor_thresh=st.sampled_from([-1, 0.0, 0.05, 0.2]),
    floor_fraction=st.sampled_from([0.0, 0.3, 1.0]),
    num_bins=st.integers(1, 6),
    bin_range=st.sampled_from(["paper", "mmdet"]),
    positives=st.sampled_from(["instance_balanced", "random"]),
    negatives=st.sampled_from(["iou_balanced", "random"]),
    neg_pos_ub=st.sampled_from([-1, 0, 1.5, 3]),
    num_negatives=st.sampled_from([-1, 0, 50]),
    easy=st.floats(0, 1),
)
def test_invariants(
    seed, num_proposals, num_objects, num_samples, positive_fraction, neg_pos_ub, num_negatives,
    easy, **modes
):  # fmt: skip
    g = torch.Generator().manual_seed(seed)
    ious = torch.rand(num_proposals, generator=g) * (torch.rand(num_proposals, generator=g) > easy)
    if num_objects == 0:
        ious = torch.zeros(num_proposals)
    labels = (ious >= 0.5).long()
    labels[(ious > 0.4) & (ious < 0.5)] = -1
    matched_idxs = torch.randint(0, max(num_objects, 1), (num_proposals,), generator=g)

    def draw():
        return sample_proposals(
            ious,
            matched_idxs,
            labels,
            num_samples,
            positive_fraction,
            neg_pos_ub=neg_pos_ub,
            num_negatives=num_negatives,
            generator=torch.Generator().manual_seed(seed),
            **modes,
        )

    fg_idxs, bg_idxs = draw()
    assert (labels[fg_idxs] == 1).all() and (labels[bg_idxs] == 0).all()
    assert len(fg_idxs.unique()) == len(fg_idxs) and len(bg_idxs.unique()) == len(bg_idxs)
    num_fg, num_bg = (labels == 1).sum().item(), (labels == 0).sum().item()
    expected_fg = min(int(num_samples * positive_fraction), num_fg)
    expected_bg = num_samples - expected_fg if num_negatives < 0 else num_negatives
    if neg_pos_ub >= 0:
        expected_bg = min(expected_bg, int(neg_pos_ub * max(1, expected_fg)))
    assert len(fg_idxs) == expected_fg
    assert len(bg_idxs) == min(expected_bg, num_bg)

    if modes["positives"] == "instance_balanced" and expected_fg < num_fg:
        # No object gets more than its share while another one with proposals left gets less.
        have = torch.bincount(matched_idxs[labels == 1], minlength=num_objects)
        got = torch.bincount(matched_idxs[fg_idxs], minlength=num_objects)
        share = round(expected_fg / (have > 0).sum().item()) + 1
        if got.max() > share:
            assert (got >= torch.minimum(have, torch.tensor(share))).all()

    again = draw()
    assert torch.equal(fg_idxs, again[0]) and torch.equal(bg_idxs, again[1])


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), num_bins=st.integers(1, 8), num=st.integers(8, 200))
def test_every_bin_gets_its_quota_or_all_it_has(seed, num_bins, num):
    g = torch.Generator().manual_seed(seed)
    ious = torch.rand(400, generator=g) ** 2 / 2
    zeros = torch.zeros(400, dtype=torch.int64)
    _, bg_idxs = sample_proposals(ious, zeros, zeros, num, 0.25, num_bins=num_bins, generator=g)
    edges = torch.linspace(0, 0.5, num_bins + 1)[1:-1]
    have = torch.bincount(torch.bucketize(ious, edges, right=True), minlength=num_bins)
    got = torch.bincount(torch.bucketize(ious[bg_idxs], edges, right=True), minlength=num_bins)
    assert (got >= have.clamp(max=num // num_bins)).all()


@pytest.mark.parametrize("num_objects", [1, 4, 150])
def test_choice_within_a_group_is_uniform(num_objects):
    """Proposals that nothing tells apart are chosen equally often: 4.5 standard errors."""
    ious, labels = torch.full((600,), 0.7), torch.ones(600, dtype=torch.int64)
    labels[300:], ious[300:] = 0, 0.2
    matched_idxs = torch.arange(600) % num_objects
    counts, draws = torch.zeros(600), 2000
    for _ in range(draws):
        fg_idxs, bg_idxs = sample_proposals(ious, matched_idxs, labels, 200, 0.5)
        counts[fg_idxs] += 1
        counts[bg_idxs] += 1
    error = math.sqrt(draws * (1 / 3) * (2 / 3))
    assert (counts - draws / 3).abs().max() < 4.5 * error


def test_empty_and_without_objects():
    fg_idxs, bg_idxs = sample_proposals(*EMPTY, 512, 0.25)
    assert len(fg_idxs) == len(bg_idxs) == 0
    zeros = torch.zeros(1000, dtype=torch.int64)
    fg_idxs, bg_idxs = sample_proposals(torch.zeros(1000), zeros, zeros, 512, 0.25)
    assert len(fg_idxs) == 0 and len(bg_idxs) == 512


def test_random_modes_are_detectron2s():
    _, matched_idxs, labels = scene()
    labels[::7] = -1
    torch.manual_seed(5)
    expected = subsample_labels(labels, 512, 0.25, 0)
    torch.manual_seed(5)
    actual = sample_proposals(
        labels, matched_idxs, labels, 512, 0.25, positives="random", negatives="random"
    )
    assert torch.equal(actual[0], expected[0]) and torch.equal(actual[1], expected[1])


class CountSyncs(TorchDispatchMode):
    """Counts the operators whose result the host has to wait for."""

    WAITS = ("nonzero", "_local_scalar_dense", "masked_select", "unique", "bincount", "equal")

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        by_mask = name in ("index", "index_put_", "index_put") and any(
            i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]
        )
        self.count += by_mask or name.startswith(self.WAITS)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("floor_thresh", [-1, 0.1])
@pytest.mark.parametrize("bin_range", ["paper", "mmdet"])
def test_no_more_synchronisations_than_upstream(bin_range, floor_thresh):
    ious, matched_idxs, labels = scene()
    with CountSyncs() as upstream:
        subsample_labels(labels, 512, 0.25, 0)
    with CountSyncs() as ours:
        sample_proposals(
            ious,
            matched_idxs,
            labels,
            512,
            0.25,
            bin_range=bin_range,
            floor_thresh=floor_thresh,
            floor_fraction=0.2,
        )
    assert 0 < ours.count <= upstream.count


@pytest.mark.gpu
def test_on_cuda_without_further_synchronisations():
    inputs = [x.cuda() for x in scene()]
    with CountSyncs() as upstream:
        subsample_labels(inputs[2], 512, 0.25, 0)
    fg_idxs, bg_idxs = sample_proposals(*inputs, 512, 0.25)
    assert fg_idxs.is_cuda and bg_idxs.is_cuda
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with pytest.warns(UserWarning) as record:
            sample_proposals(*inputs, 512, 0.25)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert sum("synchronizing" in str(w.message) for w in record) <= upstream.count


@pytest.mark.parametrize(
    "setting",
    [
        {"positives": "balanced"},
        {"negatives": "iou"},
        {"bin_range": "full"},
        {"num_bins": 0},
        {"floor_fraction": 1.5},
        {"floor_thresh": -0.5},
        {"neg_pos_ub": -2},
        {"num_negatives": -3},
    ],
)
def test_bad_setting_is_named(setting):
    (name, value) = next(iter(setting.items()))
    with pytest.raises(ValueError, match=f"{name}.*{value}"):
        sample_proposals(*EMPTY, 512, 0.25, **setting)
