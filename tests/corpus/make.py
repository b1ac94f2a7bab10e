#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the conformance corpus: the files, corpus.tsv and contents.tsv.

    python3 tests/corpus/make.py            writes what differs, removes the rest
    python3 tests/corpus/make.py --check    fails where the committed files differ

What each file must give is said here by hand, rule by rule of the format. What
the valid ones hold is read with Python's own json, not with the library.
README.md describes the tables.
"""

import json
import os
import struct
import sys

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))

from cases import CASES, FOLDERS  # noqa: E402
from folders import Link  # noqa: E402


def fnv1a(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def spelled(text):
    """Text for a table cell: percent-encoded, "-" where it is empty."""
    data = text.encode()
    plain = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._"
    return "".join(chr(b) if b in plain else f"%{b:02X}" for b in data) or "-"


def read_file(data, shard):
    """Tensors and metadata of a valid file: (begin, end, name, ...) and pairs or None."""
    length = struct.unpack("<Q", data[:8])[0]
    start = 8 + length
    header = json.loads(data[8:start].decode(), object_pairs_hook=list)
    tensors, metadata = [], None
    for name, value in header:
        if name == "__metadata__":
            metadata = value
            continue
        entry = dict(value)
        begin, end = entry["data_offsets"]
        tensors.append({
            "name": name, "dtype": entry["dtype"], "shape": entry["shape"], "shard": shard,
            "offset": start + begin, "size": end - begin, "hash": fnv1a(data[start + begin:start + end]),
        })
    return tensors, metadata


def read_folder(files, path, what):
    """The same for what opens in a folder: the index or the files of that name, or the one at the path."""
    metadata, allowed = None, None
    if isinstance(what, str):
        raw = files[what].decode()
        parsed = json.loads(raw)
        allowed = {name: shard.removeprefix("./") for name, shard in parsed["weight_map"].items()}
        shards = sorted(set(allowed.values()), key=str.encode)
        if parsed.get("metadata") is not None:
            metadata = [(k, v if isinstance(v, str) else json.dumps(v)) for k, v in parsed["metadata"].items()]
    else:
        shards = what or [path]
    tensors = []
    for number, shard in enumerate(shards):
        found, more = read_file(files[shard], number)
        tensors += [t for t in found if allowed is None or allowed.get(t["name"]) == shard]
        for key, value in more or []:
            if key not in [k for k, _ in metadata or []]:
                metadata = (metadata or []) + [(key, value)]
        if more is not None and metadata is None:
            metadata = []
    return tensors, metadata


def contents(case, tensors, metadata):
    lines = []
    for t in sorted(tensors, key=lambda t: (t["shard"], t["offset"], t["size"], t["name"].encode())):
        shape = "x".join(map(str, t["shape"])) or "-"
        cells = [case, "tensor", spelled(t["name"]), spelled(t["dtype"]), shape, t["shard"], t["offset"], t["size"], t["hash"]]
        lines.append("\t".join(map(str, cells)))
    for key, value in metadata or []:
        lines.append("\t".join([case, "metadata", spelled(key), spelled(value)]))
    return lines


def make():
    """Every committed file: path to bytes."""
    made = {}
    table = ["# case\tpath\toptions\tstatus\ttensors\tmetadata\twhat it shows"]
    says = ["# case\ta part of what the error's message says"]
    inside = ["# case\ttensor\tname\tdtype\tshape\tshard\toffset\tsize\tfnv1a64", "# case\tmetadata\tkey\tvalue"]

    def row(case, path, options, status, read, shows):
        counts = ["-", "-"]
        if status == "ST_OK":
            tensors, metadata = read()
            inside.extend(contents(case, tensors, metadata))
            counts = [str(len(tensors)), "-" if metadata is None else str(len(metadata))]
        table.append("\t".join([case, path, options or "-", status, *counts, shows]))

    for name, data, verdicts, shows in CASES:
        path = f"files/{name}.safetensors"
        assert path not in made, name
        assert len(data) <= 2048, name
        made[path] = data
        for suffix, options, status in verdicts:
            row(name + suffix, path, options, status, lambda: read_file(data, 0), shows)
    for name, files, verdicts, shows in FOLDERS:
        for file, data in files.items():
            made[f"folders/{name}/{file}"] = data
        for suffix, inner, options, status, what, *words in verdicts:
            path = f"folders/{name}" + (f"/{inner}" if inner else "")
            row(name + suffix, path, options, status, lambda: read_folder(files, inner, what), shows)
            says.extend("\t".join([name + suffix, word]) for word in words)
    cases = [line.split("\t")[0] for line in table]
    assert len(cases) == len(set(cases)), "a case has two rows"
    made["corpus.tsv"] = ("\n".join(table) + "\n").encode()
    made["messages.tsv"] = ("\n".join(says) + "\n").encode()
    made["contents.tsv"] = ("\n".join(inside) + "\n").encode()
    return made


def committed():
    found = {name for name in ("corpus.tsv", "contents.tsv", "messages.tsv") if os.path.exists(os.path.join(HERE, name))}
    for top in ("files", "folders"):
        for folder, _, names in os.walk(os.path.join(HERE, top)):
            found.update(os.path.relpath(os.path.join(folder, name), HERE) for name in names)
    return found


def main():
    made = make()
    differs = []
    for path in sorted(committed() | set(made)):
        full = os.path.join(HERE, path)
        old = None
        if os.path.islink(full):
            old = Link(os.readlink(full))
        elif os.path.exists(full):
            with open(full, "rb") as file:
                old = file.read()
        if old == made.get(path):
            continue
        differs.append(path)
        if "--check" in sys.argv:
            continue
        if path not in made:
            os.remove(full)
            continue
        os.makedirs(os.path.dirname(full), exist_ok=True)
        if os.path.lexists(full):
            os.remove(full)
        if isinstance(made[path], Link):
            os.symlink(made[path], full)
            continue
        with open(full, "wb") as file:
            file.write(made[path])
    if "--check" in sys.argv and differs:
        sys.exit("differ from what make.py makes: " + ", ".join(differs))
    print(f"{len(made)} files, {len(differs)} differ")


if __name__ == "__main__":
    main()
