"""What a user of the engine sees: errors that name the prompt, counts, samples, laziness."""

from __future__ import annotations

import subprocess
import sys

import pytest

from usermirror_gym.engines.choosing import load_engine
from usermirror_gym.errors import CheckpointError, ConfigError, EngineError, UnknownNameError
from usermirror_gym.types import Prompt


@pytest.fixture(scope="module")
def engine(checkpoints):
    return load_engine(str(checkpoints("llama")), device="cpu")


def test_an_option_of_several_tokens_is_refused_as_a_letter(engine):
    prompt = Prompt((), "Behavior: [", ("A", "[A] Heat"), "scene 7")
    with pytest.raises(EngineError, match=r"'\[A\] Heat' of prompt 'scene 7' is \d+ tokens"):
        engine.choice_logprobs([prompt])


@pytest.mark.parametrize("readout", ["choice_logprobs", "text_logprobs"])
def test_empty_options_are_refused(engine, readout):
    for options in ((), ("",)):
        with pytest.raises(EngineError, match="scene 8"):
            getattr(engine, readout)([Prompt((), "x", options, "scene 8")])


def test_a_long_question_names_prompt_count_and_limit(engine):
    fine = Prompt((), "Heat\n", ("Big\n",), "short")
    long = Prompt((), "Heat Z 9 q " * 300, ("Big\n",), "scene 9")
    count = engine.count_tokens(long)
    assert count > engine.context_length == 512
    with pytest.raises(EngineError, match=rf"'scene 9' has {count} tokens, the model takes 512"):
        engine.text_logprobs([fine, long])


def test_counts_of_tokens_are_true(checkpoints, texts_prompts):
    engine = load_engine(str(checkpoints("llama")), device="cpu")
    prompts = texts_prompts()
    cold, warm = engine.text_logprobs(prompts), engine.text_logprobs(prompts)
    for score, prompt in zip(cold, prompts, strict=True):
        assert score.n_tokens.shape == (len(prompt.options),)
        longest = int(score.n_tokens.max())
        rest = int(score.n_tokens.sum())
        assert engine.count_tokens(prompt) - longest + rest == score.prompt_tokens
    assert sum(s.cached_tokens for s in warm) > sum(s.cached_tokens for s in cold) > 0
    assert all(s.cached_tokens < s.prompt_tokens for s in warm)
    assert engine.usage.questions == 2 * len(prompts)
    assert engine.usage.prompt_tokens == 2 * sum(s.prompt_tokens for s in cold)
    assert 0 < engine.usage.computed_tokens < engine.usage.prompt_tokens / 2
    assert engine.usage.seconds > 0


def test_a_shared_prefix_is_paid_once(checkpoints):
    engine = load_engine(str(checkpoints("llama")), device="cpu")
    prefix = "Behavior: watched profile history films " * 3
    prompts = [Prompt((), prefix, (f"{i} Heat\n",), f"item {i}") for i in range(30)]
    scores = engine.text_logprobs(prompts)
    options = sum(int(s.n_tokens.sum()) for s in scores)
    length = scores[0].prompt_tokens - int(scores[0].n_tokens.sum())
    assert engine.usage.computed_tokens <= length + options + 30


@pytest.mark.parametrize("kind", ["llama", "mamba"])
def test_samples_do_not_depend_on_the_batch(checkpoints, kind):
    engine = load_engine(str(checkpoints(kind)), device="cpu")
    prompts = [Prompt((), "Heat\n" * (1 + i), (), f"p{i}") for i in range(3)]
    together = engine.generate(prompts, n=2, max_tokens=6, seed=3)
    alone = [engine.generate([p], n=2, max_tokens=6, seed=3)[0] for p in prompts]
    assert together == alone
    assert [len(texts) for texts in together] == [2, 2, 2]
    assert len({text for texts in together for text in texts}) > 1
    assert together != engine.generate(prompts, n=2, max_tokens=6, seed=4)


def test_greedy_text_is_the_most_likely_token_each_time(engine, reference):
    prompt = Prompt((), "films of 1\nHeat", (), "greedy")
    ids = reference("llama").prefix(prompt)
    start = len(ids)
    for _ in range(5):
        ids = [*ids, int(reference("llama").logprobs(ids)[-1].argmax())]
    wanted = reference("llama").tokenizer.decode(ids[start:], skip_special_tokens=True)
    assert engine.generate([prompt], temperature=0, max_tokens=5) == [[wanted]]


def test_a_stop_string_ends_the_text_and_is_not_in_it(engine):
    prompt = Prompt((), "films of 1\nHeat", (), "stop")
    ((text,),) = engine.generate([prompt], temperature=0, max_tokens=12)
    ((cut,),) = engine.generate([prompt], temperature=0, max_tokens=12, stop=[text[3:5]])
    assert text[3:5] not in cut
    assert text.startswith(cut)


@pytest.mark.parametrize("wrong", [{"n": 0}, {"temperature": -1}, {"top_p": 0}, {"max_tokens": 0}])
def test_wrong_sampling_settings_are_errors(engine, wrong):
    with pytest.raises(ConfigError):
        engine.generate([Prompt((), "x", ())], **wrong)


def test_wrong_settings_are_errors(checkpoints):
    folder = checkpoints("llama")
    with pytest.raises(ConfigError, match="padding_side"):
        load_engine(folder, padding_side="middle")
    with pytest.raises(ConfigError, match="batch_tokens is 0"):
        load_engine(folder, batch_tokens=0)
    with pytest.raises(UnknownNameError, match="bfloat16"):
        load_engine(folder, dtype="bfloat61").load()
    with pytest.raises(ConfigError, match="device"):
        load_engine(folder, device="gpu0").load()


def test_a_folder_that_is_no_language_model_says_so(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"(?s)cannot load .* causal language model"):
        load_engine(tmp_path).load()


def test_engines_import_and_construct_without_torch():
    code = (
        "import sys; from usermirror_gym.engines import load_engine; load_engine('nobody/none')\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
