"""What may be chosen from, for every option that is a word."""

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
