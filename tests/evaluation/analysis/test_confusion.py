from libra_d2.evaluation.analysis.confusion import confusion
from libra_d2.evaluation.analysis.matched_detections import MatchedDetections

from ...support.small_analysis import CAT, DOG, dataset

LOWER_CAT = [0.0, 10.0, 100.0, 100.0]  # IoU 0.82


def matrix(objects, detections, threshold=0.1):
    run = MatchedDetections.of(*dataset(objects, detections))
    return confusion(run, threshold).matrix([0, 1]).tolist()


def test_its_own_class_first():
    """The weaker detection of the right class finds the object; the stronger one is of nothing."""
    detections = [(1, 9, CAT, 0.9), (1, 7, LOWER_CAT, 0.5)]
    assert matrix([(1, 7, CAT)], detections) == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]
    # Above its score, the cat is taken for a dog.
    assert matrix([(1, 7, CAT)], detections, 0.6) == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]


def test_an_object_is_taken_for_one_class_only():
    detections = [(1, 9, CAT, 0.9), (1, 9, LOWER_CAT, 0.8)]
    assert matrix([(1, 7, CAT)], detections) == [[0, 1, 0], [0, 0, 0], [0, 1, 0]]


def test_the_nearest_of_two():
    """The first dog also overlaps the lower cat, which is all that the second overlaps."""
    lower, lowest = [0.0, 30.0, 100.0, 100.0], [0.0, 60.0, 100.0, 100.0]  # IoU 0.54 each
    found = matrix([(1, 7, CAT), (1, 7, lower)], [(1, 9, CAT, 0.9), (1, 9, lowest, 0.8)])
    assert found == [[0, 2, 0], [0, 0, 0], [0, 0, 0]]


def test_crowds_and_nothing():
    crowd = [(1, 7, CAT, {"iscrowd": 1})]
    assert matrix(crowd, [(1, 7, CAT, 0.9), (1, 9, CAT, 0.9)]) == [[0, 0, 0], [0, 0, 0], [0, 1, 0]]
    assert matrix([(1, 9, DOG)], []) == [[0, 0, 0], [0, 0, 1], [0, 0, 0]]
