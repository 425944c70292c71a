"""
Register data sets by a description `kind:path[,more]`, such as `voc:VOCdevkit/VOC2007,train`.

Each kind has a reader in `KINDS`. It registers a COCO annotation file and its image folder with
Detectron2, so that all other code has to know only COCO's format.
"""

import os
from dataclasses import dataclass
from typing import Callable, Dict, List, Sequence, Tuple

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import comm

from ...errors import UserError
from ...utils.json_files import read_json
from .class_selection import dummy_category
from .coco import register_coco
from .coco_layouts import coco_folder
from .converted import converted, fingerprint
from .packed import register_packed
from .subset import whole_name
from .voc import voc_classes, voc_files, voc_labels, voc_to_coco
from .yolo import label_file, read_yolo, yolo_to_coco


@dataclass(frozen=True)
class Context:
    """What a reader may need to know besides its own description."""

    # Folder for files that the reader writes.
    folder: str
    # Classes of the run in their order; empty if no config and no other data set has them.
    class_names: Tuple[str, ...] = ()
    # Whether the config names the classes. Other classes in the data are then left out.
    selected: bool = False
    # The part after "kind:" of all data sets of the same kind.
    same_kind: Tuple[str, ...] = ()


def _coco(arguments: str, context: Context) -> str:
    path, split = _path_and_split(arguments)
    if os.path.isdir(arguments.strip()):
        path, split = arguments.strip(), ""
    if os.path.isdir(path):
        return register_coco(*coco_folder(path, split))
    json_file, images = _pair(arguments, "annotations.json,images or folder,split")
    if os.path.isfile(images):
        return register_packed(images, json_file)
    return register_coco(json_file, images)


def _mindspore(arguments: str, context: Context) -> str:
    """Register a folder in the layout of the MindSpore implementation."""
    root, split = _pair(arguments, "root,train")
    folder = os.path.join(root, split)
    return register_coco(os.path.join(folder, "labels.json"), os.path.join(folder, "data"))


def _voc(arguments: str, context: Context) -> str:
    root, split, first_pixel = _voc_arguments(arguments)
    files = voc_files(root, split)
    names: List[str] = list(context.class_names)
    sources = [_voc_arguments(a)[:2] for a in context.same_kind]
    if not names:
        names = next(filter(None, (voc_labels(r) for r, _ in sources)), [])
    # Without a list, the classes depend on the annotations of all VOC data sets of the run.
    relevant = files if names else [f for s in sources for f in voc_files(*s)]
    images = os.path.join(os.path.abspath(root), "JPEGImages")
    there = [os.path.join(images, name) for name in sorted(os.listdir(images))]
    settings = (os.path.abspath(root), split, names, first_pixel, context.selected)
    mark = fingerprint([*relevant, *there], "voc", *settings)
    stem = "_".join(filter(None, (os.path.basename(os.path.abspath(root)), split)))

    def convert():
        others = voc_classes(relevant) if context.selected or not names else []
        return voc_to_coco(root, files, [*dict.fromkeys((*names, *others))], first_pixel)

    return register_coco(converted(context.folder, stem, mark, convert), images)


def _voc_arguments(arguments: str) -> Tuple[str, str, int]:
    """Parse `root,train,zero-based`. Return folder, split, and the number of the first pixel."""
    rest, comma, last = arguments.rpartition(",")
    if comma and last.strip() == "zero-based":
        return (*_path_and_split(rest), 0)
    return (*_path_and_split(arguments), 1)


def _yolo(arguments: str, context: Context) -> str:
    path, split = _path_and_split(arguments)
    names, images, keypoints = read_yolo(os.path.abspath(path), split)
    root = os.path.commonpath([os.path.dirname(image) for image in images])
    labels = [label_file(image) for image in images]
    mark = fingerprint([*images, *labels], "yolo", names, keypoints)
    folder = path if os.path.isdir(path) else os.path.dirname(os.path.abspath(path))
    stem = "_".join(filter(None, (os.path.basename(os.path.abspath(folder)), split)))

    def convert():
        return yolo_to_coco(images, root, names, keypoints)

    return register_coco(converted(context.folder, stem, mark, convert), root)


def _packed(arguments: str, context: Context) -> str:
    return register_packed(arguments.strip())


# Kind -> reader. A reader takes the part after "kind:" and a Context. It registers the data set
# with Detectron2, with a json_file in COCO's format in the metadata, and returns its name.
KINDS: Dict[str, Callable[[str, Context], str]] = {
    "coco": _coco,
    "mindspore": _mindspore,
    "packed": _packed,
    "voc": _voc,
    "yolo": _yolo,
}
_described: Dict[str, str] = {}  # registered name -> description
# Kinds whose files define no order of the classes. They are read after the others.
_WITHOUT_CLASSES = ("voc",)


def register_descriptions(
    splits: Dict[str, Sequence[str]], folder: str, class_names: Sequence[str] = ()
) -> Dict[str, Tuple[str, ...]]:
    """
    Register the described data sets. Names of data sets that are already registered are kept.

    >>> import libra_d2.data
    >>> register_descriptions({"DATASETS.TEST": ["shapes_val"]}, "output/datasets")
    {'DATASETS.TEST': ('shapes_val',)}

    Args:
        splits: config key -> names and descriptions.
        folder: folder for annotations that are converted to COCO's format.
        class_names: names of the classes in their order, if the config has them.

    Returns:
        Config key -> names of registered data sets.

    Raises:
        UserError: A description, or a file that it names, is wrong. The message names the key.
    """
    if not comm.is_main_process():
        comm.synchronize()  # wait until the main process has converted the files
    parsed = [(key, i, *_parse(key, d)) for key, ds in splits.items() for i, d in enumerate(ds)]
    names = {(key, i): name for key, i, kind, name in parsed if not kind}
    parsed = [p for p in parsed if p[2]]
    class_names = tuple(class_names)
    selected = bool(class_names)
    wanted = any(kind in _WITHOUT_CLASSES for _, _, kind, _ in parsed)
    for key, i, kind, arguments in sorted(parsed, key=lambda p: p[2] in _WITHOUT_CLASSES):
        same_kind = tuple(a for _, _, k, a in parsed if k == kind)
        try:
            context = Context(folder, class_names, selected, same_kind)
            names[key, i] = KINDS[kind](arguments, context)
            _described[names[key, i]] = f"{kind}:{arguments}"
            if wanted and not class_names:
                class_names = _classes_of(MetadataCatalog.get(names[key, i]).json_file)
        except UserError as e:
            raise UserError(f"{key} {kind}:{arguments}: {e}") from None
    if comm.is_main_process():
        comm.synchronize()
    return {key: tuple(names[key, i] for i in range(len(ds))) for key, ds in splits.items()}


def description_of(name: str) -> str:
    """
    Return the description of a registered data set, or its name if it has none. A drawn part of a
    data set has the description of the whole.

    >>> description_of("shapes_val")
    'shapes_val'
    """
    return _described.get(whole_name(name), name)


def kind_of(text: str) -> str:
    """
    Return the kind of a description, or "" if the text is the name of a registered data set.

    >>> kind_of("coco:train.json,images")
    'coco'
    >>> kind_of("shapes_train")
    ''
    """
    kind, colon, arguments = str(text).partition(":")
    return kind if colon and arguments and kind in KINDS else ""


def _parse(key: str, text: str) -> Tuple[str, str]:
    """Split a description into its kind, "" for a registered name, and the rest."""
    if kind_of(text):
        kind, _, arguments = text.partition(":")
        return kind, arguments
    if text in DatasetCatalog.list() or whole_name(text) != text:
        return "", text
    known = ", ".join(f"{kind}:" for kind in KINDS)
    raise UserError(
        f"{key} must have names of data sets registered with Detectron2 or descriptions such as "
        f"coco:annotations.json,images (kinds: {known}), got {text!r}"
    )


def _pair(arguments: str, pattern: str) -> Tuple[str, str]:
    """Split two paths at the comma. If there are several, prefer one between existing paths."""
    parts = arguments.split(",")
    pairs = [
        (",".join(parts[:i]).strip(), ",".join(parts[i:]).strip())
        for i in range(len(parts) - 1, 0, -1)
    ]
    pairs = [pair for pair in pairs if all(pair)]
    if not pairs:
        raise UserError(f"the description must have the form {pattern}")
    return next((p for p in pairs if os.path.exists(p[0]) and os.path.exists(p[1])), pairs[0])


def _path_and_split(arguments: str) -> Tuple[str, str]:
    """Split path and split. The split may be left out, even if the path has commas."""
    if os.path.exists(arguments.strip()):
        return arguments.strip(), ""
    path, comma, split = arguments.rpartition(",")
    return (path.strip(), split.strip()) if comma else (arguments.strip(), "")


def _classes_of(json_file: str) -> Tuple[str, ...]:
    """Return the class names of a COCO file, in the order of their ids."""
    try:
        content = read_json(json_file)
        dummy = dummy_category(content)
        categories = sorted(content["categories"], key=lambda c: c["id"])
        return tuple(c["name"] for c in categories if c is not dummy)
    except (UserError, KeyError, TypeError, AttributeError):
        return ()  # loading the file will report the mistake
