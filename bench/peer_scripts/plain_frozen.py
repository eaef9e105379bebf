"""A plain loop on a timm model: the PyTorch tutorial's "ConvNet as fixed feature extractor".

Runs in the peers' environment. The tutorial's rate, 0.001 for batches of 4, grows with the batch.
"""

from __future__ import annotations

import time

import timm
import torch
from safetensors.torch import load_file
from task import answer, read_task
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms


def make_model(backbone: str, weights: str) -> tuple[nn.Module, nn.Module]:
    """Return the frozen model with a new classifier, and the classifier."""
    if backbone == "vgg16":  # its dense layers, for which there are no weights, give way to the classifier
        features = timm.create_model(backbone).features
        features.load_state_dict({k.removeprefix("features."): v for k, v in load_file(weights).items()})
        model = nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 2))
        head = model[-1]
    else:
        overlay = {"file": weights}
        model = timm.create_model(backbone, pretrained=True, num_classes=2, pretrained_cfg_overlay=overlay)
        head = model.get_classifier()
    for parameter in model.parameters():
        parameter.requires_grad = False
    for parameter in head.parameters():
        parameter.requires_grad = True
    return model, head


def main() -> None:
    """Train, and print seconds and accuracies."""
    task = read_task()
    torch.manual_seed(task.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    last = [transforms.ToTensor(), transforms.Normalize(task.mean, task.std)]
    train = [transforms.RandomResizedCrop(task.size), transforms.RandomHorizontalFlip(), *last]
    val = [transforms.Resize(round(task.size * 256 / 224)), transforms.CenterCrop(task.size), *last]
    loaders = {
        split: DataLoader(
            datasets.ImageFolder(f"{task.data}/{split}", transforms.Compose(steps)),
            batch_size=task.batch_size,
            shuffle=True,
            num_workers=task.workers,
        )
        for split, steps in (("train", train), ("val", val))
    }
    model, head = make_model(task.backbone, task.weights)
    model.to(device)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(head.parameters(), lr=0.001 * task.batch_size / 4, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.1)
    scores = []
    started = time.perf_counter()
    for _ in range(task.epochs):
        for split, loader in loaders.items():
            model.train(split == "train")
            right = 0
            for inputs, labels in loader:
                inputs, labels = inputs.to(device), labels.to(device)
                optimizer.zero_grad()
                with torch.set_grad_enabled(split == "train"):
                    outputs = model(inputs)
                    loss = criterion(outputs, labels)
                    if split == "train":
                        loss.backward()
                        optimizer.step()
                right += int((outputs.argmax(1) == labels).sum())
        scheduler.step()
        scores.append(right / len(loaders["val"].dataset))
    seconds = time.perf_counter() - started
    seen = [len(loader.dataset) for loader in loaders.values()]
    answer(seconds=seconds, accuracy=scores[-1], best=max(scores), seen=seen)


if __name__ == "__main__":
    main()
