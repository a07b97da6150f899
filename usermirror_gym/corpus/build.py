"""One command builds everything: tables, scenes, rationales, selected pairs, audits, card.

A build is a folder:

    config.json                        the settings; another build cannot go on in it
    tables/<source>/                   the unified data set (see usermirror_gym.data.store)
    rankers/<source>.npz               what lists were drawn from, fitted before T0
    scenes/<split>/<source>.parquet    see usermirror_gym.scenes.table
    facts/<source>.json                T0, what was dropped, checksums of the raw files
    rationales/<source>/*.jsonl        what both models wrote, and the predictor's probabilities
    selection/                         the uncertainty of every scene and why it was (not) kept
    train/*.jsonl                      preference pairs and SFT rows for TRL
    shortcuts.json                     accuracy of controls that never see the history
    manifest.json                      checksums of all of this; the build is whole
    card.md, card.html                 the data card, made from the rest

A build that was killed goes on where it was, and ends with the same files as one that was not.
It goes on with the same settings, but for those that only say how servers are asked.
"""

from __future__ import annotations

from collections import Counter
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from usermirror_gym.configs.settings import written
from usermirror_gym.corpus.audit import AuditReport, audit_build
from usermirror_gym.corpus.built import read_build, read_rankers
from usermirror_gym.corpus.card.card import write_card
from usermirror_gym.corpus.card.facts import CardFacts, card_facts
from usermirror_gym.corpus.checks.leaks import Verdict
from usermirror_gym.corpus.checks.shortcuts import shortcut_audit, shortcut_table
from usermirror_gym.corpus.config import BuildConfig
from usermirror_gym.corpus.estimate import Estimate
from usermirror_gym.corpus.rationale_stage import (
    SourceRationales,
    engine_cache,
    select_pairs,
    write_direct,
)
from usermirror_gym.corpus.rationales.plan import ROLES
from usermirror_gym.corpus.scene_stage import SceneStage
from usermirror_gym.errors import ConfigError, RunError
from usermirror_gym.files import (
    read_json,
    read_parquet,
    sha256,
    to_json_types,
    write_json,
)
from usermirror_gym.progress import Display
from usermirror_gym.run_folder import CONFIG_FILE, package_versions, run_folder
from usermirror_gym.scenes.table import SPLITS

_OPERATIONAL = {
    "batch_size", "prompt_price", "completion_price",
    "base_url", "key_variable", "concurrency", "timeout", "max_retries",
}  # fmt: skip
"""Settings of ``rationales`` that may change when a build goes on."""
_UNLISTED = ("manifest.json", "card.md", "card.html", "cache")


def estimate_build(config: BuildConfig, folder: str | Path, *, display: Display) -> list[Estimate]:
    """Build the scenes, which the build then need not do, and estimate what comes after.

    Returns:
        one estimate per source and model; none for a build without rationales.

    Raises:
        RunError: see :func:`build_data`.
        ConfigError: a model is asked through batch files, whose pace nobody knows.
    """
    folder = Path(folder)
    rationales = config.rationales
    if rationales and "batch" in (rationales.model(role).engine for role in ROLES):
        raise ConfigError(
            "how long batch files take, only their provider knows: give the model the engine "
            "'openai' or 'transformers' for an estimate"
        )
    with _building(config, folder):
        _, sources = _prepared(config, folder, display)
        return [one for source in sources for one in source.estimates()]


def build_data(config: BuildConfig, folder: str | Path, *, display: Display) -> Path:
    """Run a build to its end, or go on with it.

    Args:
        config: the settings; see :func:`usermirror_gym.corpus.config.read_config`.
        folder: the build's own folder.
        display: says what is going on.

    Returns:
        The folder.

    Raises:
        RunError: the folder holds a build with other settings, or something else, or another
            process is building in it.
        UserMirrorError: whatever a stage raises; what was done stays, and the next run goes on.
    """
    folder = Path(folder)
    with _building(config, folder):
        if not (folder / "manifest.json").is_file():
            _run(config, folder, display)
        if not (folder / "card.html").is_file():
            _finish(folder, display)
    return folder


def _building(config: BuildConfig, folder: Path) -> AbstractContextManager[None]:
    """The folder is this build's, and nobody else is building in it."""
    return run_folder(folder, config, "build", doing="is building", may_change=_may_change)


def _may_change(name: str) -> bool:
    """Whether a setting says how rationales are asked for, rather than what they are."""
    group, last = name.split(".")[:1], name.split(".")[-1]
    return group == ["rationales"] and last in _OPERATIONAL


def _run(config: BuildConfig, folder: Path, display: Display) -> None:
    # Anew: some settings may not be those with which it began.
    write_json(folder / CONFIG_FILE, written(config))
    stages, sources = _prepared(config, folder, display)
    write_direct(stages, folder)
    if sources:
        for source in sources:
            source.run()
        selection = select_pairs(config, sources, folder)
        display.say(selection.summary())
        usage = [
            {"source": source.stage.source.slug, **asdict(summary)}
            for source in sources
            for summary in source.summaries()
        ]
        write_json(folder / "selection" / "usage.json", usage)
    write_json(folder / "shortcuts.json", [row for stage in stages for row in _shortcuts(stage)])
    write_manifest(config, folder, {stage.source.slug: stage.run() for stage in stages})


def _prepared(
    config: BuildConfig, folder: Path, display: Display
) -> tuple[list[SceneStage], list[SourceRationales]]:
    """A finished stage for each source, and its rationales, if any are wanted, to be written.

    Raises:
        ConfigError: two sources are the same data set.
        UserMirrorError: a model that does not exist, or a setting that its engine does not have.
    """
    make_engine, rationales = engine_cache(), config.rationales
    for model in (rationales.strong, rationales.weak) if rationales else ():
        if model.engine != "batch":  # now rather than after hours of work; no weights are loaded
            _ = make_engine(model).context_length
    stages = [SceneStage(config, source, folder, display) for source in config.sources]
    names: dict[str, str] = {}
    for stage in stages:
        name = stage.run()["dataset"]
        if name in names:
            raise ConfigError(
                f"sources {names[name]!r} and {stage.source.name!r} are both called {name!r}: give "
                "one of the data sets another name, so that their scenes can be told apart"
            )
        names[name] = stage.source.name
    if rationales is None:
        return stages, []
    return stages, [SourceRationales(rationales, stage, make_engine) for stage in stages]


def _shortcuts(stage: SceneStage) -> list[dict[str, Any]]:
    tables = stage.tables()
    if not {"train", "eval"} <= tables.keys():
        return []
    rankers = read_rankers(stage.rankers_path)
    try:
        report = shortcut_audit(
            tables["train"], tables["eval"], stage.split.dataset, rankers["popularity"],
            rankers.get("embedding"), seed=stage.config.seed,
        )  # fmt: skip
    except RunError as error:  # no list with a right item: there is nothing to measure
        stage.display.say(f"{stage.source.name}: no shortcut audit: {error}")
        return []
    stage.display.console.print(shortcut_table(report))
    return [{"source": stage.source.slug, **to_json_types(asdict(row))} for row in report.rows]


def _finish(folder: Path, display: Display) -> None:
    """The leakage audit and the card, both about a build that is whole."""
    report = audit_build(folder)
    counts = Counter(finding.verdict for finding in report.findings)
    for finding in report.findings:
        if finding.failed:
            display.say(f"leakage: {finding.check} ({finding.source}): {finding.compared}")
    display.say("leakage audit: " + ", ".join(f"{n} {v}" for v, n in counts.items()))
    write_card(folder, build_facts(folder, report))


def write_manifest(config: BuildConfig, folder: Path, facts: dict[str, Any]) -> None:
    """What the build consists of; its presence says that the build is whole."""
    outputs = {
        path.relative_to(folder).as_posix(): sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.name[0] != "."  # locks
        and path.relative_to(folder).parts[0] not in _UNLISTED
    }
    write_json(
        folder / "manifest.json",
        {
            "format": 1,
            "name": config.name,
            "seed": config.seed,
            "config": written(config),
            "sources": facts,
            "versions": package_versions("build"),
            "outputs": outputs,
        },
    )


def build_facts(folder: Path, report: AuditReport) -> CardFacts:
    """What the card of a finished build says."""
    build = read_build(folder)
    manifest = dict(build.manifest)
    sources = manifest.pop("sources")
    selection = folder / "selection" / "scenes.parquet"
    usage = folder / "selection" / "usage.json"
    return card_facts(
        {
            split: pa.concat_tables([source.scenes(split) for source in build.sources])
            for split in SPLITS
        },
        title=manifest["name"],
        selection=read_parquet(selection) if selection.is_file() else None,
        popularity={s.dataset.name: s.rankers["popularity"] for s in build.sources},
        dropped=_dropped(sources),
        usage=read_json(usage) if usage.is_file() else (),
        shortcuts=read_json(folder / "shortcuts.json"),
        leaks=_leaks(report),
        sources=[
            {"name": name} | {k: s[k] for k in ("title", "homepage", "terms", "citation")}
            for name, s in sources.items()
        ],
        manifest=manifest,
    )


def _leaks(report: AuditReport) -> list[dict[str, Any]]:
    """Rows of the card, those to look at first; scenes only where there are any."""
    order: list[Verdict] = ["failed", "too few", "passed"]
    rows = [asdict(f) for f in sorted(report.findings, key=lambda f: order.index(f.verdict))]
    return [{k: v for k, v in row.items() if k != "scenes" or v} for row in rows]


def _dropped(sources: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Stage -> reason -> count, from the facts of the sources."""
    stages: dict[str, dict[str, int]] = {}
    for name, facts in sources.items():
        stages[f"{name}: reading"] = {r["kind"]: r["count"] for r in facts["repairs"]}
        for split, reasons in facts["dropped"].items():
            stages[f"{name}: {split} scenes"] = reasons
    return {stage: reasons for stage, reasons in stages.items() if reasons}
