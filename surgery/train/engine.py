"""The training loop: phases, epochs and steps, visible, resumable, on whatever device there is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from surgery.artifact.errors import TrainingError
from surgery.data.resizing import describe_size
from surgery.nets.assemble import Model
from surgery.nets.backbone import set_trainable
from surgery.train.average import Average
from surgery.train.cache import fill_cache
from surgery.train.checkpoint import (
    Progress,
    best_checkpoint,
    load_checkpoint,
    load_tensors,
    newest_checkpoint,
    restore_weights,
    save_checkpoint,
    write_tensors,
)
from surgery.train.cut import Suffix, set_head_norms
from surgery.train.device import largest_fitting
from surgery.train.feed import Batch, Feed
from surgery.train.losses import Loss
from surgery.train.optimizers import COMPANION, make_optimizer
from surgery.train.options import Options, Outcome
from surgery.train.reporting import Reporter
from surgery.train.rule import Losses, Rule, Update
from surgery.train.strategies import Phase, learning_rate
from surgery.train.team import Team


@dataclass
class Loop:
    """One run. `run` goes through the phases, from the newest checkpoint if it is to resume.

    Args:
        model: Trained in place.
        phases: What learns, when.
        open_feed: Returns the batches for training from a given stage on, at a scale of the input.
        loss: Of logits and targets.
        rule: What a step learns by, and what an epoch is judged by.
        options: How the loop runs.
        accelerator: The device.
        folder: The run's folder.
        report: Where progress is shown.
    """

    model: Model
    phases: tuple[Phase, ...]
    open_feed: Callable[[int, float], Any]
    loss: Loss
    rule: Rule
    options: Options
    accelerator: Accelerator
    folder: Path
    report: Reporter

    def run(self, resume: bool) -> Outcome:
        """Train through all phases and leave the best weights in the model.

        Raises:
            TrainingError: If the loss is not a number, or the device's memory is full.
            KeyboardInterrupt: After a checkpoint, when the user stops the run.
        """
        self.team = Team(self.accelerator)
        self.checkpoints = self.folder / "checkpoints"
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        with accompanied(self.model, self.rule.companion):
            return self._run_phases(resume)

    def _run_phases(self, resume: bool) -> Outcome:
        self.learnt = learnt_keys(self.model, min(phase.first for phase in self.phases))
        self.model.to(self.accelerator.device).to(memory_format=torch.channels_last)
        newest = newest_checkpoint(self.checkpoints) if resume else None
        progress = load_checkpoint(newest, self.model) if newest else Progress()
        if resume:
            self.report.line(f"resuming at epoch {progress.epoch + 1} step {progress.step}")
        while progress.phase < len(self.phases):
            self._run_phase(progress, newest)
            newest = None
            progress.phase, progress.phase_epoch, progress.since_best = progress.phase + 1, 0, 0
            progress.updates = 0
        self._restore_best(progress)
        self.model.eval()
        fast = self.accelerator.mixed_precision
        return Outcome(
            before=progress.history[0]["val"],
            best_epoch=progress.best_epoch,
            history=progress.history,
            seconds=progress.seconds,
            device=self.accelerator.device.type,
            precision="fp32" if fast == "no" else fast,
        )

    def _run_phase(self, progress: Progress, newest: Path | None) -> None:
        phase = self.phases[progress.phase]
        clock = _Clock()
        set_trainable(self.model.backbone, phase.first, self.options.train_bn)
        scale = phase.scale_at(progress.phase_epoch)
        feed = self.open_feed(phase.first, scale)
        options = self.options
        optimizer = make_optimizer(
            self.model, phase, options.weight_decay, options.optimizer, options.layer_decay, options.momentum,
            options.new_from,
        )  # fmt: skip
        torch.manual_seed(options.seed * 1000 + progress.phase)
        if progress.phase > 0 and not newest:
            self._restore_best(progress)
        average = Average(self._weights(), options.ema) if options.ema else None
        if newest:
            load_checkpoint(newest, self.model, optimizer, average.tensors if average else None)
        suffix, prepared = self.accelerator.prepare(Suffix(self.model, phase.first, self.rule.tap), optimizer)
        state = _PhaseState(phase, scale, feed, suffix, optimizer, prepared, clock, average)
        try:
            fill_cache(feed, self.report)
            self.team.wait()
            if not progress.history:
                self._validate(progress, state, None)
                self._save(progress, state)
            while progress.phase_epoch < phase.epochs and not _stalled(phase, progress):
                self._grow(progress, state)
                self._run_epoch(progress, state)
        except torch.OutOfMemoryError as error:  # a step says which batch fits
            raise TrainingError(
                f"the memory of {self._device()} is full while images pass the frozen stages or are judged",
                f"Take a smaller --batch-size than {options.batch_size}, or smaller images.",
            ) from error
        finally:
            state.feed.close()

    def _grow(self, progress: Progress, state: _PhaseState) -> None:
        """Go on with larger inputs where the phase says so; everything else stays as it is."""
        scale = state.phase.scale_at(progress.phase_epoch)
        if scale == state.scale:
            return
        state.feed.close()  # before the next one opens, so that its room on the disk may be used
        state.feed, state.scale = self.open_feed(state.phase.first, scale), scale
        self.report.line(f"training at {describe_size(state.feed.input, scale)} now")
        fill_cache(state.feed, self.report)
        self.team.wait()

    def _run_epoch(self, progress: Progress, state: _PhaseState) -> None:
        phase, options = state.phase, self.options
        order = state.feed.order(progress.epoch, options.batch_size)
        steps, updates = len(order), -(-len(order) // options.accumulate)
        self.model.train()
        saved = time.monotonic()
        name = f"epoch {progress.epoch + 1}/{sum(p.epochs for p in self.phases)} {phase.name}"
        with self.report.task(name) as task:
            stream = state.feed.epoch(progress.epoch, options.batch_size, progress.step)
            for batch in stream:
                done = progress.phase_epoch * updates + progress.step // options.accumulate
                first = progress.step - progress.step % options.accumulate
                group = min(options.accumulate, steps - first)
                share = learning_rate(done, updates * phase.epochs, options.warmup_share)
                for settings in state.optimizer.param_groups:
                    settings["lr"] = settings["peak_lr"] * share
                set_head_norms(self.model, len(batch.items))
                update = self._update(batch, state, progress, done / (updates * phase.epochs), first, group)
                try:
                    values = self.rule.learn(batch, update)
                except torch.OutOfMemoryError:
                    values = {}
                if not values:  # the error's own frames would keep the memory in use
                    raise self._too_large(batch, state)
                progress.add(values)
                task.update(progress.step, steps, **progress.means(), lr=phase.lr * share)
                if not update.completes:
                    continue  # a checkpoint holds no gradients
                if state.average:
                    state.average.update(progress.updates)
                progress.updates += 1
                overdue = time.monotonic() - saved > options.checkpoint_minutes * 60
                if self.team.share(overdue) or update.stopped:
                    self._save(progress, state)
                    saved = time.monotonic()
                if update.stopped:
                    raise KeyboardInterrupt
        means = progress.means()
        progress.epoch, progress.phase_epoch = progress.epoch + 1, progress.phase_epoch + 1
        progress.step, progress.sums = 0, {}
        self._validate(progress, state, means)
        self._save(progress, state)

    def _update(
        self, batch: Batch, state: _PhaseState, progress: Progress, done: float, first: int, group: int
    ) -> Update:
        """Return what the rule may use for a batch, one of `group` from step `first` on."""
        return Update(
            suffix=state.suffix,
            loss=self.loss,
            optimizer=state.prepared,
            learning=state.learning,
            accelerator=self.accelerator,
            team=self.team,
            progress=progress,
            done=done,
            average=state.average,
            clip_norm=self.options.clip_norm,
            weight=batch.weight,
            group=group,
            completes=progress.step + 1 == first + group,
            files=lambda: ", ".join(item.image.name for item in batch.items[:8]),
        )

    def _too_large(self, batch: Batch, state: _PhaseState) -> TrainingError:
        """Return the error of a batch that does not fit, with one that does."""
        size = self.options.batch_size
        alone = Suffix(self.model, state.phase.first)
        with self.accelerator.autocast():
            fits = largest_fitting(alone, self.loss, batch)
        hint = "Not even one image fits: take smaller images, --recompute, or --strategy frozen."
        if fits:
            together = -(-size * self.options.accumulate // fits)
            hint = f"--batch-size {fits} fits; --accumulate {together} with it trains alike."
        return TrainingError(
            f"{len(batch.items)} images at once do not fit into the memory of {self._device()}", hint
        )

    def _device(self) -> str:
        return torch.cuda.get_device_name() if torch.cuda.is_available() else self.accelerator.device.type

    def _validate(self, progress: Progress, state: _PhaseState, means: Losses | None) -> None:
        with state.average.in_place() if state.average else nullcontext():
            self._judge(progress, state, means)

    def _judge(self, progress: Progress, state: _PhaseState, means: Losses | None) -> None:
        """Judge the model, and keep its weights if it is the best so far; `means` are those of the epoch."""
        state.suffix.eval()
        size = self.options.batch_size
        found = self.rule.judge(state.suffix, state.feed, self.loss, size, progress.epoch)
        found = self.team.share(found)  # devices may differ in the last bit, decisions may not
        first = progress.best is None or (progress.best_epoch == 0 and not self.options.start_counts)
        better = first or (found.main, -found.loss) > (progress.best or 0.0, -progress.best_loss)
        learnt = dict(means or {})
        row = {
            "epoch": progress.epoch,
            "phase": state.phase.name,
            "train_loss": learnt.pop("loss", None),
            "val_loss": found.loss,
            "val": found.scores,
            "seconds": state.clock.total(progress),
            **found.more,
            **({"steps": learnt} if learnt else {}),
        }
        progress.history.append(row)
        if better:
            progress.best, progress.best_loss = found.main, found.loss
            progress.best_epoch, progress.since_best = progress.epoch, 0
            if self.team.leads:
                best = best_checkpoint(self.checkpoints, progress.epoch)
                write_tensors(best, self._weights(), {"epoch": str(progress.epoch)})
        else:
            progress.since_best += 1
        # A start that cannot be kept is no best epoch to a reader either.
        kept = better and (progress.epoch > 0 or self.options.start_counts)
        self.report.epoch(row, kept, found.said)
        values = {f"val/{key}": value for key, value in found.scores.items()}
        values |= {"val/loss": found.loss} | {f"train/{key}": value for key, value in (means or {}).items()}
        values |= {f"choice/{key}": value for key, value in found.said.items()}
        self.accelerator.log(values, step=progress.epoch)

    def _save(self, progress: Progress, state: _PhaseState) -> None:
        progress.seconds = state.clock.total(progress)
        state.clock.restart()
        keep = self.options.keep_checkpoints
        average = state.average.tensors if state.average else None
        if self.team.leads:
            save_checkpoint(self.checkpoints, progress, self._weights(), state.optimizer, keep, average)
        self.team.wait()

    def _restore_best(self, progress: Progress) -> None:
        restore_weights(self.model, load_tensors(best_checkpoint(self.checkpoints, progress.best_epoch)))

    def _weights(self) -> dict[str, Tensor]:
        everything = self.model.state_dict()
        return {key: everything[key] for key in self.learnt}


@dataclass
class _PhaseState:
    phase: Phase
    scale: float
    feed: Feed
    suffix: nn.Module
    optimizer: torch.optim.Optimizer
    prepared: Any
    clock: _Clock
    average: Average | None

    @property
    def learning(self) -> list[Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]


class _Clock:
    """Seconds of the run over all its sittings."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.since = time.monotonic()

    def total(self, progress: Progress) -> float:
        return progress.seconds + time.monotonic() - self.since


@contextmanager
def accompanied(model: Model, companion: nn.Module | None) -> Iterator[None]:
    """Let a model carry what learns beside it, so that checkpoints hold both; afterwards it is cut off."""
    if companion is None:
        yield
        return
    model.add_module(COMPANION, companion)
    try:
        yield
    finally:
        delattr(model, COMPANION)


def learnt_keys(model: Model, first: int) -> list[str]:
    """Return the keys of all tensors that training from stage `first` on may change."""
    frozen = {
        id(tensor)
        for stage in model.backbone.stages[:first]
        for tensor in [*stage.parameters(), *stage.buffers()]
    }
    learning = {id(tensor) for tensor in [*model.parameters(), *model.buffers()] if id(tensor) not in frozen}
    return [key for key, tensor in model.state_dict(keep_vars=True).items() if id(tensor) in learning]


def _stalled(phase: Phase, progress: Progress) -> bool:
    at_full_size = progress.phase_epoch - phase.growth[-1][0]
    return phase.patience is not None and min(progress.since_best, at_full_size) >= phase.patience
