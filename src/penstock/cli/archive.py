"""`penstock archive`: what is archived, and removing what is no longer needed."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any, Iterator

import click

from penstock.cli.base import HELP, OK, command, json_option, on_option, open_deployment, say
from penstock.cli.output import number, size, table

if TYPE_CHECKING:
    from penstock.archive import Archive, Entry
    from penstock.archive.retention import Kept, Removed, Rules, Writers
    from penstock.deployment import Deployment
    from penstock.warehouse import LedgerRow

MANIFESTS = "_manifests"  # of loads; one that was killed leaves its own


@click.group("archive", context_settings=HELP, short_help="Look at the archived files, and remove what is no longer needed.")
def archive() -> None:
    """Look at the files that ArchiveBolt wrote, and remove what is no longer needed of them.

    DATASET is accepted events (the schema's name), late ones (NAME_late) or rejects (NAME_rejects); all of them if none is named.
    """


@command(
    "list",
    [
        ("what is archived", "penstock archive list --on prod"),
        ("the hours of a dataset", "penstock archive list ads --on prod"),
        ("for a program", "penstock archive list ads --json"),
    ],
    short_help="Show datasets, hours, files and bytes.",
)
@click.argument("dataset", required=False)
@json_option
@on_option
def list_(dataset: str | None, as_json: bool, on: str) -> int:
    """Show what is archived: each dataset, or each hour of DATASET, with its files, rows and bytes.

    "covered" are files that a merge has replaced, and that no reader takes any more: `penstock archive prune` removes them.
    """
    from penstock.model.units import hour_text

    with open_deployment(on) as deployment:
        names = [dataset] if dataset is not None else deployment.archive.datasets()
        found = [row for name in names for row in hours_of(deployment.archive, name)]
    if dataset is not None and not found:
        raise _no_such(dataset, on)
    if as_json:
        click.echo(json.dumps([{**row, "hour": hour_text(row["hour"])} for row in found], indent=1))
        return OK
    if dataset is not None:
        rows = [[hour_text(row["hour"]), *_counts(row)] for row in found]
        table(["hour", "files", "rows", "bytes", "covered"], rows, right=(1, 2, 3, 4))
        return OK
    if not found:
        say("nothing is archived")
        return OK
    lines = []
    for name in names:
        own = [row for row in found if row["dataset"] == name]
        total = {key: sum(row[key] for row in own) for key in ("files", "rows", "bytes", "covered")}
        lines.append([name, number(len(own)), hour_text(own[0]["hour"]), hour_text(own[-1]["hour"]), *_counts(total)])
    table(["dataset", "hours", "from", "to", "files", "rows", "bytes", "covered"], lines, right=(1, 4, 5, 6, 7))
    return OK


def _counts(row: dict[str, Any]) -> list[str]:
    return [number(row["files"]), number(row["rows"]), size(row["bytes"]), number(row["covered"]) if row["covered"] else ""]


def hours_of(archive: Archive, dataset: str) -> Iterator[dict[str, Any]]:
    """What each hour of a dataset has."""
    from penstock.archive.memory import visible

    for hour in archive.hours(dataset):
        index = archive.index(dataset, hour)
        shown = visible(index)
        yield {
            "dataset": dataset,
            "hour": hour,
            "files": len(shown),
            "rows": sum(entry.rows for entry in shown),
            "bytes": sum(entry.bytes for entry in shown),
            "covered": len(index) - len(shown),
        }


@command(
    "prune",
    [
        ("what has been merged, and what interrupted work has left", "penstock archive prune --on prod"),
        ("hours that are loaded and older than 90 days, too; run it daily", "penstock archive prune --keep 90d --on prod"),
        ("only say what would go", "penstock archive prune ads --before 2015-05-01 --dry-run"),
    ],
    short_help="Remove old hours, merged files and orphans.",
)
@click.argument("dataset", required=False)
@click.option("--keep", metavar="DURATION", help="Remove hours that ended longer ago than this: 90d.")
@click.option("--before", metavar="TIME", help="Remove hours that ended before this time, in UTC: 2015-05-17.")
@click.option("--unloaded", is_flag=True, help="Old hours go even if the warehouse does not have all of them.")
@click.option(
    "--settled", default="1d", show_default=True, metavar="DURATION", help="Leave a file alone until so long after it was written."
)
@click.option("--dry-run", is_flag=True, help="Only print what would be removed.")
@json_option
@on_option
def prune(
    dataset: str | None, keep: str | None, before: str | None, unloaded: bool, settled: str, dry_run: bool, as_json: bool, on: str
) -> int:
    """Remove what is no longer needed of the archive: files that merges have replaced, and files that interrupted work has left and that will never be
    indexed. With --keep or --before hours that are old go too, once all of them is in the warehouse.

    An hour leaves the index first and its files go after; what is interrupted in between, the next run removes. An hour that was removed can neither be
    queried in the archive nor rebuilt from it; the warehouse keeps its rows. Hours for which events may still come, by the schema's lateness, stay.
    """
    from penstock.archive.retention import Kept, Rules
    from penstock.archive.retention import prune as pruned
    from penstock.model.units import duration, instant

    if keep is not None and before is not None:
        raise click.UsageError("say --keep or --before: not both")
    if unloaded and keep is None and before is None:
        raise click.UsageError("--unloaded says which old hours go: say --keep or --before too")
    gone = bytes_gone = 0
    with open_deployment(on) as deployment:
        now = deployment.now()
        limit = now - duration(keep, "--keep") if keep is not None else instant(before, "--before") if before is not None else None
        rules = Rules(now, limit, unloaded, duration(settled, "--settled"), dry_run)
        writers = writers_of(deployment)  # before anything is listed: see penstock.archive.retention
        for name in datasets_of(deployment, dataset, on):
            own = limited(rules, deployment, name)
            for outcome in pruned(deployment.archive, name, own, writers, Ledger.of(deployment, name, own)):
                show(outcome, dry_run, as_json)
                if not isinstance(outcome, Kept):
                    gone, bytes_gone = gone + outcome.files, bytes_gone + outcome.bytes
        left = leftovers(deployment.archive, rules) if dataset is None else 0
    say(
        f"{'would remove' if dry_run else 'removed'} {number(gone)} files, {size(bytes_gone)}"
        + (f"; {left} leftovers of work that was killed" if left else "")
    )
    return OK


def show(outcome: Removed | Kept, dry_run: bool, as_json: bool) -> None:
    """Print what became of an hour, in a line."""
    from penstock.archive.retention import Kept
    from penstock.model.units import hour_text

    hour = None if outcome.hour is None else hour_text(outcome.hour)
    if as_json:
        said = {"outcome": "kept" if isinstance(outcome, Kept) else "would remove" if dry_run else "removed"}
        click.echo(json.dumps({**said, **dataclasses.asdict(outcome), "hour": hour}))
        return
    where = f"{outcome.dataset} {hour or '(no hour)'}"
    what = f"{number(outcome.files)} file{'s' if outcome.files != 1 else ''}, {size(outcome.bytes)}"
    if isinstance(outcome, Kept):
        why = {
            "not loaded": "the warehouse does not have all of it (--unloaded removes it all the same)",
            "in use": "somebody may still be writing or reading it",
            "unknown": "no bolt of this deployment knows of them",
        }
        click.echo(f"{where} kept: {what}: {why[outcome.why]}")
    else:
        why = {"old": "old", "merged": "merged into others", "orphan": "never indexed"}
        click.echo(f"{where} {'would go' if dry_run else 'removed'}: {what}: {why[outcome.reason]}")


def datasets_of(deployment: Deployment, dataset: str | None, on: str) -> list[str]:
    """The datasets to prune: those of the index, and those that bolts make of which nothing is indexed yet."""
    from penstock.rollup.registry import Registry

    made = [f"{name}{suffix}" for name in Registry(deployment.table).names("dataset") for suffix in ("", "_late", "_rejects")]
    known = sorted({*deployment.archive.datasets(), *made})
    if dataset is not None and dataset not in known:
        raise _no_such(dataset, on)
    return known if dataset is None else [dataset]


def _no_such(dataset: str, on: str) -> Exception:
    from penstock.errors import NotFoundError

    return NotFoundError(f"nothing of {dataset} is archived at {on}", hint="`penstock archive list` shows what is")


def writers_of(deployment: Deployment) -> Writers:
    """What the control cells of all archive bolts say, of all their generations."""
    from penstock.archive.retention import Writers
    from penstock.rollup.registry import Registry

    registry = Registry(deployment.table)
    owners, listed = {}, set()
    for bolt in registry.bolts():
        for generation in registry.generations(bolt):
            for shard, control in registry.shards(bolt, generation):
                owners[shard.name] = (control.owner, control.done.offset)
                listed |= {entry.path for entry in control.files}
    return Writers(owners, frozenset(listed))


def open_from(deployment: Deployment, dataset: str) -> int | None:
    """The event time from which on events may still come for a dataset, so that an hour that is removed could never be loaded again; None if unknown.

    Late events are another dataset, whose hours are never closed, and rejects are archived by when they came.
    """
    from penstock.errors import NotFoundError
    from penstock.model import Schema
    from penstock.rollup.control import NO_WATERMARK
    from penstock.rollup.registry import Registry

    registry = Registry(deployment.table)
    try:
        definition = registry.provider("dataset", dataset)
    except NotFoundError:
        return None
    watermarks = [control.done.watermark for _, control in registry.shards(definition.bolt, definition.generation)]
    known = [watermark for watermark in watermarks if watermark != NO_WATERMARK]
    return min(known) - Schema.from_json(definition.schema).lateness if known else None


def limited(rules: Rules, deployment: Deployment, dataset: str) -> Rules:
    """The rules for a dataset: hours for which events may still come are not old."""
    from penstock.model.units import iso

    limit = open_from(deployment, dataset)
    if rules.before is None or limit is None or rules.before <= limit:
        return rules
    say(f"{dataset}: hours after {iso(limit)} stay: events may still come for them")
    return dataclasses.replace(rules, before=limit)


class Ledger:
    """What the warehouse's ledger says of a dataset's hours. See `penstock.archive.retention.Loaded`."""

    def __init__(self, dataset: str, rows: list[LedgerRow]) -> None:
        self.dataset, self.rows = dataset, {row.hour: row for row in rows}

    @classmethod
    def of(cls, deployment: Deployment, dataset: str, rules: Rules) -> Ledger:
        """The ledger of a deployment. One without a warehouse has loaded nothing."""
        from penstock.errors import ConfigurationError

        try:
            return cls(dataset, deployment.warehouse.ledger(dataset))
        except ConfigurationError:
            if rules.before is not None and not rules.unloaded:
                raise
            return cls(dataset, [])

    def whole(self, hour: int, shown: list[Entry]) -> bool:
        """Whether all entries of the generations that were loaded lie in what was loaded. Others hold the same events once more."""
        from penstock.archive.merge import paths_within

        row = self.rows.get(hour)
        if row is None:
            return False
        own = self._own(row, shown)
        return {entry.path for entry in own} <= paths_within(own, row.ranges)

    def names(self, hour: int, shown: list[Entry], covered: Entry) -> bool:
        """Whether the manifest that was loaded last may name a covered file: it does not if it names those that are shown now."""
        from penstock.archive.merge import paths_within
        from penstock.warehouse import Manifest

        row = self.rows.get(hour)
        if row is None or covered.path not in paths_within([covered], row.ranges):
            return False
        return Manifest(self.dataset, hour, tuple(self._own(row, shown))).hash != row.manifest_hash

    def _own(self, row: LedgerRow, shown: list[Entry]) -> list[Entry]:
        generations = {shard.partition("-")[0] for shard in row.ranges}
        return [entry for entry in shown if entry.shard.partition("-")[0] in generations]


def leftovers(archive: Archive, rules: Rules) -> int:
    """Remove what killed processes have left beside the datasets: manifests of loads, and halves of files. How many."""
    old = [file.path for file in archive.files(MANIFESTS) if file.modified + rules.settled <= rules.now]
    if old and not rules.dry_run:
        archive.remove(old)
    return len(old) + archive.sweep(rules.now - rules.settled, dry_run=rules.dry_run)


for _command in (list_, prune):
    archive.add_command(_command)
