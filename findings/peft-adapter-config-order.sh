#!/usr/bin/env bash
# The same LoRA adapter, saved by three processes, is not the same files.
#
# Versions: peft 0.21.2, torch 2.13.0, transformers 5.19.0.
# Guess: with one seed the saved adapter is the same to the byte, whoever saves it.
# Seen:  the weights are (one checksum); adapter_config.json is not.  PEFT holds target_modules as a
#        set, and writes it in the order in which this process happens to hash strings:
#            a318f7a884c9 k_proj v_proj q_proj o_proj
#            a318f7a884c9 o_proj k_proj v_proj q_proj
#            a318f7a884c9 q_proj v_proj k_proj o_proj
# So:    a checksum of an adapter's folder, a build that must be reproducible, or a training that is
#        resumed "to the same bits" has to sort that list after save_pretrained.
#
# TORCH_INDEX=https://download.pytorch.org/whl/cpu brings the build without CUDA on Linux.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
  ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} \
  torch==2.13.0 transformers==5.19.0 peft==0.21.2 numpy

cat >"$work/save.py" <<'PY'
import hashlib
import json
import sys
from pathlib import Path

import peft
import torch

NAMES = ["q_proj", "k_proj", "v_proj", "o_proj"]


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        for name in NAMES:
            setattr(self, name, torch.nn.Linear(4, 4))

    def forward(self, x):
        return self.o_proj(self.v_proj(self.k_proj(self.q_proj(x))))


torch.manual_seed(0)
model = peft.get_peft_model(Block(), peft.LoraConfig(r=2, target_modules=NAMES))
folder = Path(sys.argv[1])
model.save_pretrained(folder)
order = json.loads((folder / "adapter_config.json").read_text())["target_modules"]
weights = hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()
print(weights[:12], *order)
PY

for seed in 1 2 3; do  # of Python's hashes of strings; drawn anew for every process by default
  PYTHONHASHSEED=$seed "$work/venv/bin/python" "$work/save.py" "$work/$seed" 2>/dev/null
done | tee "$work/seen"

weights=$(cut -d' ' -f1 "$work/seen" | sort -u | wc -l)
orders=$(cut -d' ' -f2- "$work/seen" | sort -u | wc -l)
echo "different weights: $weights, different orders: $orders"
[ "$weights" -eq 1 ] && [ "$orders" -gt 1 ]
