import numpy as np
import pytest

from libra_d2.inference import draw_boxes
from libra_d2.visualization import marks
from libra_d2.visualization.colours import (
    GREEN,
    GREY,
    VERMILION,
    YELLOW,
    class_colour,
    contrast,
    text_colour,
    to_bytes,
)
from libra_d2.visualization.marks import DASHED, DOTTED, SOLID, Mark, draw_marks
from libra_d2.visualization.text import shortened, text_height, text_width

RED = (255, 0, 0)


def grey_image(height=480, width=640):
    return np.full((height, width, 3), 128, np.uint8)


def is_colour(picture, colour):
    return (np.asarray(picture) == colour).all(-1)


@pytest.fixture
def labels(monkeypatch):
    """Texts that were drawn: (x0, y0, x1, y1, text, size)."""
    drawn = []
    original = marks.draw_text

    def draw_text(draw, xy, text, size, colour):
        x, y = xy
        drawn.append((x, y, x + text_width(text, size), y + text_height(size), text, size))
        original(draw, xy, text, size, colour)

    monkeypatch.setattr(marks, "draw_text", draw_text)
    return drawn


def test_text_has_the_contrast_that_can_be_read():
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert contrast((119, 119, 119), (255, 255, 255)) == pytest.approx(4.48, abs=0.01)  # WebAIM's
    colours = [to_bytes(class_colour(i)) for i in range(100)]
    for background in [*colours, GREEN, VERMILION, YELLOW, GREY]:
        assert contrast(background, text_colour(background)) >= 4.5


def test_thirty_neighbouring_classes_have_different_colours():
    assert len({to_bytes(class_colour(i)) for i in range(30)}) == 30


def test_lines_and_text_grow_with_the_image(labels):
    widths = {}
    for side in (480, 4000):
        picture = draw_marks(grey_image(side, side), [Mark([100, 100, 400, 400], RED, "x")])
        widths[side] = is_colour(picture, RED)[300, :250].sum()
    assert widths[480] == 2 and 10 <= widths[4000] <= 14
    assert labels[1][-1] > 5 * labels[0][-1]


def test_small_images_are_enlarged():
    for shape, size in (((1, 1), (480, 480)), ((20, 10), (240, 480)), ((3, 900), (900, 3))):
        assert draw_marks(grey_image(*shape), [Mark([0, 0, 1, 1], RED, "label")]).size == size


def test_a_box_of_a_small_image_lies_on_its_pixels():
    picture = draw_marks(grey_image(10, 10), [Mark([2, 4, 6, 8], RED)])  # 48 times larger
    columns = np.flatnonzero(is_colour(picture, RED).any(0))
    rows = np.flatnonzero(is_colour(picture, RED).any(1))
    assert np.abs(columns[[0, -1]] - [96, 288]).max() <= 2
    assert np.abs(rows[[0, -1]] - [192, 384]).max() <= 2


def test_labels_stay_in_the_image_and_apart(labels):
    rng = np.random.default_rng(0)
    for _ in range(30):
        labels.clear()
        height, width = rng.integers(60, 900, 2)
        corner = rng.uniform(-50, (width, height), (12, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(0, 300, (12, 2))], 1)
        picture = draw_marks(
            grey_image(height, width), [Mark(b, RED, f"thing {i}") for i, b in enumerate(boxes)]
        )
        assert labels
        for i, (x0, y0, x1, y1, *_) in enumerate(labels):
            assert 0 <= x0 < x1 <= picture.width and 0 <= y0 < y1 <= picture.height
            for a0, b0, a1, b1, *_ in labels[:i]:
                overlap = max(0, min(x1, a1) - max(x0, a0)) * max(0, min(y1, b1) - max(y0, b0))
                assert overlap <= 0.1 * (x1 - x0) * (y1 - y0)


def test_labels_of_equal_boxes_are_all_there(labels):
    draw_marks(grey_image(), [Mark([200, 200, 400, 400], RED, f"thing {i}") for i in range(4)])
    assert sorted(text for *_, text, _ in labels) == [f"thing {i}" for i in range(4)]


def test_of_many_boxes_the_small_ones_have_no_label(labels):
    boxes = [[2 * i, 100, 2 * i + 6, 106] for i in range(299)]
    draw_marks(
        grey_image(),
        [Mark(b, RED, "small") for b in boxes] + [Mark([9, 200, 300, 400], RED, "large")],
    )
    assert [text for *_, text, _ in labels] == ["large"]


def test_long_labels_lose_their_middle():
    text = "a" * 500 + " 87%"
    short = shortened(text, 13, 200)
    assert text_width(short, 13) <= 200 and short.startswith("aaa") and short.endswith(" 87%")
    assert shortened("cat 87%", 13, 200) == "cat 87%"
    assert shortened("cat", 13, 1) == ""


@pytest.mark.parametrize(
    "box",
    [
        [np.nan, 0, 9, 9],
        [0, 0, np.inf, 9],
        [700, 0, 800, 9],
        [-90, 0, -5, 9],
        [0, 500, 9, 600],
        [50, 50, 20, 20],
    ],
)
def test_boxes_that_cannot_be_seen_leave_the_image_as_it_is(box):
    drawn = draw_boxes(grey_image(), np.array([box]), [0], ["label"])
    assert (drawn == grey_image()).all()


@pytest.mark.parametrize("box", [[0, 0, 640, 480], [-100, -100, 900, 900], [0, 0, 0, 0]])
def test_all_sides_of_a_box_at_the_border_are_seen(box):
    red = is_colour(draw_marks(grey_image(), [Mark(box, RED)]), RED)
    rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
    assert rows[0] <= 2 and columns[0] <= 2
    if box[2]:
        assert rows[-1] >= 477 and columns[-1] >= 637


def test_an_object_of_few_pixels_can_be_seen_within_its_line():
    image = grey_image()
    image[200:203, 300:303] = (1, 2, 3)
    picture = draw_marks(image, [Mark([300, 200, 303, 203], RED, "label")])
    assert is_colour(picture, (1, 2, 3)).sum() >= 4


def test_kinds_of_line_differ_without_their_colour():
    share = {}
    for style in (SOLID, DASHED, DOTTED):
        picture = draw_marks(grey_image(), [Mark([100, 100, 500, 400], RED, "", style)])
        line = is_colour(picture, RED)[130:370, 90:110].any(1)
        changes = np.count_nonzero(line[1:] != line[:-1])
        share[style] = line.mean(), changes
    assert share[SOLID] == (1, 0)
    assert 0.45 < share[DASHED][0] < 0.7 and share[DASHED][1] > 10
    assert 0.3 < share[DOTTED][0] < 0.6 and share[DOTTED][1] > 2 * share[DASHED][1]


@pytest.mark.parametrize(
    "label",
    ["", " ", "\n\t", "Größe", "猫", "🐟", "العربية", "\ud800", "\x00", "e\u0301", "x" * 9999],
)
def test_labels_of_any_script(label):
    draw_boxes(grey_image(), np.array([[9, 99, 200, 200]]), [0], [label])


def test_different_names_look_different_in_any_script():
    pictures = {
        draw_boxes(grey_image(), np.array([[9, 99, 200, 200]]), [0], [label]).tobytes()
        for label in ("猫", "犬", "cat", "🐟", "🐠", "Größe", "Grosse")
    }
    assert len(pictures) == 7


def test_the_image_is_not_changed_and_two_runs_are_the_same():
    image = np.random.default_rng(0).integers(0, 256, (300, 400, 3)).astype(np.uint8)
    view = image[::-1, :, ::-1]  # as OpenCV's images come
    before = image.copy()
    boxes = np.array([[9, 9, 200, 200], [50, 60, 100, 90]])
    first, second = (draw_boxes(view, boxes, [0, 5], ["a", "b"]) for _ in range(2))
    assert (first == second).all() and (image == before).all()
    assert first.flags.writeable and first.dtype == np.uint8
