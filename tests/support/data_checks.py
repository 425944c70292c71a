"""What the tests of data checks do to data sets."""

import json
from pathlib import Path

from .coco_files import write_dataset

GOOD = (10, 10, 20, 20)


def edit(json_file, change):
    data = json.loads(Path(json_file).read_text())
    change(data)
    Path(json_file).write_text(json.dumps(data))


def both_classes(folder, **kwargs):
    """A set in which nothing is wrong for the config's anchors: objects of both classes."""
    files = write_dataset(folder, [GOOD, (30, 5, 20, 20)], **kwargs)

    def second_is_dog(data):
        for annotation in data["annotations"][1::2]:
            annotation["category_id"] = 20

    edit(files[0], second_is_dog)
    return files
