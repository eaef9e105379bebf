"""A candidate beside production in this process: whom it is given to, what it did, and when it is stopped."""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from surgery.artifact.errors import SurgeryError
from surgery.artifact.store import RolloutPlan

from .access import log
from .reply import Refusal

if TYPE_CHECKING:
    from .served import Served

KEPT = 1000
"""Latest latencies of each version that percentiles are taken over."""
SHOWN = 100
"""Latest disagreements that are kept."""
WINDOW = 50
"""Latest answers of the candidate by which it is judged."""
LEAST_ERRORS = 5
"""Errors below which a candidate is never stopped."""
WORST = 0.05
"""Share of errors among the latest answers above which it is."""


class Tally:
    """What one version did in a rollout."""

    def __init__(self) -> None:
        self.answered = 0
        self.errors = 0
        self._seconds: deque[float] = deque(maxlen=KEPT)

    def count(self, seconds: float | None) -> None:
        """Count an answer; `seconds` is None where its time says nothing of this version."""
        self.answered += 1
        if seconds is not None:
            self._seconds.append(seconds)

    def describe(self) -> dict[str, Any]:
        times = {f"p{share}": _percentile(self._seconds, share) for share in (50, 95)}
        return {"answered": self.answered, "errors": self.errors, "milliseconds": times}


class Rollout:
    """One candidate beside one production version; begins anew when either or rollout.json changes.

    Counting may be done from any thread.

    Args:
        plan: What rollout.json says.
        production: The version that it runs beside.
        candidate: The version that is tried.
        tidy: Returns a message without what is nobody's business outside.
    """

    def __init__(
        self, plan: RolloutPlan, production: Served, candidate: Served, tidy: Callable[[str], str] = str
    ) -> None:
        self.plan = plan
        self.production = production
        self.candidate = candidate
        self.stopped = ""
        """Why the candidate gets nothing any more in this process; empty while it does."""
        self._since = datetime.now(UTC).isoformat(timespec="seconds")
        self._tallies = {"production": Tally(), "candidate": Tally()}
        self._latest: deque[bool] = deque(maxlen=WINDOW)
        self._agreed = self._differed = self._dropped = 0
        self._disagreements: deque[Mapping[str, Any]] = deque(maxlen=SHOWN)
        self._tidy = tidy
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        return self.candidate.manifest.name

    def chooses(self, key: str) -> bool:
        """Whether a request of this key is the candidate's. The same in every process and at every time.

        Whoever is chosen at a share stays chosen at a larger one.
        """
        if self.stopped:
            return False
        text = f"{self.name}@{self.plan.version}\n{key}".encode()
        return int.from_bytes(hashlib.sha256(text).digest()[:8]) / 2**64 < self.plan.share

    def answered(self, who: str, seconds: float | None) -> None:
        """Count a request that `production` or `candidate` has answered."""
        with self._lock:
            self._tallies[who].count(seconds)
            if who == "candidate":
                self._latest.append(False)

    def failed(self, who: str, error: BaseException) -> None:
        """Count a failure of `production` or `candidate`, and stop a candidate that fails too often."""
        reason, told = self._tidy(_describe(error)), ""
        with self._lock:
            tally = self._tallies[who]
            tally.errors += 1
            if who == "production":
                return
            self._latest.append(True)
            lately, errors = len(self._latest), sum(self._latest)
            if not self.stopped and tally.errors >= LEAST_ERRORS and errors > WORST * lately:
                self.stopped = f"{errors} of its last {lately} answers failed, at last with: {reason}"
                told = self.stopped
        log.warning("%s@%s failed as %s: %s", self.name, self.plan.version, self.plan.kind, reason)
        if told:
            log.error("%s", self.problem())

    def compared(self, differs: Mapping[str, Any] | None) -> None:
        """Count a comparison of two answers: None where they agree, else what they were."""
        with self._lock:
            self._agreed += differs is None
            if differs is not None:
                self._differed += 1
                self._disagreements.append(differs)

    def dropped(self) -> None:
        """Count an image that the candidate was too slow to be given."""
        with self._lock:
            self._dropped += 1

    def problem(self) -> str:
        """Return what GET /models says of a rollout that was stopped; empty if it was not."""
        if not self.stopped:
            return ""
        who = f"the {self.plan.kind} of {self.name}@{self.plan.version}"
        return f"{who} is stopped, production answers everything: {self.stopped}"

    def summary(self) -> dict[str, Any]:
        """Return what the candidate's row of GET /models says."""
        stopped = {"stopped": self.stopped} if self.stopped else {}
        return {"kind": self.plan.kind, "share": self.plan.share, **stopped}

    def describe(self) -> dict[str, Any]:
        """Return what GET /compare says."""
        with self._lock:
            sides = {
                who: {"version": served.manifest.version, **self._tallies[who].describe()}
                for who, served in (("production", self.production), ("candidate", self.candidate))
            }
            body = {"model": self.name, **self.summary(), "since": self._since, **sides}
            if self.plan.kind == "canary":
                return body
            compared = self._agreed + self._differed
            return body | {
                "compared": compared,
                "agreed": self._agreed,
                "agreement": self._agreed / compared if compared else None,
                "dropped": self._dropped,
                "disagreements": list(self._disagreements),
            }


def is_fault(error: BaseException) -> bool:
    """Whether an error is the version's, not the client's."""
    return not isinstance(error, Refusal) or error.status >= 500


def _percentile(seconds: Iterable[float], share: int) -> float | None:
    """Return milliseconds that so many percent of the times do not exceed; None of none."""
    ordered = sorted(seconds)
    return round(ordered[(len(ordered) * share - 1) // 100] * 1e3, 3) if ordered else None


def _describe(error: BaseException) -> str:
    if isinstance(error, Refusal) and is_fault(error) and error.__cause__ is not None:
        error = error.__cause__  # what the one who asked is not told
    text = str(error).partition("\n")[0][:300]
    ours = text and isinstance(error, Refusal | SurgeryError)
    return text if ours else f"{type(error).__name__}: {text}".removesuffix(": ")
