"""One stage of a training run: examples, a trainer of TRL or transformers, and what it learned.

========== ============================================== =======================
objective  examples                                       trainer
========== ============================================== =======================
next_item  :class:`~usermirror_gym.train.objectives.next_item.Histories`     ``trl.SFTTrainer``
letters    :class:`~usermirror_gym.train.objectives.letters.Letters`         ``trl.SFTTrainer``
rationale  :class:`~usermirror_gym.train.objectives.letters.Reasoned`        ``trl.SFTTrainer``
dpo        :class:`~usermirror_gym.train.objectives.letters.ReasonedPairs`, or
           :class:`~usermirror_gym.train.objectives.letters.LetterPairs`  ``trl.DPOTrainer``
options    :class:`~usermirror_gym.train.objectives.options.Lines`           ``OptionsTrainer``
========== ============================================== =======================

Examples are made in the collator, when they are needed: only numbers of examples go through the
data loader, and a stage that goes on skips what it has seen without touching it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import sort_checkpoints
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from usermirror_gym.engines.adapters import HEAD_WEIGHTS
from usermirror_gym.errors import ConfigError
from usermirror_gym.files import naming, read_json
from usermirror_gym.progress import Display
from usermirror_gym.train.config import TRAINED_FILE, Precision, Stage
from usermirror_gym.train.data import TrainData
from usermirror_gym.train.loop.callbacks import WATCH_FILE, Point, Resumable, Watch
from usermirror_gym.train.loop.model import frozen_in_bfloat16, load_trained, wants_bfloat16
from usermirror_gym.train.objectives.options import (
    OptionsTrainer,
    inner_model,
    lines_batch,
    reading_lines,
    save_head,
)
from usermirror_gym.train.objectives.plans import Plan, plan_stage
from usermirror_gym.train.objectives.sequences import Row, padding

_LOGS = 50
"""Entries of training loss in the history of a stage, about."""


@dataclass(frozen=True)
class StageResult:
    """What a stage did; of a stage that was killed and went on, both parts together.

    Attributes:
        history: training loss and validation log-loss by optimizer step.
        steps: optimizer steps.
        samples: examples seen.
        tokens: tokens of these examples, without padding.
        seconds: of training, validation included.
        best: the best validation, if there was any.
    """

    history: tuple[Point, ...]
    steps: int
    samples: int
    tokens: int
    seconds: float
    best: Point | None = None


class SupervisedTrainer(Resumable, SFTTrainer):
    """TRL's supervised fine-tuning on examples of ours."""


class PreferenceTrainer(Resumable, DPOTrainer):
    """TRL's direct preference optimisation on pairs of ours."""

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset  # the collator makes the tokens


class LinesTrainer(Resumable, OptionsTrainer):
    """Training of the options readout."""


def run_stage(
    stage: Stage,
    model: Any,
    tokenizer: Any,
    data: TrainData,
    folder: Path,
    *,
    seed: int,
    precision: Precision = "auto",
    display: Display,
    gradient_checkpointing: bool = False,
    head: Path | None = None,
    callbacks: Sequence[Any] = (),
) -> StageResult:
    """Train ``model`` in place, or go on where a killed process left ``folder``.

    The weights in the end are the same, to the bit on one machine, however often it was killed.
    With ``patience`` they are those of the best validation, else those of the last step.

    Args:
        model: a causal LM, whole or wrapped by PEFT, with the weights the stage begins with (when
            it goes on, too).
        folder: of this stage alone.
        precision: ``bfloat16`` is mixed precision; on a CPU with LoRA the frozen weights are
            rounded instead, which is what makes it fast there.
        head: folder with the head that the objective ``options`` begins with; by default zeros.
        callbacks: further callbacks of transformers, such as TensorBoard's.

    Raises:
        ConfigError: the data have nothing for this objective, or the machine cannot run it.
        RunError: the folder belongs to another model.
    """
    if torch.cuda.device_count() > 1 and PartialState().num_processes == 1:
        raise ConfigError(
            f"{torch.cuda.device_count()} GPUs and one process: start it by 'accelerate launch', "
            "or show it one GPU (CUDA_VISIBLE_DEVICES=0)"
        )
    plan = plan_stage(stage, tokenizer, data, seed=seed, display=display)
    low = wants_bfloat16(precision)
    lora = hasattr(model, "peft_config")
    cast = low and lora and not torch.cuda.is_available()
    with ExitStack() as inside:
        inside.enter_context(_untouched(model))
        inside.enter_context(frozen_in_bfloat16(model, active=cast))
        layer = None
        if stage.objective == "options":
            layer = inside.enter_context(reading_lines(model, head))
        advance = inside.enter_context(display.phase(stage.objective, plan.steps, "step"))
        watch = Watch(folder, plan, advance)
        arguments = _arguments(plan, folder, low and not cast, gradient_checkpointing)
        trainer = _trainer(plan, model, tokenizer, arguments)
        trainer.watch = watch
        trainer.remove_callback(PrinterCallback)
        for callback in (watch, *callbacks):
            trainer.add_callback(callback)
        _train(trainer, folder, plan.steps)
        if stage.patience is not None:
            watch.load_best(model)
        if layer is not None and PartialState().is_main_process:
            save_head(layer, folder / HEAD_WEIGHTS)
    state = trainer.state
    return StageResult(
        history=tuple(watch.history),
        steps=state.global_step,
        samples=min(state.global_step * plan.per_step, len(plan.order)),
        tokens=int(state.num_input_tokens_seen),
        seconds=watch.spent,
        best=watch.best,
    )


def _train(trainer: Any, folder: Path, steps: int) -> None:
    """From the last checkpoint, if there is one; nothing is left to do where that is the end."""
    found = sort_checkpoints(str(folder))
    if not found:
        with naming(folder):
            trainer.train()
        return
    last = Path(found[-1])
    trainer.watch.restore(read_json(last / WATCH_FILE))
    state = TrainerState.load_from_json(str(last / "trainer_state.json"))
    if trainer.watch.tired or state.global_step >= steps:
        load_trained(trainer.model, last / TRAINED_FILE)
        trainer.state = state
    else:
        with naming(folder):
            trainer.train(resume_from_checkpoint=str(last))


def _trainer(plan: Plan, model: Any, tokenizer: Any, arguments: dict[str, Any]) -> Any:
    def made(collate: Callable[[list[Row]], Any]) -> Callable[[Sequence[Row]], Any]:
        """Numbers of examples -> a batch of tensors."""
        example = plan.examples.row
        return lambda rows: collate([example(row["epoch"], row["index"]) for row in rows])

    stage = plan.stage
    rows = Dataset.from_dict({"epoch": plan.order.epochs, "index": plan.order.rows})
    common = {"model": model, "train_dataset": rows}
    if stage.objective == "options":
        collator = made(partial(lines_batch, pad=padding(tokenizer)))
        trainer = LinesTrainer(
            **common, args=TrainingArguments(**arguments), data_collator=collator
        )
        trainer.head_learning_rate = stage.head_learning_rate
        return trainer
    if stage.objective == "dpo":
        pairs = DataCollatorForPreference(pad_token_id=padding(tokenizer))
        reference = None
        if not hasattr(model, "peft_config"):
            # Without LoRA the model itself changes, and TRL would read it from the hub.
            reference = copy.deepcopy(model).eval().requires_grad_(False)
        return PreferenceTrainer(
            **common, ref_model=reference, processing_class=tokenizer,
            data_collator=made(pairs),
            args=DPOConfig(**arguments, beta=stage.beta, max_length=None, disable_dropout=False),
        )  # fmt: skip
    sequences = DataCollatorForLanguageModeling(pad_token_id=padding(tokenizer))
    ready = {"skip_prepare_dataset": True}
    return SupervisedTrainer(
        **common, processing_class=tokenizer, data_collator=made(sequences),
        args=SFTConfig(**arguments, max_length=None, dataset_kwargs=ready),
    )  # fmt: skip


def _arguments(
    plan: Plan, folder: Path, autocast: bool, gradient_checkpointing: bool
) -> dict[str, Any]:
    """What all trainers are told; the order of the rows is ours, and so is the saving."""
    stage, cpu = plan.stage, not torch.cuda.is_available()
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": stage.batch_size,
        "gradient_accumulation_steps": stage.accumulation,
        "num_train_epochs": 1,
        "learning_rate": stage.learning_rate,
        "lr_scheduler_type": stage.scheduler if stage.scheduler != "constant" else
                             "constant_with_warmup",
        "warmup_steps": math.ceil(stage.warmup * plan.steps),
        "weight_decay": stage.weight_decay,
        "max_grad_norm": stage.max_grad_norm,
        "optim": "adamw_torch" if cpu else "adamw_torch_fused",
        "bf16": autocast,
        "use_cpu": cpu,
        "gradient_checkpointing": gradient_checkpointing,
        "seed": plan.seed,
        "train_sampling_strategy": "sequential",
        "remove_unused_columns": False,
        "include_num_input_tokens_seen": "non_padding",
        "dataloader_pin_memory": not cpu,
        "ddp_find_unused_parameters": False,
        "logging_steps": max(plan.steps // _LOGS, 1),
        "save_strategy": "no",
        "eval_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }  # fmt: skip


@contextmanager
def _untouched(model: Any) -> Iterator[None]:
    """Take back what trainers leave in a model besides its weights.

    TRL puts a forward of its own over the model's at every stage, DPO adds a reference adapter,
    and transformers writes the tokenizer's special tokens into the configuration.
    """
    inner = inner_model(model)
    configs = [c for c in (inner.config, getattr(inner, "generation_config", None)) if c]
    kept = [dict(config.__dict__) for config in configs]
    try:
        yield
    finally:
        inner.__dict__.pop("forward", None)
        for config, values in zip(configs, kept, strict=True):
            config.__dict__.clear()
            config.__dict__.update(values)
        if getattr(inner, "is_gradient_checkpointing", False):
            inner.gradient_checkpointing_disable()
        if "ref" in getattr(model, "peft_config", {}):
            model.delete_adapter("ref")
