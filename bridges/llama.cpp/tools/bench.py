# SPDX-License-Identifier: Apache-2.0
"""bench.py BUILD [--rounds N] [loads] [quantised] [hosts]: the tables of docs/llama.md."""

import array
import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))
import network

ROUNDS = 5
DECODED = 64


def run(*command):
    """A whole process: its output, seconds and peak of resident memory in KiB."""
    begin = time.monotonic()
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"{' '.join(map(str, command))}: ended with {status}")
    return text.decode(), time.monotonic() - begin, usage.ru_maxrss


def table(title, head, rows):
    print(f"\n{title}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(str(cell) for cell in row)} |", flush=True)


class Bench:
    def __init__(self, build, scratch):
        self.scratch = scratch
        self.measure = build / "bridge/tools/measure"
        self.program = build / "bridge/program/st-llama"
        self.model = scratch / "SmolLM2-135M"
        self.model.mkdir()
        # Written anew: how a file came into the page cache decides how fast it comes out. In pieces: this
        # process's own peak would show in its children's.
        for file in (build / "models/SmolLM2-135M-Instruct").iterdir():
            with open(file, "rb") as source, open(self.model / file.name, "wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)

    def gguf(self, kind):
        path = self.scratch / f"{kind}.gguf"
        if not path.exists():
            run(self.program, "--model", self.model, "--type", kind, "--write-gguf", path)
        return path

    def best(self, ways, tokens):
        """Ways in turn, round after round: of each the least times, and the largest memory."""
        found = {}
        for _ in range(ROUNDS):
            for name, arguments in ways:
                result = json.loads(run(self.measure, *arguments, tokens)[0])
                best = found.setdefault(name, dict(result))
                for key in ("load_ms", "decode_ms"):
                    best[key] = min(best[key], result[key])
                best["peak_kib"] = max(best["peak_kib"], result["peak_kib"])
        return found

    def loads(self):
        ways = []
        for kind in ("bf16", "q8_0", "q4_0"):
            ways += [((kind, "folder"), ("folder", self.model, kind)), ((kind, "folder, by llama_model_init_from_user"), ("user", self.model, kind)),
                     ((kind, "GGUF file, read"), ("gguf", self.gguf(kind), "-")), ((kind, "GGUF file, mapped"), ("mapped", self.gguf(kind), "-"))]
        found = self.best(ways, DECODED)
        rows = [[kind, way, f"{each['load_ms']:.0f}", f"{each['peak_kib'] / 1024:.0f}", f"{each['peak_kib'] / 1024 - self.bytes_of(kind) / 2 ** 20:.1f}", f"{each['decode_ms']:.0f}"]
                for (kind, way), each in found.items()]
        if converter := shlex.split(os.environ.get("BENCH_CONVERTER", "")):
            for kind in ("bf16", "q8_0"):
                file = self.scratch / f"converted-{kind}.gguf"
                _, seconds, peak = run(*converter, self.model, "--outtype", kind, "--outfile", file)
                rows.append([kind, f"convert_hf_to_gguf.py, and then {file.stat().st_size >> 20} MiB more on disk", f"{seconds * 1000:.0f} + {found[kind, 'GGUF file, read']['load_ms']:.0f}", peak >> 10, "", ""])
        table(f"SmolLM2-135M, tokenizer and all, the best of {ROUNDS}", ["type", "from", "load, ms", "peak, MiB", "peak over the tensors, MiB", f"{DECODED} tokens, ms"], rows)

    def bytes_of(self, kind):
        """Bytes of tensors: the file less what comes before them and after its last tensor's padding."""
        return json.loads(run(self.measure, "gguf", self.gguf(kind), "-")[0])["model_bytes"]

    def logits(self, folder, kind, tokens):
        file = self.scratch / "logits"
        run(self.program, "--model", folder, "--type", kind, "--tokens", ",".join(map(str, tokens)), "--logits", file)
        values = array.array("f")
        values.frombytes(file.read_bytes())
        return values

    def quantised(self):
        if not importlib.util.find_spec("numpy"):
            print("\nquantised checkpoints: skipped, BENCH_PYTHON has no numpy")
            return
        tokens = [504, 5439, 282, 253, 1743, 359, 1216, 28]
        plain = self.logits(self.model, "f32", tokens)
        rows = []
        for kind in ("fp8", "gptq", "awq", "packed", "mxfp4"):
            coded, decoded = self.scratch / kind, self.scratch / f"{kind}-decoded"
            run(sys.executable, HERE / "quantise.py", self.model, kind, coded, decoded)
            found = self.best([(type, ("folder", coded, type)) for type in ("bf16", "q8_0")], 0)
            ours, theirs = self.logits(coded, "bf16", tokens), self.logits(decoded, "stored", tokens)
            near = self.logits(coded, "f32", tokens)
            width = len(plain) // len(tokens)
            agree = sum(max(range(width), key=lambda i: near[at + i]) == max(range(width), key=lambda i: plain[at + i]) for at in range(0, len(plain), width))
            size = (coded / "model.safetensors").stat().st_size
            rows.append([kind, size >> 20, f"{found['bf16']['load_ms']:.0f}", f"{found['bf16']['peak_kib'] / 1024:.0f}", f"{found['q8_0']['load_ms']:.0f}", f"{found['q8_0']['peak_kib'] / 1024:.0f}",
                         "equal" if ours == theirs else "DIFFERENT", f"{max(abs(a - b) for a, b in zip(near, plain)):.2f}", f"{agree} of {len(tokens)}"])
            for folder in (coded, decoded):
                for file in folder.iterdir():
                    file.unlink()
        table(f"SmolLM2-135M in quantised checkpoints (rounded to the nearest), the best of {ROUNDS}; largest logit {max(plain):.0f}",
              ["checkpoint", "MiB", "to BF16, ms", "peak, MiB", "to Q8_0, ms", "peak, MiB", "logits beside the decoded BF16 checkpoint", "beside the unquantised one, off by", "same best token"], rows)

    def hosts(self):
        with network.two_hosts() as hosts:
            if not hosts.apart:
                print("\nseveral hosts: skipped, no network namespaces are allowed here")
                return
            rows = []
            for kind in ("bf16", "q8_0"):
                for count in (1, 2):
                    with hosts.serving(self.program, count) as servers:
                        command = [*hosts.inside(0), self.program, "--model", self.model, "--type", kind, "--tokens", "504,5439,282,253", "--rpc", servers.endpoints]
                        before = hosts.bytes_sent()
                        _, _, peak = run(*command)
                        load = hosts.bytes_sent() - before
                        run(*command, "--generate", 17)
                        more = hosts.bytes_sent() - before - 2 * load
                        rows.append([kind, count, f"{load / 2 ** 20:.0f}", f"{more / 16 / 1024:.0f}", peak >> 10, ", ".join(f"{each >> 10}" for each in servers.peaks())])
            table("SmolLM2-135M over other hosts", ["type", "hosts", "MiB sent for a load", "KiB sent a token", "peak here, MiB", "peak of each host, MiB"], rows)


def main():
    global ROUNDS
    build, words = Path(sys.argv[1]), sys.argv[2:]
    if "--rounds" in words:
        at = words.index("--rounds")
        ROUNDS = int(words[at + 1])
        del words[at:at + 2]
    with tempfile.TemporaryDirectory(dir=build) as scratch:
        bench = Bench(build, Path(scratch))
        for what in words or ["loads", "quantised", "hosts"]:
            {"loads": bench.loads, "quantised": bench.quantised, "hosts": bench.hosts}[what]()


main()
