# SPDX-License-Identifier: Apache-2.0
"""The corpus's folders: several files, with an index or without.

Each is (name, files, verdicts, what it shows); a verdict is (suffix, path
within the folder, options, status, what opens, *words of the message), where path
"" opens the folder itself. What opens is an index's name or a list of files; None
where the path says it, or nothing opens.
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


class Link(str):
    """A symbolic link, and where it leads."""


def folder(name, files, verdicts, shows):
    FOLDERS.append((name, files, [(*verdict, None)[:5] + verdict[5:] for verdict in verdicts], shows))


def opens(name, files, what, shows, options="", path=""):
    """A folder that opens, as this index or these files."""
    folder(name, files, [("", path, options, OK, what)], shows)


def refused(name, files, status, words, shows, options="", path=""):
    """A folder that does not open, and what the message says."""
    folder(name, files, [("", path, options, status, None, *words)], shows)


def by_index(name, files, status, shows, options="", more=()):
    """A folder whose index is opened by its own path and through the folder."""
    folder(name, files, [("", "", options, status, USUAL), ("/index", USUAL, options, status, USUAL),
                         *((*verdict, None if verdict[1] else USUAL) for verdict in more)], shows)


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
by_index("path-here", {ONE: A, TWO: B, USUAL: index({**MAP, "b": "./" + ONE, "d": "./" + TWO})}, OK, "shards' names may begin with ./")
for name, path in [("absolute", "/etc/hostname"), ("parent", "../sharded/" + ONE), ("dots", ".."), ("dot", "."), ("empty", ""),
                   ("inside", "sub/" + ONE), ("here-twice", "././" + ONE), ("here-parent", "./.."), ("here-alone", "./"), ("backslash", "sub\\" + ONE), ("trailing", ONE + "/"), ("nul", ONE + "\0")]:
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
    ("map-null-shard", b'{"weight_map":{"a":null}}', "a shard is null"), ("map-twice", b'{"weight_map":{},"weight_map":{}}', "weight_map appears twice"),
    ("metadata-twice", b'{"metadata":{},"weight_map":{},"metadata":{}}', "metadata appears twice"),
    ("metadata-key-twice", b'{"metadata":{"a":1,"\\u0061":2},"weight_map":{}}', "a metadata key appears twice"),
    ("metadata-number", b'{"metadata":1,"weight_map":{}}', "metadata is a number"), ("metadata-array", b'{"metadata":[],"weight_map":{}}', "metadata is an array"),
    ("cut", index(MAP)[:-1], "an index cut short"), ("text-behind", index(MAP) + b"x", "text after the object"),
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


def series(name, count, digits=5, variant=None, seed=20):
    """Files that are a whole model without an index."""
    word = "." + variant if variant else ""
    return {f"{name}{word}-{i:0{digits}}-of-{count:0{digits}}.safetensors": shard(f"{name}.{i}", seed=seed + i) for i in range(1, count + 1)}


def cut(files, *numbers):
    """A series without some of its files, counted from 1."""
    return {name: data for i, (name, data) in enumerate(files.items(), 1) if i not in numbers}


NOT_FOUND, LENGTH, START = "ST_ERROR_NOT_FOUND", "ST_ERROR_HEADER_LENGTH", "ST_ERROR_HEADER_START"

# ---- Several files, one or no index ----
opens("index-only-other", {**PAIR, "adapter.safetensors.index.json": index(MAP)}, "adapter.safetensors.index.json", "the folder's only index")
folder("index-several", {**PAIR, "x.safetensors.index.json": index(MAP), "y.safetensors.index.json": index(MAP)},
       [("", "", "", INDEX, None, "x.safetensors.index.json", "y.safetensors.index.json"),
        ("/one", "y.safetensors.index.json", "", OK, "y.safetensors.index.json")], "two indexes, neither of the usual name")
opens("index-several-usual", {**PAIR, "a.safetensors.index.json": index({}), USUAL: index(MAP)}, USUAL, "two indexes, one of the usual name")
folder("index-before-file", {**PAIR, USUAL: index(MAP), "model.safetensors": shard("z")},
       [("", "", "", OK, USUAL), ("/file", "model.safetensors", "", OK)], "an index comes before model.safetensors")
opens("index-other-kind", {"model.safetensors": A, "model.bin.index.json": b"not ours"}, ["model.safetensors"], "an index of another format is no index")
folder("index-any-json", {**PAIR, "pytorch_model.json": index(MAP), "config.json": b'{"layers": 2}\n'},
       [("", "pytorch_model.json", "", OK, "pytorch_model.json"), ("/other", "config.json", "", LENGTH, None, "JSON")],
       "a path to JSON with a weight_map is an index, other JSON is none")
by_index("index-names-dots", {".a.part": A, ".b.part": B, USUAL: index({"a": ".a.part", "b": ".a.part", "c": ".b.part"})}, OK,
         "an index may name files that a listing passes over")
opens("file-usual", {"model.safetensors": shard("m"), "other.safetensors": b"not even valid"}, ["model.safetensors"],
      "model.safetensors comes before other files")
opens("file-only", {"llama-7b.Q1.safetensors": shard("m"), "notes.txt": b"text", ".hidden.safetensors": b"x", "._llama.safetensors": b"x"},
      ["llama-7b.Q1.safetensors"], "the only file, whatever it is called; hidden ones are passed over")
refused("files-several", {"b10.safetensors": shard("x", seed=7), "b2.safetensors": shard("y", seed=8), "B.safetensors": shard("z", seed=9)},
        INDEX, ["3 models", "b10", "b2", "B", "st_open_files"], "several models: nothing is merged on a guess")
refused("files-duplicate", {"a.safetensors": shard("w"), "b.safetensors": shard("v", "w")}, INDEX, ["2 models"], "two models with a tensor of one name")
refused("files-of-ranks", {f"weights-rank-{r}-part-{p}.safetensors": shard(f"p{p}") for r in (0, 1) for p in (0, 1)}, INDEX, ["4 models", "weights-rank-0-part-1"],
        "files of ranks are several models")
refused("files-lora", {"pytorch_lora_weights.safetensors": shard("x"), "trained.safetensors": shard("x")}, INDEX, ["2 models", "trained"], "a family's default beside another model")
opens("files-dots-in-names", {"sd9.5_large.safetensors": shard("m")}, ["sd9.5_large.safetensors"], "a word that begins with a digit is no variant")
folder("files-dots-in-two", {"sd9.5_large.safetensors": shard("m"), "sd9.safetensors": shard("n")}, [("", "", "", INDEX, None, "2 models", "sd9.5_large"), ("/v", "", "variant=large", NOT_FOUND)],
       "nor beside a file of the same start")

# ---- Series ----
opens("series", series("model", 3), list(series("model", 3)), "a series without an index")
opens("series-other", {**series("weights", 2, digits=2), "notes.txt": b"x"}, list(series("weights", 2, digits=2)), "of any stem and any number of digits")
opens("series-of-one", series("model", 1), list(series("model", 1)), "a series of one")
folder("series-member", cut(series("model", 3), 1),
       [("", "", "", SHARD, None, "1 of 3 shards missing", "model-00001-of-00003"), ("/file", "model-00002-of-00003.safetensors", "", OK)],
       "a series with its first missing; a member opens by itself")
refused("series-cut", cut(series("model", 12), 1, 5, 6, 7, 12), SHARD, ["5 of 12 shards missing", "model-00001-of-00012", "model-00006-of-00012", "..."], "a series with gaps")
refused("series-one-missing-of-two", cut(series("w", 2, digits=3), 2), SHARD, ["1 of 2 shards missing", "w-002-of-002.safetensors"], "the only file is a member of a series")
refused("series-two", {**series("ae", 2), **series("unet", 2)}, INDEX, ["2 models", "ae", "unet"], "two series")
refused("series-two-totals", {**series("model", 2), **series("model", 3)}, INDEX, ["2 models"], "one stem with two totals is two series")
refused("series-two-digits", {**cut(series("model", 2), 2), **cut(series("model", 2, digits=4), 1)}, INDEX, ["2 models"], "and so is one with two numbers of digits")
opens("series-and-file", {**series("model", 2), "model.safetensors": shard("m")}, ["model.safetensors"], "model.safetensors comes before a series")
opens("series-beside-adapter", {**series("model", 2), "adapter_model.safetensors": shard("q")}, list(series("model", 2)), "the only series, beside another file")
opens("series-consolidated", {**series("model", 2), **series("consolidated", 3)}, list(series("model", 2)), "consolidated beside model is the same again")
opens("file-consolidated", {"model.safetensors": shard("m"), "consolidated.safetensors": b"x"}, ["model.safetensors"], "also as one file")
opens("consolidated-alone", series("consolidated", 2), list(series("consolidated", 2)), "consolidated alone is what there is")
refused("index-consolidated", {**series("model", 2), "consolidated.safetensors.index.json": index({"a": "consolidated-00001-of-00001.safetensors"})}, SHARD,
        ["1 of 1 shards missing", "consolidated-00001-of-00001"], "an index that is there counts, though its shards are not")
refused("index-stale", {**PAIR, USUAL: index({"a": ONE.replace("00002.", "00004."), "c": TWO.replace("00002.", "00004.")})}, SHARD, ["2 of 2 shards missing", "of-00004"],
        "an index that no longer fits the files")

# ---- Variants ----
D = "diffusion_pytorch_model"
UNET = {f"{D}.safetensors": shard("w", seed=40), f"{D}.fp16.safetensors": shard("w", seed=41), f"{D}.non_ema.safetensors": shard("w", seed=42)}
folder("variants", UNET, [
    ("", "", "", OK, [f"{D}.safetensors"]), ("/fp16", "", "variant=fp16", OK, [f"{D}.fp16.safetensors"]),
    ("/non_ema", "", "variant=non_ema", OK, [f"{D}.non_ema.safetensors"]), ("/none", "", "variant=fp8", NOT_FOUND, None, "\"fp8\"", "fp16", "non_ema"),
    ("/case", "", "variant=FP16", NOT_FOUND), ("/bad", "", "variant=no-word", NOT_FOUND, None, "\"no-word\"", "fp16"),
    ("/file", f"{D}.fp16.safetensors", "variant=bf16", OK)], "the default file, and those of two variants")
folder("variants-alone", {f"model.{v}.safetensors": shard("w", seed=43) for v in ("bf16", "fp8_e4m3fn")},
       [("", "", "", INDEX, None, "bf16", "fp8_e4m3fn"), ("/bf16", "", "variant=bf16", OK, ["model.bf16.safetensors"])], "only variants")
folder("variant-of-known-stem", {"ema_net.safetensors": shard("w"), "ema_net.int8.safetensors": shard("w", seed=44)},
       [("", "", "", OK, ["ema_net.safetensors"]), ("/v", "", "variant=int8", OK, ["ema_net.int8.safetensors"])], "a word after a stem that is there without it")
folder("variant-of-unknown-stem", {"ema_net.int8.safetensors": shard("w")},
       [("", "", "", OK, ["ema_net.int8.safetensors"]), ("/v", "", "variant=int8", NOT_FOUND)], "a word after another stem is a part of it")
VARIANT_INDEX = {}
for v, seed in ((None, 50), ("fp16", 60), ("bf16", 70)):
    VARIANT_INDEX.update(series("model", 2, variant=v, seed=seed))
names = {v: index({f"model.{i}": f"model{v and '.' + v or ''}-0000{i}-of-00002.safetensors" for i in (1, 2)}, metadata={"v": v}) for v in ("", "fp16", "bf16")}
VARIANT_INDEX.update({USUAL: names[""], "model.safetensors.index.fp16.json": names["fp16"], "model.safetensors.bf16.index.json": names["bf16"]})
folder("variants-sharded", VARIANT_INDEX, [
    ("", "", "", OK, USUAL), ("/fp16", "", "variant=fp16", OK, "model.safetensors.index.fp16.json"), ("/bf16", "", "variant=bf16", OK, "model.safetensors.bf16.index.json"),
    ("/path", "model.safetensors.index.fp16.json", "variant=bf16", OK, "model.safetensors.index.fp16.json"), ("/none", "", "variant=q8", NOT_FOUND, None, "fp16", "bf16")],
    "indexes of variants, in both spellings")
both = {"model.safetensors.index.fp16.json": names["fp16"], "model.safetensors.fp16.index.json": json.dumps(json.loads(names["fp16"]), indent=1).encode()}
opens("variant-index-twice", {**series("model", 2, variant="fp16"), **both}, "model.safetensors.fp16.index.json", "an index in both spellings is one", "variant=fp16")
refused("variant-index-differs", {**series("model", 2, variant="fp16"), **both, "model.safetensors.fp16.index.json": index({"model.1": "model.fp16-00001-of-00002.safetensors"})}, INDEX,
        ["model.safetensors.index.fp16.json", "model.safetensors.fp16.index.json"], "unless they differ", "variant=fp16")
folder("variant-incomplete", {**cut(series("model", 2, variant="fp16"), 1), "model.safetensors.index.fp16.json": names["fp16"]},
       [("", "", "", INDEX, None, "fp16"), ("/v", "", "variant=fp16", SHARD, None, "1 of 2 shards missing", "model.fp16-00001-of-00002")], "a variant of which a shard is missing")
after = {f"{D}-0000{i}-of-00002.fp16.safetensors": shard(f"w{i}", seed=i) for i in (1, 2)}
folder("variant-series-after", {**after, f"{D}.safetensors": shard("w")}, [("", "", "", OK, [f"{D}.safetensors"]), ("/v", "", "variant=fp16", OK, list(after))],
       "a variant's series, with its word after the numbers")
refused("variant-series-cut", cut(after, 1), SHARD, ["1 of 2 shards missing", f"{D}-00001-of-00002.fp16.safetensors"], "incomplete", "variant=fp16")
folder("variant-series-front", {**series("net", 2), **series("net", 2, variant="fp16")},
       [("", "", "", OK, list(series("net", 2))), ("/v", "", "variant=fp16", OK, list(series("net", 2, variant="fp16")))], "a variant's series, with its word before the numbers")

# ---- Files that are something else ----
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 4976698672\n"
for name, data, status, word in [
    ("lfs", LFS, LENGTH, "git lfs pull"), ("gguf", b"GGUF\3\0\0\0" + bytes(90), LENGTH, "GGUF"), ("zip", b"PK\3\4\x14\0\0\x08" + bytes(90), LENGTH, "zip"),
    ("html", b"\n<!doctype html>\n<title>401</title>\n", LENGTH, "HTML"), ("json", b'{"error": "no"}', LENGTH, "JSON"), ("zeros", bytes(700), START, "zeros"),
    ("gzip", b"\x1f\x8b\x08\x08abcdmodel\0" + bytes(40), LENGTH, "gzip"), ("hdf5", b"\x89HDF\r\n\x1a\n" + bytes(90), LENGTH, "HDF5"),
    ("numpy", b"\x93NUMPY\x01\0v\0{'descr': '<f4'}", LENGTH, "NumPy"), ("short", b"{}", "ST_ERROR_TRUNCATED", "JSON"),
]:
    folder(f"else-{name}", {"model.safetensors": data, USUAL.replace("model", "m"): data},
           [("/file", "model.safetensors", "", status, None, word), ("/index", USUAL.replace("model", "m"), "", INDEX, None, *([word] if word != "JSON" else []))], f"{name} is no safetensors file")
refused("else-shard", {ONE: A, TWO: LFS, USUAL: index(MAP)}, LENGTH, ["git lfs pull", TWO], "a shard that has not been fetched")

# ---- Folders with nothing to open, and a hub's cache ----
refused("folder-without", {"README.txt": b"no tensors here\n"}, IO, ["no *.safetensors"], "a folder without tensors")
refused("folder-pickles", {"pytorch_model.bin": b"x", "optimizer.pt": b"x", "old.ckpt": b"x"}, IO, ["pickle", "pytorch_model.bin"], "a folder of pickle files")
refused("folder-pipeline", {"model_index.json": b"{}", "unet/diffusion_pytorch_model.safetensors": shard("w"), "vae/model.fp16.safetensors": shard("w"), "scheduler/config.json": b"{}"},
        IO, ["unet/", "vae/"], "a pipeline's root")
refused("folder-pipeline-links", {"model_index.json": b"{}", "unet": Link("../folder-pipeline/unet"), "vae": Link("../folder-pipeline/vae")},
        IO, ["unet/", "vae/"], "a pipeline whose parts are links to folders")
refused("folder-unfinished", {"model.safetensors.incomplete": b"x"}, IO, ["unfinished", "model.safetensors.incomplete"], "a download that was not finished")
REV = "0123456789abcdef0123456789abcdef01234567"
HUB = {f"models--o--n/snapshots/{REV}/model.safetensors": shard("w", seed=80), "models--o--n/snapshots/older/model.safetensors": shard("v", seed=81)}
HUB_OPENS = [f"models--o--n/snapshots/{REV}/model.safetensors"]
opens("hub", {**HUB, "models--o--n/refs/main": REV.encode() + b"\n"}, HUB_OPENS, "a hub's cache: the snapshot of refs/main", path="models--o--n")
opens("hub-spaces", {**HUB, "models--o--n/refs/main": b" \n" + REV.encode() + b"\t\n\n"}, HUB_OPENS, "white space is trimmed", path="models--o--n")
for name, ref in [("none", None), ("unknown", b"feedbeef"), ("slash", f"../snapshots/{REV}".encode()), ("parent", b".."), ("two", REV.encode() + b"\nolder"), ("empty", b"\n"), ("long", b"a" * 256)]:
    refused(f"hub-{name}", {**HUB, **({"models--o--n/refs/main": ref} if ref is not None else {})}, IO, [REV, "older", "refs/main"], f"refs/main: {name}", path="models--o--n")
folder("hub-variants", {f"models--o--n/snapshots/{REV}/{file}": data for file, data in UNET.items()} | {"models--o--n/refs/main": REV.encode()},
       [("", "models--o--n", "", OK, [f"models--o--n/snapshots/{REV}/{D}.safetensors"]), ("/v", "models--o--n", "variant=fp16", OK, [f"models--o--n/snapshots/{REV}/{D}.fp16.safetensors"]),
        ("/no", "models--o--n", "variant=q", NOT_FOUND, None, "fp16")], "a snapshot is a folder like others")
refused("hub-of-several", {**HUB}, IO, ["models--o--n/"], "a folder of caches")
LINKS = {"blobs/b2": B, "blobs/b1.incomplete": b"x", **{f"snapshots/r/model-0000{i}-of-00003.safetensors": Link(f"../../blobs/b{i}") for i in (1, 2)},
         f"snapshots/r/{USUAL}": index({"a": ONE.replace("00002.", "00003."), "c": TWO.replace("00002.", "00003."), "e": "model-00003-of-00003.safetensors"})}
folder("hub-unfinished", {f"models--o--n/{file}": data for file, data in LINKS.items()},
       [("", "models--o--n/snapshots/r", "", SHARD, None, "2 of 3 shards missing", "../../blobs/b1", "model-00003-of-00003"),
        ("/file", "models--o--n/snapshots/r/model-00001-of-00003.safetensors", "", IO, None, "../../blobs/b1")], "shards whose blobs are not there yet")
refused("link-to-nothing", {"model.safetensors": Link("nowhere/else")}, IO, ["nowhere/else"], "a link to nothing names where it leads")
