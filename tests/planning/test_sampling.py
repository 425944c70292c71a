import numpy as np

from libra_d2.planning.sampling import plan_any_orientation, plan_repeat_factors

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
    assert (
        "rare classes: 1 (class 2 in 5.0% of the images; the median class is in 45.0%)"
        in advice[0].why
    )


def test_even_classes_are_not():
    assert not plan_repeat_factors(of_classes([0] * 50 + [1] * 30 + [2] * 20), config())


def test_three_images_of_40_classes():
    rng = np.random.default_rng(0)
    data = training_set(
        np.full((30, 2), 50.0), 10, classes=rng.permutation(40)[:30], num_classes=40
    )
    advice = plan_repeat_factors(data, config())
    assert not values(advice)  # all classes are equally rare
    assert notes(advice).startswith("the training set has no objects of 10 classes (class ")


def test_another_sampler_of_the_user_stays():
    cfg = config("DATALOADER.SAMPLER_TRAIN", "RandomSubsetTrainingSampler")
    assert not plan_repeat_factors(of_classes([0] * 95 + [1] * 5), cfg)


def test_any_orientation_flips_and_rotates():
    planned = values(plan_any_orientation(of_classes([0]), config()))
    expected = ("HorizontalFlip(prob=0.5)", "Rotate90(prob=0.75)")
    assert planned["INPUT.AUGMENTATIONS"] == expected
    cfg = config("INPUT.AUGMENTATIONS", "('Gray()', 'HorizontalFlip(prob=0.1)')")
    planned = values(plan_any_orientation(of_classes([0]), cfg))
    assert planned["INPUT.AUGMENTATIONS"] == ("Gray()", *expected)


def test_any_orientation_does_not_go_with_a_crop_of_the_base_config():
    advice = plan_any_orientation(of_classes([0]), config("INPUT.CROP.ENABLED", "True"))
    assert not values(advice) and "cannot be combined with INPUT.CROP" in notes(advice)
