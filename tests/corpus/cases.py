# SPDX-License-Identifier: Apache-2.0
"""The cases of the corpus: bytes and what they must give.

Verdicts are read off the format's rules, in their order; nothing here has been
copied from what the library answered. Single files come first, rule by rule,
then what is accepted, then truncations and broken pairs; folders are in folders.py.
"""

import struct

from folders import FOLDERS  # noqa: F401

DTYPES = [
    ("BOOL", 8), ("F4", 4), ("F6_E2M3", 6), ("F6_E3M2", 6), ("U8", 8), ("I8", 8), ("F8_E5M2", 8), ("F8_E4M3", 8),
    ("F8_E8M0", 8), ("F8_E4M3FNUZ", 8), ("F8_E5M2FNUZ", 8), ("I16", 16), ("U16", 16), ("F16", 16), ("BF16", 16),
    ("I32", 32), ("U32", 32), ("F32", 32), ("C64", 64), ("F64", 64), ("I64", 64), ("U64", 64),
]
CASES = []


def st(header, data=b"", length=None):
    """A file: header text (or bytes), data, and the length if it is to lie."""
    header = header.encode() if isinstance(header, str) else header
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def ten(dtype='"F32"', shape="[1]", offsets="[0,4]", more=""):
    """One entry's JSON; every part may be broken."""
    return f'{{"dtype":{dtype},"shape":{shape},"data_offsets":{offsets}{more}}}'


def bytes_of(size):
    """Data that differs everywhere, so that a wrong offset shows."""
    return bytes((i * 37 + 11) % 256 for i in range(size))


def case(name, data, status, shows, options="", more=()):
    """One file with its verdict; more: (suffix, options, status) for further rows."""
    CASES.append((name, data, [("", options, status), *more], shows))


def one(name, entry, status, shows, size=4, **rest):
    """A file with the one tensor "w"."""
    case(name, st('{"w":' + entry + "}", bytes_of(size)), status, shows, **rest)


D4 = bytes_of(4)
W = '"w":' + ten()
OK, JSON, DUP = "ST_OK", "ST_ERROR_HEADER_JSON", "ST_ERROR_DUPLICATE_KEY"
START, UTF8, META = "ST_ERROR_HEADER_START", "ST_ERROR_HEADER_UTF8", "ST_ERROR_METADATA"
DTYPE, SHAPE, OFFSETS = "ST_ERROR_DTYPE", "ST_ERROR_SHAPE", "ST_ERROR_OFFSETS"
SUB, SIZE, TRUNCATED = "ST_ERROR_SUB_BYTE", "ST_ERROR_SIZE_MISMATCH", "ST_ERROR_TRUNCATED"
COVERED, LARGE, LENGTH = "ST_ERROR_DATA_NOT_COVERED", "ST_ERROR_HEADER_TOO_LARGE", "ST_ERROR_HEADER_LENGTH"

# ---- At least 8 bytes ----
for n in (0, 1, 7):
    case(f"bytes-{n}", struct.pack("<Q", 2)[:n], TRUNCATED, f"{n} bytes, where the length alone takes 8")

# ---- The header's length against the limit, then against the file ----
case("length-over-limit", st("{}", length=100_000_001), LARGE, "N is one more than the default limit",
     more=[("/raised", "max_header_size=100000001", LENGTH)])
case("length-at-limit", st("{}", length=100_000_000), LENGTH, "N is the default limit, the file is not that long",
     more=[("/lowered", "max_header_size=99999999", LARGE)])
case("length-2-63", st("{}", length=1 << 63), LARGE, "N is 2^63",
     more=[("/raised", "max_header_size=18446744073709551615", LENGTH)])
case("length-all-ones", st("{}", length=(1 << 64) - 1), LARGE, "N is 2^64 - 1",
     more=[("/raised", "max_header_size=18446744073709551615", LENGTH)])
case("length-wraps", st("{}", length=(1 << 64) - 8), LARGE, "N + 8 is 2^64",
     more=[("/raised", "max_header_size=18446744073709551615", LENGTH)])
case("length-one-more", st("{}", length=3), LENGTH, "N is one more than the bytes behind it")
case("length-alone", st("", length=1), LENGTH, "nothing behind the length")
case("limit-of-header", st("{" + W + "}", D4), OK, "a limit that the header just meets, and one that it does not",
     more=[("/meets", f"max_header_size={len(W) + 2}", OK), ("/exceeds", f"max_header_size={len(W) + 1}", LARGE)])
case("limit-of-tensors", st('{"a":' + ten(offsets="[0,4]") + ',"b":' + ten(offsets="[4,8]") + "}", bytes_of(8)), OK,
     "a limit of tensors", more=[("/meets", "max_tensors=2", OK), ("/exceeds", "max_tensors=1", LARGE)])
case("limit-of-names", st('{"five!":' + ten() + "}", D4), OK, "a limit of name bytes",
     more=[("/meets", "max_name_length=5", OK), ("/exceeds", "max_name_length=4", LARGE)])

# ---- The first byte ----
case("start-nothing", st(""), START, "N = 0")
case("start-nothing-data", st("", b"{}"), START, "N = 0, and the object behind it")
case("start-space", st("  \n\t\r "), START, "white space only")
case("start-bom", st(b"\xef\xbb\xbf{}"), START, "a byte order mark")
case("start-array", st("[]"), START, "an array at the top")
case("start-null", st("null"), START, "null at the top")
case("start-string", st('"{}"'), START, "a string at the top")
case("start-number", st("12"), START, "a number at the top")
case("start-nul", st("\0{}"), START, "NUL before the object")
case("start-form-feed", st("\f{}"), START, "a form feed is no JSON white space")
case("start-nbsp", st("\u00a0{}"), START, "a no-break space is no JSON white space")
case("start-not-utf8", st(b"\xff{}"), START, "the first byte comes before UTF-8")
case("start-comment", st("/**/{}"), START, "a comment before the object")
case("start-safetensors-twice", st(st("{}")), START, "a whole file where the header should be")

# ---- UTF-8 ----
for name, raw, shows in [
    ("name", b'{"\xffw":' + ten().encode() + b"}", "a byte that is never UTF-8 in a name"),
    ("overlong", b'{"\xc0\xaf":' + ten().encode() + b"}", "an overlong slash"),
    ("surrogate", b'{"\xed\xa0\x80":' + ten().encode() + b"}", "a surrogate as three bytes"),
    ("beyond", b'{"\xf4\x90\x80\x80":' + ten().encode() + b"}", "a code point over U+10FFFF"),
    ("cut", b'{"\xe2\x82":' + ten().encode() + b"}", "a sequence that lacks its last byte"),
    ("continuation", b'{"a\x80":' + ten().encode() + b"}", "a continuation byte alone"),
    ("behind-escape", b'{"\\n\xff":' + ten().encode() + b"}", "behind an escape"),
    ("metadata", b'{"__metadata__":{"k":"\xff"},' + W.encode() + b"}", "in a metadata value"),
    ("ignored", b'{"w":' + ten(more=',"x":"').encode() + b'\xff"}}', "in an ignored field"),
    ("dtype", b'{"w":{"dtype":"F32\xff","shape":[1],"data_offsets":[0,4]}}', "in a dtype"),
    ("outside", b"{" + W.encode() + b"\xff}", "outside of any string"),
    ("behind-object", b"{" + W.encode() + b"} \xff", "after the object"),
    ("behind-syntax-error", b'{"w":nonsense,"\xff":1}', "behind a syntax error, which ranks later"),
    ("behind-duplicate", b"{" + W.encode() + b"," + W.encode() + b',"\xff":1}', "behind an equal name"),
]:
    case(f"utf8-{name}", st(raw, D4), UTF8, shows)

# ---- JSON ----
for name, text, shows in [
    ("trailing-comma", "{" + W + ",}", "a comma behind the last entry"),
    ("leading-comma", "{," + W + "}", "a comma before the first entry"),
    ("no-comma", "{" + W + W.replace("w", "v") + "}", "no comma between entries"),
    ("comment", "{" + W + "/* x */}", "a comment"),
    ("text-behind", "{" + W + "}x", "text after the object"),
    ("object-behind", "{" + W + "}{}", "a second object"),
    ("comma-behind", "{" + W + "},", "a comma after the object"),
    ("nul-behind", "{" + W + "}\0\0\0", "padding of NUL instead of spaces"),
    ("unclosed", "{" + W, "no closing bracket"),
    ("unclosed-entry", '{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]', "ends within an entry"),
    ("unclosed-name", '{"w', "ends within a name"),
    ("unclosed-escape", '{"w\\', "ends within an escape"),
    ("open-only", "{", "one bracket"),
    ("single-quotes", "{" + W.replace('"', "'") + "}", "single quotes"),
    ("bare-name", "{w:" + ten() + "}", "a name without quotes"),
    ("number-name", "{1:" + ten() + "}", "a number for a name"),
    ("no-colon", '{"w" ' + ten() + "}", "no colon after a name"),
    ("two-colons", '{"w"::' + ten() + "}", "two colons"),
    ("no-value", '{"w"}', "a name without a value"),
    ("raw-newline", '{"w\n":' + ten() + "}", "a raw newline in a name"),
    ("raw-nul", '{"w\0":' + ten() + "}", "a raw NUL in a name"),
    ("raw-tab-dtype", '{"w":' + ten('"F32\t"') + "}", "a raw tab in a dtype"),
    ("raw-unit-separator", '{"w\x1f":' + ten() + "}", "the highest control character, raw"),
    ("raw-control-behind-escape", '{"\\n\x01":' + ten() + "}", "a raw control character behind an escape"),
    ("lone-high", '{"\\ud800":' + ten() + "}", "a lone high surrogate"),
    ("lone-low", '{"\\udc00":' + ten() + "}", "a lone low surrogate"),
    ("high-high", '{"\\ud800\\ud800":' + ten() + "}", "two high surrogates"),
    ("high-letter", '{"\\ud800\\u0041":' + ten() + "}", "a high surrogate and a letter"),
    ("lone-ignored", '{"w":' + ten(more=',"x":"\\ud800"') + "}", "a lone surrogate in an ignored field"),
    ("lone-ignored-key", '{"w":' + ten(more=',"\\udfff":0') + "}", "a lone surrogate in an ignored field's key"),
    ("lone-metadata", '{"__metadata__":{"k":"\\ud83d"},' + W + "}", "a lone surrogate in metadata"),
    ("bad-escape", '{"\\x41":' + ten() + "}", "an unknown escape"),
    ("bad-escape-behind-shift", '{"\\n\u00e9\\q":' + ten() + "}", "an unknown escape where text has moved by an odd length"),
    ("short-escape", '{"\\u12":' + ten() + "}", "two hexadecimal digits"),
    ("bad-hex", '{"\\u12g4":' + ten() + "}", "a letter that is no hexadecimal digit"),
    ("capital-u", '{"\\U0041":' + ten() + "}", "a capital U"),
    ("number-01", '{"w":' + ten(shape="[01]") + "}", "a leading zero"),
    ("offset-00", '{"w":' + ten(offsets="[00,4]") + "}", "a leading zero in an offset"),
    ("number-plus", '{"w":' + ten(shape="[+1]") + "}", "a plus sign"),
    ("number-dot", '{"w":' + ten(shape="[1.]") + "}", "no digit behind the dot"),
    ("number-nan", '{"w":' + ten(more=',"x":NaN') + "}", "NaN"),
    ("number-infinite", '{"w":' + ten(more=',"x":Infinity') + "}", "Infinity"),
    ("number-range", '{"w":' + ten(more=',"x":1e400') + "}", "a number that no double holds, ignored or not"),
    ("number-minus", '{"w":' + ten(more=',"x":-') + "}", "a minus sign alone"),
    ("number-exponent", '{"w":' + ten(more=',"x":1e') + "}", "an exponent without digits"),
    ("number-hex", '{"w":' + ten(shape="[0x1]") + "}", "a hexadecimal number"),
    ("literal-case", '{"w":' + ten(more=',"x":True') + "}", "a capital True"),
    ("literal-cut", '{"w":' + ten(more=',"x":nul') + "}", "a literal cut short"),
    ("shape-unclosed", '{"w":' + ten(shape="[1") + "}", "a shape without its bracket"),
    ("shape-comma", '{"w":' + ten(shape="[1,]") + "}", "a comma behind the last dimension"),
    ("shape-space", '{"w":' + ten(shape="[1 2]") + "}", "no comma between dimensions"),
    ("brackets-crossed", '{"w":' + ten(more=',"x":[{]}') + "}", "brackets that cross"),
    ("entry-null", '{"w":null}', "an entry is null"),
    ("entry-number", '{"w":1}', "an entry is a number"),
    ("entry-string", '{"w":"F32"}', "an entry is a string"),
    ("entry-array", '{"w":["F32",[1],[0,4]]}', "an entry as an array, which the reference takes"),
    ("entry-empty", '{"w":{}}', "an entry without fields"),
    ("no-dtype", '{"w":{"shape":[1],"data_offsets":[0,4]}}', "dtype is missing"),
    ("no-shape", '{"w":{"dtype":"F32","data_offsets":[0,4]}}', "shape is missing"),
    ("no-offsets", '{"w":{"dtype":"F32","shape":[1]}}', "data_offsets are missing"),
    ("field-case", '{"w":{"Dtype":"F32","shape":[1],"data_offsets":[0,4]}}', "a field's case matters"),
    ("field-space", '{"w":{"dtype ":"F32","shape":[1],"data_offsets":[0,4]}}', "a space in a field's name"),
    ("twice-and-missing", '{"w":{"dtype":"F32","dtype":"F32","shape":[1]}}', "a missing field ranks before one that appears twice"),
    ("nesting-128", '{"w":' + ten(more=',"x":' + "[" * 126 + "]" * 126) + "}", "128 levels, in an ignored field"),
    ("nesting-128-objects", '{"w":' + ten(more=',"x":' + '{"":' * 126 + "0" + "}" * 126) + "}", "128 levels of objects"),
    ("nesting-128-metadata", '{"__metadata__":' + "[" * 127 + "]" * 127 + "}", "128 levels, in metadata"),
    ("nesting-128-shape", '{"w":' + ten(shape="[" * 126 + "]" * 126) + "}", "128 levels, in a shape"),
]:
    case(f"json-{name}", st(text, D4), JSON, shows)
case("json-length-one-less", st("{" + W + "}", D4, length=len(W) + 1), JSON, "N leaves the closing bracket to the data")
case("json-length-into-data", st("{" + W + "}", D4, length=len(W) + 3), JSON,
     "N takes a byte of the data along")

# ---- Keys differ ----
for name, text, shows in [
    ("name", "{" + W + "," + W + "}", "a name appears twice"),
    ("name-escaped", "{" + W + ',"\\u0077":' + ten() + "}", "a name appears twice, once escaped"),
    ("name-tiles", '{"w":' + ten(offsets="[0,2]", dtype='"F16"') + ',"w":' + ten(offsets="[2,4]", dtype='"F16"') + "}",
     "a name appears twice, and the two would tile"),
    ("name-surrogates", '{"\\ud83d\\ude00":' + ten() + ',"\U0001f600":' + ten() + "}", "a surrogate pair and its character"),
    ("name-slash", '{"a/b":' + ten() + ',"a\\/b":' + ten() + "}", "an escaped slash"),
    ("name-empty", '{"":' + ten(shape="[0]", offsets="[0,0]") + ',"":' + ten() + "}", "the empty name appears twice"),
    ("name-far", "{" + W + "".join(f',"{i}":' + ten(shape="[0]", offsets="[4,4]") for i in range(20)) + "," + W + "}",
     "a name appears twice, far apart"),
    ("name-then-fault", "{" + W + ',"w":' + ten('"NOPE"') + "}", "the second entry breaks a later rule"),
    ("metadata", '{"__metadata__":{"k":"a","k":"b"},' + W + "}", "a metadata key appears twice"),
    ("metadata-escaped", '{"__metadata__":{"k":"a","\\u006b":"a"},' + W + "}", "a metadata key, once escaped"),
    ("metadata-not-string", '{"__metadata__":{"k":1,"k":"b"},' + W + "}", "an equal key ranks before a wrong value"),
    ("section", '{"__metadata__":{},"__metadata__":{},' + W + "}", "__metadata__ appears twice"),
    ("section-null", '{"__metadata__":null,"__metadata__":{},' + W + "}", "__metadata__ appears twice, once null"),
    ("section-escaped", '{"__metadata__":{},"\\u005f_metadata__":{},' + W + "}", "__metadata__ appears twice, once escaped"),
    ("dtype", '{"w":' + ten(more=',"dtype":"F32"') + "}", "dtype appears twice"),
    ("shape", '{"w":' + ten(more=',"shape":[1]') + "}", "shape appears twice"),
    ("offsets", '{"w":' + ten(more=',"data_offsets":[0,4]') + "}", "data_offsets appear twice"),
    ("dtype-escaped", '{"w":' + ten(more=',"\\u0064type":"F32"') + "}", "dtype appears twice, once escaped"),
    ("shape-three", '{"w":' + ten(more=',"shape":[2],"shape":[3,3]') + "}", "shape stands three times"),
]:
    case(f"duplicate-{name}", st(text, D4), DUP, shows)

# ---- Metadata ----
for name, value in [
    ("number", "1"), ("string", '"x"'), ("array", "[]"), ("true", "true"), ("value-number", '{"k":1}'),
    ("value-null", '{"k":null}'), ("value-object", '{"k":{"a":"b","a":"c"}}'), ("value-array", '{"k":["a"]}'),
    ("value-second", '{"j":"ok","k":false}'),
]:
    case(f"metadata-{name}", st('{"__metadata__":' + value + "," + W + "}", D4), META, f"__metadata__ is {value}")

# ---- Dtype ----
for name, value in [
    ("unknown", '"F128"'), ("lower-case", '"f32"'), ("numpy", '"float32"'), ("empty", '""'), ("space", '"F32 "'), 
    ("prefix", '"F3"'), ("f8", '"F8"'), ("word-unknown", '"UNKNOWN"'),
]:
    one(f"dtype-{name}", ten(value), DTYPE, f"dtype is {value}", more=[("/tolerated", "unknown_dtype", OK)])
for name, value in [("number", "18"), ("null", "null"), ("array", '["F32"]'), ("object", '{"F32":null}'), ("true", "true")]:
    one(f"dtype-{name}", ten(value), DTYPE, f"dtype is {value}, no string", more=[("/tolerated", "unknown_dtype", DTYPE)])
one("dtype-nul", ten('"F32\\u0000"'), DTYPE, "a known dtype and NUL: in C it would read as the known one", more=[("/tolerated", "unknown_dtype", DTYPE)])
one("dtype-escaped", ten('"\\u0046\\u0033\\u0032"'), OK, "a dtype spelled with escapes")
one("dtype-unknown-empty", ten('"X"', "[0]", "[0,0]"), DTYPE, "an unknown dtype without bytes", size=0,
    more=[("/tolerated", "unknown_dtype", OK)])
one("dtype-unknown-any-size", ten('"X_7"', "[3,5]", "[0,4]"), DTYPE, "an unknown dtype: any size goes with any shape",
    more=[("/tolerated", "unknown_dtype", OK)])
one("dtype-unknown-shape", ten('"X"', "[4294967296,4294967296]"), DTYPE, "an unknown dtype: elements are still counted",
    more=[("/tolerated", "unknown_dtype", SHAPE)])
case("dtype-unknown-hole", st('{"a":' + ten('"X"', "[1]", "[0,3]") + ',"b":' + ten('"X"', "[1]", "[4,7]") + "}", bytes_of(7)), DTYPE,
     "an unknown dtype: tensors still tile", more=[("/tolerated", "unknown_dtype", OFFSETS)])
case("dtype-mixed", st('{"a":' + ten('"X"', "[3]", "[0,3]") + ',"b":' + ten('"U8"', "[2]", "[3,5]") + "}", bytes_of(5)), DTYPE,
     "an unknown dtype beside a known one", more=[("/tolerated", "unknown_dtype", OK)])

# ---- Shape ----
for name, value, shows in [
    ("null", "null", "null"), ("number", "1", "a number"), ("string", '"1"', "a string"), ("object", '{"0":1}', "an object"),
    ("float", "[1.0]", "a fraction"), ("exponent", "[1e0]", "an exponent"), ("minus-zero", "[-0]", "minus zero"),
    ("negative", "[-1]", "a negative number"), ("true", "[true]", "true"), ("text", '["1"]', "text"),
    ("inner-null", "[null]", "null inside"), ("nested", "[[1]]", "nested arrays"), ("over-u64", "[18446744073709551616]", "2^64"),
    ("over-i64", "[9223372036854775808]", "2^63"), ("second", "[1,1.5]", "a fraction behind a good one"),
    ("product", "[4294967296,4294967296]", "a product of 2^64"), ("bits", "[576460752303423488]", "2^59 elements of 32 bits"),
    ("left-to-right", "[4294967296,4294967296,0]", "a product of 2^64 before the zero"),
]:
    one(f"shape-{name}", ten(shape=value), SHAPE, f"a shape with {shows}")
one("shape-three-factors", ten(shape="[4194304,4194304,4194304]", offsets="[0,0]"), SHAPE, "three factors of 2^22, whose product ends in 64 zero bits", size=0)
one("shape-over-i64-zero", ten(shape="[0,9223372036854775808]", offsets="[0,0]"), SHAPE, "2^63 beside a zero, which the reference takes", size=0)
one("shape-u64-zero", ten(shape="[0,18446744073709551615]", offsets="[0,0]"), SHAPE, "2^64 - 1 beside a zero", size=0)
one("shape-i64-zero", ten(shape="[0,9223372036854775807]", offsets="[0,0]"), OK, "2^63 - 1 beside a zero", size=0)
one("shape-zero-first", ten(shape="[0,4294967296,4294967296]", offsets="[0,0]"), OK, "a zero before what would overflow", size=0)
one("shape-i64-then-zero", ten('"U8"', "[9223372036854775807,0]", "[0,0]"), OK, "2^63 - 1 before a zero", size=0)
one("shape-bits-f4", ten('"F4"', "[4611686018427387904]"), SHAPE, "2^62 elements of 4 bits are 2^64")

# ---- Offsets ----
for name, value, shows in [
    ("none", "[]", "none"), ("one", "[4]", "one"), ("three", "[0,4,4]", "three"), ("null", "null", "null"), ("string", '"0,4"', "a string"),
    ("object", '{"begin":0,"end":4}', "an object"), ("float", "[0.0,4.0]", "fractions"), ("exponent", "[0,4e0]", "an exponent"),
    ("negative", "[-4,0]", "a negative number"), ("minus-zero", "[-0,4]", "minus zero"), ("text", '["0","4"]', "text"),
    ("true", "[false,true]", "booleans"), ("over-u64", "[0,18446744073709551616]", "2^64"), ("nested", "[[0,4]]", "nested arrays"),
    ("backwards", "[4,0]", "the end before the begin"), ("hole-first", "[1,5]", "a hole before the first tensor"),
]:
    one(f"offsets-{name}", ten(offsets=value), OFFSETS, f"data_offsets: {shows}")


def two(name, first, second, status, shows, size=8):
    """Two U8 tensors with these offsets."""
    entries = [(n, b, e) for n, (b, e) in (("a", first), ("b", second))]
    text = ",".join(f'"{n}":' + ten('"U8"', f"[{max(e - b, 0)}]", f"[{b},{e}]") for n, b, e in entries)
    case(name, st("{" + text + "}", bytes_of(size)), status, shows)


two("offsets-hole", (0, 4), (5, 8), OFFSETS, "a hole between tensors")
two("offsets-overlap", (0, 5), (4, 8), OFFSETS, "an overlap")
two("offsets-same", (0, 8), (0, 8), OFFSETS, "two names on the same bytes")
two("offsets-inside", (0, 8), (2, 4), OFFSETS, "one tensor inside another")
two("offsets-reversed", (4, 8), (0, 4), OK, "the header's order is not the data's")
two("offsets-empty-at-end", (0, 8), (8, 8), OK, "an empty tensor at the end")
two("offsets-empty-at-begin", (0, 0), (0, 8), OK, "an empty tensor at the begin")
two("offsets-empty-last-in-header", (0, 8), (0, 0), OK, "an empty tensor at the begin, later in the header")
two("offsets-empty-inside", (0, 8), (4, 4), OFFSETS, "an empty tensor in the midst of another")
two("offsets-empty-behind", (0, 8), (9, 9), OFFSETS, "an empty tensor behind a hole")
two("offsets-second-backwards", (0, 8), (8, 4), OFFSETS, "the second ends before it begins")
two("offsets-huge", (0, 8), ((1 << 64) - 8, (1 << 64) - 1), OFFSETS, "offsets at the end of 64 bits")

# ---- Whole bytes, sizes ----
for dtype, good, bad in [("F4", 2, 3), ("F6_E2M3", 4, 1), ("F6_E2M3", 8, 6), ("F6_E3M2", 4, 2), ("F6_E3M2", 12, 3)]:
    bits = dict(DTYPES)[dtype]
    one(f"sub-byte-{dtype.lower()}-{bad}", ten(f'"{dtype}"', f"[{bad}]", f"[0,{bad * bits // 8 + 1}]"), SUB,
        f"{bad} elements of {dtype} are {bad * bits} bits", size=bad * bits // 8 + 1)
    one(f"whole-byte-{dtype.lower()}-{good}", ten(f'"{dtype}"', f"[{good}]", f"[0,{good * bits // 8}]"), OK,
        f"{good} elements of {dtype} are {good * bits} bits", size=good * bits // 8)
one("sub-byte-scalar", ten('"F4"', "[]", "[0,1]"), SUB, "one element of F4 is half a byte", size=1)
one("sub-byte-none", ten('"F4"', "[0]", "[0,0]"), OK, "no elements of F4 are no bits", size=0)
one("sub-byte-square", ten('"F4"', "[3,2]", "[0,3]"), OK, "rows of one and a half bytes, three bytes in all", size=3)
one("size-more", ten(offsets="[0,5]"), SIZE, "one byte more than the shape needs", size=5)
one("size-less", ten(offsets="[0,3]"), SIZE, "one byte less than the shape needs", size=3)
one("size-none", ten(offsets="[0,0]"), SIZE, "no bytes for one element", size=0)
one("size-of-empty", ten(shape="[0]", offsets="[0,4]"), SIZE, "bytes for no elements")
one("size-scalar", ten(shape="[]", offsets="[0,8]"), SIZE, "two elements' bytes for a scalar", size=8)

# ---- The file's end ----
one("end-missing-one", ten(), TRUNCATED, "the last byte is missing", size=3)
one("end-missing-all", ten(), TRUNCATED, "all data is missing", size=0)
one("end-exact", ten(), OK, "the data just fits")
for extra in (1, 4, 100):
    one(f"end-extra-{extra}", ten(), COVERED, f"{extra} bytes behind the last tensor", size=4 + extra,
        more=[("/tolerated", "trailing_bytes", OK)])
case("end-extra-no-tensors", st("{}", b"data"), COVERED, "data, and no tensors", more=[("/tolerated", "trailing_bytes", OK)])
one("end-exabytes", ten('"U8"', "[2305843009213693951]", "[0,2305843009213693951]"), TRUNCATED, "a tensor of 2^61 - 1 bytes")
BIG = (1 << 61) - 1
CHAIN = [(i * BIG, (i + 1) * BIG) for i in range(8)]
LEFT = (1 << 64) - 1 - 8 * BIG
CHAIN.append((8 * BIG, 8 * BIG + LEFT))
TEXT = "{" + ",".join(f'"{i}":' + ten('"U8"', f"[{e - b}]", f"[{b},{e}]") for i, (b, e) in enumerate(CHAIN)) + "}"
case("end-of-64-bits", st(TEXT, b"\0" * 7), TRUNCATED, "tensors up to 2^64 - 1")

# ---- Accepted: white space ----
SPACED = ' \t\r\n{ "w"\n:\t{ "dtype" : "F32" ,\r\n"shape"\t: [ 1 , 1 ] , "data_offsets" :[ 0\t,\n4 ] } ,"__metadata__" : { "k" : "v" } } \t\r\n'
case("space-everywhere", st(SPACED, D4), OK, "white space wherever JSON has it")
case("space-empty", st('{ "__metadata__":{ } , "w":{"dtype":"U8","shape":[ 0 , 0 ],"data_offsets":[0,0]} , "s":'
                       '{"dtype":"U8","shape":[ ],"data_offsets":[0,1]} }', b"x"), OK, "white space in what is empty")
case("space-before", st("        {" + W + "}", D4), OK, "eight spaces before the object")
case("space-behind", st("{" + W + "}" + " " * 61, D4), OK, "padding after the object")
case("space-page", st("{" + W + "}" + "\n" * (1024 - 8 - len(W) - 2), D4), OK, "padded until the data is aligned")
case("space-both", st("\n\n{}\t\t"), OK, "white space around no tensors")

# ---- Accepted: order ----
FIELDS = ['"dtype":"F32"', '"shape":[1]', '"data_offsets":[0,4]']
for a, b, c in ((0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)):
    case(f"order-fields-{a}{b}{c}", st('{"w":{' + ",".join((FIELDS[a], FIELDS[b], FIELDS[c])) + "}}", D4), OK, "fields in another order")
M = '"__metadata__":{"format":"pt"}'
for name, text in (("first", f"{M},{W}"), ("last", f"{W},{M}"), ("between", f'{W},{M},"v":{ten(offsets="[4,8]")}')):
    case(f"order-metadata-{name}", st("{" + text + "}", bytes_of(8 if name == "between" else 4)), OK, f"__metadata__ {name}")
SHUFFLED = [7, 2, 9, 0, 4, 1, 8, 3, 6, 5]
case("order-tensors", st("{" + ",".join(f'"t{i}":' + ten('"U8"', f"[{i + 1}]", f"[{i * (i + 1) // 2},{(i + 1) * (i + 2) // 2}]")
                                         for i in SHUFFLED) + "}", bytes_of(55)), OK, "ten tensors, shuffled in the header")

# ---- Accepted: names ----
for name, raw, shows in [
    ("empty", "", "the empty name"), ("escapes", '\\"\\\\\\/\\b\\f\\n\\r\\t', "all short escapes"), ("u-escape", "\\u0041\\u00e9\\u4e2d", "escaped letters"),
    ("surrogates", "\\ud83d\\ude00", "a surrogate pair"), ("surrogates-case", "\\uD83D\\uDe00x", "a surrogate pair in capitals"),
    ("nul", "a\\u0000b", "NUL within"), ("nul-only", "\\u0000", "NUL alone"), ("nul-first", "\\u0000a", "NUL first"),
    ("controls", "\\u0001\\u001b[31m\\u001f", "a terminal's escape sequence"), ("del", "\x7f", "DEL, which needs no escape"),
    ("c1", "\\u0085\u0085\u009b", "C1 controls"), ("unicode", "\u00e9\u4e2d\U0001f600", "two, three and four bytes"),
    ("last-character", "\U0010ffff\\udbff\\udfff", "U+10FFFF, raw and escaped"), ("noncharacter", "\uffff\\uffff\\ufffe", "noncharacters"),
    ("bidi", "\u202eabc\u2066", "bidirectional overrides"), ("replacement", "\ufffd", "the replacement character"),
    ("bom", "\ufeffw", "a byte order mark within a name"), ("metadata-like", "__metadata__x", "a name that begins like __metadata__"),
    ("metadata-case", "__METADATA__", "a name in other case than __metadata__"), ("slash", "../../etc/passwd", "a path"),
    ("field", "dtype", "a field's name"), ("dash", "-", "a dash"), ("long", "layer." * 150, "900 bytes"),
    ("shifted", "\\n\u00e9\\t\u4e2d\\u0041\U0001f600", "characters moved by escapes before them"),
]:
    case(f"name-{name}", st('{"' + raw + '":' + ten() + "}", D4), OK, shows)
case("name-near", st("{" + ",".join(f'"{n}":' + ten('"U8"', "[0]", "[0,0]") for n in ("a", "A", "a ", " a", "aa", "\\u0000a", "a\\u0000"))
                     + "}"), OK, "names that differ little")
case("name-metadata-escaped", st('{"\\u005f_metadata__":{"k":"v"},' + W + "}", D4), OK, "__metadata__ spelled with an escape")

# ---- Accepted: shapes ----
one("shape-scalar", ten(shape="[]"), OK, "a scalar")
one("shape-rank-40", ten(shape="[" + ",".join(["1"] * 40) + "]"), OK, "40 dimensions")
one("shape-zero", ten(shape="[3,0,5]", offsets="[0,0]"), OK, "a dimension of 0", size=0)
one("shape-3d", ten('"U8"', "[2,3,4]", "[0,24]"), OK, "three dimensions", size=24)
EMPTY = ",".join(f'"e{i}":' + ten('"F64"', f"[0,{i}]", "[4,4]") for i in range(5))
case("shape-empty-shared", st("{" + EMPTY + "," + W + ',"v":' + ten(offsets="[4,8]") + "}", bytes_of(8)), OK,
     "five empty tensors at one offset between two others")
case("shape-empty-all", st("{" + EMPTY.replace("[4,4]", "[0,0]") + "}"), OK, "empty tensors, and no data at all")
AT, ROWS = 0, []
for dtype, bits in DTYPES:
    ROWS.append(f'"{dtype}":' + ten(f'"{dtype}"', "[2,4]", f"[{AT},{AT + bits}]"))
    AT += bits
case("dtypes-all", st("{" + ",".join(ROWS) + "}", bytes_of(AT)), OK, "every dtype, eight elements each")
one("unaligned", ten('"F64"', "[1]", "[0,8]"), OK, "data that begins at an odd offset", size=8)

# ---- Accepted: unknown fields, metadata ----
for name, value in [
    ("null", "null"), ("bool", "true"), ("number", "-12.5E-3"), ("big-number", "123456789012345678901234567890"), ("tiny-number", "1e-400"),
    ("string", '"\\u0000\\n"'), ("array", "[1,[],{}]"), ("object", '{"a":1,"a":2,"":{"dtype":0}}'),
    ("nesting", "[" * 125 + "]" * 125), ("objects", '{"":' * 125 + "0" + "}" * 125), ("minus-zero", "-0"),
]:
    one(f"field-{name}", ten(more=f',"x":{value}'), OK, "an unknown field is ignored")
one("field-first", '{"x":1,' + ten()[1:], OK, "an unknown field before the others")
one("field-twice", ten(more=',"x":1,"x":2,"":0'), OK, "an unknown field may appear twice")
for name, value in [("null", "null"), ("empty", "{}"), ("one", '{"format":"pt"}'), ("odd", '{"":"","\\u0000":"\\u0000x","\u4e2d":"\\ud83d\\ude00"}'),
                    ("json", '{"config":"{\\"a\\": [1, 2]}"}'), ("like-tensor", '{"dtype":"F32","shape":"[1]","w":"w"}')]:
    case(f"metadata-is-{name}", st('{"__metadata__":' + value + "," + W + "}", D4), OK, f"metadata is {name}")
case("metadata-alone", st('{"__metadata__":{"a":"b"}}'), OK, "metadata, no tensors")
case("metadata-null-alone", st('{"__metadata__":null}'), OK, "null metadata, no tensors")
case("nothing", st("{}"), OK, "no tensors, no metadata")
case("nothing-padded", st("{}      "), OK, "what the reference writes for no tensors")

# ---- A valid file cut everywhere that matters ----
WHOLE = st('{"__metadata__":{"k":"v"},"w":' + ten() + ',"v":' + ten('"U8"', "[4]", "[4,8]") + "}  ", bytes_of(8))
END = len(WHOLE) - 8
for at, status in [(3, TRUNCATED), (8, LENGTH), (9, LENGTH), (40, LENGTH), (END - 1, LENGTH), (END, TRUNCATED), (END + 1, TRUNCATED),
                   (END + 4, TRUNCATED), (END + 5, TRUNCATED), (END + 7, TRUNCATED), (END + 8, OK)]:
    case(f"cut-at-{at}", WHOLE[:at], status, f"the first {at} of {len(WHOLE)} bytes", more=[("/trailing", "trailing_bytes", status)])

# ---- Two rules broken in one file: the earlier is reported, wherever it stands ----
# Rule, entry that begins at b, and where it ends.
BROKEN = [
    (DUP, lambda b: W, 0), (META, lambda b: '"__metadata__":{"k":1}', 0),
    (DTYPE, lambda b: '"d":' + ten('"NOPE"', offsets=f"[{b},{b + 4}]"), 4),
    (SHAPE, lambda b: '"s":' + ten(shape="[-1]", offsets=f"[{b},{b + 4}]"), 4),
    (OFFSETS, lambda b: '"o":' + ten(offsets=f"[{b + 1},{b + 5}]"), 5),
    (SUB, lambda b: '"b":' + ten('"F4"', "[1]", f"[{b},{b + 1}]"), 1),
    (SIZE, lambda b: '"z":' + ten(offsets=f"[{b},{b + 3}]"), 3),
]
for i, (first, early, end) in enumerate(BROKEN):
    for second, late, _ in BROKEN[i + 1:]:
        name = f"{first[9:]}-and-{second[9:]}".lower().replace("_", "-")
        pair = early(4), late(4 + end)
        case(f"both-{name}", st("{" + ",".join((W, *pair)) + "}", D4), first, "two rules broken, the earlier one first")
        case(f"both-{name}-swapped", st("{" + ",".join((W, *pair[::-1])) + "}", D4), first, "two rules broken, the earlier one last")
case("both-json-and-duplicate", st("{" + W + "," + W + ",}", D4), JSON, "an equal name before a syntax error")
case("both-json-entry-and-metadata", st('{"__metadata__":1,"w":null}', D4), JSON, "wrong metadata before an entry that is none")
case("both-size-and-truncated", st('{"w":' + ten(offsets="[0,400]") + "}", D4), SIZE, "a wrong size, beyond the file's end")
case("both-sub-byte-and-covered", st('{"w":' + ten('"F4"', "[3]", "[0,2]") + "}", bytes_of(9)), SUB, "half a byte, and bytes left over")
case("both-one-entry", st('{"w":' + ten('"NOPE"', "[-1]", "[7,3]", ',"x":0') + "}", D4), DTYPE, "one entry with three faults",
     more=[("/tolerated", "unknown_dtype", SHAPE)])
case("both-offsets-hole-and-malformed", st('{"a":' + ten(offsets="[4,8]") + ',"b":' + ten(offsets="[8]") + "}", bytes_of(8)), OFFSETS,
     "a hole, and offsets that are none")
case("both-header-start-and-length", st("[]", length=100), LENGTH, "the length is checked before the first byte")
case("both-limit-and-length", st("[]", length=100, data=b""), LENGTH, "lengths only", more=[("/limit", "max_header_size=99", LARGE)])
