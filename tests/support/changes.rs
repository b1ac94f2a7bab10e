// SPDX-License-Identifier: Apache-2.0
//! Small changes to bytes that mostly are JSON, for property tests.

use proptest::collection::vec;
use proptest::prelude::*;

/// How many cases each property has: so many, or PROPTEST_CASES.
pub(crate) fn config(cases: u32) -> ProptestConfig {
    let given = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    ProptestConfig { cases: given.unwrap_or(cases), failure_persistence: None, ..ProptestConfig::default() }
}

/// What is worth putting into JSON, beyond single bytes.
const TOKENS: &[&str] = &[
    "\"dtype\":",
    "\"shape\":",
    "\"data_offsets\":",
    "\"__metadata__\":",
    "\\u0000",
    "\\ud800",
    "\\udc00",
    "\\ud83d\\ude00",
    "\\u00e9",
    "\\n",
    "\\",
    "\"",
    "é",
    "\u{1f600}",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "{}",
    "[]",
    "null",
    "true",
    "0",
    "1",
    "4",
    "-0",
    "-1",
    "1.0",
    "1e0",
    "1e400",
    "01",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "\"F32\"",
    "\"F4\"",
    "\"U8\"",
    "\"f32\"",
    "[0,4]",
    "[4,8]",
    "[1]",
    "[0]",
    "{\"F32\":null}",
    "[\"F32\",[1],[0,4]]",
    "\"w\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},",
    "\"__metadata__\":{},",
    "\"__metadata__\":null,",
    "\"k\":\"v\"",
    " ",
    "\n",
    "\t",
    "\u{feff}",
    "\u{0}",
    "\u{1f}",
    "\u{7f}",
];

/// One change: what kind, where, and with what.
pub(crate) type Change = (u8, prop::sample::Index, prop::sample::Index, u8);

pub(crate) fn change(bytes: &mut Vec<u8>, (kind, at, with, byte): &Change) {
    if bytes.is_empty() {
        return bytes.push(*byte);
    }
    let place = at.index(bytes.len());
    let len = with.index(12).min(bytes.len() - place);
    let token = TOKENS[with.index(TOKENS.len())].bytes();
    match kind % 8 {
        0 => bytes[place] ^= 1 << (byte % 8),
        1 => bytes[place] = *byte,
        2 => bytes.insert(place, *byte),
        3 => drop(bytes.drain(place..place + len)),
        4 => {
            let copy = bytes[place..place + len].to_vec();
            let to = with.index(bytes.len());
            bytes.splice(to..to, copy);
        }
        5 => drop(bytes.splice(place..place, token)),
        6 => drop(bytes.splice(place..place + len, token)),
        _ => {
            let other = with.index(bytes.len());
            bytes.swap(place, other);
        }
    }
}

pub(crate) fn changes() -> impl Strategy<Value = Vec<Change>> {
    vec((any::<u8>(), any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 0..5)
}
