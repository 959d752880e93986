"""The command repair."""

from __future__ import annotations

import os
from typing import Annotated

from cyclopts import Parameter

from novabackup._support.text import count
from novabackup.cli.context import BY_DEFAULT, Context, Options
from novabackup.cli.exits import Exit
from novabackup.cli.output import Result, Table, counted, labelled, number, problem_lines, size, table
from novabackup.errors import ConfigurationError
from novabackup.format.layout import PACK_NAME, SNAPSHOT_NAME
from novabackup.operations.rebuild.rebuild import RebuildPlan
from novabackup.operations.repair.plan import RepairPlan

_DIGITS = 16
_BM25_OPTIONS = (
    "what cannot be derived is passed with --text-field NAME and --sign-key-env NAME; or in Python: tokenize= of "
    "Repository.rebuild_bm25()"
)


def repair(
    *,
    from_: Annotated[tuple[str, ...], Parameter(name="--from", metavar="NAME_OR_URL")] = (),
    bm25: bool = False,
    text_field: Annotated[str | None, Parameter(metavar="NAME")] = None,
    sign_key_env: Annotated[str | None, Parameter(metavar="NAME")] = None,
    dry_run: bool = False,
    yes: Annotated[bool, Parameter(alias="-y")] = False,
    options: Options = BY_DEFAULT,
) -> Result:
    """Repair the repository, or with --bm25 the BM25 index of the store.

    The repository is repaired from copies and live files, the index from the texts of the metadata.

    All of the repository is read to find the damage. What is damaged is kept, in the folder damaged of the repository
    or as a snapshot. Asks for confirmation on a terminal. Ends with 1 if something cannot be repaired.

    Args:
        from_: Another repository that may have what is damaged here: a name of [copies] in the configuration, or a URL
            or path; may be repeated.
        bm25: Repair the store instead: rebuild its BM25 index from the texts of the metadata, if only that is damaged.
        text_field: With --bm25: the field of the metadata entries that holds the text; by default the usual ones.
        sign_key_env: With --bm25: the environment variable with the key that the index is signed with.
        dry_run: Show what is damaged, what can be repaired and from where, and what is lost; do nothing.
        yes: Do not ask.
    """
    if bm25 and from_:
        raise ConfigurationError(
            "expected --from or --bm25, found both: the index is written from the store's own texts"
        )
    if not bm25 and (text_field or sign_key_env):
        raise ConfigurationError("--text-field and --sign-key-env are for writing a BM25 index: add --bm25")
    with options.open() as context:
        if bm25:
            return _rebuild(context, text_field, _key(sign_key_env), dry_run=dry_run, yes=yes)
        return _repair(context, from_, dry_run=dry_run, yes=yes)


# -- the repository ----------------------------------------------------------------------------------------------------


def _repair(context: Context, names: tuple[str, ...], *, dry_run: bool, yes: bool) -> Result:
    others = [context.copy(name) for name in names]
    repository, store = context.repository, context.known_store
    with context.progress("Reading", counted("packs")) as bar:
        plan = repository.plan_repair(from_=others, store=store, callback=bar)
    if not dry_run and plan.actions:
        if not context.terminal.agrees(f"Repair {plan.repository}?", _plan(plan), yes=yes):
            return Result.refused({"dry_run": True, **_fields(plan)})
        with context.progress("Repairing", counted("steps")) as bar:
            plan = repository.repair(plan, from_=others, store=store, callback=bar)
    hints = _hints(context, names) if plan.lost else []
    exit_ = Exit.WRONG if plan.lost else Exit.OK
    fields = {"dry_run": dry_run, **_fields(plan)}
    if dry_run:
        head = "Nothing was done. To repair it:" if plan.actions else "Nothing was done"
        return Result(fields=fields, shown=[*([head] if plan.problems else []), *_plan(plan), *hints], exit=exit_)
    return Result(fields=fields, shown=[*_losses(plan), *hints], done=[_summary(plan)], exit=exit_)


def _plan(plan: RepairPlan) -> list[Table | str]:
    parts: list[Table | str] = []
    if plan.problems:
        parts += ["Found:", *problem_lines(plan.problems)]
    if plan.actions:
        rows = [(action.step.value, _named(action.key), action.path, action.source) for action in plan.actions]
        parts.append(table("!Step", "Object", "File", "From", rows=rows))
    return [*parts, *_losses(plan), _summary(plan)]


def _losses(plan: RepairPlan) -> list[Table | str]:
    if not plan.lost:
        return []
    rows = [(_named(loss.key), loss.path, loss.message) for loss in plan.lost]
    return [table("Object", "File", "Why", rows=rows, title="Cannot be repaired:")]


def _named(key: str) -> str:
    """Return the name of an object of the repository for people."""
    pack, snapshot = PACK_NAME.fullmatch(key), SNAPSHOT_NAME.fullmatch(key)
    if pack:
        return f"pack {pack[1][:_DIGITS]}…"
    return f"snapshot {snapshot[1]}" if snapshot else key


def _summary(plan: RepairPlan) -> str:
    if not plan.problems:
        return f"Repository {plan.repository}: nothing is damaged"
    return f"Repository {plan.repository}: {plan.summary}"


def _hints(context: Context, names: tuple[str, ...]) -> list[str]:
    """Return where what is lost may still be found."""
    others = [name for name in context.config.copies if name not in names]
    if others:
        return [f"A copy may have it: novabackup repair {' '.join(f'--from {name}' for name in others)}"]
    return [] if names else ["A copy of the repository, if there is one, may have it: novabackup repair --from URL"]


def _fields(plan: RepairPlan) -> dict[str, object]:
    return {
        "repository": plan.repository,
        "problems": plan.problems,
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


def _rebuild(context: Context, text_field: str | None, key: bytes | None, *, dry_run: bool, yes: bool) -> Result:
    store, repository = context.store, context.repository
    try:
        plan = repository.plan_rebuild_bm25(store, text_field=text_field, sign_key=key)
    except ConfigurationError as error:
        error.add_note(_BM25_OPTIONS)
        raise
    done = f"{plan.store}: {plan.path} is rebuilt, {count(plan.count, 'document')}, {size(plan.size)}"
    if not plan.problems:
        done = f"{plan.store}: nothing is wrong with {plan.path}"
    elif dry_run:
        return Result(fields=_rebuild_fields(plan, repository.url, dry_run=True), shown=_rebuild_plan(plan))
    else:
        question = f"Rebuild {plan.path} of {plan.store}?"
        if not context.terminal.agrees(question, _rebuild_plan(plan), yes=yes):
            return Result.refused(_rebuild_fields(plan, repository.url, dry_run=True))
        plan = repository.rebuild_bm25(store, text_field=text_field, sign_key=key, timeout=context.timeout(None))
    return Result.of_plan(_rebuild_fields(plan, repository.url, dry_run=dry_run), [done], dry_run=dry_run)


def _rebuild_plan(plan: RebuildPlan) -> list[Table | str]:
    about = [
        ("Index", f"{plan.path} of {plan.store}"),
        ("Kind", plan.kind),
        ("Parameters", ", ".join(f"{name}={value:g}" for name, value in plan.parameters)),
        ("Documents", f"{number(plan.count)}, {size(plan.size)}"),
        ("Texts", f"{plan.metadata}, {plan.text_field or 'entries'}"),
        ("Words", plan.tokenizer),
        ("Learned from", f"snapshot {plan.learned_from}"),
    ]
    title = "It can be rebuilt from the texts of the metadata:"
    return ["Found:", *problem_lines(plan.problems), title, *labelled(about)]


def _rebuild_fields(plan: RebuildPlan, repository: str, *, dry_run: bool) -> dict[str, object]:
    return {
        "dry_run": dry_run,
        "repository": repository,
        "store": plan.store,
        "path": plan.path,
        "problems": plan.problems,
        "kind": plan.kind,
        "parameters": dict(plan.parameters),
        "documents": plan.count,
        "size": plan.size,
        "metadata": plan.metadata,
        "text_field": plan.text_field,
        "words": plan.tokenizer,
        "learned_from": plan.learned_from,
    }
