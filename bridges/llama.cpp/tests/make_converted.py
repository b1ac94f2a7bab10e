# SPDX-License-Identifier: Apache-2.0
"""Makes tests/converted_files.json: digests of whole files by llama.cpp's own converter.

Run at development time alone, with the converter's requirements:

    python make_converted.py LLAMA.CPP      its source, with convert_hf_to_gguf.py

The converter knows a tokenizer by what it makes of a long text, and the small ones of these tests it
can't know: it is told.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import folders

TOLD = """
import os, runpy, sys
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/gguf-py"]
import conversion.base
conversion.base.TextModel.get_vocab_base_pre = lambda self, tokenizer: os.environ["PRE"]
sys.argv = [sys.argv[1] + "/convert_hf_to_gguf.py", *sys.argv[2:]]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
PRE = dict(gpt2="gpt-2", smollm="smollm", llama3="llama-bpe", bert="default")


def main():
    sums = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, (tokenizer, folder) in folders.with_text(Path(scratch)).items():
            for kind in ("f32", "f16", "q8_0"):
                out = Path(scratch) / "out.gguf"
                subprocess.run([sys.executable, "-c", TOLD, sys.argv[1], folder, "--outtype", kind, "--outfile", out], check=True, env=dict(os.environ, PRE=PRE[tokenizer]))
                sums[f"{name} {kind}"] = hashlib.sha256(out.read_bytes()).hexdigest()
    (Path(__file__).parent / "converted_files.json").write_text(json.dumps(sums, indent=0) + "\n")


main()
