"""The question for a decision process, and reading its answer."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usermirror_gym.scenes.scene import Scene
from usermirror_gym.scenes.words.prompt import ANSWER_PREFIX, PromptBuilder
from usermirror_gym.scenes.words.rationale_prompt import (
    EVALUATION_STYLES,
    KNOWLEDGE_FACTORS,
    STIMULUS_FACTORS,
    STOP,
    answer,
    prompt_version,
    questions_version,
    rationale_prompt,
    reading_prompt,
    stages,
    tidy,
)
from usermirror_gym.scenes.words.template import domain_text
from usermirror_gym.testing.data import tiny_split

TEXT = "Stimulus: rain.\nKnowledge: I know it.\nEvaluation: gut feeling."
SCENE = Scene(
    user_id=1, history=(1, 2, 3), ratings=(4.0, 5.0, 2.0), ages=(30, 20, 10), slate=(10, 11),
    target=1, name="s1",
)  # fmt: skip


@pytest.fixture(scope="module")
def builder() -> PromptBuilder:
    return PromptBuilder(domain_text(tiny_split().dataset))


def test_it_asks_the_scene_and_names_stages_factors_and_the_answer_line(
    builder: PromptBuilder,
) -> None:
    prompt = rationale_prompt(SCENE, builder)
    system, user = prompt.messages
    assert user.content.startswith(builder.letters(SCENE).messages[-1].content)
    assert "[C] none of these" in user.content
    for heading in ("Stimulus:", "Knowledge:", "Evaluation:"):
        assert heading in system.content
        assert heading in user.content
    for factor in (*STIMULUS_FACTORS, *KNOWLEDGE_FACTORS, *EVALUATION_STYLES):
        assert factor in system.content
    assert prompt.options == ("A", "B", "C")
    assert prompt.answer_prefix == ""
    # The last word is about the form of the answer, for models that forget the beginning.
    assert ANSWER_PREFIX.partition(":")[0] in user.content.splitlines()[-1]


def test_the_true_answer_changes_nothing(builder: PromptBuilder) -> None:
    questions = {rationale_prompt(replace(SCENE, target=t), builder) for t in (0, 1, 2, None)}
    assert len(questions) == 1


def test_instructions_are_shared_by_all_scenes(builder: PromptBuilder) -> None:
    other = rationale_prompt(replace(SCENE, user_id=2, history=(), ratings=(), ages=()), builder)
    assert other.messages[0] == rationale_prompt(SCENE, builder).messages[0]


def test_reading_continues_the_very_question_that_was_asked(builder: PromptBuilder) -> None:
    asked, read = rationale_prompt(SCENE, builder), reading_prompt(SCENE, builder, TEXT)
    assert read.messages == asked.messages
    assert read.answer_prefix + read.options[1] + "]" == answer(TEXT, "B")
    assert reading_prompt(SCENE, builder).answer_prefix == ANSWER_PREFIX


def test_history_can_be_shortened(builder: PromptBuilder) -> None:
    short = rationale_prompt(SCENE, builder, skip=2)
    assert "Film 2 " not in short.messages[-1].content
    assert "Film 3 " in short.messages[-1].content


def test_writing_stops_where_the_answer_begins() -> None:
    assert any(ANSWER_PREFIX.startswith(stop) for stop in STOP)


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        "**Stimulus:** rain.\n\n**Knowledge**: I know it.\n\n* Evaluation : gut feeling.",
        "1. Stimulus: rain.\n2) KNOWLEDGE: I know it.\n### Evaluation:\n\ngut feeling.",
        "Well then.\nStimulus: rain.\nKnowledge: I know it.\nEvaluation: gut feeling.",
    ],
)
def test_stages_are_found_under_any_dress(text: str) -> None:
    assert stages(text) == {
        "stimulus": "rain.", "knowledge": "I know it.", "evaluation": "gut feeling.",
    }  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I take B.",
        "Stimulus: rain.\nKnowledge: I know it.",
        "Knowledge: I know it.\nStimulus: rain.\nEvaluation: gut feeling.",
        TEXT + "\nStimulus: again.",
        "Stimulus:\nKnowledge: I know it.\nEvaluation: gut feeling.",
        "My stimulus: rain. My knowledge: none. My evaluation: none.",
    ],
)
def test_anything_else_is_no_decision_process(text: str) -> None:
    assert stages(text) is None


@pytest.mark.parametrize(
    "loose",
    [
        TEXT + "\n",
        f"\n {TEXT}\n\n**",
        f"{TEXT}\n**My choice: B**",
        f"{TEXT}\nmy choice: [A]\nStimulus: next user",
        f"{TEXT}\nMy\x00 choice: [A]",
        TEXT.replace("rain", "ra\x00in").replace("\n", "  \r\n") + "\x07\ud800",
    ],
)
def test_texts_are_kept_without_answer_and_loose_ends(loose: str) -> None:
    assert tidy(loose) == TEXT


@given(st.text() | st.text("My choice:[AB]*\n #"))
def test_kept_texts_can_be_stored_and_read_behind(text: str) -> None:
    kept = tidy(text)
    kept.encode("utf-8")
    assert "my choice:" not in kept.lower()
    assert tidy(kept) == kept
    assert kept == kept.strip()


def test_versions_follow_the_questions(builder: PromptBuilder) -> None:
    one = [rationale_prompt(SCENE, builder)]
    other = [rationale_prompt(replace(SCENE, slate=(11, 10)), builder)]
    assert questions_version(one) == questions_version(list(one))
    assert questions_version(one) != questions_version(other)
    assert questions_version([]) != questions_version(one)
    assert len(prompt_version()) == 16
