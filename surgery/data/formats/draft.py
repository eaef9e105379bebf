"""What every reader of a format gives: the items it found, before the split is settled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from surgery.data.table import Item, Problem, Split, Task

LAYOUTS = """Layouts that are understood (with or without the train/val/test level):
  folders  DATA/train/<class>/*.jpg   DATA/val/<class>/*.jpg
  csv      DATA/labels.csv: path,label[,split]; several labels with `;` between them
  pairs    DATA/train/images/*.jpg    DATA/train/masks/*.png   DATA/classes.txt (a name a line)
  carvana  DATA/train/*.jpg           DATA/train_masks/*_mask.gif
  coco     DATA/annotations/instances_train.json   DATA/train/*.jpg
  voc      DATA/JPEGImages/*.jpg      DATA/SegmentationClass/*.png   DATA/ImageSets/Segmentation/train.txt
  yolo     DATA/data.yaml             DATA/train/images/*.jpg   DATA/train/labels/*.txt"""


@dataclass
class Draft:
    """What a reader collected."""

    task: Task
    """What the labels are."""
    layout: str
    """How the data was understood, in words."""
    classes: tuple[str, ...] = ()
    """Names of the labels, or of the mask values."""
    items: list[Item] = field(default_factory=list)
    """Images; those of no split stand under `train`."""
    splits: frozenset[Split] = frozenset()
    """Splits that the data brings; empty where it brings none."""
    multilabel: bool = False
    """Whether an image may have several labels."""
    ignored_values: tuple[int, ...] = ()
    """Mask values that the format leaves out of everything."""
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


@dataclass(frozen=True)
class Format:
    """One way in which data lies on disk."""

    name: str
    """What `--format` takes."""
    task: Task
    """What the labels are."""
    fits: Callable[[Path], bool]
    """Whether a folder, or a file, looks like it; reads as little as it can."""
    read: Callable[[Path], Draft]
    """Reads it; raises DataError."""
