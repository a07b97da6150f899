"""The ways in which a file could run code are nowhere in the library."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.test_imports import ROOT, source_files

MODULES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
"""Whose reading runs what is read."""
EVALUATES = {"eval", "exec", "compile", "__import__"}
READERS = {"yaml.load", "yaml.full_load", "yaml.unsafe_load", "torch.load", "pd.read_pickle",
           "pandas.read_pickle", "PPO.load", "TorchScript.load"}  # fmt: skip
MUST_SAY = {"np.load": ("allow_pickle", False), "from_pretrained": ("trust_remote_code", False)}
"""Calls that are harmless with this argument."""
GIVEN = {"peft.PeftModel.from_pretrained"}
"""Takes a model that is there, and arrays."""
BY_NAME = {"import_module", "resolve_name"}
NAMED = {
    "agents/learners/ppo.py": "two names that stand there",
    "agents/learners/store.py": "one of our own classes, from a table",
    "agents/registry.py": "one of our own classes, from a table",
    "configs/plugins.py": "what a caller or a command names, never a file",
    "usermirror_gym/benchmark/metrics.py": "what a caller registers",
    "usermirror_gym/engines/choosing.py": "one of our own engines, from a table",
}
"""Where something is imported by a name, and whose name it is."""


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    """File and line, dotted name, and the call itself, of the whole library."""
    for _, file in source_files():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield f"{file.relative_to(ROOT)}:{node.lineno}", ast.unparse(node.func), node


def test_nothing_is_unpickled_or_evaluated() -> None:
    found = []
    for room, file in source_files():
        if room == "testing":  # contract tests send objects of their own to themselves
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            if MODULES & {name.split(".")[0] for name in names}:
                found.append(f"{file.relative_to(ROOT)}:{node.lineno}: imports {names}")
    found += [f"{at}: {name}" for at, name, _ in calls() if name in EVALUATES | READERS]
    assert found == []


def test_readers_that_could_run_code_are_told_not_to() -> None:
    found = []
    for at, name, call in calls():
        wanted = MUST_SAY.get(name) or MUST_SAY.get(name.rpartition(".")[2])
        if wanted is None or name in GIVEN:
            continue
        said = {k.arg: k.value.value for k in call.keywords if isinstance(k.value, ast.Constant)}
        if said.get(wanted[0], "unsaid") is not wanted[1]:
            found.append(f"{at}: {name} without {wanted[0]}={wanted[1]}")
    assert found == []


def test_what_is_imported_by_name_is_named_by_us_or_by_a_caller() -> None:
    found = {at.split(":")[0] for at, name, _ in calls() if name.rpartition(".")[2] in BY_NAME}
    assert found <= set(NAMED), found - set(NAMED)
