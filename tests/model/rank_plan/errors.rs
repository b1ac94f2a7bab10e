// SPDX-License-Identifier: Apache-2.0
//! Every error of the language, with what its message has to name; the order
//! in which they are told; and that what fails on one rank fails on all.

use std::path::Path;

use super::checkpoint::{one_file, Listed};
use super::plan::{Given, Opened, Plan};

type Axes<'a> = &'a [(&'a str, i64, i64)];

fn tensors() -> Vec<Listed> {
    vec![
        Listed::new("a.bias", "BF16", &[12]),
        Listed::new("a.weight", "BF16", &[12, 4]),
        Listed::new("m.0.w", "F32", &[6, 4]),
        Listed::new("m.1.w", "F32", &[6, 4]),
        Listed::new("nibbles", "F4", &[4, 12]),
        Listed::new("q.codes", "U8", &[8, 6]),
        Listed::new("q.scales", "F16", &[8, 3]),
    ]
}

struct Bench {
    _folder: tempfile::TempDir,
    opened: Opened,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let opened = Opened::new(&one_file(folder.path(), &tensors()));
        Self { _folder: folder, opened }
    }

    /// The message of what must fail, which is the same for every rank of these axes.
    fn message(&self, given: &Given, axes: Axes<'_>) -> String {
        let ask = |rank: Option<i64>| {
            let axes: Vec<_> = axes.iter().map(|(name, own, size)| (*name, rank.unwrap_or(*own), *size)).collect();
            let failure = match Plan::new(&self.opened, given) {
                Err(failure) => failure,
                Ok(plan) => match plan.parts(&axes) {
                    Err(failure) => failure,
                    Ok(parts) => panic!("{given:?} {axes:?} gives {parts:?}"),
                },
            };
            assert_eq!(failure.status(), "ST_ERROR_PLAN", "{}", failure.message);
            failure.message
        };
        let own = ask(None);
        let sizes = axes.iter().map(|(_, rank, size)| if (0..*size).contains(rank) { *size } else { 0 });
        // What is wrong with ranks themselves names them.
        for rank in (0..sizes.min().unwrap_or(1)).filter(|_| !own.contains("rank ")) {
            assert_eq!(ask(Some(rank)), own);
        }
        own
    }

    fn fails(&self, rules: &str, axes: Axes<'_>, wanted: &[&str]) {
        let message = self.message(&Given::plan(&format!(r#"{{"format": 1, {rules}}}"#)), axes);
        assert!(message.starts_with(&format!("{}: ", wanted[0])), "{wanted:?} wanted: {message}");
        for fact in wanted {
            assert!(message.contains(fact), "{fact} is not in {message}");
        }
    }
}

const TP2: Axes<'_> = &[("tp", 1, 2)];
const TP5: Axes<'_> = &[("tp", 4, 5)];

#[test]
fn every_error_names_its_facts() {
    let bench = Bench::new();
    let rule = |axes: Axes<'_>, rule: &str, wanted: &[&str]| {
        bench.fails(&format!(r#""rules": [{{"axis": "tp", {rule}}}]"#), axes, wanted);
    };
    let weight = r#""match": "a.weight""#;
    rule(TP2, &format!(r#"{weight}, "cut": 0, "heds": 3"#), &["PLAN_SYNTAX", "plan 0 rule 0", "heds", "heads"]);
    rule(&[("tp", 2, 2)], &format!(r#"{weight}, "whole": true"#), &["AXIS", "\"tp\"", "rank 2", "2 ranks"]);
    rule(&[("tp", -1, 2)], &format!(r#"{weight}, "whole": true"#), &["AXIS", "\"tp\"", "rank -1"]);
    rule(&[("tp", 0, 0)], &format!(r#"{weight}, "whole": true"#), &["AXIS", "\"tp\"", "0 ranks"]);
    rule(&[("tp", 1, 2), ("tp", 0, 2)], &format!(r#"{weight}, "whole": true"#), &["AXIS", "\"tp\"", "twice"]);
    rule(&[("dp", 0, 2)], &format!(r#"{weight}, "whole": true"#), &["AXIS", "\"dp\"", "2 ranks"]);
    rule(TP2, &format!(r#"{weight}, "on": [0, -3]"#), &["AXIS", "\"tp\"", "-3", "2 ranks", "a.weight", "rule 0"]);
    rule(TP2, &format!(r#"{weight}, "cut": 0, "unit": "n_hed""#), &["SYMBOL", "n_hed", "rule 0", "a.weight"]);
    rule(TP2, &format!(r#"{weight}, "cut": 0, "unit": "9 / 2""#), &["EXPRESSION", "9 / 2", "rule 0"]);
    rule(TP2, &format!(r#"{weight}, "cut": 0, "unit": "9 / 0""#), &["EXPRESSION", "9 / 0", "rule 0"]);
    rule(TP2, &format!(r#"{weight}, "cut": 0, "pad": 0"#), &["EXPRESSION", "pad", "rule 0", "a.weight"]);
    rule(TP2, &format!(r#"{weight}, "cut": 0, "repeat": "$tp / 2 - 1""#), &["PLAN_SYNTAX", "$tp / 2 - 1"]);
    rule(TP2, &format!(r#"{weight}, "cut": 0, "unit": 99999999999999999999"#), &["EXPRESSION", "9223372036854775807"]);
    rule(TP2, &format!(r#"{weight}, "cut": 0, "pad": "999999999999999999 * 99""#), &["EXPRESSION", "rule 0"]);
    rule(TP2, r#""match": "b.*", "whole": true"#, &["RULE_UNUSED", "plan 0 rule 0", "b.*"]);
    rule(TP2, &format!(r#"{weight}, "cut": 2"#), &["DIMENSION", "a.weight", "2", "rule 0"]);
    rule(TP2, &format!(r#"{weight}, "cut": 0, "segments": 5"#), &["SEGMENTS", "a.weight", "12", "5"]);
    let listed = r#""cut": 0, "segments": [{"size": 4}, {"size": 3}]"#;
    rule(TP2, &format!(r#"{weight}, {listed}"#), &["SEGMENTS", "a.weight", "12", "4 + 3"]);
    rule(TP2, &format!(r#"{weight}, "cut": 0, "unit": 5"#), &["UNIT", "a.weight", "12", "5"]);
    rule(TP2, &format!(r#"{weight}, "cut": 0, "unit": 0"#), &["UNIT", "a.weight", "12", "0"]);
    rule(TP2, &format!(r#"{weight}, "cut": 0, "heads": 5"#), &["UNIT", "a.weight", "12", "5 heads"]);
    rule(TP5, &format!(r#"{weight}, "cut": 0"#), &["INDIVISIBLE", "a.weight", "12 units", "5 ranks"]);
    let copies = r#""cut": 0, "heads": 3, "split": "replicate""#;
    rule(TP5, &format!(r#"{weight}, {copies}"#), &["INDIVISIBLE", "a.weight", "3 units", "5 ranks"]);
    let counts = r#""cut": 0, "split": {"counts": [5, 6]}"#;
    rule(TP2, &format!(r#"{weight}, {counts}"#), &["SPLIT", "a.weight", "11", "12"]);
    rule(TP5, &format!(r#"{weight}, {counts}"#), &["SPLIT", "a.weight", "2 counts", "5 ranks"]);
    for (lists, fact) in [("[[0, 1], [2, 3, 9]]", "9"), ("[[0, 1, 0], [2, 3]]", "0 twice"), ("[[0, 1], [3]]", "2 of 4")]
    {
        let lists = format!(r#""cut": 1, "split": {{"lists": {lists}}}"#);
        rule(TP2, &format!("{weight}, {lists}"), &["SPLIT", "a.weight", fact, "4 units"]);
    }
    rule(TP2, r#""match": "m.*.w", "pick": 1, "split": {"counts": [1, 2]}"#, &["SPLIT", "m.0.w", "3", "2 units"]);
    rule(TP5, r#""match": "m.*.w", "pick": 1"#, &["INDIVISIBLE", "m.0.w", "2 units", "5 ranks"]);
    rule(&[("tp", 3, 4)], r#""match": "nibbles", "cut": 1"#, &["SUB_BYTE", "nibbles", "3"]);

    let weight = r#""rules": [{"match": "q.weight", "axis": "tp", "cut": 1}]"#;
    let codes = r#"{"match": "q.codes", "as": "q.weight", "dims": [{"dim": 0}, {"dim": 1, "pack": 8}]}"#;
    bench.fails(&format!(r#"{weight}, "stored": [{codes}]"#), &[("tp", 3, 4)], &["PACKED", "q.codes", "12", "8"]);
    let three = r#"{"match": "q.codes", "as": "q.weight", "dims": [null, null, {"dim": 1}]}"#;
    bench.fails(&format!(r#"{weight}, "stored": [{three}]"#), TP2, &["STORED", "stored 0", "q.codes", "2", "3"]);
    let scales = |how: &str| {
        format!(r#"{{"match": "q.scales", "as": "q.weight", "dims": [{{"dim": 0}}, {{"dim": 1, {how}}}]}}"#)
    };
    let both = |how: &str| format!(r#"{weight}, "stored": [{codes}, {}]"#, scales(how));
    bench.fails(&both(r#""pack": 8"#), TP2, &["STORED", "q.scales", "q.weight", "dimension 1", "24", "48"]);
    bench.fails(&both(r#""block": 32"#), TP2, &["STORED", "q.scales", "q.weight", "dimension 1", "3", "48", "2"]);
    bench.fails(&both(r#""block": 0"#), TP2, &["EXPRESSION", "stored 1", "block"]);
    let alone = format!(r#"{weight}, "stored": [{}]"#, scales(r#""block": 8"#));
    bench.fails(&alone, TP2, &["DIMENSION", "q.scales", "1", "rule 0"]);

    let twice = r#""rules": [{"match": "a.*", "axis": "tp", "cut": 0}, {"match": "**", "axis": "ep", "cut": 0}]"#;
    bench.fails(twice, TP2, &["CUT_TWICE", "a.bias", "0", "\"tp\"", "\"ep\""]);
    let strict = r#""strict": ["tp"], "rules": [{"match": "a.*", "axis": "tp", "whole": true}]"#;
    bench.fails(strict, &[], &["UNMATCHED", "m.0.w", "\"tp\""]);
    let circle = r#""symbols": {"x": "2 * y", "y": "z", "z": "x"}"#;
    bench.fails(
        &format!(r#"{circle}, {}"#, r#""rules": [{"match": "m.*.w", "axis": "tp", "cut": 0, "unit": "x"}]"#),
        TP2,
        &["SYMBOL", "circle", "x", "rule 0"],
    );
}

#[test]
fn of_several_errors_the_first_is_told() {
    let bench = Bench::new();
    // From the last to the first: each next plan has one more that comes before.
    let unmatched = r#""strict": ["pp"]"#;
    let cut = r#"{"match": "a.bias", "axis": "tp", "cut": 0, "unit": 5}"#;
    let pick = r#"{"match": "m.*.w", "axis": "pp", "pick": 1}"#;
    bench.fails(&format!(r#"{unmatched}, "rules": [{cut}, {pick}]"#), TP2, &["UNIT", "a.bias"]);
    bench.fails(&format!(r#"{unmatched}, "rules": [{pick}, {cut}]"#), TP2, &["UNMATCHED", "a.bias", "pp"]);
    let unused = r#"{"match": "b", "axis": "tp", "whole": true}"#;
    bench.fails(&format!(r#"{unmatched}, "rules": [{pick}, {cut}, {unused}]"#), TP2, &["RULE_UNUSED", "rule 2"]);
    let stored = r#""stored": [{"match": "q.codes", "as": "q", "dims": [{"dim": 0, "pack": "x"}]}]"#;
    bench.fails(&format!(r#"{unmatched}, "rules": [{pick}, {unused}], {stored}"#), TP2, &["SYMBOL", "x", "stored 0"]);
    let axes: Axes<'_> = &[("tp", 0, 2), ("dp", 0, 2)];
    bench.fails(&format!(r#"{unmatched}, "rules": [{pick}, {unused}], {stored}"#), axes, &["AXIS", "dp"]);
    bench.fails(&format!(r#"{unmatched}, "rules": [{pick}, {unused}], {stored}, "x": 1"#), axes, &["PLAN_SYNTAX", "x"]);
}

#[test]
fn texts_that_are_no_plans_say_where() {
    let bench = Bench::new();
    let wrong: [(&str, &str); 22] = [
        ("[1]", "plan 0"),
        ("{\"format\": 2}", "2"),
        ("{\"format\": 1} 1", "plan 0"),
        ("{\"format\": 1, \"about\": {\"a\": 1, \"a\": 2}}", "'a' appears twice"),
        ("{\"format\": 1, \"rules\": [[\"a\", \"tp\"]]}", "rule 0"),
        ("{\"format\": 1, \"rules\": {}}", "plan 0"),
        ("{\"format\": 1, \"rules\": null}", "plan 0"),
        ("{\"format\": 1, \"symbols\": {\"a\": 1, \"a\": 1}}", "twice"),
        ("{\"format\": 1, \"symbols\": {\"a\": \"b c\"}}", "b c"),
        ("{\"format\": 1, \"strict\": [\"TP\"]}", "TP"),
        ("{\"format\": 1, \"rules\": [{\"match\": \"a\", \"axis\": \"tp\", \"whole\": false}]}", "rule 0"),
        ("{\"format\": 1, \"rules\": [{\"match\": \"a\", \"axis\": \"tp\", \"cut\": 0, \"heads\": null}]}", "rule 0"),
        ("{\"format\": 1, \"rules\": [{\"match\": \"a\", \"axis\": \"tp\", \"cut\": 0, \"unit\": -1}]}", "rule 0"),
        ("{\"format\": 1, \"rules\": [{\"match\": \"a\", \"axis\": \"tp\", \"cut\": 0, \"unit\": 1.0}]}", "rule 0"),
        ("{\"format\": 1, \"rules\": [{\"match\": \"a\", \"axis\": \"tp\", \"cut\": 0, \"of\": 1}]}", "of"),
        ("{\"format\": 1, \"rules\": [{\"match\": \"a.**.**\", \"axis\": \"tp\", \"whole\": true}]}", "**"),
        ("{\"format\": 1, \"rules\": [{\"match\": \"a.***\", \"axis\": \"tp\", \"whole\": true}]}", "***"),
        ("{\"format\": 1, \"rules\": [{\"match\": [\"*\", \"**\"], \"axis\": \"tp\", \"pick\": 1}]}", "pick 1"),
        ("{\"format\": 1, \"rules\": [{\"match\": \"a\", \"axis\": \"tp\", \"cut\": 0, \"split\": \"whole\"}]}", "whole"),
        ("{\"format\": 1, \"rules\": [{\"match\": \"a\", \"axis\": \"tp\", \"cut\": 0, \"split\": {}}]}", "counts"),
        ("{\"format\": 1, \"rules\": [{\"match\": \"a\", \"axis\": \"tp\", \"cut\": 0, \"unit\": 1, \"segments\": [{\"size\": 1}]}]}", "segments"),
        ("{\"format\": 1, \"stored\": [{\"match\": \"a\", \"as\": \"a\", \"dims\": [{\"dim\": 0, \"pack\": 1, \"block\": 1}]}]}", "stored 0"),
    ];
    for (text, fact) in wrong {
        let message = bench.message(&Given::plan(text), &[]);
        assert!(message.starts_with("PLAN_SYNTAX: plan 0") && message.contains(fact), "{fact}: {message}");
    }
    let deep = format!("{{\"format\": 1, \"about\": {}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(bench.message(&Given::plan(&deep), &[]).starts_with("PLAN_SYNTAX: "));
    let long = format!("{{\"format\": 1, \"about\": \"{}\"}}", "a".repeat(16 << 20));
    assert!(bench.message(&Given::plan(&long), &[]).contains("16777216"));
}

/// 2^63 - 1 ranks, and dimensions and segments of no bytes: closed forms, or a refusal, at once.
#[test]
fn sizes_that_no_machine_has_take_no_time() {
    let folder = tempfile::tempdir().unwrap();
    let huge = (1_u64 << 62) - 1;
    let tensors = [Listed::new("b", "F4", &[0, huge]), Listed::new("z", "F32", &[huge, 0])];
    let path: &Path = &folder.path().join("huge.safetensors");
    let entry = |tensor: &Listed| {
        format!(r#""{}":{{"dtype":"{}","shape":{:?},"data_offsets":[0,0]}}"#, tensor.name, tensor.dtype, tensor.shape)
    };
    let header = format!("{{{}}}", tensors.iter().map(entry).collect::<Vec<_>>().join(","));
    std::fs::write(path, crate::support::file(header, &[])).unwrap();
    let opened = Opened::new(path);
    let ask = |rule: &str, size: i64| {
        let plan = format!(r#"{{"format": 1, "rules": [{{"match": "z", "axis": "tp", {rule}}}]}}"#);
        Plan::new(&opened, &Given::plan(&plan)).unwrap().parts(&[("tp", size - 1, size)])
    };
    for size in [1_i64 << 40, i64::MAX] {
        for split in ["ceil", "balanced", "robin"] {
            let parts = ask(&format!(r#""cut": 0, "split": "{split}""#), size).unwrap();
            assert_eq!((parts.len(), parts[1].size), (2, 0), "{split}");
        }
        assert_eq!(ask(r#""on": [-1]"#, size).unwrap().len(), 2);
        assert_eq!(ask(r#""on": [0]"#, size).unwrap().len(), 1);
        assert!(ask(r#""cut": 0"#, size).unwrap_err().message.starts_with("INDIVISIBLE: "));
    }
    for rule in [r#""cut": 0, "split": "robin""#, r#""cut": 0, "segments": 4611686018427387903"#] {
        assert_eq!(
            ask(rule, 2).unwrap_err().status(),
            if rule.contains("robin") { "ST_ERROR_UNSUPPORTED" } else { "ST_ERROR_PLAN" }
        );
    }
    assert_eq!(
        ask(r#""cut": 0, "split": "ceil", "segments": 4611686018427387903"#, 2).unwrap_err().status(),
        "ST_ERROR_UNSUPPORTED"
    );
    let parts = ask(r#""cut": 1, "segments": 4611686018427387903"#, 2).unwrap();
    assert_eq!((parts[1].size, parts[1].pieces[1].as_ref()), (0, None));
}

#[test]
fn symbols_may_stand_for_others_to_any_depth() {
    let bench = Bench::new();
    let chain: Vec<_> = (0..20_000).map(|n| format!(r#""s{n}": "s{}""#, n + 1)).collect();
    let plan = |last: &str| {
        let rule = r#"{"match": "a.*", "axis": "tp", "cut": 0, "unit": "s0"}"#;
        format!(r#"{{"format": 1, "symbols": {{{}, "s20000": {last}}}, "rules": [{rule}]}}"#, chain.join(","))
    };
    let parts = Plan::new(&bench.opened, &Given::plan(&plan("6"))).unwrap().parts(TP2).unwrap();
    assert_eq!(parts[0].shape, [6]);
    assert!(bench.message(&Given::plan(&plan("\"s7\"")), TP2).starts_with("SYMBOL: "));
}
