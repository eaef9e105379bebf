"""Every option of `surgery finetune` and `surgery adapt`, their checks, and their YAML form."""

from surgery.config.adapt import AdaptConfig
from surgery.config.checks import check_task
from surgery.config.choices import AUGMENTATIONS, CLASSIFIERS, CRITERIA, CUSTOM, FORMATS, METHODS
from surgery.config.options import FinetuneConfig
from surgery.config.recipe import (
    build_config,
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
    "AUGMENTATIONS", "CLASSIFIERS", "CRITERIA", "CUSTOM", "FORMATS", "METHODS", "AdaptConfig",
    "FinetuneConfig", "build_config", "check_task", "from_dict",
    "load_recipe", "merge", "parse_batch", "parse_rate", "parse_size", "save_recipe", "to_dict",
]  # fmt: skip
