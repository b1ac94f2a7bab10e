// SPDX-License-Identifier: Apache-2.0
//! Loads from files that others cut short, replace or take away, and from more
//! files than there are descriptors.

use std::ffi::c_void;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::handle::{c_path, open_map, open_read, Failure, Handle};
use crate::support::load::{init_load, item_into, load};
use crate::support::shim::faults;
use crate::support::{child, file_of, index_of, pattern};
use crate::system::*;
use safetensors::ffi::*;

#[test]
fn a_file_that_has_shrunk_is_an_error_and_no_signal() {
    let _alone = alone();
    let made = made();
    let whole = fs::read(&made.path).unwrap();
    for cut in [1, 4097, LARGE as u64 + 10, whole.len() as u64 - 5000] {
        each_way(&made, |from, options, what| {
            let ends = whole.len() as u64 - cut;
            fs::File::options().write(true).open(&made.path).unwrap().set_len(ends).unwrap();
            from_now("");
            let failure = load_all(from, &made, &options).unwrap_err();
            assert_eq!((failure.status(), failure.errno), ("ST_ERROR_IO", 0), "{what}: {}", failure.message);
            for word in ["item ", "tensor \"t", "m.safetensors", &format!("the file ends at {ends}")] {
                assert!(failure.message.contains(word), "{what}, {word}: {}", failure.message);
            }
            fs::write(&made.path, &whole).unwrap();
            load_all(from, &made, &options).unwrap();
        });
    }
}

/// A tensor that is large enough to be read by several threads is no item of anybody's,
/// and what its file is called does nothing to a terminal.
#[test]
fn a_large_tensor_that_can_not_be_read_is_told_of_by_its_name() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m\u{1b}[2J.safetensors");
    for size in [100, 20 << 20] {
        fs::write(&path, file_of(&["w"], size)).unwrap();
        let from = open_read(&path).unwrap();
        let ends = fs::metadata(&path).unwrap().len() - 1;
        fs::File::options().write(true).open(&path).unwrap().set_len(ends).unwrap();
        let failure = leaves_nothing(|| from.get("w").err().unwrap());
        assert_eq!((failure.status(), failure.errno), ("ST_ERROR_IO", 0), "{}", failure.message);
        let named = failure.message.contains("m\\u{1b}[2J.safetensors: tensor \"w\": reading ");
        assert!(named && failure.message.ends_with(&format!("the file ends at {ends}")), "{}", failure.message);
    }
}

#[test]
fn a_file_that_can_not_be_looked_at_is_read_all_the_same() {
    let _alone = alone();
    let made = made();
    let whole = fs::read(&made.path).unwrap();
    each_way(&made, |from, options, what| {
        from_now(&format!("fstat,fstatfs:fails={}", libc::EIO));
        load_all(from, &made, &options).unwrap_or_else(|failure| panic!("{what}: {failure:?}"));
        // What is known of the end is where nothing came any more.
        let ends = whole.len() as u64 - 10;
        fs::File::options().write(true).open(&made.path).unwrap().set_len(ends).unwrap();
        let failure = load_all(from, &made, &options).unwrap_err();
        from_now("");
        assert_eq!((failure.status(), failure.errno), ("ST_ERROR_IO", 0), "{what}: {}", failure.message);
        assert!(failure.message.contains(&format!("the file ends at {ends}")), "{what}: {}", failure.message);
        fs::write(&made.path, &whole).unwrap();
    });
}

#[test]
fn a_file_that_was_replaced_is_the_one_that_was_opened() {
    let _alone = alone();
    let made = made();
    let (whole, other) = (fs::read(&made.path).unwrap(), made.path.with_extension("other"));
    each_way(&made, |from, options, what| {
        let (from, path) = (from.retain(), &made.path);
        fs::write(&other, vec![0xAB; whole.len()]).unwrap();
        fs::rename(&other, path).unwrap();
        load_all(&from, &made, &options).unwrap_or_else(|failure| panic!("{what}, replaced: {failure:?}"));
        fs::remove_file(path).unwrap();
        load_all(&from, &made, &options).unwrap_or_else(|failure| panic!("{what}, removed: {failure:?}"));
    });
}

/// Takes all descriptors that the process may still have.
fn all_descriptors() -> Vec<fs::File> {
    std::iter::from_fn(|| fs::File::open("/dev/null").ok()).collect()
}

#[test]
fn a_load_needs_no_descriptor_more() {
    let _alone = alone();
    if !child::is_child() {
        let limit = || child::limit(libc::RLIMIT_NOFILE, 64);
        return child::succeeds("a_load_needs_no_descriptor_more", Duration::from_secs(60), limit);
    }
    let made = made();
    each_way(&made, |from, options, what| {
        let mut memory = vec![0x77; made.data.len()];
        let items = split(from, &made, &mut memory);
        let taken = all_descriptors();
        let result = load(from, &items, &options);
        drop(taken);
        result.unwrap_or_else(|failure| panic!("{what}: {failure:?}"));
        assert!(memory == made.data, "{what}");
    });
}

/// So many that none is kept open where 96 descriptors are allowed.
const SHARDS: usize = 90;

fn many_shards(folder: &Path) -> Vec<PathBuf> {
    let paths: Vec<_> = (0..SHARDS).map(|i| folder.join(format!("{i:02}.safetensors"))).collect();
    // Some are long enough to be read past the page cache, the others are not.
    let size = |i: usize| if i % 3 == 0 { 300_000 } else { 40 };
    for (i, path) in paths.iter().enumerate() {
        fs::write(path, file_of(&[format!("a{i}"), format!("b{i}")], size(i))).unwrap();
    }
    let names = (0..SHARDS).flat_map(|i| ["a", "b"].map(|name| (format!("{name}{i}"), format!("{i:02}.safetensors"))));
    fs::write(folder.join("model.safetensors.index.json"), index_of(names)).unwrap();
    paths
}

/// Loads everything from them, and checks what came.
fn load_shards(from: &Handle, io: i32, threads: u32) -> Result<(), Failure> {
    let mut memory: Vec<_> = from.tensors().iter().map(|tensor| vec![0x77; tensor.size() as usize]).collect();
    let items: Vec<_> =
        from.tensors().iter().zip(&mut memory).map(|(tensor, place)| item_into(tensor, place)).collect();
    leaves_nothing(|| load(from, &items, &st_load_options { threads, io, ..init_load() }))?;
    for (i, pair) in memory.chunks(2).enumerate() {
        assert!(pair.concat() == pattern(pair[0].len() * 2), "shard {i}, io {io}, {threads} threads");
    }
    Ok(())
}

#[test]
fn many_shards_are_loaded_with_few_descriptors() {
    let _alone = alone();
    if !child::is_child() {
        let limit = || child::limit(libc::RLIMIT_NOFILE, 24);
        return child::succeeds("many_shards_are_loaded_with_few_descriptors", Duration::from_secs(60), limit);
    }
    let folder = tempfile::tempdir().unwrap();
    many_shards(folder.path());
    for open in [open_read, open_map] {
        // So that many are at it at once.
        from_now("open:wait=2000");
        let from: Handle = open(folder.path().to_path_buf()).unwrap();
        assert!(descriptors() < 10, "they are kept open");
        for io in [ST_IO_CACHED, ST_IO_DIRECT, ST_IO_AUTO] {
            for threads in [0, 1, 4, 64] {
                load_shards(&from, io, threads).unwrap_or_else(|failure| panic!("{io}, {threads}: {failure:?}"));
            }
        }
        from_now("");
        // Where others have them all, that is told.
        let taken = all_descriptors();
        let mut place = [0; 40];
        let items = [item_into(&from.tensors()[3], &mut place)];
        let failure = load(&from, &items, &init_load()).unwrap_err();
        drop(taken);
        assert_eq!((failure.status(), failure.errno), ("ST_ERROR_IO", libc::EMFILE), "{}", failure.message);
        assert!(failure.message.contains("01.safetensors: item 0, tensor \"b1\": opening: "), "{}", failure.message);
    }
}

fn make_pipe(path: &Path) {
    // SAFETY: a path.
    assert_eq!(unsafe { libc::mkfifo(c_path(path).as_ptr(), 0o600) }, 0);
}

/// In the file's place there will be a pipe, between the look at it and the opening.
fn pipe_when_opened(path: &Path) {
    let pipe = path.with_extension("pipe");
    make_pipe(&pipe);
    swapped_when_opened(&pipe, path);
}

/// What takes another's place when that is next opened, just before it is.
fn swapped_when_opened(other: &Path, path: &Path) {
    faults(&format!("open@{1}:nth=1:swap={0},{1}", other.display(), path.display()));
}

#[test]
fn a_pipe_that_takes_a_files_place_is_not_waited_for() {
    let _alone = alone();
    if !child::is_child() {
        let test = "a_pipe_that_takes_a_files_place_is_not_waited_for";
        return child::succeeds(test, Duration::from_secs(30), || Ok(()));
    }
    let made = made();
    // One that is seen in time is not opened at all: that would let its writer go on.
    let folder = made.path.parent().unwrap();
    let pipe = folder.join("pipe.safetensors");
    make_pipe(&pipe);
    swapped_when_opened(&folder.join("other"), &pipe);
    // In a folder it is a second model.
    for (path, status) in [(&*pipe, "ST_ERROR_IO"), (folder, "ST_ERROR_INDEX")] {
        for open in [open_read as fn(_) -> _, open_map] {
            let opened: Result<Handle, Failure> = open(path.to_path_buf());
            assert_eq!(opened.err().unwrap().status(), status);
        }
    }
    assert_eq!(faults(""), 0, "it was opened");
    for open in [open_read, open_map] {
        pipe_when_opened(&made.path);
        let failure = leaves_nothing(|| open(made.path.clone()).err().unwrap());
        assert_eq!((failure.status(), failure.errno), ("ST_ERROR_IO", 0));
        assert!(failure.message.contains("is not a regular file"), "{}", failure.message);
        fs::remove_file(&made.path).unwrap();
        fs::write(&made.path, b"there again").unwrap();
    }
}

#[test]
fn what_takes_a_shards_place_is_not_loaded() {
    let _alone = alone();
    if !child::is_child() {
        let limit = || child::limit(libc::RLIMIT_NOFILE, 96);
        return child::succeeds("what_takes_a_shards_place_is_not_loaded", Duration::from_secs(60), limit);
    }
    let folder = tempfile::tempdir().unwrap();
    let paths = many_shards(folder.path());
    let (shard, aside) = (&paths[60], &folder.path().join("aside"));
    let whole = &fs::read(shard).unwrap();
    let modified = fs::metadata(shard).unwrap().modified().unwrap();
    let away = || fs::rename(shard, aside).unwrap();
    let cases: [(&dyn Fn(), i32, &str); 5] = [
        (&away, libc::ENOENT, "opening: "),
        (&|| (away(), fs::write(shard, whole).unwrap()).1, 0, "another file has taken its place since it was opened"),
        (&|| (away(), make_pipe(shard)).1, 0, "is not a regular file"),
        (&|| (fs::hard_link(shard, aside).unwrap(), pipe_when_opened(shard)).1, 0, "is not a regular file"),
        (
            &|| fs::File::options().write(true).open(shard).unwrap().set_len(30).unwrap(),
            0,
            "written to since it was opened: the file ends at 30",
        ),
    ];
    for open in [open_read, open_map] {
        let from: Handle = open(folder.path().to_path_buf()).unwrap();
        for (harm, errno, said) in cases {
            for (io, threads) in [(ST_IO_CACHED, 1), (ST_IO_DIRECT, 4), (ST_IO_AUTO, 0)] {
                harm();
                let failure = load_shards(&from, io, threads).unwrap_err();
                assert_eq!((failure.status(), failure.errno), ("ST_ERROR_IO", errno), "{}", failure.message);
                // The shard's first tensor or its second, whichever was on its way first.
                for word in [said, "60.safetensors: item 12", "60\": "] {
                    assert!(failure.message.contains(word), "{word}: {}", failure.message);
                }
                // The same file again, as old as it was.
                if aside.exists() {
                    fs::rename(aside, shard).unwrap();
                }
                fs::write(shard, whole).unwrap();
                fs::File::options().write(true).open(shard).unwrap().set_modified(modified).unwrap();
                load_shards(&from, io, threads).unwrap();
            }
        }
    }
}

/// Shrinks the file when it is first told of progress.
unsafe extern "C" fn shrink(user_data: *mut c_void, done: u64, total: u64) -> i32 {
    // SAFETY: set below.
    let path = unsafe { &*user_data.cast::<PathBuf>() };
    if done < total {
        fs::File::options().write(true).open(path).unwrap().set_len(1 << 20).unwrap();
    }
    0
}

#[test]
fn a_file_may_shrink_during_the_load() {
    let _alone = alone();
    let made = made();
    let whole = fs::read(&made.path).unwrap();
    each_way(&made, |from, options, what| {
        fs::write(&made.path, &whole).unwrap();
        from_now("");
        let options = st_load_options {
            progress: Some(shrink),
            user_data: (&raw const made.path).cast_mut().cast(),
            threads: 1,
            ..options
        };
        let failure = load_all(from, &made, &options).unwrap_err();
        assert_eq!(failure.status(), "ST_ERROR_IO", "{what}: {}", failure.message);
        assert!(failure.message.contains("the file ends at 1048576"), "{}", failure.message);
    });
}
