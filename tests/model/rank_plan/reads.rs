// SPDX-License-Identifier: Apache-2.0
//! What is read for parts, by a source that counts.

use crate::support::callbacks::Reader;
use crate::support::{file, pattern};

use super::plan::{builtin, load, Given, Opened, Plan};

const ROWS: usize = 4096;
const ROW: usize = 4096 * 2;

/// A matrix of BF16 whose columns eight ranks share.
fn matrix() -> (Vec<u8>, Vec<u8>) {
    let data = pattern(ROWS * ROW);
    let header =
        format!(r#"{{"o":{{"dtype":"BF16","shape":[{ROWS},{}],"data_offsets":[0,{}]}}}}"#, ROW / 2, data.len());
    (file(header, &data), data)
}

const BY_COLUMNS: &str = r#"{"format": 1, "rules": [{"match": "o", "axis": "tp", "cut": 1}]}"#;

#[test]
fn eight_ranks_in_one_call_read_each_byte_once() {
    let (bytes, data) = matrix();
    let reader = Reader::new(bytes);
    let opened = Opened::reader(&reader);
    let plan = Plan::new(&opened, &Given::plan(BY_COLUMNS)).unwrap();
    let before = reader.counts.requests.lock().unwrap().len();
    let records: Vec<_> = (0..8).map(|rank| &plan.records(&[("tp", rank, 8)]).unwrap()[0]).collect();
    assert_eq!(reader.counts.requests.lock().unwrap().len(), before, "a plan reads nothing");
    let loaded = super::plan::load_records(&opened, &records).unwrap();
    for (rank, loaded) in loaded.iter().enumerate() {
        let part = ROW / 8;
        let wanted: Vec<u8> = data.chunks(ROW).flat_map(|row| &row[rank * part..][..part]).copied().collect();
        assert!(*loaded == wanted, "rank {rank}");
    }
    let requests = reader.counts.requests.lock().unwrap();
    let read: usize = requests[before..].iter().map(|(_, len)| len).sum();
    assert_eq!(read, data.len());
    assert!(requests.len() - before <= 57, "{}", requests.len() - before);
}

#[test]
fn a_cut_by_rows_reads_its_rows_alone_and_zeros_are_written() {
    let (bytes, data) = matrix();
    let reader = Reader::new(bytes);
    let opened = Opened::reader(&reader);
    let rule = r#"{"match": "o", "axis": "tp", "cut": 0, "pad": 3000}"#;
    let plan = Plan::new(&opened, &Given::plan(&format!(r#"{{"format": 1, "rules": [{rule}]}}"#))).unwrap();
    let records = plan.records(&[("tp", 2, 3)]).unwrap();
    assert_eq!((records[0].size, records[0].read_size), (2000 * ROW as u64, 96 * ROW as u64));
    let before = reader.counts.requests.lock().unwrap().len();
    let loaded = load(&opened, records).unwrap();
    assert!(loaded[0] == [&data[4000 * ROW..], &vec![0; 1904 * ROW]].concat());
    let requests = reader.counts.requests.lock().unwrap();
    assert_eq!(requests[before..].iter().map(|(_, len)| *len as u64).sum::<u64>(), records[0].read_size);
}

#[test]
fn the_plan_of_a_model_is_found_by_its_type() {
    assert_eq!(builtin("no such type"), None);
    assert_eq!(builtin("mistral"), Some(super::cases::plan_file("llama")));
    for name in ["bert", "deepseek_v3", "gpt_oss", "qwen3_moe", "t5", "gptq", "vocab-64"] {
        let text = builtin(name).unwrap();
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{name}");
    }
    let (bytes, _) = matrix();
    let opened = Opened::reader(&Reader::new(bytes));
    let given = |config: &str| Given { config: Some(config.to_owned()), ..Given::default() };
    let failure = Plan::new(&opened, &given("{}")).err().unwrap();
    assert_eq!(failure.status(), "ST_ERROR_NOT_FOUND");
    let failure = Plan::new(&opened, &given(r#"{"model_type": "none of ours"}"#)).err().unwrap();
    assert!(failure.status() == "ST_ERROR_NOT_FOUND" && failure.message.contains("none of ours"));
    // A plan for another model says which of its rules matches nothing.
    let plan = Plan::new(&opened, &given(r#"{"model_type": "llama"}"#)).unwrap();
    let failure = plan.parts(&[("tp", 0, 2)]).err().unwrap();
    assert!(failure.message.starts_with("RULE_UNUSED: plan 0 rule 0: "), "{}", failure.message);
    let failure = Plan::new(&opened, &given("[")).err().unwrap();
    assert_eq!(failure.status(), "ST_ERROR_CONFIG");
}
