"""What the options may be: words to choose from, and ranges."""

from __future__ import annotations

TASKS = ("classify", "segment")
STRATEGIES = ("random", "full", "frozen", "partial", "gradual", "classical")
CLASSIFIERS = ("logistic", "linear-svm", "rbf-svm", "forest", "knn", "vote", "stack")
"""What `classical` compares; the last two are made of the others."""
GRADIENT_ONLY = (
    "epochs", "lr", "lr_rule", "backbone_lr_share", "freeze_through", "train_bn", "dropout", "batch_size",
    "batch_rule", "resize_from",
    "weight_decay", "warmup_share", "label_smoothing", "clip_norm", "loss", "sampler", "mixup", "cutmix",
    "optimizer", "layer_decay", "accumulate", "ema", "recompute", "patience",
)  # fmt: skip
"""Fields that mean something only where weights are learnt step by step."""
DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "fp32", "bf16")
TRACKERS = ("tensorboard", "mlflow", "wandb")
OPTIMIZERS = ("adamw", "nadamw", "sgd", "lion")
LABEL_LOSSES = ("ce", "focal")
MASK_LOSSES = ("ce", "focal", "dice", "lovasz")
SAMPLERS = ("uniform", "balanced")
CLASS_WEIGHTS = ("none", "balanced")
FORMATS = ("yolo", "coco", "voc", "carvana", "pairs", "csv", "folders")
"""How data may lie on disk; `surgery.data.formats` reads them."""
AUGMENTATIONS = ("none", "flip", "light", "medium", "heavy", "domain")
CUSTOM = "custom"
"""`augment` of a run whose steps stand in `pipeline`."""
PIPELINE_FILES = (".yaml", ".yml", ".json")
METHODS = (
    "dann", "dann-alternating", "cdan", "coral", "mmd", "adabn", "entropy", "output", "self-training",
)  # fmt: skip
"""How a model is adapted to another domain; `surgery.adapt.methods` has them."""
CRITERIA = ("information", "entropy", "density", "embedded", "source")
"""What an adapted model is chosen by, the default first; `surgery.adapt.criteria` has them."""
CHOICES = {
    "task": TASKS,
    "format": FORMATS,
    "strategy": STRATEGIES,
    "device": DEVICES,
    "precision": PRECISIONS,
    "optimizer": OPTIMIZERS,
    "lr_rule": ("given", "range"),
    "batch_rule": ("given", "auto"),
    "sampler": SAMPLERS,
    "class_weights": CLASS_WEIGHTS,
    "choose_by": CRITERIA,
}
"""By option the words that it may be."""
RANGES: dict[str, tuple[float, float]] = {
    "folds": (2, 100),
    "val_share": (0.01, 0.9),
    "dropout": (0.0, 0.95),
    "resize_from": (0.1, 1.0),
    "warmup_share": (0.0, 0.9),
    "label_smoothing": (0.0, 0.9),
    "views": (0, 1000),
    "epochs": (1, 100_000),
    "batch_size": (1, 65_536),
    "lr": (1e-9, 100.0),
    "backbone_lr_share": (0.0, 10.0),
    "weight_decay": (0.0, 10.0),
    "clip_norm": (1e-6, 1e6),
    "mixup": (0.0, 100.0),
    "cutmix": (0.0, 100.0),
    "layer_decay": (0.01, 1.0),
    "accumulate": (1, 65_536),
    "ema": (0.0, 0.999999),
    "patience": (1, 100_000),
    "strength": (0.0, 1e6),
    "confidence": (0.0, 1.0),
    "cache_gib": (0.0, 1e6),
    "workers": (1, 256),
    "checkpoint_minutes": (0.01, 1e5),
}
"""By option the least and the largest number that it may be."""
