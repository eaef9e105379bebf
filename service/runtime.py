"""What is served: which version a request means, and how another takes its place."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from surgery.artifact.errors import ModelNotFoundError, StoreError, SurgeryError, UserError
from surgery.artifact.passports import find_passport
from surgery.artifact.rollout import FILE as ROLLOUT
from surgery.artifact.store import PRODUCTION, Ref, RolloutPlan, Store, check_name, parse_ref

from .access import log
from .reply import Refusal
from .rollout import Rollout
from .rows import list_rows
from .served import Served
from .settings import Settings
from .shelf import Shelf, reason_of, stamp_of

MAKE_ONE = (
    "Make one with `surgery finetune DATA --name NAME`, or point SURGERY_MODELS at a store that"
    " holds some; it is served as soon as it is there."
)


@dataclass(frozen=True)
class Table:
    """What requests are answered from. Never altered: a swap puts another in its place."""

    names: tuple[str, ...] = ()
    """Names that have a whole version."""
    aliases: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """For every name, damaged ones too, the versions that its aliases stand for."""
    production: Mapping[str, Served] = field(default_factory=dict)
    """The version that each name alone means; the last good one if its successor is broken."""
    rollouts: Mapping[str, Rollout] = field(default_factory=dict)
    """The candidate that runs beside production of each name that has one."""


class Runtime:
    """Loads versions of the store and finds the one that a request means.

    Readers take `table` once, without a lock; `refresh` alone replaces it. `start` never raises:
    no damaged folder can keep the service from starting.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = Store(settings.models)
        self.table = Table()
        self.shelf = Shelf(settings, self._in_use)
        self._said: dict[str, str] = {}
        self._stopping = threading.Event()

    @property
    def ready(self) -> bool:
        return bool(self.table.production)

    def start(self) -> None:
        """Load every production version, then look for promotions in the background."""
        self._refresh_or_log()
        if self.settings.poll_s > 0:
            threading.Thread(target=self._poll, name="store-poll", daemon=True).start()

    def stop(self) -> None:
        self._stopping.set()

    def _poll(self) -> None:
        seen: object = None
        while not self._stopping.wait(self.settings.poll_s):
            # Reading every manifest each second would cost more than answering.
            found = self._signature()
            if found != seen:
                seen = found
                self._refresh_or_log()

    def _refresh_or_log(self) -> None:
        try:
            self.refresh()
        except Exception:
            log.exception("the store %s cannot be read; what is loaded stays", self.store.root)

    def _signature(self) -> object:
        """Return what changes with every promotion, new version or repair of a broken one."""
        return (
            [(name, stamp_of(self.store.root / name, inside=False)) for name in self._folders()],
            # A file that is repaired in place leaves its folder's stamp alone.
            [stamp_of(self.store.root / name / ROLLOUT, inside=False) for name in self._folders()],
            [stamp_of(self.store.root / name / str(version)) for name, version in self.shelf.failures()],
            self.shelf.overdue(),
        )

    def _folders(self) -> list[str]:
        """Return the names of all folders of the store that could hold a model."""
        try:
            folders = [path.name for path in self.store.root.iterdir() if path.is_dir()]
        except OSError:
            return []
        return sorted(name for name in folders if _is_name(name))

    def refresh(self) -> None:
        """Read the aliases again, load what they newly mean, and put the new table in place."""
        old = self.table
        found = {name: self._aliases_of(name) for name in self._folders()}
        whole = tuple(name for name in found if self._has_versions(name))
        aliases = {name: found[name] for name in found if found[name] or name in whole}
        loaded = {name: self._production_of(name, aliases[name]) for name in aliases}
        production = {name: served for name, served in loaded.items() if served is not None}
        self.table = Table(whole, aliases, production, old.rollouts)
        self._note_changes(old.production, production)
        # After the swap: no promotion waits for a candidate to be loaded.
        rollouts = {name: self._rollout_beside(served) for name, served in production.items()}
        running = {name: rollout for name, rollout in rollouts.items() if rollout is not None}
        self.table = replace(self.table, rollouts=running)
        for subject in [s for s in list(self._said) if s and re.split("[:@]", s)[0] not in found]:
            del self._said[subject]
        for subject in [s for s in list(self._said) if "@" in s and not self._is_there(s)]:
            del self._said[subject]
        self.shelf.forget([key for key in self.shelf.failures() if not self._is_there("{}@{}".format(*key))])

    def _is_there(self, ref: str) -> bool:
        """Whether the store holds a version, be it damaged."""
        try:
            self.store.resolve(ref)
        except ModelNotFoundError:
            return False
        except (SurgeryError, OSError):
            return True
        return True

    def _aliases_of(self, name: str) -> Mapping[str, int]:
        try:
            aliases = dict(self.store.aliases(name))
        except (SurgeryError, OSError) as error:
            self._say(f"{name}:aliases", f"the aliases of {name} cannot be read: {reason_of(error)}")
            return self.table.aliases.get(name, {})
        self._said.pop(f"{name}:aliases", None)
        return aliases

    def _has_versions(self, name: str) -> bool:
        try:
            return bool(self.store.list_versions(name))
        except (SurgeryError, OSError) as error:
            self._say(f"{name}:folder", f"{name} cannot be read: {reason_of(error)}")
            return False

    def _production_of(self, name: str, aliases: Mapping[str, int]) -> Served | None:
        version, last_good = aliases.get(PRODUCTION), self.table.production.get(name)
        if version is None:
            self._say(name, f"{name} has no production version: surgery models promote {name} N")
            return None
        try:
            same = last_good is not None and last_good.manifest.version == version
            served = last_good if same else self._load(f"{name}@{version}")
        except (SurgeryError, OSError) as error:
            stays = f"; version {last_good.manifest.version} stays" if last_good else ""
            self._say(name, f"{name}@{version} is not served{stays}: {reason_of(error)}")
            return last_good
        self._said.pop(name, None)
        return served

    def _rollout_beside(self, production: Served) -> Rollout | None:
        """Return the rollout that runs, or begin the one that rollout.json asks for."""
        name, old = production.manifest.name, self.table.rollouts.get(production.manifest.name)
        try:
            plan = self.store.rollout(name)
            if plan is None or plan.version == production.manifest.version:
                rollout = None
            elif old is not None and old.plan == plan and old.production is production:
                rollout = old
            else:
                candidate = self._candidate(name, plan, production)
                rollout = Rollout(plan, production, candidate, self._without_root)
                if old is not None and old.plan == plan:  # beside another production now
                    rollout.stopped = old.stopped
                log.info("%s@%s is a %s on a share of %g", name, plan.version, plan.kind, plan.share)
        except (SurgeryError, OSError) as error:
            self._say(f"{name}:rollout", f"{name} has no rollout, production answers: {reason_of(error)}")
            return None
        self._said.pop(f"{name}:rollout", None)
        return rollout

    def _candidate(self, name: str, plan: RolloutPlan, production: Served) -> Served:
        ref = f"{name}@{plan.version}"
        if plan.kind == "canary":
            candidate = self._load(ref)
        else:
            # One thread, which is the shadow's: onnxruntime's own would not give way.
            candidate = self.shelf.open_apart(self.store.resolve(ref))
        if candidate.manifest.task != production.manifest.task:
            tasks = f"'{candidate.manifest.task}', production '{production.manifest.task}'"
            raise StoreError(f"{ref} does {tasks}")
        return candidate

    def rollout_of(self, text: str | None, served: Served) -> Rollout | None:
        """Return the rollout that a request takes part in, having found that it means `served`.

        None if it names a version or an alias but production, or nothing runs beside production.
        """
        rollout = self.table.rollouts.get(served.manifest.name)
        if rollout is None or rollout.production is not served:
            return None
        return rollout if text in (None, rollout.name, f"{rollout.name}@{PRODUCTION}") else None

    def rollout_called(self, name: str | None) -> Rollout:
        """Return the rollout of a name.

        Raises:
            Refusal: 400 if no name can be read, or none is given and several exist; 404 if there is no such
                model, or nothing runs beside its production; 503 if there is no model at all.
        """
        table = self.table
        name = self._only_name(table) if name is None else name
        try:
            check_name(name)
        except StoreError as error:
            raise Refusal(400, "bad_model_name", error.message, error.hint) from error
        if name not in table.aliases:
            raise self._not_found(Ref(name, None), table)
        rollout = table.rollouts.get(name)
        if rollout is None:
            why = self._said.get(f"{name}:rollout") or f"nothing runs beside production of {name}"
            hint = f"Start it with `surgery models shadow {name} VERSION`, or canary."
            raise Refusal(404, "no_rollout", self._without_root(why), hint)
        return rollout

    def _note_changes(self, old: Mapping[str, Served], new: Mapping[str, Served]) -> None:
        for name in sorted({*old, *new}):
            before, now = old.get(name), new.get(name)
            if now is not None and now is not before:
                log.info("serving %s@%s on %s", *now.key, now.session.device)
            if before is not None and before is not now:
                self._keep(before)  # a rollback finds it still loaded
        if new:
            self._said.pop("", None)
        else:
            refusal = self.nothing_to_serve()
            self._say("", f"not ready: {refusal.message}, {self.store.root}. {refusal.hint}")

    def _say(self, subject: str, message: str) -> None:
        """Log what is wrong with a subject once, not at every poll."""
        if self._said.get(subject) != message:
            self._said[subject] = message
            log.warning("%s", message)

    def find_loaded(self, text: str | None) -> Served | None:
        """Return the version that a request means if it is in production; None where `find` must look.

        Raises:
            Refusal: As `find` does, if no model is named and there is not one only.
        """
        table = self.table
        name = self._only_name(table) if text is None else text
        return table.production.get(name.removesuffix(f"@{PRODUCTION}"))

    def find_kept(self, text: str | None) -> Served | None:
        """Return the version that a request means if it is in memory; None where `find` must load it, or say
        why it cannot. Reads the store."""
        try:
            text, _ = self._read_ref(text, self.table)
            served = self.shelf.loaded(self.store.resolve(text))
        except (Refusal, SurgeryError, OSError):
            return None
        if served is not None:
            self._keep(served)
        return served

    def find(self, text: str | None) -> Served:
        """Return the version that a request means, loading it if need be. Blocks.

        Raises:
            Refusal: 400 if no name can be read from `text`, or none is given and several exist;
                404 if the store has no such model; 503 if it has, but it cannot be loaded.
        """
        table = self.table
        text, ref = self._read_ref(text, table)
        if ref.selector in (None, PRODUCTION) and ref.name in table.production:
            return table.production[ref.name]
        try:
            served = self._load(text)
        except ModelNotFoundError as error:
            raise self._not_found(ref, table) from error
        except (SurgeryError, OSError) as error:
            self._say(text, f"{text} cannot be loaded: {reason_of(error)}")
            message = f"{text} cannot be loaded: {self._without_root(reason_of(error))}"
            raise Refusal(503, "model_unavailable", message, getattr(error, "hint", "")) from error
        self._said.pop(text, None)
        self._keep(served)
        return served

    def _read_ref(self, text: str | None, table: Table) -> tuple[str, Ref]:
        """Return the name that a request gives, and what it means; without a name it means the only model."""
        text = self._only_name(table) if text is None else text
        try:
            return text, parse_ref(text)
        except UserError as error:
            raise Refusal(400, "bad_model_name", error.message, error.hint) from error

    def _only_name(self, table: Table) -> str:
        if not table.names:
            raise self.nothing_to_serve()
        if len(table.names) > 1:
            message = f"there are {len(table.names)} models, so 'model' cannot be left out"
            hint = f"Send model=NAME with one of: {', '.join(table.names)}."
            raise Refusal(400, "model_required", message, hint)
        return table.names[0]

    def _not_found(self, ref: Ref, table: Table) -> Refusal:
        if not table.names:
            return self.nothing_to_serve()
        message = f"there is no model '{ref.name}', only {', '.join(table.names)}"
        if ref.name in table.names:
            kind = "version" if isinstance(ref.selector, int) else "alias"
            message = f"model '{ref.name}' has no {kind} '{ref.selector or PRODUCTION}'"
        return Refusal(404, ModelNotFoundError.code, message, "GET /models lists what there is.")

    def nothing_to_serve(self) -> Refusal:
        """Return why no model is ready, and what to do."""
        names = sorted(self.table.aliases)
        if not names:
            return Refusal(503, "no_model", "there is no model in the store", MAKE_ONE)
        message = f"none of the models in the store can be served ({', '.join(names)})"
        return Refusal(503, "no_model", message, "GET /models says why of each.")

    def _load(self, text: str) -> Served:
        """Return a version, as it is loaded or from the disk.

        Raises:
            ModelNotFoundError: If the store does not hold it.
            SurgeryError: If it cannot be loaded.
        """
        return self.shelf.take(self.store.resolve(text))

    def _in_use(self) -> list[Served]:
        """Return the versions that requests are answered from."""
        canaries = [rollout for rollout in self.table.rollouts.values() if rollout.plan.kind == "canary"]
        return [*self.table.production.values(), *(rollout.candidate for rollout in canaries)]

    def _keep(self, served: Served) -> None:
        """Keep a version in memory that is not, or no longer, in production."""
        if self.table.production.get(served.manifest.name) is not served:
            self.shelf.keep(served)

    def list_models(self) -> list[dict[str, Any]]:
        """Return one row for each version of the store, and for each alias without one. Blocks."""
        return list_rows(self.store, self.table, self.shelf, self._without_root)

    def passport(self, text: str | None) -> str:
        """Return the page of a version's passport. Blocks.

        Raises:
            Refusal: 400 if no name can be read, or none is given and several exist; 404 if there is no such
                model, or it has no passport; 503 if it cannot be read.
        """
        table = self.table
        text, ref = self._read_ref(text, table)
        try:
            stored = self.store.resolve(text)
            page = find_passport(stored)
            if page is not None:
                return page.read_text("utf-8")
        except ModelNotFoundError as error:
            raise self._not_found(ref, table) from error
        except (SurgeryError, OSError, ValueError) as error:
            log.warning("the passport of %s cannot be read: %s", text, reason_of(error))
            message = f"the passport of {text} cannot be read"
            raise Refusal(503, "model_unavailable", message, "The log of the service says why.") from error
        hint = f"Write it with `surgery passport {stored.ref}`."
        raise Refusal(404, "no_passport", f"{stored.ref} has no passport", hint)

    def problems(self) -> list[str]:
        """Return what keeps models from being served at present, as the log says it."""
        stopped = [rollout.problem() for rollout in self.table.rollouts.values()]
        messages = [*self._said.values(), *filter(None, stopped)]
        return [self._without_root(message) for message in messages]

    def _without_root(self, message: str) -> str:
        """Return a message without the server's own path, which is nobody's business outside."""
        return message.replace(f"{self.store.root}/", "").replace(f", {self.store.root}", "")


def _is_name(text: str) -> bool:
    try:
        return check_name(text) == text
    except StoreError:
        return False
