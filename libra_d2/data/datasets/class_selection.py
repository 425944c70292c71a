"""Select and order the categories of a COCO file that are the classes of a run."""

import hashlib
import json
import logging
import os
from collections import Counter
from typing import Any, Dict, List, Optional, Sequence, Tuple

from ...errors import UserError
from ...utils.cache import make_cache_folder
from ...utils.files import replacing
from ...utils.messages import printable
from ...utils.progress import announced

logger = logging.getLogger(__name__)

# Writing this many as JSON takes about a second, during which no other thread runs.
_SLOW_ANNOTATIONS = 100_000


def select_classes(
    data: Dict[str, Any], json_file: str, class_names: Sequence[str] = ()
) -> Tuple[Dict[str, Any], List[Any]]:
    """
    Select the classes of a COCO file by name.

    Args:
        data: content of the file, see :func:`read_coco`.
        json_file: path of the file, for messages.
        class_names: names of the classes to use, in this order. By default, these are all classes
            in the order of their ids, without Roboflow's dummy category.

    Returns:
        `data` itself if it has exactly these classes, or else a copy with only them, whose ids are
        in the order of the classes; and the ids of the annotations that the copy leaves out.

    Raises:
        UserError: The file lacks one of the classes.
    """
    categories = sorted(data["categories"], key=lambda c: c["id"])
    if class_names:
        chosen = _by_name(categories, json_file, class_names)
        used = {a["category_id"] for a in data["annotations"]}
        without = [c["name"] for c in chosen if c["id"] not in used]
        if without:
            logger.info(
                f"{json_file} has no objects of these classes in DATASETS.CLASS_NAMES: "
                f"{_listed(without)}"
            )
    else:
        dummy = dummy_category(data)
        chosen = [c for c in categories if c is not dummy]
        if dummy is not None:
            logger.info(
                f"{json_file}: category {printable(dummy['name'])!r} (id {dummy['id']}) has no "
                "objects and is the supercategory of all others, as in Roboflow's exports. It is "
                "left out. Name it in DATASETS.CLASS_NAMES to keep it"
            )
    if chosen == categories:
        return data, []
    new_ids = {c["id"]: c["id"] for c in chosen}
    if list(new_ids) != sorted(new_ids):  # COCO's metrics sort classes by id
        new_ids = dict(zip(new_ids, _unused_ids(categories)))
        ids = ", ".join(map(str, list(new_ids.values())[:5])) + ", ..." * (len(new_ids) > 5)
        logger.warning(
            f"{json_file} has its classes in another order than DATASETS.CLASS_NAMES. They are "
            f"matched by name, and predictions have the new category ids {ids}"
        )
    kept, left_out = [], []
    of_class: Counter = Counter()
    for a in data["annotations"]:
        if a["category_id"] in new_ids:
            kept.append({**a, "category_id": new_ids[a["category_id"]]})
        else:
            left_out.append(a["id"])
            of_class[a["category_id"]] += 1
    if class_names:
        _say(json_file, categories, new_ids, of_class)
    classes = [{**c, "id": new_ids[c["id"]]} for c in chosen]
    return {**data, "categories": classes, "annotations": kept}, left_out


def dummy_category(data: Dict[str, Any]) -> Optional[Dict[str, Any]]:
    """Return the category that Roboflow adds: without objects, and supercategory of all others."""
    categories = data["categories"]
    parents = Counter(str(c.get("supercategory")) for c in categories)
    used = None
    for c in categories:
        others = len(categories) - 1
        if others and parents[c["name"]] == others and c.get("supercategory") != c["name"]:
            used = used or {a["category_id"] for a in data["annotations"]}
            return None if c["id"] in used else c
    return None


def save_annotations(data: Dict[str, Any], json_file: str) -> str:
    """
    Write annotations to a file in the cache, so that COCO's evaluation can read them.

    Returns:
        The path of the file, which depends on its content.
    """
    slow = len(data["annotations"]) >= _SLOW_ANNOTATIONS
    with announced(f"Making a copy of {json_file} for the evaluation", at_once=slow):
        return _save(data, json_file)


def _save(data: Dict[str, Any], json_file: str) -> str:
    content = json.dumps(data).encode()
    stem = os.path.splitext(os.path.basename(json_file))[0]
    digest = hashlib.sha256(content).hexdigest()[:16]
    path = str(make_cache_folder("annotations") / f"{stem}_{digest}.json")
    if not os.path.isfile(path):
        with replacing(path) as partial, open(partial, "wb") as f:
            f.write(content)
    return path


def _by_name(
    categories: Sequence[Dict[str, Any]], json_file: str, class_names: Sequence[str]
) -> List[Dict[str, Any]]:
    of_name = {c["name"]: c for c in categories}
    missing = [name for name in class_names if name not in of_name]
    if missing:
        raise UserError(
            f"different classes: DATASETS.CLASS_NAMES has {list(class_names)}, {json_file} has "
            f"{list(of_name)}, which lacks {_listed(missing)}"
        )
    return [of_name[name] for name in dict.fromkeys(class_names)]


def _unused_ids(categories: Sequence[Dict[str, Any]]) -> List[Any]:
    """Return ids that the file does not use, so that they cannot be confused with its own."""
    ids = [c["id"] for c in categories]
    if all(isinstance(i, str) for i in ids):
        return [f"{max(ids)}-{i:06d}" for i in range(len(ids))]
    return [int(max(ids)) + i for i in range(1, len(ids) + 1)]


def _say(json_file: str, categories, new_ids, of_class: Counter) -> None:
    gone = [f"{c['name']} ({of_class[c['id']]})" for c in categories if c["id"] not in new_ids]
    if gone:
        logger.warning(
            f"{json_file}: DATASETS.CLASS_NAMES does not name {_listed(gone)}. The "
            f"{sum(of_class.values())} objects of these classes are left out"
        )


def _listed(names: Sequence[str]) -> str:
    return printable(", ".join(names[:10]) + ", ..." * (len(names) > 10))
