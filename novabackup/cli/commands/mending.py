"""The command that mends what is damaged: repair."""

from __future__ import annotations

import os
from typing import Annotated

from cyclopts import Parameter

from novabackup.cli.exits import Exit
from novabackup.cli.output import Answer, Column, Table, count, counted, number, problem_fields, problem_lines, size
from novabackup.cli.work import BY_DEFAULT, Options, Work
from novabackup.errors import ConfigurationError
from novabackup.format.layout import PACK_NAME, SNAPSHOT_NAME
from novabackup.operations.rebuild.rebuild import RebuildPlan
from novabackup.operations.repair.plan import RepairPlan

__all__ = ["repair"]

_DIGITS = 16
_TOLD = "what cannot be guessed: --text-field NAME, --sign-key-env NAME; tokenize= in Python, Repository.rebuild_bm25()"


def repair(
    *,
    from_: Annotated[tuple[str, ...], Parameter(name="--from", metavar="NAME_OR_URL")] = (),
    bm25: bool = False,
    text_field: Annotated[str | None, Parameter(metavar="NAME")] = None,
    sign_key_env: Annotated[str | None, Parameter(metavar="NAME")] = None,
    dry_run: bool = False,
    yes: Annotated[bool, Parameter(alias="-y")] = False,
    options: Options = BY_DEFAULT,
) -> Answer:
    """Mend the repository from copies and live files; with --bm25, write the BM25 index of the store anew.

    All of the repository is read to find the damage. What is damaged stays, in the folder damaged of the repository or
    as a snapshot. On a terminal it is asked for first. Ends with 1 if something cannot be had back.

    Args:
        from_: Another repository that may have what is damaged here: a name of [copies] in the configuration, or a URL
            or path; may be repeated.
        bm25: Mend the store instead: write its BM25 index anew from the texts of the metadata, if it alone is damaged.
        text_field: With --bm25: member of the metadata's entries that holds the text; by default what is usual.
        sign_key_env: With --bm25: the environment variable with the key that the index is signed with.
        dry_run: Say what is damaged, what can be had back and from where, and what is lost; do nothing.
        yes: Do not ask.
    """
    if bm25 and from_:
        raise ConfigurationError(
            "expected --from or --bm25, found both: the index is written from the store's own texts"
        )
    if not bm25 and (text_field or sign_key_env):
        raise ConfigurationError("--text-field and --sign-key-env say how a BM25 index is written: add --bm25")
    with options.open() as work:
        if bm25:
            return _index(work, text_field, _key(sign_key_env), dry_run=dry_run, yes=yes)
        return _repository(work, from_, dry_run=dry_run, yes=yes)


# -- the repository ----------------------------------------------------------------------------------------------------


def _repository(work: Work, names: tuple[str, ...], *, dry_run: bool, yes: bool) -> Answer:
    others = [work.copy(name) for name in names]
    repository, store = work.repository, work.known_store
    with work.progress("Reading", counted("packs")) as bar:
        plan = repository.plan_repair(from_=others, store=store, callback=bar)
    if not dry_run and plan.actions:
        if not work.terminal.agrees(f"Repair {plan.repository}?", _plan(plan), yes=yes):
            return Answer.refused({"dry_run": True, **_fields(plan)})
        with work.progress("Repairing", counted("steps")) as bar:
            plan = repository.repair(plan, from_=others, store=store, callback=bar)
    hints = _hints(work, names) if plan.lost else []
    exit_ = Exit.WRONG if plan.lost else Exit.OK
    fields = {"dry_run": dry_run, **_fields(plan)}
    if dry_run:
        head = "Nothing was done. To repair it:" if plan.actions else "Nothing was done"
        return Answer(fields=fields, shown=[*([head] if plan.problems else []), *_plan(plan), *hints], exit=exit_)
    return Answer(fields=fields, shown=[*_losses(plan), *hints], done=[_summary(plan)], exit=exit_)


def _plan(plan: RepairPlan) -> list[Table | str]:
    parts: list[Table | str] = []
    if plan.problems:
        parts += ["Found:", *problem_lines(plan.problems)]
    if plan.actions:
        columns = [Column("Step", whole=True), Column("Object"), Column("File"), Column("From")]
        rows = [(action.step.value, _named(action.key), action.path, action.source) for action in plan.actions]
        parts.append(Table(columns=columns, rows=rows))
    return [*parts, *_losses(plan), _summary(plan)]


def _losses(plan: RepairPlan) -> list[Table | str]:
    if not plan.lost:
        return []
    columns = [Column("Object"), Column("File"), Column("Why")]
    rows = [(_named(loss.key), loss.path, loss.message) for loss in plan.lost]
    return [Table(columns=columns, rows=rows, title="Cannot be had back:")]


def _named(key: str) -> str:
    """Name an object of the repository for people."""
    pack, snapshot = PACK_NAME.fullmatch(key), SNAPSHOT_NAME.fullmatch(key)
    if pack:
        return f"pack {pack[1][:_DIGITS]}…"
    return f"snapshot {snapshot[1]}" if snapshot else key


def _summary(plan: RepairPlan) -> str:
    if not plan.problems:
        return f"Repository {plan.repository}: nothing is damaged"
    return f"Repository {plan.repository}: {plan.summary}"


def _hints(work: Work, names: tuple[str, ...]) -> list[str]:
    """Say where what is lost may still be."""
    others = [name for name in work.config.copies if name not in names]
    if others:
        return [f"A copy may have it: novabackup repair {' '.join(f'--from {name}' for name in others)}"]
    return [] if names else ["A copy of the repository, if there is one, may have it: novabackup repair --from URL"]


def _fields(plan: RepairPlan) -> dict[str, object]:
    return {
        "repository": plan.repository,
        "problems": [problem_fields(problem) for problem in plan.problems],
        "actions": [
            {"step": action.step.value, "key": action.key, "path": action.path, "source": action.source}
            for action in plan.actions
        ],
        "lost": [{"key": loss.key, "path": loss.path, "message": loss.message} for loss in plan.lost],
    }


# -- the BM25 index of the store ---------------------------------------------------------------------------------------


def _key(variable: str | None) -> bytes | None:
    if variable is None:
        return None
    found = os.environ.get(variable)
    if not found:
        raise ConfigurationError(f"--sign-key-env: expected the environment variable {variable}, found none or nothing")
    return found.encode()


def _index(work: Work, text_field: str | None, key: bytes | None, *, dry_run: bool, yes: bool) -> Answer:
    store, repository = work.store, work.repository
    try:
        plan = repository.plan_rebuild_bm25(store, text_field=text_field, sign_key=key)
    except ConfigurationError as error:
        error.add_note(_TOLD)
        raise
    done = f"{plan.store}: {plan.path} is written anew, {count(plan.count, 'document')}, {size(plan.size)}"
    if not plan.problems:
        done = f"{plan.store}: nothing is wrong with {plan.path}"
    elif dry_run:
        return Answer(fields=_index_fields(plan, repository.url, dry_run=True), shown=_index_plan(plan))
    else:
        question = f"Write {plan.path} of {plan.store} anew?"
        if not work.terminal.agrees(question, _index_plan(plan), yes=yes):
            return Answer.refused(_index_fields(plan, repository.url, dry_run=True))
        plan = repository.rebuild_bm25(store, text_field=text_field, sign_key=key, timeout=work.timeout(None))
    return Answer.of_plan(_index_fields(plan, repository.url, dry_run=dry_run), [done], dry_run=dry_run)


def _index_plan(plan: RebuildPlan) -> list[Table | str]:
    about = [
        ("Index", f"{plan.path} of {plan.store}"),
        ("Kind", plan.kind),
        ("Parameters", ", ".join(f"{name}={value:g}" for name, value in plan.parameters)),
        ("Documents", f"{number(plan.count)}, {size(plan.size)}"),
        ("Texts", f"{plan.metadata}, {plan.text_field or 'entries'}"),
        ("Words", plan.tokenizer),
        ("Learned from", f"snapshot {plan.learned_from}"),
    ]
    lines = [f"{name + ':':<13} {value}" for name, value in about if value]
    return ["Found:", *problem_lines(plan.problems), "It can be written anew from the texts of the metadata:", *lines]


def _index_fields(plan: RebuildPlan, repository: str, *, dry_run: bool) -> dict[str, object]:
    return {
        "dry_run": dry_run,
        "repository": repository,
        "store": plan.store,
        "path": plan.path,
        "problems": [problem_fields(problem) for problem in plan.problems],
        "kind": plan.kind,
        "parameters": dict(plan.parameters),
        "documents": plan.count,
        "size": plan.size,
        "metadata": plan.metadata,
        "text_field": plan.text_field,
        "words": plan.tokenizer,
        "learned_from": plan.learned_from,
    }
