"""The leakage audit: does anything in a build know what it must not know?

The rules are in :mod:`~usermirror_gym.corpus.checks.leaks` (scenes) and
:mod:`~usermirror_gym.corpus.checks.rankers`; this file runs them on a folder.  What no rule
looks at: the words of a scene beyond their number, item facts that were computed over the whole
log (a mean rating, say), and what a language model read before it came here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from usermirror_gym.corpus.built import Build, BuiltSource, read_build
from usermirror_gym.corpus.checks import leaks as checks
from usermirror_gym.corpus.checks import rankers
from usermirror_gym.corpus.checks.leaks import Finding
from usermirror_gym.progress import Terminal
from usermirror_gym.report.tables import plain_table
from usermirror_gym.scenes.table import SPLITS

_STYLES = {"passed": "green", "failed": "bold red", "too few": "yellow"}


@dataclass(frozen=True)
class AuditReport:
    """Findings of an audit."""

    folder: Path
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed; some may have had too few data."""
        return not any(finding.failed for finding in self.findings)


def audit_build(folder: str | Path) -> AuditReport:
    """Run every check on every source of a build.

    Raises:
        RunError: the folder is incomplete or damaged; says what is missing.
    """
    build = read_build(folder)
    findings = [_manifest(build)]
    everything = pd.concat([source.frame for source in build.sources], ignore_index=True)
    findings.append(checks.duplicates(everything))
    for source in build.sources:
        findings += [*_scene_findings(source), *_ranker_findings(source)]
    return AuditReport(build.folder, tuple(findings))


def print_audit(report: AuditReport, console: Console | None = None) -> bool:
    """Print the findings as a table; whether the build passed."""
    (console or Terminal()).print(audit_table(report))
    return report.passed


def audit_table(report: AuditReport) -> Table:
    """One row a finding, and what they come to."""
    count = {v: sum(f.verdict == v for f in report.findings) for v in _STYLES}
    table = plain_table(
        title=f"Leakage audit of {report.folder}",
        caption=", ".join(f"{n} {verdict}" for verdict, n in count.items()),
    )
    for header in ("Source", "Check", "Verdict", "Compared"):
        table.add_column(header, overflow="fold", no_wrap=header == "Verdict")
    for finding in report.findings:
        compared = Text(finding.compared)
        if finding.scenes:
            compared.append(f" (e.g. {', '.join(finding.scenes)})", style="dim")
        verdict = Text(finding.verdict, style=_STYLES[finding.verdict])
        table.add_row(Text(finding.source), Text(finding.check), verdict, compared)
    return table


def _manifest(build: Build) -> Finding:
    changed, unlisted = build.changed_files(), build.unlisted_files()
    compared = f"checksums of {len(build.manifest['outputs'])} files with the manifest"
    if not changed and not unlisted:
        return Finding("manifest", "all", "passed", compared)
    named = (
        f"{len(changed)} changed, {len(unlisted)} not in it: {', '.join((changed + unlisted)[:3])}"
    )
    return Finding("manifest", "all", "failed", f"{compared}; {named}")


def _scene_findings(source: BuiltSource) -> list[Finding]:
    name, scenes, events = source.name, source.frame, source.dataset.interactions
    findings = [
        checks.filed(name, scenes, source.facts.get("dataset", name)),
        checks.split_times(name, scenes, source.t_validation, source.t0),
        checks.histories(name, scenes, events),
        checks.events_apart(name, scenes),
        checks.logged_choices(name, scenes, events),
        checks.seen_users(name, scenes, events, source.t0),
        checks.targets(name, scenes),
        checks.distractors(name, scenes, events),
        checks.repeated_choices(name, scenes),
        checks.slates(name, scenes),
        checks.availability(name, scenes, source.dataset.items),
    ]
    for split in SPLITS:
        part = scenes[(scenes["split"] == split) & (scenes["kind"] == "choice")]
        if len(part):
            findings += [checks.positions(name, split, part), checks.last_place(name, split, part)]
    return findings


def _ranker_findings(source: BuiltSource) -> list[Finding]:
    name, split, stored = source.name, source.split, source.rankers
    settings = source.facts.get("rankers", {})
    findings = [
        rankers.fitted_before(name, int(stored["fitted_before"]), source.t0),
        rankers.popularity_fit(name, split, stored["popularity"]),
    ]
    if "collaborative" in stored:
        factors, seed = stored["collaborative"], settings.get("seed", 0)
        findings.append(rankers.collaborative_fit(name, split, factors, seed))
        findings.append(rankers.collaborative_company(name, source.frame, split))
    if "embedding" in stored:
        vectors, model = stored["embedding"], settings.get("embedding")
        findings.append(rankers.embedding_fit(name, split, vectors, model))
    return findings
