// SPDX-License-Identifier: Apache-2.0
//! Loads while the system fails: reads that are short, interrupted or go wrong,
//! no threads, no memory, no second descriptor. Errors say what and where, and
//! nothing is left behind.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::callbacks::{Manner, Reader, Refusal};
use crate::support::handle::{c_path, init_options, open_io, open_map, open_read};
use crate::support::load::{init_load, item_into, load, plan, Progress};
use crate::support::{self, child, file, file_of, pattern};
use crate::system::*;
use safetensors::ffi::*;
use safetensors::record::st_range;

#[test]
fn short_and_interrupted_reads_are_gone_on_with() {
    let _alone = alone();
    let made = made();
    each_way(&made, |from, options, what| {
        for rule in ["", "pread:most=100001", "pread:most=8192", &format!("pread:one_in=2:fails={}", libc::EINTR)] {
            from_now(rule);
            load_all(from, &made, &options).unwrap_or_else(|failure| panic!("{what}, {rule}: {failure:?}"));
        }
    });
}

/// Of each row of two tensors some bytes, by gaps that are read over and that are
/// not, and several items of the same rows.
#[test]
fn parts_of_rows_come_whole_however_reads_end_and_in_as_many_as_planned() {
    const ROW: usize = 20_000;
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.safetensors");
    let entries = [0, 1].map(|i| {
        format!(
            r#""t{i}":{{"dtype":"U8","shape":[150,{ROW}],"data_offsets":[{},{}]}}"#,
            i * 150 * ROW,
            (i + 1) * 150 * ROW
        )
    });
    let bytes = file(format!("{{{}}}", entries.join(",")), &pattern(2 * 150 * ROW));
    fs::write(&path, &bytes).unwrap();
    let from = open_read(&path).unwrap();
    // What each item takes of a row.
    let cases: [&[(usize, usize)]; 6] = [
        &[(0, 10_000)],
        &[(3, 19_990)],
        &[(5000, 6024)],
        &[(0, 5000), (5000, 10_000), (10_000, 15_000), (15_000, ROW)],
        &[(0, 2000), (1000, 3000)],
        &[(0, 2000), (2100, 2200), (9000, 15_000)],
    ];
    for columns in cases {
        let ranges: Vec<_> = columns
            .iter()
            .map(|(start, stop)| {
                let range = |start: usize, stop: usize| st_range { start: start as i64, stop: stop as i64, step: 1 };
                [range(1, 149), range(*start, *stop)]
            })
            .collect();
        let mut places: Vec<Vec<u8>> = Vec::new();
        let mut items = Vec::new();
        for tensor in from.tensors() {
            for (range, (start, stop)) in ranges.iter().zip(columns) {
                let mut place = vec![0_u8; 148 * (stop - start)];
                let item = item_into(tensor, &mut place);
                items.push(st_load_item { ranges: range.as_ptr(), range_count: 2, ..item });
                places.push(place);
            }
        }
        for rule in ["", "pread:most=7001", "pread:most=300", &format!("pread:one_in=2:fails={}", libc::EINTR)] {
            for (max_gap, threads, io) in [
                (0, 1, ST_IO_AUTO),
                (9_999, 2, ST_IO_CACHED),
                (10_000, 1, ST_IO_CACHED),
                (1, 4, ST_IO_AUTO),
                (40_000, 1, ST_IO_DIRECT),
            ] {
                let what = format!("{columns:?}, {rule}, {max_gap}, {threads} threads, io {io}");
                let options = st_load_options { max_gap, threads, io, ..init_load() };
                let planned = plan(&from, &items, &options).unwrap();
                places.iter_mut().for_each(|place| place.fill(0x77));
                from_now(rule);
                leaves_nothing(|| load(&from, &items, &options))
                    .unwrap_or_else(|failure| panic!("{what}: {failure:?}"));
                if rule.is_empty() && io != ST_IO_DIRECT {
                    assert_eq!(reads() as u64, planned.requests, "{what}");
                }
                for (place, (item, number)) in places.iter().zip(items.iter().zip(0..)) {
                    // SAFETY: a record of a live handle.
                    let begin = unsafe { &*item.tensor }.offset() as usize;
                    let (start, stop) = columns[number % columns.len()];
                    let rows = place.chunks(stop - start).zip(1..);
                    assert!(
                        rows.into_iter()
                            .all(|(row, number)| row == &bytes[begin + number * ROW + start..][..stop - start]),
                        "{what}"
                    );
                }
            }
        }
        for number in 1..=3 {
            from_now(&format!("pread:from={number}:fails={}", libc::EIO));
            let failure = leaves_nothing(|| load(&from, &items, &init_load())).unwrap_err();
            assert_eq!((failure.status(), failure.errno), ("ST_ERROR_IO", libc::EIO), "{}", failure.message);
            assert!(failure.message.contains("item ") && failure.message.contains("reading "), "{}", failure.message);
        }
    }
}

#[test]
fn the_way_past_the_page_cache_is_taken_where_it_is_asked_for() {
    let _alone = alone();
    let made = made();
    let from = open_read(&made.path).unwrap();
    let direct = |io, rules: &str| {
        from_now(rules);
        load_all(&from, &made, &st_load_options { io, ..init_load() }).unwrap();
        direct_reads()
    };
    assert_eq!(direct(ST_IO_CACHED, ""), 0);
    // It was written a moment ago.
    assert_eq!(direct(ST_IO_AUTO, ""), 0);
    let asked = direct(ST_IO_DIRECT, "");
    // The system may decline, which is no failure; it declines the file, not single reads.
    assert!(asked == 0 || asked == reads(), "{asked} of {}", reads());
    // What is not in the page cache is better read past it, on a disk of this machine.
    let cold = format!("preadv2:fails={}", libc::EAGAIN);
    assert_eq!(direct(ST_IO_CACHED, &cold), 0);
    assert_eq!(direct(ST_IO_AUTO, &cold) != 0, asked != 0);
    assert_eq!(direct(ST_IO_AUTO, &format!("{cold}; fstatfs:type=0x6969")), 0, "nfs");
    assert_eq!(direct(ST_IO_DIRECT, &format!("open@/proc/self/fd/:fails={}", libc::EACCES)), 0);
}

#[test]
fn what_was_read_is_dropped_from_the_page_cache_where_that_is_asked_for() {
    let _alone = alone();
    let made = made();
    let size = fs::metadata(&made.path).unwrap().len();
    each_way(&made, |from, options, what| {
        from_now("");
        load_all(from, &made, &options).unwrap();
        assert_eq!(dropped(), [], "{what}");
        from_now("");
        load_all(from, &made, &st_load_options { drop_cache: 1, ..options }).unwrap();
        let dropped = dropped();
        let start = size - made.data.len() as u64;
        let end = dropped.iter().fold(start, |end, (from, to)| if *from <= end { end.max(*to) } else { end });
        assert_eq!((dropped[0].0, end), (start, size), "{what}: {dropped:?}");
        // In one go as well, as single reads leave behind the pages that they share.
        assert!(dropped.contains(&(start, size)), "{what}: {dropped:?}");
    });
}

#[test]
fn an_error_of_the_system_names_item_tensor_file_and_bytes() {
    let _alone = alone();
    let made = made();
    each_way(&made, |from, options, what| {
        for (first, errno) in [(0, libc::EIO), (1, libc::EIO), (2, libc::ESTALE), (4, libc::ENXIO)] {
            from_now(&format!("pread:from={}:fails={errno}", first + 1));
            let result = load_all(from, &made, &options);
            if reads() <= first {
                result.unwrap();
                continue;
            }
            let failure = result.unwrap_err();
            assert_eq!((failure.status(), failure.errno), ("ST_ERROR_IO", errno), "{what}: {}", failure.message);
            for word in ["item ", "tensor \"t", "m.safetensors", "reading ", " bytes at "] {
                assert!(failure.message.contains(word), "{what}, {word}: {}", failure.message);
            }
        }
    });
    // One thread, in the file's order: the first item is the one.
    from_now("");
    let from = open_read(&made.path).unwrap();
    from_now(&format!("pread:fails={}", libc::EIO));
    let options = st_load_options { threads: 1, io: ST_IO_CACHED, ..init_load() };
    let failure = load_all(&from, &made, &options).unwrap_err();
    assert!(failure.message.contains("item 0, tensor \"t0\": "), "{}", failure.message);
    let start = fs::metadata(&made.path).unwrap().len() - made.data.len() as u64;
    assert!(failure.message.contains(&format!("reading {LARGE} bytes at {start}")), "{}", failure.message);
}

#[test]
fn fewer_threads_do_where_the_system_gives_no_more() {
    let _alone = alone();
    let made = made();
    each_way(&made, |from, options, _| {
        for allowed in 0..4 {
            from_now(&format!("thread:from={}:fails={}", allowed + 1, libc::EAGAIN));
            load_all(from, &made, &options).unwrap();
            assert!(readers() <= allowed + 1);
        }
    });
}

/// The same as the system has it: a user has so many processes and threads, and no more.
#[test]
fn fewer_threads_do_where_the_user_may_have_no_more() {
    let _alone = alone();
    if !child::is_child() {
        let test = "fewer_threads_do_where_the_user_may_have_no_more";
        return child::succeeds(test, Duration::from_secs(60), || Ok(()));
    }
    let made = made();
    // SAFETY: changes who this process is; it stays allowed to look at itself.
    unsafe {
        // Root may have any number, so become somebody who has nothing else.
        if libc::geteuid() == 0 {
            let user = 1_900_000_000 + libc::getpid() as u32;
            assert_eq!(libc::chmod(c_path(&made.path).as_ptr(), 0o644), 0);
            assert_eq!(libc::chmod(c_path(made.path.parent().unwrap()).as_ptr(), 0o755), 0);
            assert_eq!(libc::setuid(user), 0);
            assert_eq!(libc::prctl(libc::PR_SET_DUMPABLE, 1), 0);
        }
    }
    for most in (1..=4).rev() {
        child::limit(libc::RLIMIT_NPROC, most).unwrap();
        each_way(&made, |from, options, what| {
            from_now("");
            load_all(from, &made, &options).unwrap_or_else(|failure| panic!("{what}: {failure:?}"));
            let used = readers();
            assert!(used as u64 <= most.max(1), "{used} threads where {most} are allowed");
        });
    }
}

#[test]
fn no_more_threads_are_at_work_than_asked_for() {
    let _alone = alone();
    let made = made();
    let from = open_read(&made.path).unwrap();
    for asked in 1..=8 {
        from_now("");
        let options = st_load_options { threads: asked, ..init_load() };
        load_all(&from, &made, &options).unwrap();
        let used = readers();
        assert!(used <= asked as usize, "{used} threads of {asked}");
        for max_parallel in [0, 1, 3] {
            let mut most = 0;
            // On a busy machine threads may happen to come one after another.
            for delay in [100, 1000, 10_000].map(Duration::from_micros) {
                let bytes = fs::read(&made.path).unwrap();
                let reader = Reader { preferred_read: 200_000, max_parallel, delay, ..Reader::new(bytes) };
                let from = open_io(&reader.io(), &init_options()).unwrap();
                load_all(&from, &made, &options).unwrap();
                most = reader.counts.most_under_way.load(SeqCst);
                if most > 1 || asked == 1 || max_parallel == 1 {
                    break;
                }
            }
            assert!(most <= asked as usize && (max_parallel == 0 || most <= max_parallel), "{most} at once");
            assert!(asked == 1 || max_parallel == 1 || most > 1, "never two at once");
        }
    }
}

#[test]
fn memory_that_is_not_there_is_an_error() {
    let _alone = alone();
    let made = made();
    let from = open_read(&made.path).unwrap();
    for threads in [1, 2] {
        let options = st_load_options { threads, io: ST_IO_CACHED, ..init_load() };
        // What is spread once it is converted is put together in other memory.
        let mut memory = vec![0_u8; made.data.len() * 8];
        let mut items = split(&from, &made, &mut memory);
        let (apart, mut at) = ([8_i64], 0);
        for (item, size) in items.iter_mut().zip(&made.sizes) {
            (item.dtype, item.dst_strides) = (ST_DTYPE_F32, apart.as_ptr());
            (item.dst, item.dst_size) = (memory[at..].as_mut_ptr().cast(), size * 8);
            at += size * 8;
        }
        from_now(&format!("mmap:least={}:fails={}", 1 << 20, libc::ENOMEM));
        let failure = leaves_nothing(|| load(&from, &items, &options)).unwrap_err();
        assert_eq!(failure.status(), "ST_ERROR_OUT_OF_MEMORY", "{}", failure.message);
        assert!(failure.message.contains("item "), "{}", failure.message);
        // With less there is enough.
        load(&from, &items, &st_load_options { staging_bytes: 1 << 20, ..options }).unwrap();
    }
}

#[test]
fn a_load_ends_when_progress_says_so() {
    let _alone = alone();
    let made = made();
    each_way(&made, |from, mut options, what| {
        let mut all = Progress::default();
        all.listen(&mut options);
        load_all(from, &made, &options).unwrap();
        all.check(made.data.len() as u64, true);
        for call in 0..all.calls.len().min(4) {
            let mut heard = Progress::cancels_at(call);
            heard.listen(&mut options);
            let result = load_all(from, &made, &options);
            // How often it is told depends on the threads.
            if heard.calls.len() <= call {
                result.unwrap();
                continue;
            }
            let failure = result.unwrap_err();
            assert_eq!((failure.status(), failure.errno), ("ST_ERROR_CANCELLED", 0), "{what}: {}", failure.message);
            assert!(
                failure.message.starts_with("the load was stopped by the progress callback"),
                "{}",
                failure.message
            );
            assert_eq!(heard.calls.len(), call + 1, "not told again");
            heard.check(made.data.len() as u64, false);
        }
    });
}

#[test]
fn what_read_at_says_is_passed_on() {
    let _alone = alone();
    let made = made();
    for threads in [1, 5] {
        for first in [1, 2, 5, 9] {
            for (status, name) in [(3, "ST_ERROR_IO"), (6, "ST_ERROR_CANCELLED"), (2, "ST_ERROR_OUT_OF_MEMORY")] {
                let manner = Manner::Fails(first, status, libc::ETIMEDOUT, c"HTTP 503, try later");
                let reader =
                    Reader { preferred_read: 1 << 20, ..Reader::new(fs::read(&made.path).unwrap()) }.manner(manner);
                let from = open_io(&reader.io(), &init_options()).unwrap();
                let options = st_load_options { threads, ..init_load() };
                let failure = load_all(&from, &made, &options).unwrap_err();
                assert_eq!((failure.status(), failure.errno), (name, libc::ETIMEDOUT), "{}", failure.message);
                for word in ["item ", "tensor \"t", "HTTP 503, try later"] {
                    assert!(failure.message.contains(word), "{word}: {}", failure.message);
                }
            }
        }
    }
}

/// Fails in the second tensor as soon as the first is being read; reads of that take until then.
struct Uneven {
    second: u64,
    failed: AtomicBool,
    /// Whether the load has begun.
    armed: AtomicBool,
    /// Then the first fails as well.
    both: bool,
    /// Reads of the first.
    reads: AtomicUsize,
}

impl Uneven {
    fn read(&self, offset: u64, len: usize) -> Result<usize, Refusal> {
        let until = |over: &dyn Fn() -> bool| {
            let start = Instant::now();
            while !over() && start.elapsed() < Duration::from_secs(5) {
                thread::yield_now();
            }
        };
        if offset >= self.second {
            // Earlier, and the first would not be read at all.
            until(&|| self.reads.load(SeqCst) != 0);
            self.failed.store(true, SeqCst);
            return Err((ST_ERROR_IO, 0, c"the second half is gone"));
        }
        // Opening reads more than the header.
        if self.armed.load(SeqCst) {
            self.reads.fetch_add(1, SeqCst);
            until(&|| self.failed.load(SeqCst));
            if self.both {
                return Err((ST_ERROR_IO, 0, c"the first half is gone"));
            }
            thread::sleep(Duration::from_millis(20));
        }
        // Short, so that a request takes several reads.
        Ok(len.min(1000))
    }
}

const EACH: usize = 48 << 10;

/// Loads both tensors on two threads, a few times; the message of each time, and
/// how often the first was read.
fn load_unevenly(both: bool) -> Vec<(String, usize)> {
    // Behind a tensor that keeps the first read apart from the header's.
    let bytes = file(
        format!(
            "{{{},{},{}}}",
            support::entry("pad", 0, 2000),
            support::entry("a", 2000, 2000 + EACH),
            support::entry("b", 2000 + EACH, 2000 + 2 * EACH)
        ),
        &pattern(2000 + 2 * EACH),
    );
    let second = (bytes.len() - EACH) as u64;
    let (failed, armed, reads) = (AtomicBool::new(false), AtomicBool::new(false), AtomicUsize::new(0));
    let uneven = Arc::new(Uneven { second, failed, armed, both, reads });
    // One request for each tensor: with more it would be of both.
    let reader = Reader { preferred_read: EACH, ..Reader::new(bytes) };
    let reader = reader.within({
        let uneven = Arc::clone(&uneven);
        move |offset, len| uneven.read(offset, len)
    });
    let from = open_io(&reader.io(), &init_options()).unwrap();
    uneven.armed.store(true, SeqCst);
    let mut memory = vec![0; EACH * 8];
    let (one, other) = memory.split_at_mut(EACH * 4);
    let mut items = [item_into(&from.tensors()[1], one), item_into(&from.tensors()[2], other)];
    items.iter_mut().for_each(|item| item.dtype = ST_DTYPE_F32);
    // Room to convert two requests at once.
    let options = st_load_options { threads: 2, staging_bytes: 131_072, ..init_load() };
    let each = (0..3).map(|_| {
        uneven.failed.store(false, SeqCst);
        uneven.reads.store(0, SeqCst);
        let failure = leaves_nothing(|| load(&from, &items, &options)).unwrap_err();
        assert_eq!(failure.status(), "ST_ERROR_IO", "{}", failure.message);
        (failure.message, uneven.reads.load(SeqCst))
    });
    each.collect()
}

/// A thread that stops because another has failed does not tell of that as its
/// own failure, although its request comes first.
#[test]
fn the_error_that_ended_the_load_is_the_one_that_is_told() {
    let _alone = alone();
    for (message, reads) in load_unevenly(false) {
        assert!(message.contains("item 1, tensor \"b\": the second half is gone"), "{message}");
        // Of the first tensor no more was read than what had been begun.
        assert!(reads < EACH / 1000 * 3 / 4, "{reads} reads of {}", EACH / 1000);
    }
}

#[test]
fn of_two_errors_the_first_in_the_file_is_told_whichever_comes_first() {
    let _alone = alone();
    for (message, _) in load_unevenly(true) {
        assert!(message.contains("item 0, tensor \"a\": the first half is gone"), "{message}");
    }
}

/// Pages of address space that this process has.
fn pages() -> usize {
    fs::read_to_string("/proc/self/statm").unwrap().split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn loads_and_reads_leave_no_memory_mapped() {
    let _alone = alone();
    let made = made();
    let work = || {
        let from = open_read(&made.path).unwrap();
        assert_eq!(from.get("t0").unwrap().data().unwrap(), &made.data[..LARGE]);
        load_all(&from, &made, &st_load_options { threads: 2, io: ST_IO_DIRECT, ..init_load() }).unwrap();
    };
    // What the allocator keeps is there by then.
    (0..10).for_each(|_| work());
    let before = pages();
    (0..30).for_each(|_| work());
    let more = pages().saturating_sub(before) * 4096;
    assert!(more < 2 * LARGE, "{more} bytes");
}

#[test]
fn tiny_tensors_take_few_reads_and_as_many_as_planned() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.safetensors");
    let names: Vec<String> = (0..100_000).map(|i| format!("t{i}")).collect();
    fs::write(&path, file_of(&names, 24)).unwrap();
    for from in [open_map(&path), open_read(&path)] {
        let from = from.unwrap();
        let mut memory = vec![0; 24 * names.len()];
        let items: Vec<_> =
            from.tensors().iter().zip(memory.chunks_mut(24)).map(|(tensor, place)| item_into(tensor, place)).collect();
        for threads in [1, 2, 8] {
            let options = st_load_options { threads, io: ST_IO_CACHED, ..init_load() };
            let planned = plan(&from, &items, &options).unwrap();
            from_now("");
            leaves_nothing(|| load(&from, &items, &options)).unwrap();
            assert_eq!(reads() as u64, planned.requests);
            assert!(planned.requests <= 100, "{} reads", planned.requests);
            assert_eq!((planned.read_bytes, planned.over_read_bytes), (2_400_000, 0));
        }
        let expected = pattern(24 * names.len());
        let offset = from.tensors()[0].offset();
        assert!(memory
            .chunks(24)
            .zip(from.tensors())
            .all(|(place, tensor)| { place == &expected[(tensor.offset() - offset) as usize..][..24] }));
    }
}
