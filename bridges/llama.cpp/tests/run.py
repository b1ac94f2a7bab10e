# SPDX-License-Identifier: Apache-2.0
"""Runs the bridge's tests: run.py BUILD [--list | NAME...]. BUILD is what ../build made."""

import array
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import folders
import network
import refusals

HERE = Path(__file__).parent
TESTS = {}
WORDS = HERE / "tokenizers"


def test(function):
    TESTS[function.__name__] = function
    return function


class Failed(Exception):
    pass


def check(holds, message):
    if not holds:
        raise Failed(message)


class Bench:
    """Where the programs are, and a folder for each test."""

    def __init__(self, build, scratch):
        self.program = build / "bridge/program/st-llama"
        self.interface = build / "bridge/tests/interface"
        self.build = build
        self.scratch = scratch

    def st_llama(self, *arguments, **how):
        # Models of a few thousand weights: a second thread would only be waited for.
        arguments = [*arguments, "--threads", 1] if arguments else []
        return subprocess.run([str(self.program), *map(str, arguments)], capture_output=True, text=True, errors="replace", timeout=300, **how)

    def result(self, *arguments):
        done = self.st_llama(*arguments)
        check(done.returncode == 0, f"st-llama {arguments}: {done.returncode} {done.stderr}")
        return json.loads(done.stdout.strip().splitlines()[-1])

    def logits(self, folder, tokens, *more):
        file = self.scratch / "result.f32"
        out = self.result("--model", folder, "--tokens", ",".join(map(str, tokens)), "--logits", file, *more)
        values = array.array("f")
        values.frombytes(file.read_bytes())
        return out, values


def recorded(name):
    expected = json.loads((folders.FIXTURES / name / "expected.json").read_text())
    values = array.array("f")
    values.frombytes((folders.FIXTURES / name / "result.f32").read_bytes())
    return expected, values


def difference(a, b):
    check(len(a) == len(b), f"{len(a)} values and not {len(b)}")
    return max(abs(x - y) for x, y in zip(a, b))


def compare(bench, name, folder, *more, close=None):
    expected, values = recorded(name)
    out, found = bench.logits(folder, expected["tokens"], "--generate", len(expected["generated"]), *more)
    off = difference(values, found)
    close = close or expected["close"]
    check(off <= close, f"{name} {more}: off by {off}, more than {close}")
    check(out["generated"] == expected["generated"], f"{name} {more}: {out['generated']} and not {expected['generated']}")
    check(out["columns"] == expected["columns"] and out["tokens"] == expected["tokens"], f"{name}: {out}")


@test
def results_are_those_of_transformers(bench):
    for folder in sorted(folders.FIXTURES.iterdir()):
        compare(bench, folder.name, folder, "--type", "f32")


@test
def the_hub_spells_config_json_otherwise(bench):
    for fixture in sorted(folders.FIXTURES.iterdir()):
        compare(bench, fixture.name, folders.hub_spelling(folders.copy(fixture.name, bench.scratch / fixture.name)), "--type", "f32")


@test
def the_other_way_in_computes_the_same(bench):
    for fixture in sorted(folders.FIXTURES.iterdir()):
        compare(bench, fixture.name, fixture, "--type", "f32", "--user-way")


@test
def stored_halves_run_as_they_are(bench):
    # ggml rounds what is multiplied with them, so results are close and no more.
    expected, values = recorded("llama_tied_sharded_bf16")
    _, found = bench.logits(folders.FIXTURES / "llama_tied_sharded_bf16", expected["tokens"])
    check(difference(values, found) < 0.5, "BF16")
    expected, values = recorded("llama_head_dim_f16")
    _, found = bench.logits(folders.FIXTURES / "llama_head_dim_f16", expected["tokens"])
    check(difference(values, found) < 0.1, "F16")


@test
def written_files_have_the_converters_bytes(bench):
    sums = json.loads((HERE / "converted.json").read_text())
    for key, expected in sums.items():
        name, kind = key.rsplit(" ", 1)
        file = bench.scratch / "out.gguf"
        done = bench.st_llama("--model", folders.FIXTURES / name, "--type", kind, "--write-gguf", file)
        check(done.returncode == 0, f"{key}: {done.stderr}")
        data = file.read_bytes()
        check(hashlib.sha256(data[-expected["size"]:]).hexdigest() == expected["sha256"], f"{key}: other bytes of tensors")


@test
def whole_files_are_the_converters(bench):
    models = folders.with_text(bench.scratch)
    sums = json.loads((HERE / "converted_files.json").read_text())
    check(len(sums) == 3 * len(models), "digests of all")
    for key, expected in sums.items():
        name, kind = key.rsplit(" ", 1)
        file = bench.scratch / "out.gguf"
        done = bench.st_llama("--model", models[name][1], "--type", kind, "--write-gguf", file)
        check(done.returncode == 0 and hashlib.sha256(file.read_bytes()).hexdigest() == expected, f"{key}: other bytes {done.stderr}")


@test
def quantised_bytes_are_llama_cpps_own(bench):
    folder = folders.random_llama(bench.scratch / "wide", 7, 256, 512, 1, 4, 64)
    folders.change_tensors(folder, folders.hard_to_round)
    for kind, number in (("q4_0", 2), ("q4_1", 3), ("q8_0", 7), ("q5_0", 8), ("q5_1", 9), ("q2_k", 10), ("q3_k", 12), ("q4_k", 15), ("q5_k", 17), ("q6_k", 18), ("iq4_nl", 25), ("iq4_xs", 30)):
        done = subprocess.run([bench.interface, "quantised", folder, bench.scratch, kind, str(number)], capture_output=True, text=True, timeout=300)
        check(done.returncode == 0, f"{kind}: {done.returncode} {done.stderr}")


@test
def every_type_runs(bench):
    folder = folders.random_llama(bench.scratch / "wide", 8, 256, 512, 1, 4, 64)
    tokens = list(range(3, 19))
    _, whole = bench.logits(folder, tokens, "--type", "f32")
    refused = bench.st_llama("--model", folder, "--type", "nothing", "--check")
    kinds = refused.stderr.split("allowed: ")[1].rstrip(")\n").split(", ")
    check(len(kinds) >= 18, f"types: {kinds}")
    for kind in kinds:
        _, found = bench.logits(folder, tokens, "--type", kind)
        check(all(x == x for x in found), f"{kind}: not numbers")
        if kind.lower() in ("f16", "bf16", "q8_0", "q6_k"):
            check(difference(whole, found) < 0.3, f"{kind}: off by {difference(whole, found)}")


@test
def quantised_checkpoints_are_decoded_on_the_way(bench):
    tokens = list(range(3, 19))
    for kind, (_, _, needed) in folders.QUANTISED.items():
        # 4 heads of 48, and 16 of 12: half of such a head is less than GPTQ's words can be cut to.
        for heads in (4, 16):
            coded, plain = folders.quantised_pair(bench.scratch, kind, 21, heads)
            for type in ("f32", "q8_0", "stored"):
                expected, values = bench.logits(plain, tokens, "--type", type, "--generate", 4)
                for way in ([], ["--user-way"]):
                    out, found = bench.logits(coded, tokens, "--type", type, "--generate", 4, *way)
                    check(values == found and out == expected, f"{kind} {heads} as {type}: off by {difference(values, found)}")
            for name in ("plain", "coded"):
                done = bench.st_llama("--model", dict(plain=plain, coded=coded)[name], "--type", "f32", "--window", 65536, "--write-gguf", bench.scratch / f"{name}.gguf")
                check(done.returncode == 0, f"{kind}: {done.stderr}")
            files = [(bench.scratch / f"{name}.gguf").read_bytes()[-1000000:] for name in ("plain", "coded")]
            check(files[0] == files[1], f"{kind} {heads} in the smallest windows: other bytes")
        # A group without its scales, and a configuration without groups.
        broken = bench.scratch / f"{kind}-broken"
        shutil.copytree(coded, broken)
        folders.change_tensors(broken, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj" + needed))
        done = bench.st_llama("--model", broken, "--check")
        check(done.returncode == 1 and "model.layers.1.mlp.up_proj" in done.stderr, f"{kind} broken: {done.returncode} {done.stderr}")
        folders.set_config(plain, quantization_config=dict(quant_method="unheard of"))
        done = bench.st_llama("--model", plain, "--check")
        check(done.returncode == 1 and "quantization_config" in done.stderr, f"{kind} nothing quantised: {done.returncode} {done.stderr}")


@test
def rows_that_blocks_do_not_divide_fall_back(bench):
    # 64 columns: no Q4_K (256), so Q8_0; 48: no Q8_0 (32), so F16.
    folder = folders.random_llama(bench.scratch / "narrow", 9, 64, 96, 1, 4, 64)
    _, eight = bench.logits(folder, [5, 6, 7], "--type", "q8_0")
    _, found = bench.logits(folder, [5, 6, 7], "--type", "q4_k")
    check(eight == found, "Q4_K of 64 columns is Q8_0")
    _, half = bench.logits(folders.FIXTURES / "llama", [5, 6, 7], "--type", "f16")
    _, found = bench.logits(folders.FIXTURES / "llama", [5, 6, 7], "--type", "q8_0")
    check(half == found, "Q8_0 of 48 columns is F16")


@test
def text_is_cut_as_tokenizers_cuts_it(bench):
    for kind in sorted(WORDS.iterdir()):
        expected = json.loads((kind / "expected.json").read_text())
        make = folders.random_bert if kind.name == "bert" else lambda folder, seed, vocab: folders.random_llama(folder, seed, 32, 32, 1, 4, vocab)
        folder = make(bench.scratch / kind.name, 11, expected["vocab_size"])
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(kind / file, folder)
        for each in expected["texts"]:
            out = bench.result("--model", folder, "--text", each["text"])
            check(out["tokens"] == each["ids"], f"{kind.name}: {each['text']!r}: {out['tokens']} and not {each['ids']}")


@test
def unknown_tokenizers_leave_ids_only(bench):
    def change(name, **values):
        folder = folders.random_llama(bench.scratch / name, 12, 32, 32, 1, 4, 480)
        json_text = json.loads((WORDS / "gpt2/tokenizer.json").read_text())
        for path, value in values.items():
            *parents, last = path.split("__")
            at = json_text
            for each in parents:
                at = at[each]
            at[last] = value
        (folder / "tokenizer.json").write_text(json.dumps(json_text))
        return folder

    twice = json.loads((WORDS / "gpt2/tokenizer.json").read_text())["model"]["vocab"]
    beyond = dict(twice)
    beyond["zzzzzz"] = 480
    huge = dict(twice)
    huge["zzzzzz"] = 2 ** 60
    cases = dict(
        fallback=change("fallback", model__byte_fallback=True), prefix=change("prefix", pre_tokenizer__add_prefix_space=True), metaspace=change("metaspace", pre_tokenizer={"type": "Metaspace"}),
        normalizer=change("normalizer", normalizer={"type": "Lowercase"}), unigram=change("unigram", model={"type": "Unigram", "vocab": [["a", 0.0]]}), merges=change("merges", model__merges=[]),
        whole=change("whole", model__ignore_merges=True), beyond=change("beyond", model__vocab=beyond), huge=change("huge", model__vocab=huge), frame=change("frame", post_processor={"type": "Other"}),
        nothing=change("nothing", model=None))
    broken = folders.random_llama(bench.scratch / "broken", 12, 32, 32, 1, 4, 480)
    (broken / "tokenizer.json").write_text('{"model": ' + "[" * 5000)
    cases["broken"] = broken
    same = change("same", added_tokens=[dict(id=5, content="A", special=False), dict(id=6, content="A", special=False)])
    cases["same"] = same
    for name, folder in cases.items():
        done = bench.st_llama("--model", folder, "--check")
        check(done.returncode == 0 and "ids only: " in done.stdout, f"{name}: {done.returncode} {done.stdout} {done.stderr}")
        check(bench.result("--model", folder, "--tokens", "3,4", "--generate", 2)["text"] == "", name)
        done = bench.st_llama("--model", folder, "--text", "hello")
        check(done.returncode == 1 and "ids only: " in done.stderr, f"{name}: {done.stderr}")


@test
def what_would_be_another_model_is_refused(bench):
    count = 0
    for name, folder, text in refusals.all_refusals(bench.scratch):
        for arguments in (["--check"], ["--tokens", "3,4,5"]):
            done = bench.st_llama("--model", folder, *arguments)
            check(done.returncode == 1, f"{name}: exit {done.returncode}: {done.stdout} {done.stderr}")
            check(text in done.stderr, f"{name}: {text!r} is not in {done.stderr!r}")
            check(len(done.stderr.splitlines()) == 1, f"{name}: more than one line: {done.stderr!r}")
        count += 1
    check(count >= 30, f"{count} refusals")


@test
def wrong_arguments_are_one_line(bench):
    llama = folders.FIXTURES / "llama"
    for arguments in ([], ["--model", llama], ["--model", llama, "--tokens", "1,x"], ["--model", llama, "--tokens", "96"], ["--model", llama, "--tokens", ""], ["--model", llama, "--nothing"],
                      ["--model", llama, "--tokens", "1", "--type", "q9"], ["--model", llama, "--text", "hello"], ["--model", llama, "--tokens", "1", "--logits", "/no/such/file"],
                      ["--model", llama, "--tokens", "1", "--rpc", "127.0.0.1:1"], ["--model", llama, "--tokens", "1", "--rpc", "nonsense"], ["--model", llama, "--chat", "--text", "x", "--tokens", "3"],
                      ["--model", folders.FIXTURES / "bert", "--tokens", ",".join(["5"] * 129)], ["--model", folders.FIXTURES / "bert", "--tokens", "5", "--generate", "1"]):
        done = bench.st_llama(*arguments)
        check(done.returncode == 1 and len(done.stderr.splitlines()) == 1, f"{arguments}: {done.returncode} {done.stderr!r}")


@test
def the_c_interface_holds_its_word(bench):
    done = subprocess.run([bench.interface, "calls", folders.FIXTURES / "llama", bench.scratch], capture_output=True, text=True, timeout=300)
    check(done.returncode == 0, f"{done.returncode} {done.stderr}")


@test
def a_chat_answers_each_line(bench):
    expected = json.loads((WORDS / "gpt2/expected.json").read_text())
    folder = folders.random_llama(bench.scratch / "talker", 13, 32, 32, 1, 4, expected["vocab_size"])
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(WORDS / "gpt2" / file, folder)
    done = bench.st_llama("--model", folder, "--chat", "--generate", 4, input="hello\nand again\n")
    check(done.returncode == 0 and len(done.stdout) > 0, f"{done.returncode} {done.stderr}")


def call(*command, **how):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600, **how)
    check(done.returncode == 0, f"{command}: {done.returncode} {done.stdout[-2000:]} {done.stderr[-2000:]}")
    return done.stdout


def cmake_cache(folder):
    lines = (folder / "CMakeCache.txt").read_text().splitlines()
    return dict((line.split(":", 1)[0], line.split("=", 1)[1]) for line in lines if ":" in line and "=" in line and line[0] not in "#/")


@test
def programs_in_c_find_the_bridge(bench):
    cache = cmake_cache(bench.build / "bridge")
    prefix, llama = bench.build / "prefix", [f"-DLLAMA_DIR={cache['LLAMA_DIR']}", f"-DLLAMA_BUILD_DIR={cache['LLAMA_BUILD_DIR']}"]
    path = f"-DCMAKE_PREFIX_PATH={prefix};{cache['CMAKE_PREFIX_PATH']}"
    found = subprocess.run(["find", cache["CMAKE_PREFIX_PATH"], "-name", "safetensors.pc"], capture_output=True, text=True).stdout.splitlines()
    library, engine = Path(found[0]).parent.parent, cache["LLAMA_BUILD_DIR"] + "/bin"
    # A system's own folders need no such word.
    installed = dict(os.environ, LD_LIBRARY_PATH=f"{prefix}/lib:{library}:{engine}", PKG_CONFIG_PATH=f"{prefix}/lib/pkgconfig:{library}/pkgconfig")
    out = bench.scratch / "package"
    call("cmake", "-S", HERE / "consumer", "-B", out, "-G", "Ninja", path, *llama)
    call("cmake", "--build", out)
    for kind in ("shared", "static"):
        check(call(out / f"consumer-{kind}", folders.FIXTURES / "llama", env=installed).strip() == "2", f"find_package, {kind}")

    # A part of another project, not optimised, as that is soonest done.
    out = bench.scratch / "part"
    call("cmake", "-S", HERE / "consumer", "-B", out, "-G", "Ninja", path, *llama, f"-DBRIDGE={HERE.parent}", "-DST_LLAMA_BUILD_PROGRAM=OFF", "-DCMAKE_BUILD_TYPE=", "-DCMAKE_CXX_FLAGS=-O0")
    call("cmake", "--build", out, "--target", "consumer-static")
    check(call(out / "consumer-static", folders.FIXTURES / "llama", env=installed).strip() == "2", "add_subdirectory")

    flags = call("pkg-config", "--cflags", "--libs", "safetensors-llama", env=installed).split()
    program = bench.scratch / "by-pkg-config"
    call("cc", "-std=c99", HERE / "consumer/consumer.c", "-o", program, f"-I{cache['LLAMA_DIR']}/include", f"-I{cache['LLAMA_DIR']}/ggml/include", *flags,
         f"-L{engine}", "-lllama", "-lggml", "-lggml-base", f"-Wl,-rpath-link,{prefix}/lib:{library}:{engine}")
    check(call(program, folders.FIXTURES / "llama", env=installed).strip() == "2", "pkg-config")


@test
def two_hosts_share_the_layers(bench):
    expected, _ = recorded("llama")
    with network.two_hosts() as hosts:
        if not hosts.apart:
            print("  (no network namespaces here: both hosts are this one)")
        with hosts.serving(bench.program, 2) as servers:
            done = subprocess.run([*hosts.inside(0), str(bench.program), "--model", str(folders.FIXTURES / "llama"), "--tokens", ",".join(map(str, expected["tokens"])),
                                   "--generate", "12", "--type", "f32", "--rpc", servers.endpoints], capture_output=True, text=True, timeout=120)
            check(done.returncode == 0, f"{done.returncode} {done.stderr}")
            out = json.loads(done.stdout.strip().splitlines()[-1])
            check(out["generated"] == expected["generated"], f"{out['generated']} and not {expected['generated']}")
            if hosts.apart:
                # Both got layers: more than half of the weights went over the wire.
                size = (folders.FIXTURES / "llama/model.safetensors").stat().st_size
                check(hosts.bytes_sent() > size / 2, f"{hosts.bytes_sent()} bytes were sent")


def main():
    build, names = Path(sys.argv[1]), sys.argv[2:]
    if names == ["--list"]:
        print("\n".join(TESTS))
        return
    failed = 0
    for name, function in TESTS.items():
        if names and name not in names:
            continue
        begin = time.monotonic()
        with tempfile.TemporaryDirectory() as scratch:
            try:
                function(Bench(build, Path(scratch)))
                print(f"ok     {name} ({time.monotonic() - begin:.1f} s)", flush=True)
            except (Failed, subprocess.TimeoutExpired) as why:
                failed += 1
                print(f"FAILED {name}: {why}", flush=True)
    sys.exit(1 if failed else 0)


main()
