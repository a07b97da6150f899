"""A password of a server is used, and written nowhere."""

from __future__ import annotations

import json
import sys
from base64 import b64encode
from dataclasses import replace
from pathlib import Path

import pytest

from tests.engines.stand_in import Server
from usermirror_gym.benchmark.run import BenchmarkConfig, default_folder, run_benchmark
from usermirror_gym.progress import Display

SECRET = "s3cr3t-marker"


def holding(folder: Path) -> list[str]:
    """Names of the files in which the secret stands."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [str(path) for path in files if SECRET.encode() in path.read_bytes()]


def test_a_benchmark_writes_no_secret_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, held = Server(), []
    folder = tmp_path / "run"

    def script(body: dict, headers: dict, count: int) -> None:
        held.append((folder / ".holder.json").read_text() if folder.exists() else "")

    server.script = script
    address = server.url.replace("http://", f"http://user:{SECRET}@")
    engine = {"base_url": address, "extra_body": {"api_key": SECRET}, "context_length": 9000}
    command = [
        "usermirror",
        "benchmark",
        "--set",
        f"engine={{base_url: {address}, api_key: {SECRET}}}",
    ]
    monkeypatch.setattr(sys, "argv", command)
    config = BenchmarkConfig(
        simulator="openai:mirror", simulator_options={"engine": engine}, agents=("Random", "Pop"),
        users=2, steps=2, fidelity_scenes=2,
    )  # fmt: skip
    try:
        run_benchmark(config, folder, display=Display(quiet=True))
        # What was asked was asked with the password and the key.
        login = b64encode(f"user:{SECRET}".encode()).decode()
        assert {headers["authorization"] for headers in server.headers} == {f"Basic {login}"}
        assert {body["api_key"] for body in server.bodies} == {SECRET}
        assert any("usermirror benchmark" in text for text in held)
        assert not any(SECRET in text for text in held)
        assert holding(folder) == []
        assert "***@127.0.0.1" in (folder / "run.json").read_text()
        # A folder of an older version, with the secret in it, is the same run's.
        settings = json.loads((folder / "run.json").read_text())
        settings["simulator_options"]["engine"] = engine
        (folder / "run.json").write_text(json.dumps(settings))
        asked = len(server.bodies)
        run_benchmark(config, folder)
        assert len(server.bodies) == asked
        assert default_folder(config, folder) == folder
        assert default_folder(replace(config, users=3), folder) != folder
    finally:
        server.close()
