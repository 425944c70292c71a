import numpy as np

from libra_d2.planning.sampling import plan_repeat_factors

from .made_up import config, notes, training_set, values


def of_classes(classes, num_classes=1):
    """One object an image."""
    return training_set(
        np.full((len(classes), 2), 50.0), 1, classes=classes, num_classes=num_classes
    )


def test_a_rare_class_is_repeated():
    data = of_classes([0] * 50 + [1] * 45 + [2] * 5)
    advice = plan_repeat_factors(data, config())
    assert values(advice) == {
        "DATALOADER.SAMPLER_TRAIN": "RepeatFactorTrainingSampler",
        "DATALOADER.REPEAT_THRESHOLD": 0.45,
    }
    assert "1 rare classes (class 2 in 5.0% of the images; median 45.0%)" in advice[0].why


def test_even_classes_are_not():
    assert not plan_repeat_factors(of_classes([0] * 50 + [1] * 30 + [2] * 20), config())


def test_three_images_of_40_classes():
    rng = np.random.default_rng(0)
    data = training_set(
        np.full((30, 2), 50.0), 10, classes=rng.permutation(40)[:30], num_classes=40
    )
    advice = plan_repeat_factors(data, config())
    assert not values(advice)  # all classes are equally rare
    assert notes(advice).startswith("no objects of 10 classes (class ")


def test_another_sampler_of_the_user_stays():
    cfg = config("DATALOADER.SAMPLER_TRAIN", "RandomSubsetTrainingSampler")
    assert not plan_repeat_factors(of_classes([0] * 95 + [1] * 5), cfg)
