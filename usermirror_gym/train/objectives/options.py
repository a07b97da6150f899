"""The options readout: a linear head reads each option's line, softmax over the lines of a list."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from safetensors.torch import save
from torch.nn import functional
from transformers import Trainer

from usermirror_gym.engines.adapters import load_head
from usermirror_gym.engines.local.encoding import EncodedPrompt, whole
from usermirror_gym.files import write_bytes
from usermirror_gym.scenes.words.prompt import PromptBuilder
from usermirror_gym.train.objectives.letters import SceneExamples, answer_of
from usermirror_gym.train.objectives.sequences import Row, orders

HEAD = "option_head"
"""Name of the head among the modules of a model that is being trained."""
_NO_LINE = -1


class Lines(SceneExamples):
    """Scenes as one text each, with one line per option; the lines are permuted in every epoch.

    *None of these* stays the last line, where the readout puts it.
    """

    def row(self, epoch: int, index: int) -> Row:
        """Ids, the place of the last token of each line, and the number of the right line."""
        own, scene = self.drawn(epoch, index)
        (order,) = orders(own, len(scene.slate))
        words = PromptBuilder.lines
        question = self._wording.fitted(self._builder, words, scene, order, length=whole)
        target = answer_of(scene)
        return line_row(question, order.index(target) if target < len(order) else len(order))


def line_row(question: EncodedPrompt, target: int) -> Row:
    """Ids, the place of the last token of each line, and the number of the right line."""
    ends = accumulate(map(len, question.options), initial=len(question.prefix))
    return {
        "input_ids": [*question.prefix, *(i for line in question.options for i in line)],
        "line_ends": [end - 1 for end in ends][1:],
        "target": target,
    }


def lines_batch(rows: Sequence[Row], pad: int) -> dict[str, torch.Tensor]:
    """Rows of :class:`Lines` as padded tensors.

    ``line_ends`` is ``(B, K)``, -1 where a list is shorter; ``targets`` is ``(B,)``.
    """
    return {
        "input_ids": _padded([row["input_ids"] for row in rows], pad),
        "attention_mask": _padded([[1] * len(row["input_ids"]) for row in rows], 0),
        "line_ends": _padded([row["line_ends"] for row in rows], _NO_LINE),
        "targets": torch.tensor([row["target"] for row in rows]),
    }


class OptionsTrainer(Trainer):
    """Cross-entropy of the right line, for a model inside :func:`reading_lines`."""

    loss_is_scaled_for_ga = False
    """Gradients of accumulated batches are averaged by transformers."""
    head_learning_rate: float | None = None
    """As that of the model by default."""

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """With a group of its own for the head."""
        optimizer = super().create_optimizer(model)
        if self.head_learning_rate is not None:
            head = list(getattr(inner_model(self.model), HEAD).parameters())
            own = {id(parameter) for parameter in head}
            for group in optimizer.param_groups:
                group["params"] = [p for p in group["params"] if id(p) not in own]
            optimizer.add_param_group(
                {"params": head, "lr": self.head_learning_rate, "weight_decay": 0.0}
            )
        return optimizer

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Mean over the scenes of the batch."""
        inputs = dict(inputs)
        targets = inputs.pop("targets")
        scores = model(**inputs)
        loss = functional.cross_entropy(scores, targets)
        return (loss, {"scores": scores}) if return_outputs else loss


@contextmanager
def reading_lines(model: Any, head: Path | None = None) -> Iterator[torch.nn.Linear]:
    """Inside the block ``model(..., line_ends=...)`` gives the scores of the lines, ``(B, K)``.

    The head is a module of the model meanwhile, so that optimizers, checkpoints and distributed
    wrappers treat it as one of its layers.

    Args:
        model: a causal LM of transformers, or one wrapped by PEFT.
        head: folder of one to begin with; zeros otherwise, by which all options are equally likely.
    """
    inner = inner_model(model)
    plain = inner.forward
    layer = _new_head(inner, head)

    def forward(self: Any, *args: Any, line_ends: torch.Tensor | None = None, **kwargs: Any) -> Any:
        if line_ends is None:
            return plain(*args, **kwargs)
        kwargs["use_cache"] = False
        hidden = self.base_model(*args, **kwargs).last_hidden_state
        return line_scores(layer, hidden, line_ends)

    setattr(inner, HEAD, layer)
    inner.forward = MethodType(forward, inner)
    try:
        yield layer
    finally:
        del inner.forward
        delattr(inner, HEAD)


def line_scores(
    layer: torch.nn.Linear, hidden: torch.Tensor, line_ends: torch.Tensor
) -> torch.Tensor:
    """``(B, K)`` float32; minus infinity where there is no line.

    Args:
        hidden: ``(B, T, d)`` hidden states behind the final norm.
        line_ends: ``(B, K)``.
    """
    places = line_ends.clamp(min=0)[:, :, None].expand(-1, -1, hidden.shape[2])
    with torch.autocast(hidden.device.type, enabled=False):
        scores = layer(hidden.gather(1, places).float())[:, :, 0]
    return scores.masked_fill(line_ends == _NO_LINE, -torch.inf)


def save_head(layer: torch.nn.Linear, path: Path) -> Path:
    """``weight`` (hidden,) and ``bias`` (1,), float32."""
    weight, bias = (p.detach().float().cpu() for p in (layer.weight, layer.bias))
    return write_bytes(path, save({"weight": weight[0].contiguous(), "bias": bias.contiguous()}))


def inner_model(model: Any) -> Any:
    """The causal LM inside PEFT's wrapper, or the model itself."""
    return model.get_base_model() if hasattr(model, "peft_config") else model


def _new_head(inner: Any, folder: Path | None) -> torch.nn.Linear:
    size = inner.config.get_text_config(decoder=True).hidden_size
    layer = torch.nn.Linear(size, 1, device=inner.device, dtype=torch.float32)
    weight, bias = load_head(folder, size) if folder else (torch.zeros(size), torch.zeros(1))
    with torch.no_grad():
        layer.weight.copy_(weight[None])
        layer.bias.copy_(bias)
    return layer


def _padded(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    tensors = [torch.tensor(row) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value)
