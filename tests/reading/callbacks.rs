// SPDX-License-Identifier: Apache-2.0
//! Checkpoints read by the caller's read_at and resolver: short and failing
//! reads, release exactly once, limits kept, shards side by side.

use std::ffi::{c_char, c_void};
use std::ptr::null;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::support::callbacks::{say, Files, Manner, Reader};
use crate::support::handle::{init_io, init_options, init_resolver, open_io, open_resolved, opened, Failure};
use crate::support::{file, file_of, index_of, pattern, promptly};
use safetensors::ffi::*;

const INDEX: &str = "a/model.safetensors.index.json";

fn named(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("t{i}")).collect()
}

#[test]
fn a_whole_header_comes_with_the_first_request() {
    let reader = Reader::new(file_of(&named(100), 4));
    let found = open_io(&reader.io(), &init_options()).unwrap();
    assert_eq!((found.tensors().len(), reader.counts.reads()), (100, 1));
    // A header beyond the first request takes one more.
    let reader = Reader::new(file_of(&named(5000), 4));
    open_io(&reader.io(), &init_options()).unwrap();
    assert_eq!(reader.counts.reads(), 2);
}

#[test]
fn requests_are_no_larger_than_preferred() {
    for preferred_read in [1, 7, 64, 1000, usize::MAX] {
        let reader = Reader { preferred_read, ..Reader::new(file_of(&named(40), 333)) };
        let found = open_io(&reader.io(), &init_options()).unwrap();
        assert_eq!(found.get("t39").unwrap().data().unwrap(), &pattern(40 * 333)[39 * 333..]);
        assert!(reader.counts.requests.lock().unwrap().iter().all(|(_, len)| *len <= preferred_read));
    }
}

#[test]
fn what_read_at_says_is_passed_on() {
    let bytes = file_of(&named(3), 50);
    for (status, name) in [
        (3, "ST_ERROR_IO"),
        (6, "ST_ERROR_CANCELLED"),
        (2, "ST_ERROR_OUT_OF_MEMORY"),
        (7, "ST_ERROR_UNSUPPORTED"),
        (14, "ST_ERROR_HEADER_JSON"),
        // What is no status can't be handed on as one.
        (99, "ST_ERROR_IO"),
        (-1, "ST_ERROR_IO"),
        (i32::MAX, "ST_ERROR_IO"),
    ] {
        for (errno, text) in [(libc::ETIMEDOUT, c"HTTP 503, try later"), (0, c"")] {
            let at_open = Reader::new(bytes.clone()).manner(Manner::Fails(0, status, errno, text));
            let failure = open_io(&at_open.io(), &init_options()).err().unwrap();
            assert_eq!((failure.status(), failure.errno), (name, errno));
            assert!(failure.message.contains(text.to_str().unwrap()), "{}", failure.message);
            assert_eq!(at_open.counts.released(), 1);

            let later = Reader::new(bytes.clone()).manner(Manner::Fails(1, status, errno, text));
            let found = open_io(&later.io(), &init_options()).unwrap();
            for failure in [found.get("t1").err().unwrap(), found.read(&found.tensors()[1]).unwrap_err()] {
                assert_eq!((failure.status(), failure.errno), (name, errno));
                assert!(
                    failure.message.contains(text.to_str().unwrap()) && failure.message.contains("\"t1\""),
                    "{}",
                    failure.message
                );
            }
            drop(found);
            assert_eq!(later.counts.released(), 1);
        }
    }
}

#[test]
fn a_count_that_cannot_be_is_an_error() {
    let bytes = file_of(&named(3), 50);
    for claim in [0, bytes.len() + 1, usize::MAX] {
        let reader = Reader::new(bytes.clone()).manner(Manner::Claims(claim));
        let failure = open_io(&reader.io(), &init_options()).err().unwrap();
        assert_eq!((failure.status(), failure.errno), ("ST_ERROR_IO", 0), "{}", failure.message);
        assert_eq!(reader.counts.released(), 1);
    }
}

#[test]
fn reads_of_one_byte_at_a_time_are_fine() {
    let reader = Reader::new(file_of(&named(3), 50)).manner(Manner::Short(1));
    let found = open_io(&reader.io(), &init_options()).unwrap();
    assert_eq!(found.get("t2").unwrap().data().unwrap(), &pattern(150)[100..]);
}

#[test]
fn no_size_is_believed() {
    // A size that read_at never backs: it says the end is further than it is.
    let claims: [u64; 4] = [0, 7, 1 << 62, u64::MAX];
    for size in claims {
        let reader = Reader::new(vec![b'{'; 8]).manner(Manner::Fails(0, 3, 5, c"no more"));
        let io = st_io { size, ..reader.io() };
        let failure = open_io(&io, &init_options()).err().unwrap();
        assert_eq!(failure.status(), if size < 8 { "ST_ERROR_TRUNCATED" } else { "ST_ERROR_IO" });
        assert_eq!(reader.counts.released(), 1);
    }
}

#[test]
fn release_runs_once_whatever_fails() {
    let good = file_of(&["w"], 4);
    let bad_options = st_open_options { access: 77, ..init_options() };
    for (bytes, options, opens) in [
        (good.clone(), init_options(), true),
        (good.clone(), bad_options, false),
        (good[..20].to_vec(), init_options(), false),
        (Vec::new(), init_options(), false),
        (file("[]", b""), init_options(), false),
    ] {
        let reader = Reader::new(bytes);
        let found = open_io(&reader.io(), &options);
        assert_eq!((found.is_ok(), reader.counts.released()), (opens, usize::from(!opens)));
        drop(found);
        assert_eq!(reader.counts.released(), 1);
    }
    let reader = Reader::new(good.clone());
    assert!(open_io(&st_io { read_at: None, ..reader.io() }, &init_options()).is_err());
    assert_eq!(reader.counts.released(), 1, "also without read_at");
    let reader = Reader::new(good);
    let io = st_io { release: None, ..reader.io() };
    assert_eq!(open_io(&io, &init_options()).unwrap().get("w").unwrap().size(), 4);
    // SAFETY: nobody released it.
    drop(unsafe { Box::from_raw(io.user_data.cast::<Reader>()) });
}

#[test]
fn no_more_reads_are_under_way_than_allowed() {
    let names = named(60);
    for max_parallel in [1, 3] {
        let delay = Duration::from_millis(2);
        let reader = Reader { max_parallel, delay, ..Reader::new(file_of(&names, 10)) };
        let found = open_io(&reader.io(), &init_options()).unwrap();
        let names = names.clone();
        promptly(move || {
            std::thread::scope(|scope| {
                for part in names.chunks(5) {
                    let found = &found;
                    scope.spawn(move || part.iter().for_each(|name| assert_eq!(found.get(name).unwrap().size(), 10)));
                }
            });
        });
        let most = reader.counts.most_under_way.load(SeqCst);
        assert!(most <= max_parallel && (most > 1 || max_parallel == 1), "{most} of {max_parallel}");
    }
}

#[test]
fn a_failed_read_gives_its_place_back() {
    let names = named(8);
    let reader =
        Reader { max_parallel: 1, ..Reader::new(file_of(&names, 10)).manner(Manner::Fails(1, 3, 5, c"broken")) };
    let found = open_io(&reader.io(), &init_options()).unwrap();
    promptly(move || names.iter().for_each(|name| assert_eq!(found.get(name).err().unwrap().errno, 5)));
}

/// A set of shards and its index.
fn sharded(count: usize, reader: impl Fn(Vec<u8>) -> Reader) -> Files {
    let shard = |i: usize| format!("model-{i:05}.safetensors");
    let index = index_of((0..count).map(|i| (format!("t{i}"), shard(i))));
    let shards = (0..count).map(|i| (format!("a/{}", shard(i)), reader(file_of(&[format!("t{i}")], 64))));
    Files::new(shards.chain([(INDEX.to_owned(), Reader::new(index))]))
}

#[test]
fn two_hundred_slow_shards_open_side_by_side() {
    let files = sharded(200, |bytes| Reader { delay: Duration::from_millis(20), ..Reader::new(bytes) });
    let start = Instant::now();
    let found = open_resolved(&files.resolver(), INDEX, &init_options()).unwrap();
    let took = start.elapsed();
    assert_eq!((found.tensors().len(), found.shards().len()), (200, 200));
    // One after another they take 4 seconds; four rounds of 64 take 0.08.
    assert!(took < Duration::from_millis(3500), "{took:?}");
    assert!(files.readers.values().all(|reader| reader.counts.reads() == 1), "one request a file");
    assert_eq!(found.get("t199").unwrap().data().unwrap(), pattern(64));
    drop(found);
    assert!(files.readers.values().all(|reader| reader.counts.released() == 1));
}

#[test]
fn names_are_asked_for_as_paths_would_be() {
    for folder in ["", "a/", "a/b c/", "/", "s3://bucket/k/"] {
        let index = index_of([("w", "x.safetensors")]);
        let name = format!("{folder}any.index.json");
        let files = Files::new([
            (name.clone(), Reader::new(index)),
            (format!("{folder}x.safetensors"), Reader::new(file_of(&["w"], 4))),
        ]);
        let found = open_resolved(&files.resolver(), &name, &init_options()).unwrap();
        assert_eq!(*files.asked.lock().unwrap(), [name, format!("{folder}x.safetensors")]);
        assert_eq!(found.get("w").unwrap().data().unwrap(), pattern(4));
    }
}

fn resolved(files: &Files) -> Failure {
    let failure = open_resolved(&files.resolver(), INDEX, &init_options()).err().expect("must not open");
    assert_eq!(files.counts.released(), 1);
    let asked = files.asked.lock().unwrap();
    for (name, reader) in &files.readers {
        assert_eq!(reader.counts.released(), asked.iter().filter(|asked| *asked == name).count(), "{name}");
    }
    failure
}

#[test]
fn what_the_resolver_says_is_passed_on() {
    let mut files;
    for (code, status) in [
        (3, "ST_ERROR_SHARD"),
        (6, "ST_ERROR_CANCELLED"),
        (2, "ST_ERROR_OUT_OF_MEMORY"),
        (4, "ST_ERROR_SHARD"),
        (24, "ST_ERROR_SHARD"),
        (99, "ST_ERROR_SHARD"),
    ] {
        files = Files { missing: (code, libc::EHOSTDOWN), ..sharded(5, Reader::new) };
        files.readers.remove("a/model-00003.safetensors");
        let failure = resolved(&files);
        assert_eq!((failure.status(), failure.errno), (status, libc::EHOSTDOWN), "{}", failure.message);
        assert!(
            failure.message.contains("model-00003") && failure.message.contains("no such key"),
            "{}",
            failure.message
        );
    }
    files = Files { missing: (3, libc::ENOENT), ..sharded(5, Reader::new) };
    files.readers.remove(INDEX);
    let failure = resolved(&files);
    assert_eq!((failure.status(), failure.errno), ("ST_ERROR_IO", libc::ENOENT), "the index itself is no shard");
    assert!(failure.message.contains(INDEX), "{}", failure.message);
}

#[test]
fn faults_of_shards_behind_a_resolver_name_the_shard() {
    let broken: [(Reader, &str, &str); 4] = [
        (Reader::new(b"short".to_vec()), "ST_ERROR_TRUNCATED", "model-00002"),
        (Reader::new(file_of(&["other"], 4)), "ST_ERROR_SHARD", "\"t2\""),
        (Reader::new(file_of(&["t2"], 4)).manner(Manner::Fails(0, 6, 0, c"stop")), "ST_ERROR_CANCELLED", "model-00002"),
        (Reader::new(file_of(&["t2"], 4)).manner(Manner::Claims(0)), "ST_ERROR_IO", "model-00002"),
    ];
    for (reader, status, part) in broken {
        let mut files = sharded(5, Reader::new);
        files.readers.insert("a/model-00002.safetensors".into(), reader);
        let failure = resolved(&files);
        assert_eq!(failure.status(), status, "{}", failure.message);
        assert!(failure.message.contains(part), "{}", failure.message);
    }
}

static RELEASED: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" fn count_release(_: *mut c_void) {
    RELEASED.fetch_add(1, SeqCst);
}

unsafe extern "C" fn fills_nothing(_: *mut c_void, _: *const c_char, _: *mut st_io, _: *mut st_error) -> st_status {
    ST_OK
}

unsafe extern "C" fn without_read_at(_: *mut c_void, _: *const c_char, out: *mut st_io, _: *mut st_error) -> st_status {
    // SAFETY: out is writable.
    unsafe { out.write(st_io { size: 100, release: Some(count_release), ..init_io() }) };
    ST_OK
}

unsafe extern "C" fn with_another_size(
    _: *mut c_void,
    _: *const c_char,
    out: *mut st_io,
    _: *mut st_error,
) -> st_status {
    // SAFETY: out is writable.
    unsafe { out.write(st_io { struct_size: 4096, release: Some(count_release), ..init_io() }) };
    ST_OK
}

unsafe extern "C" fn with_odd_text(_: *mut c_void, _: *const c_char, _: *mut st_io, error: *mut st_error) -> st_status {
    // SAFETY: error is writable; it is filled to its last byte, without a NUL.
    unsafe { (*error).message = [b'x' as c_char; 504] };
    ST_ERROR_IO_NUMBER
}

const ST_ERROR_IO_NUMBER: st_status = 3;

unsafe extern "C" fn with_text_that_is_not_utf8(
    _: *mut c_void,
    _: *const c_char,
    _: *mut st_io,
    error: *mut st_error,
) -> st_status {
    // SAFETY: error is writable.
    unsafe { say(error, c"caf\xe9") };
    ST_ERROR_IO_NUMBER
}

type Open = unsafe extern "C" fn(*mut c_void, *const c_char, *mut st_io, *mut st_error) -> st_status;

#[test]
fn a_resolver_that_errs_is_survived() {
    let cases: [(Open, &str, usize); 5] = [
        (fills_nothing, "ST_ERROR_INVALID_ARGUMENT", 0),
        (without_read_at, "ST_ERROR_INVALID_ARGUMENT", 1),
        (with_another_size, "ST_ERROR_INVALID_ARGUMENT", 1),
        (with_odd_text, "ST_ERROR_IO", 0),
        (with_text_that_is_not_utf8, "ST_ERROR_IO", 0),
    ];
    for (open, status, releases) in cases {
        RELEASED.store(0, SeqCst);
        let resolver = st_resolver { open: Some(open), ..init_resolver() };
        let failure = open_resolved(&resolver, "m.safetensors", &init_options()).err().unwrap();
        assert_eq!((failure.status(), RELEASED.load(SeqCst)), (status, releases), "{}", failure.message);
    }
}

#[test]
fn the_resolver_is_released_before_the_open_returns_also_on_bad_arguments() {
    let files = sharded(1, Reader::new);
    let bad = st_open_options { prefetch: 9, ..init_options() };
    assert!(open_resolved(&files.resolver(), INDEX, &bad).is_err());
    assert_eq!(files.counts.released(), 1);
    let resolver = files.resolver();
    // SAFETY: a NULL name is refused.
    assert!(opened(|error| unsafe { st_open_resolved(&resolver, null(), null(), error) }).is_err());
    assert_eq!(files.counts.released(), 2);
    let found = open_resolved(&files.resolver(), INDEX, &init_options()).unwrap();
    assert_eq!(files.counts.released(), 3);
    assert_eq!(found.get("t0").unwrap().size(), 64);
}
