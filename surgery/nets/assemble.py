"""Backbone and head put together into one model, from uint8 images to logits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surgery.artifact.errors import ConfigError
from surgery.nets.backbone import Backbone, build_backbone
from surgery.nets.heads import CLASSIFY_HEADS, SEGMENT_HEADS, build_head, default_stages
from surgery.nets.stages import count_layers, count_parameters

if TYPE_CHECKING:
    from surgery.nets.weights import LoadedWeights


class Model(nn.Module):
    """A backbone with a head.

    Attributes:
        backbone: Cut behind the deepest stage that the head uses.
        head: Maps feature maps to logits.
        head_stages: Indices of the stages the head uses, shallow to deep.
        task: `classify` or `segment`.
        stride: Images are padded to a multiple of it inside; 1 for classify.
        test_flips: Answer with the mean over the image and its mirror image, at twice the cost.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, backbone: Backbone, head: nn.Module, head_stages: tuple[int, ...], task: str) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.head_stages = head_stages
        self.task = task
        self.test_flips = False
        deepest = backbone.info[head_stages[-1]].stride
        multiple: Any = head.multiple
        self.stride: int = deepest * multiple if task == "segment" else 1
        mean, std = torch.tensor(backbone.mean), torch.tensor(backbone.std)
        self.register_buffer("scale", (1 / (255 * std)).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", (-mean / std).view(1, 3, 1, 1), persistent=False)

    def normalise(self, images: Tensor) -> Tensor:
        """Map uint8 RGB (n, h, w, 3) to the backbone's input (n, 3, H, W), float32, channels last.

        For segment H and W are h and w rounded up to a multiple of the stride; what is added at the bottom
        and at the right is the mean colour.
        """
        side = self.backbone.fixed_size
        if side and tuple(images.shape[1:3]) != (side, side):
            raise ConfigError(
                f"{self.backbone.name} takes images of {side}×{side}, not "
                f"{images.shape[2]}×{images.shape[1]}",
                f"give --image-size {side}",
            )
        x = images.permute(0, 3, 1, 2)  # (n, h, w, 3) -> (n, 3, h, w), channels last as it lies
        x = x.to(torch.float32) * self.scale + self.shift
        if self.stride > 1:
            h, w = x.shape[2], x.shape[3]
            H, W = self.padded_size((h, w))
            x = F.pad(x, (0, W - w, 0, H - h))  # (n, 3, h, w) -> (n, 3, H, W)
        return x.contiguous(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Answer uint8 RGB images (n, h, w, 3).

        Returns:
            Logits, (n, classes) or (n, channels, h, w), and the embedding (n, d): the deepest used feature
            map, averaged over all positions.
        """
        logits, embedding = self._answer(images)
        if self.test_flips:
            mirrored, other = self._answer(images.flip(2))  # (n, h, w, 3)
            if self.task == "segment":
                mirrored = mirrored.flip(3)  # (n, channels, h, w)
            logits, embedding = (logits + mirrored) / 2, (embedding + other) / 2
        return logits, embedding

    def _answer(self, images: Tensor) -> tuple[Tensor, Tensor]:
        _, features = self.backbone.run(self.normalise(images))
        used = [features[k] for k in self.head_stages]
        logits = self.decode(used, (images.shape[1], images.shape[2]))
        return logits, embed(used)

    @property
    def explains(self) -> bool:
        """Whether `explain` can say where the evidence for each class lies."""
        return bool(getattr(self.head, "explains", False))

    def explain(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Answer uint8 RGB images (n, h, w, 3), and say where the evidence lies (if `explains`).

        Returns:
            Logits and embedding as `forward` does, and the class activation map (n, classes, h', w') in the
            size of the deepest map used; its mean over the positions plus the last bias is the logits.
        """
        logits, embedding, cam = self._explain(images)
        if self.test_flips:
            mirrored, other, turned = self._explain(images.flip(2))  # (n, h, w, 3)
            logits, embedding = (logits + mirrored) / 2, (embedding + other) / 2
            cam = (cam + turned.flip(3)) / 2  # (n, classes, h', w')
        return logits, embedding, cam

    def _explain(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        _, features = self.backbone.run(self.normalise(images))
        used = [features[k] for k in self.head_stages]
        head: Any = self.head
        return self.decode(used, (images.shape[1], images.shape[2])), embed(used), head.explain(used)

    def decode(self, features: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Map feature maps to logits.

        Args:
            features: One map for each of head_stages.
            size: (h, w) of the image before padding.

        Returns:
            (n, classes), or (n, channels, h, w).
        """
        if self.task == "classify":
            logits: Tensor = self.head(features, size)
            return logits
        h, w = size
        padded = self.padded_size(size)
        logits = self.head(self._aligned(features, padded), padded)
        return logits[:, :, :h, :w]  # (n, channels, H, W) -> (n, channels, h, w)

    def _aligned(self, features: list[Tensor], size: tuple[int, int]) -> list[Tensor]:
        """Bring the maps of stages that are not exact to (n, c, H/stride, W/stride)."""
        aligned = []
        for k, feature in zip(self.head_stages, features, strict=True):
            stage = self.backbone.info[k]
            if not stage.exact:
                side = (size[0] // stage.stride, size[1] // stage.stride)
                feature = F.interpolate(feature, size=side, mode="bilinear", align_corners=False)
            aligned.append(feature)
        return aligned

    def padded_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Round (h, w) up to multiples of the stride."""
        # Written as a product, so that torch.export sees that every stage's stride divides it.
        down, right = ((side + self.stride - 1) // self.stride for side in size)
        return down * self.stride, right * self.stride


def embed(features: list[Tensor]) -> Tensor:
    """Average the deepest map over all positions: (n, c, h, w) -> (n, c)."""
    return features[-1].mean(dim=(2, 3))


def build_model(
    backbone: str,
    head: str,
    task: str,
    outputs: int,
    stages: tuple[str, ...] | None,
    dropout: float,
    weights: LoadedWeights,
    seed: int,
) -> Model:
    """Build a model. The same arguments give the same weights bit for bit; no global generator moves.

    Args:
        backbone: A timm model.
        head: A head for the task.
        task: `classify` or `segment`.
        outputs: Classes, or channels of the mask logits; 0: the logits are the head's pooled features, of a
            fixed length, and no layer is new (classify).
        stages: Names of the stages the head uses. None: the deepest for classify, the last three with
            different strides for deconv and fpn, all with different strides for smp's decoders.
        dropout: Share dropped in the head in training.
        weights: Backbone weights; with state None it starts at random.
        seed: Of all new weights.

    Raises:
        ConfigError: A name that does not exist, or a head and stages that do not fit the task.
        WeightsError: Weights of another network.
    """
    heads = {"classify": CLASSIFY_HEADS, "segment": SEGMENT_HEADS}
    if task not in heads:
        raise ConfigError(f"task is '{task}'; it is one of {', '.join(heads)}")
    if head in {*CLASSIFY_HEADS, *SEGMENT_HEADS} and head not in heads[task]:
        raise ConfigError(f"head '{head}' is not for {task}", f"use one of {', '.join(heads[task])}")
    with seeded(seed):
        net = build_backbone(backbone, weights.state)
    if net.fixed_size and task == "segment":
        raise ConfigError(
            f"{backbone} takes images of {net.fixed_size}×{net.fixed_size} only; masks need any size",
            "take a convolutional network such as vgg16 or resnet50",
        )
    chosen = choose_stages(net, head, task, stages)
    net = net.trimmed(chosen[-1] + 1)
    with seeded(seed):  # again: a head starts the same behind a loaded and behind a random backbone
        top = build_head(head, [net.info[k] for k in chosen], outputs, dropout)
    return Model(net, top, chosen, task).to(memory_format=torch.channels_last)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's CPU generator inside, and leave it outside as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def choose_stages(net: Backbone, head: str, task: str, names: tuple[str, ...] | None) -> tuple[int, ...]:
    """Return the indices of the stages that a head uses, shallow to deep.

    Raises:
        ConfigError: A name that the backbone has not, or one without a place in the pyramid of a mask.
    """
    allowed = net.pyramid if task == "segment" else tuple(range(len(net.info)))
    if names is None:
        if task == "classify":
            return allowed[-1:]
        names = tuple(default_stages(head, [net.info[k] for k in allowed]))
    index = {net.info[k].name: k for k in allowed}
    wrong = [name for name in names if name not in index]
    if wrong or not names:
        raise ConfigError(
            f"stages {', '.join(wrong) or '(none)'} cannot be used by a {task} head on {net.name}",
            f"choose from {', '.join(index)}",
        )
    return tuple(sorted({index[name] for name in names}))


def describe_layers(
    model: Model, first_trainable: int, kept: bool, head_kept: bool = False
) -> dict[str, Any]:
    """Say what becomes of each part of the network: kept, frozen, retrained or new.

    Args:
        model: The model.
        first_trainable: First stage that is ever trained; the number of stages if none is.
        kept: The backbone starts from given weights, not at random.
        head_kept: So does the head.

    Returns:
        `parts`: one {"name", "layers", "parameters", "fate"} per stage and for the head; `totals`: layers and
        parameters by fate; `trained`: parameters that are trained.
    """
    start = "kept" if kept else "new"
    parts: list[dict[str, Any]] = [
        {
            "name": stage.name,
            "layers": stage.layers,
            "parameters": stage.parameters,
            "fate": f"{start}, frozen" if k < first_trainable else _trained(start),
        }
        for k, stage in enumerate(model.backbone.info)
    ]
    head = {"name": "head", "layers": count_layers(model.head), "parameters": count_parameters(model.head)}
    if head["parameters"]:  # features without a layer are no part
        parts.append({**head, "fate": _trained("kept" if head_kept else "new")})
    totals: dict[str, dict[str, int]] = {}
    for part in parts:
        total = totals.setdefault(part["fate"], {"layers": 0, "parameters": 0})
        total["layers"] += part["layers"]
        total["parameters"] += part["parameters"]
    trained = sum(p["parameters"] for p in parts if not p["fate"].endswith("frozen"))
    return {"parts": parts, "totals": totals, "trained": trained}


def _trained(start: str) -> str:
    return "kept, retrained" if start == "kept" else "new"
