# SPDX-License-Identifier: Apache-2.0
"""The corpus's folders: several files, with an index or without.

Each is (name, files, verdicts, what it shows); a verdict is (suffix, path
within the folder, options, status), where path "" opens the folder itself.
"""

import json
import struct

FOLDERS = []
OK, INDEX, SHARD = "ST_OK", "ST_ERROR_INDEX", "ST_ERROR_SHARD"
DUP, IO, COVERED = "ST_ERROR_DUPLICATE_KEY", "ST_ERROR_IO", "ST_ERROR_DATA_NOT_COVERED"
USUAL = "model.safetensors.index.json"
ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def shard(*names, metadata=None, extra=b"", seed=0):
    """A file with a U8 tensor of growing size for each name."""
    header, data = {}, b""
    if metadata is not None:
        header["__metadata__"] = metadata
    for i, name in enumerate(names):
        piece = bytes((seed * 91 + i * 53 + k * 7 + 1) % 256 for k in range(i + 3))
        header[name] = {"dtype": "U8", "shape": [len(piece)], "data_offsets": [len(data), len(data) + len(piece)]}
        data += piece
    text = json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text + data + extra


def index(weight_map, **top):
    return json.dumps({**top, "weight_map": weight_map}).encode()


def folder(name, files, verdicts, shows):
    FOLDERS.append((name, files, verdicts, shows))


def by_index(name, files, status, shows, options="", more=()):
    """A folder whose index is opened by its own path and through the folder."""
    folder(name, files, [("", "", options, status), ("/index", USUAL, options, status), *more], shows)


A, B = shard("a", "b", seed=1), shard("c", "d", seed=2)
MAP = {"a": ONE, "b": ONE, "c": TWO, "d": TWO}
PAIR = {ONE: A, TWO: B}

by_index("sharded", {**PAIR, USUAL: index(MAP, metadata={"total_size": 14})}, OK, "two shards behind an index",
         more=[("/shard", TWO, "", OK)])
by_index("sharded-crossed", {**PAIR, USUAL: index(dict(reversed(MAP.items())))}, OK, "the weight map's order means nothing")
by_index("unmapped-hidden", {**PAIR, USUAL: index({"a": ONE, "d": TWO})}, OK, "tensors that no entry maps are not shown")
by_index("shard-unlisted", {**PAIR, USUAL: index({"a": ONE})}, OK, "a shard that no entry names is not opened")
by_index("chosen-of-two", {ONE: shard("a", "b", seed=3), TWO: shard("a", "c", seed=4),
                           USUAL: index({"a": TWO, "b": ONE, "c": TWO})}, OK, "a tensor in two shards: the index says which")
by_index("weight-map-empty", {**PAIR, USUAL: index({})}, OK, "nothing is mapped")
by_index("names-odd", {"weights 1.bin": shard("", "a\0b", "\U0001f600", seed=5), "\u4e2d.safetensors": shard("\x1b[31m", seed=6),
                       USUAL: index({"": "weights 1.bin", "a\0b": "weights 1.bin", "\U0001f600": "weights 1.bin",
                                     "\x1b[31m": "\u4e2d.safetensors"})}, OK, "odd names of tensors and shards")
by_index("metadata-merged", {ONE: shard("a", metadata={"format": "pt", "x": "first"}),
                             TWO: shard("b", metadata={"x": "second", "y": "last", "total_size": "no"}),
                             USUAL: index({"a": ONE, "b": TWO}, metadata={"total_size": 12345678901234567890, "f": 0.5, "t": "text",
                                                                          "b": True, "n": None, "l": [1, {"k": "v"}]})},
         OK, "the index's metadata first, numbers as their text, then the shards'")
by_index("metadata-null", {**PAIR, USUAL: index(MAP, metadata=None)}, OK, "null metadata in the index is none")
by_index("metadata-empty", {**PAIR, USUAL: index(MAP, metadata={})}, OK, "empty metadata in the index")
by_index("metadata-of-shard-empty", {ONE: shard("a", metadata={}), USUAL: index({"a": ONE})}, OK, "empty metadata in a shard")
by_index("top-level-more", {**PAIR, USUAL: index(MAP, extra={"x": [1, 2]}, version=3)}, OK, "further keys in the index")

by_index("shard-missing", {ONE: A, USUAL: index(MAP)}, SHARD, "a shard that is not there")
by_index("shards-missing", {USUAL: index(MAP)}, SHARD, "no shard is there")
by_index("tensor-missing", {**PAIR, USUAL: index({**MAP, "e": ONE})}, SHARD, "a mapped tensor that no shard has")
by_index("tensor-elsewhere", {**PAIR, USUAL: index({**MAP, "a": TWO})}, SHARD, "a tensor mapped to a shard that lacks it")
by_index("tensor-is-metadata", {ONE: shard("a", metadata={}), USUAL: index({"a": ONE, "__metadata__": ONE})}, SHARD,
         "__metadata__ is no tensor")
for name, path in [("absolute", "/etc/hostname"), ("parent", "../sharded/" + ONE), ("dots", ".."), ("dot", "."), ("empty", ""),
                   ("inside", "sub/" + ONE), ("here", "./" + ONE), ("backslash", "sub\\" + ONE), ("trailing", ONE + "/"), ("nul", ONE + "\0")]:
    by_index(f"path-{name}", {ONE: A, USUAL: index({"a": ONE, "b": path})}, INDEX, f"the shard's name is {path!r}")
by_index("shard-truncated", {ONE: A, TWO: B[:-1], USUAL: index(MAP)}, "ST_ERROR_TRUNCATED", "a shard that is cut short")
by_index("shard-malformed", {ONE: A, TWO: B.replace(b"U8", b"U9"), USUAL: index(MAP)}, "ST_ERROR_DTYPE", "a shard with an unknown dtype",
         more=[("/tolerated", "", "unknown_dtype", OK)])
by_index("shard-trailing", {ONE: shard("a", "b", seed=1, extra=b"1234"), TWO: B, USUAL: index(MAP)}, COVERED, "trailing bytes in a shard",
         more=[("/tolerated", "", "trailing_bytes", OK)])
by_index("shard-fault-hidden", {ONE: A, TWO: B.replace(b"U8", b"U9", 1), USUAL: index({"a": ONE, "d": TWO})}, "ST_ERROR_DTYPE",
         "a fault in a tensor that is not shown")

for name, text, shows in [
    ("nothing", b"", "an empty index"), ("array", b"[]", "an array"), ("no-map", b'{"metadata":{}}', "no weight_map"),
    ("map-null", b'{"weight_map":null}', "weight_map is null"), ("map-array", b'{"weight_map":[]}', "weight_map is an array"),
    ("map-string", b'{"weight_map":"' + ONE.encode() + b'"}', "weight_map is a string"), ("map-number", b'{"weight_map":{"a":1}}', "a shard is a number"),
    ("map-null-shard", b'{"weight_map":{"a":null}}', "a shard is null"), ("map-twice", b'{"weight_map":{},"weight_map":{}}', "weight_map stands twice"),
    ("metadata-twice", b'{"metadata":{},"weight_map":{},"metadata":{}}', "metadata stands twice"),
    ("metadata-key-twice", b'{"metadata":{"a":1,"\\u0061":2},"weight_map":{}}', "a metadata key stands twice"),
    ("metadata-number", b'{"metadata":1,"weight_map":{}}', "metadata is a number"), ("metadata-array", b'{"metadata":[],"weight_map":{}}', "metadata is an array"),
    ("cut", index(MAP)[:-1], "an index cut short"), ("text-behind", index(MAP) + b"x", "text behind the object"),
    ("trailing-comma", b'{"weight_map":{},}', "a trailing comma"), ("bom", b"\xef\xbb\xbf" + index(MAP), "a byte order mark"),
    ("not-utf8", b'{"weight_map":{"\xff":"' + ONE.encode() + b'"}}', "a name that is not UTF-8"),
    ("not-utf8-ignored", b'{"x":"\xff",' + index(MAP)[1:], "an ignored value that is not UTF-8"),
    ("lone-surrogate", b'{"weight_map":{"\\ud800":"' + ONE.encode() + b'"}}', "a name with a lone surrogate"), ("safetensors", A, "a .safetensors file"),
]:
    by_index(f"index-{name}", {**PAIR, USUAL: text}, INDEX, shows)
by_index("index-duplicate", {**PAIR, USUAL: b'{"weight_map":{"a":"' + ONE.encode() + b'","\\u0061":"' + TWO.encode() + b'"}}'}, DUP,
         "a tensor is mapped twice")
by_index("index-duplicate-same", {**PAIR, USUAL: b'{"weight_map":{"a":"' + ONE.encode() + b'","a":"' + ONE.encode() + b'"}}'}, DUP,
         "a tensor is mapped twice to one shard")

folder("index-only-other", {**PAIR, "adapter.safetensors.index.json": index(MAP)}, [("", "", "", OK)], "the folder's only index")
folder("index-several", {**PAIR, "x.safetensors.index.json": index(MAP), "y.safetensors.index.json": index(MAP)},
       [("", "", "", INDEX), ("/one", "y.safetensors.index.json", "", OK)], "two indexes, neither of the usual name")
folder("index-several-usual", {**PAIR, "a.safetensors.index.json": index({}), USUAL: index(MAP)}, [("", "", "", OK)],
       "two indexes, one of the usual name")
folder("index-before-file", {**PAIR, USUAL: index(MAP), "model.safetensors": shard("z")}, [("", "", "", OK), ("/file", "model.safetensors", "", OK)],
       "an index comes before model.safetensors")
folder("index-other-kind", {**PAIR, "model.bin.index.json": b"not ours"}, [("", "", "", OK)], "an index of another format is no index")
folder("file-usual", {"model.safetensors": shard("m"), "other.safetensors": b"not even valid"}, [("", "", "", OK)],
       "model.safetensors comes before other files")
folder("files-all", {"b10.safetensors": shard("x", seed=7), "b2.safetensors": shard("y", seed=8, metadata={"k": "2"}),
                     "B.safetensors": shard("z", seed=9, metadata={"k": "B"}), "notes.txt": b"text"},
       [("", "", "", OK)], "all files by name: B, b10, b2")
folder("files-duplicate", {"a.safetensors": shard("w"), "b.safetensors": shard("v", "w")}, [("", "", "", DUP)],
       "a tensor in two files, and no index")
folder("files-one-malformed", {"a.safetensors": shard("w"), "b.safetensors": b""}, [("", "", "", "ST_ERROR_TRUNCATED")],
       "one of the files is empty")
folder("folder-without", {"README.txt": b"no tensors here\n", "pytorch_model.bin": b"x"}, [("", "", "", IO)], "a folder without tensors")
