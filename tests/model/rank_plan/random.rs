// SPDX-License-Identifier: Apache-2.0
//! Random checkpoints and plans, on several axes at once, against the language
//! written down again: parts, bytes and the names of errors.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{json, Value};

use super::checkpoint::{counted, one_file, three_files, Listed};
use super::language::{Pieces, Question};
use super::plan::{load, Given, Opened, Part, Plan};

/// A source of numbers (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }

    /// True once in so many times.
    fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize].clone()
    }
}

/// The numbers of a model.
struct Model {
    heads: u64,
    kv: u64,
    size: u64,
    inter: u64,
    vocab: u64,
    layers: u64,
    experts: u64,
}

fn question(dice: &mut Dice) -> Question {
    let kv = dice.pick(&[1, 2, 3, 4]);
    let model = Model {
        kv,
        heads: kv * dice.pick(&[1, 2, 3]),
        size: dice.pick(&[2, 4]),
        inter: dice.pick(&[6, 8, 12]),
        vocab: dice.pick(&[5, 8, 11, 12]),
        layers: 1 + dice.below(3),
        experts: dice.pick(&[2, 3, 4, 6]),
    };
    let Model { heads, kv, size, inter, vocab, layers, experts } = model;
    let hidden = dice.pick(&[4, 8]);
    let packed = dice.one_in(2);
    let mut tensors = vec![Listed::new("embed.w", "BF16", &[vocab, hidden]), Listed::new("norm.w", "F32", &[hidden])];
    if dice.one_in(2) {
        tensors.push(Listed::new("head.w", "BF16", &[vocab, hidden]));
    }
    for layer in 0..layers {
        let mut add = |name: &str, dtype: &str, shape: &[u64]| {
            tensors.push(Listed::new(&format!("l.{layer}.{name}"), dtype, shape));
        };
        add("qkv.w", "F16", &[(heads + 2 * kv) * size, hidden]);
        add("qkv.b", "F32", &[(heads + 2 * kv) * size]);
        add("o.w", "F32", &[hidden, heads * size]);
        add("up.w", "F4", &[2 * inter, hidden]);
        add("in_norm.w", "F32", &[hidden]);
        if packed {
            add("down.codes", "I32", &[hidden, inter / 2]);
            add("down.scales", "F16", &[hidden.div_ceil(3), inter.div_ceil(4)]);
        } else {
            add("down.w", "U8", &[hidden, inter]);
        }
        for expert in 0..experts {
            add(&format!("e.{expert}.w"), "I16", &[inter, 2]);
        }
        add("all_e", "U8", &[experts, inter, 2]);
    }
    // Byte order, which is not that of numbers.
    tensors.sort_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));

    let config = json!({"heads": heads, "text": {"kv": kv}, "size": size, "inter": inter, "layers": layers,
        "experts": if dice.one_in(4) { Value::Null } else { experts.into() }, "odd": "a", "yes": true});
    let symbols =
        json!({"kv": "text.kv", "experts": experts, "pair": "2 * yes", "q": "heads * size", "a": "b", "b": "a"});
    let rules: Vec<Value> = (0..1 + dice.below(6)).map(|_| rule(dice, &model)).collect();
    let mut stored = Vec::new();
    if packed || dice.one_in(6) {
        let block = dice.pick(&[4, 4, 4, 4, 4, 3, 0]);
        stored.push(
            json!({"match": "l.*.down.codes", "as": "l.*.down.w", "dims": [{"dim": 0}, {"dim": 1, "pack": "pair"}]}),
        );
        let scales = json!([{"dim": 0, "block": 3}, {"dim": 1, "block": block}]);
        let scales = if dice.one_in(8) { json!([null, {"dim": 1, "pack": 4}]) } else { scales };
        stored.push(json!({"match": "**.scales", "as": "**.w", "dims": scales}));
    }
    let first = dice.below(rules.len() as u64) as usize;
    let strict: Vec<&str> = ["tp", "pp", "ep"].into_iter().filter(|_| dice.one_in(16)).collect();
    let plans = vec![
        json!({"format": 1, "rules": rules[..first], "symbols": if dice.one_in(3) { json!({"kv": 2}) } else { json!({}) }}),
        json!({"format": 1, "rules": rules[first..], "stored": stored, "symbols": symbols, "strict": strict}),
    ];
    // An axis that no rule is on has one rank, as a rule.
    let has_rule = |axis: &str| rules.iter().any(|rule| rule["axis"] == axis);
    let axes = ["tp", "pp", "ep"].into_iter().filter_map(|axis| {
        let sizes: &[u64] = if has_rule(axis) || dice.one_in(30) { &[1, 2, 2, 3, 4] } else { &[1] };
        (!dice.one_in(4)).then(|| (axis, dice.pick(sizes)))
    });
    let axes = axes.collect();
    Question { tensors, plans, config, strict: dice.one_in(30), axes }
}

fn rule(dice: &mut Dice, model: &Model) -> Value {
    let axis = dice.pick(&["tp", "tp", "pp", "ep"]);
    let mut rule = match dice.below(10) {
        0 => {
            json!({"match": "embed.w", "cut": 0, "split": "ceil", "pad": dice.pick(&[json!(1), json!("2 * $tp"), json!(4), json!("$ep")])})
        }
        1 | 2 => {
            let part = |size: Value, heads: Value, split: &str| json!({"size": size, "heads": heads, "split": split});
            let kv = || part(json!("kv * size"), json!("text.kv"), "replicate");
            let segments =
                json!([part(json!("q"), json!("heads"), dice.pick(&["even", "balanced", "whole"])), kv(), kv()]);
            json!({"match": "l.*.qkv.*", "cut": 0, "segments": segments})
        }
        3 => {
            json!({"match": "l.*.o.w", "cut": 1, "heads": dice.pick(&["heads", "kv", "experts"]), "split": dice.pick(&["even", "replicate", "robin"])})
        }
        4 => {
            json!({"match": ["l.*.up.w", "l.*.down.w"], "cut": dice.below(2), "segments": 1 + dice.below(2), "unit": 1 + dice.below(3)})
        }
        5 => json!({"match": ["l.*.e.*.w", "l.*.all_e"], "cut": 0, "unless": dice.pick(&["ep", "pp"])}),
        6 => {
            let split = split(dice, model.experts);
            let mut rule = json!({"match": "l.*.e.*.w", "pick": 2, "split": split});
            if dice.one_in(2) {
                rule["of"] = dice.pick(&[json!("experts"), json!("experts / 2"), json!(model.experts - 1)]);
            }
            rule
        }
        7 => json!({"match": "l.*.**", "pick": 1, "of": "layers", "split": split(dice, model.layers)}),
        8 => {
            json!({"match": dice.pick(&["embed.w", "head.w", "*orm.w", "**"]), "on": dice.pick(&[json!([0]), json!([-1]), json!([0, -1]), json!([]), json!([0]), json!([-1]), json!([2])])})
        }
        _ => {
            let pattern = dice.pick(&["**", "l.*.*.w", "l.*.*norm.w", "**.w", "norm.w", "l.*.all_e", "none"]);
            match dice.below(3) {
                0 => json!({"match": pattern, "cut": dice.below(3), "split": split(dice, model.inter)}),
                _ => json!({"match": pattern, "whole": true}),
            }
        }
    };
    rule["axis"] = axis.into();
    if rule.get("cut").is_some() && dice.one_in(12) {
        let is_listed = rule.get("segments").is_some_and(Value::is_array);
        let field = if is_listed { "repeat" } else { dice.pick(&["repeat", "pad"]) };
        rule[field] =
            dice.pick(&[json!(2), json!("text.kv"), json!("nothing"), json!("a"), json!("odd"), json!("heads / size")]);
    }
    if dice.one_in(8) {
        rule["absent"] = dice.pick(&["head.w", "l.*.up.w", "gone"]).into();
    }
    if !dice.one_in(4) {
        rule["optional"] = true.into();
    }
    rule
}

fn split(dice: &mut Dice, units: u64) -> Value {
    match dice.below(9) {
        0 => json!({"counts": [1, units - 1]}),
        1 => json!({"lists": [(0..units).rev().collect::<Vec<_>>(), [units - 1]]}),
        2 => json!({"lists": [[0], (1..units).collect::<Vec<_>>(), [0]]}),
        at => json!(["even", "replicate", "ceil", "ceil", "balanced", "robin"][at as usize - 3]),
    }
}

/// Every place on the axes.
fn places(axes: &[(&'static str, u64)]) -> Vec<Vec<u64>> {
    axes.iter().fold(vec![Vec::new()], |places, (_, size)| {
        places.iter().flat_map(|place| (0..*size).map(|rank| [place.as_slice(), &[rank]].concat())).collect()
    })
}

fn ask(question: &Question, in_three: bool, errors: &mut BTreeMap<&'static str, u64>) -> Result<(), TestCaseError> {
    let folder = tempfile::tempdir().unwrap();
    let write = if in_three { three_files } else { one_file };
    let opened = Opened::new(&write(folder.path(), &question.tensors));
    let given = Given {
        plans: question.plans.iter().map(Value::to_string).collect(),
        config: Some(question.config.to_string()),
        strict: question.strict,
        ..Given::default()
    };
    let about = || format!("{} with {} on {:?}", given.plans.join("\n"), question.config, question.axes);
    let plan = Plan::new(&opened, &given)
        .map_err(|failure| TestCaseError::fail(format!("{}: {}", failure.message, about())))?;
    let bytes = counted(&question.tensors);
    for place in places(&question.axes) {
        let axes: Vec<_> =
            question.axes.iter().zip(&place).map(|((name, size), rank)| (*name, *rank as i64, *size as i64)).collect();
        let wanted = match (question.answer(&place), plan.records(&axes)) {
            (Err(error), Err(failure)) => {
                prop_assert!(
                    failure.message.starts_with(&format!("{error}: ")),
                    "{error} wanted: {} {}",
                    failure.message,
                    about()
                );
                *errors.entry(error).or_default() += 1;
                return Ok(());
            }
            (Err(error), Ok(_)) => return Err(TestCaseError::fail(format!("{error} wanted: {}", about()))),
            (Ok(_), Err(failure)) => return Err(TestCaseError::fail(format!("{}: {}", failure.message, about()))),
            (Ok(wanted), Ok(records)) => {
                let loaded = load(&opened, records).map_err(|failure| TestCaseError::fail(failure.message))?;
                let found: Vec<_> = records.iter().map(Part::new).collect();
                let names: Vec<_> = found.iter().map(|part| part.name.as_str()).collect();
                let numbers: Vec<_> =
                    wanted.iter().map(|(number, _)| question.tensors[*number].name.as_str()).collect();
                prop_assert_eq!(names, numbers, "{}", about());
                for ((part, (number, pieces)), local) in found.iter().zip(&wanted).zip(loaded) {
                    let tensor = &question.tensors[*number];
                    let ours: Vec<Pieces> = part
                        .pieces
                        .iter()
                        .map(|pieces| {
                            let numbers = |piece: &safetensors::part::st_interval| {
                                [piece.start, piece.stop, piece.zeros, piece.skip].map(|number| number as u64)
                            };
                            pieces.as_ref().map(|pieces| pieces.iter().map(numbers).collect())
                        })
                        .collect();
                    prop_assert_eq!(&ours, pieces, "{} {}", tensor.name, about());
                    prop_assert!(
                        local == part.of(&bytes[*number], &tensor.shape, tensor.bits()),
                        "{} {}",
                        tensor.name,
                        about()
                    );
                }
                wanted
            }
        };
        drop(wanted);
    }
    *errors.entry("none").or_default() += 1;
    Ok(())
}

#[test]
fn plans_on_several_axes_are_what_the_language_says() {
    let cases: u64 = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(600);
    let mut errors = BTreeMap::new();
    for seed in 0..cases {
        let question = question(&mut Dice(seed));
        if let Err(failure) = ask(&question, seed % 2 == 0, &mut errors) {
            panic!("seed {seed}: {failure}");
        }
    }
    // The questions are worth asking: many have parts, and all kinds of errors come.
    println!("{errors:?}");
    assert!(errors["none"] * 8 > cases, "{errors:?}");
    assert!(errors.len() > 12, "{errors:?}");
}
