"""Every option of `surgery finetune`, its checks, and its YAML form."""

from surgery.config.checks import check_task
from surgery.config.choices import AUGMENTATIONS, CLASSIFIERS, CUSTOM, FORMATS
from surgery.config.options import FinetuneConfig
from surgery.config.recipe import (
    from_dict,
    load_recipe,
    merge,
    parse_batch,
    parse_rate,
    parse_size,
    save_recipe,
    to_dict,
)

__all__ = [
    "AUGMENTATIONS", "CLASSIFIERS", "CUSTOM", "FORMATS", "FinetuneConfig", "check_task", "from_dict",
    "load_recipe", "merge", "parse_batch", "parse_rate", "parse_size", "save_recipe", "to_dict",
]  # fmt: skip
