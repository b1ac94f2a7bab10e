// SPDX-License-Identifier: Apache-2.0

use super::string::plain_len;
use super::*;
use proptest::prelude::*;

/// Our verdict on `text` as one value.
fn accepts(text: &[u8], depth: u32) -> bool {
    let mut copy = text.to_vec();
    let mut cursor = Cursor::new(&mut copy);
    let found = cursor.skip_value(depth);
    cursor.skip_space();
    found.is_ok() && cursor.at_end()
}

fn serde_accepts(text: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Value>(text).is_ok()
}

#[test]
fn plain_len_stops_at_each_special_byte() {
    for at in 0..40 {
        for byte in 0..=255_u8 {
            let mut text = [b'a'; 40];
            text[at] = byte;
            let special = !(0x20..0x80).contains(&byte) || byte == b'"' || byte == b'\\';
            assert_eq!(plain_len(&text), if special { at } else { 40 }, "{byte:#x} at {at}");
        }
    }
}

#[test]
fn depth_limit_is_serde_jsons() {
    for depth in [1, 2, 126, 127, 128, 129] {
        let text = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(accepts(text.as_bytes(), 0), serde_accepts(text.as_bytes()), "{depth}");
    }
}

#[test]
fn numbers_are_judged_as_serde_json_judges_them() {
    for text in [
        "0",
        "-0",
        "01",
        "-",
        "1.",
        ".5",
        "1.5",
        "1e5",
        "1E+5",
        "1e-5",
        "1e",
        "1e400",
        "-1e400",
        "1e-400",
        "18446744073709551616",
        "1.7976931348623157e308",
        "1.7976931348623159e309",
        "00",
        "1 2",
        "+1",
        "0x1",
        "NaN",
        "Infinity",
        "--1",
        "1e+",
        "123456789012345678901234567890",
    ] {
        assert_eq!(accepts(text.as_bytes(), 0), serde_accepts(text.as_bytes()), "{text}");
    }
    let long = "9".repeat(400);
    assert_eq!(accepts(long.as_bytes(), 0), serde_accepts(long.as_bytes()));
}

#[test]
fn strings_come_out_as_serde_json_reads_them() {
    for text in [
        r#""a\u0041\n\"\\\/\b\f\r\tz""#,
        r#""\ud83d\ude00x""#,
        "\"\\u0000é\\u00e9\u{1F600}\"",
        r#""\ud800""#,
        r#""\udc00""#,
        r#""\ud800\u0041""#,
        r#""\x""#,
        r#""\u12g4""#,
        "\"a\nb\"",
        r#"""#,
        "\"\u{7f}\"",
        r#""\u""#,
        r#""\ud83d\u""#,
    ] {
        let mut copy = text.as_bytes().to_vec();
        let mut cursor = Cursor::new(&mut copy);
        assert!(cursor.take(b'"'));
        let ours = cursor.string().ok().map(|string| {
            assert_eq!(cursor.text.get(string.start + string.len), Some(&0), "terminated");
            String::from_utf8(cursor.get(string).to_vec()).unwrap()
        });
        assert_eq!(ours, serde_json::from_str::<String>(text).ok(), "{text}");
        assert!(std::str::from_utf8(&copy).is_ok(), "the text stays UTF-8");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn any_text_gets_serde_jsons_verdict(text in r#"[\[\]{},:"\\ \nu0-9dD8cC.eE+\-atrufalsn/é]{0,24}"#) {
        prop_assert_eq!(accepts(text.as_bytes(), 0), serde_accepts(text.as_bytes()), "{}", text);
    }

    #[test]
    fn any_mutation_gets_serde_jsons_verdict(at in 0_usize..90, byte: u8) {
        let mut text = br#" {"a\u00e9": [1, -2.5e3, true, null, {"b": "c\ud83d\ude00", "": []}], "d": {}, "e" : false} "#.to_vec();
        let at = at.min(text.len() - 1);
        text[at] = byte;
        prop_assert_eq!(accepts(&text, 0), serde_accepts(&text), "{:?}", String::from_utf8_lossy(&text));
    }
}
