"""``usermirror transfer``, ``usermirror retrain``: does what simulated users teach hold?"""

from __future__ import annotations

from pathlib import Path

from usermirror_gym.cli.options import RunFolder, show, takes, trains
from usermirror_gym.experiments.retraining.config import RetrainConfig
from usermirror_gym.experiments.transfer.config import TransferConfig


@takes(
    TransferConfig, recipe_settings="--set", truth="--truth", log="--log",
    surrogate_settings="--surrogate",
)  # fmt: skip
def transfer(config: TransferConfig, out: RunFolder = Path("runs/transfer")) -> None:
    """Judge what was learned from a simulated user by a ground truth: curves, ranking, probes."""
    trains()
    from usermirror_gym.experiments.transfer.report import sentences
    from usermirror_gym.experiments.transfer.run import run_transfer
    from usermirror_gym.progress import Display

    results = run_transfer(config, out, display=Display())
    show(*(f"- {sentence}" for sentence in sentences(results)))
    show(*(out / name for name in ("report.html", "report.md", "results.json")))


@takes(
    RetrainConfig, llm="simulator_options", simulator_options="--set", model_options="--model-set"
)
def retrain(config: RetrainConfig, out: RunFolder = Path("runs/retrain")) -> None:
    """Train recommenders again with simulated, random, popular and real feedback, and compare."""
    from usermirror_gym.experiments.retraining.run import retrain as run
    from usermirror_gym.experiments.retraining.summary import retraining_table
    from usermirror_gym.progress import Display

    results = run(config, out, display=Display())
    show(retraining_table(results), *(f"- {sentence}" for sentence in results["verdict"]))
    show(out / "retraining.json")
