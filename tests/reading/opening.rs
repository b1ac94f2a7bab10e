// SPDX-License-Identifier: Apache-2.0
//! What a path may lead to: links, folders, devices, pipes, forbidden and
//! changing files. Opening answers, and never waits or crashes.

use std::fs::{self, File};
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::support::handle::{c_path, init_options, open, open_map, open_read, open_with, Failure, Handle};
use crate::support::{child, file_of, index_of, pattern, promptly};
use safetensors::ffi::{st_open_options, ST_ACCESS_MAP, ST_ACCESS_READ, ST_PREFETCH_ADVISE, ST_PREFETCH_POPULATE};
use tempfile::TempDir;

const INDEX: &str = "model.safetensors.index.json";

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn fails(found: Result<Handle, Failure>, status: &str, errno: i32) -> String {
    let failure = found.err().expect("must not open");
    assert_eq!((failure.status(), failure.errno), (status, errno), "{}", failure.message);
    failure.message
}

fn fifo(path: &Path) {
    let path = c_path(path);
    // SAFETY: a valid path.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
}

/// Two shards and their index.
fn sharded(root: &Path) {
    fs::write(root.join("1.safetensors"), file_of(&["a", "b"], 4)).unwrap();
    fs::write(root.join("2.safetensors"), file_of(&["c"], 4)).unwrap();
    fs::write(root.join(INDEX), index_of([("a", "1.safetensors"), ("b", "1.safetensors"), ("c", "2.safetensors")]))
        .unwrap();
}

#[test]
fn a_pipe_is_refused_and_never_waited_for() {
    let root = folder();
    let pipe = root.path().join("model.safetensors");
    fifo(&pipe);
    for access in [ST_ACCESS_MAP, ST_ACCESS_READ] {
        for path in [pipe.clone(), root.path().to_owned()] {
            let open = move || open_with(path, &st_open_options { access, ..init_options() });
            fails(promptly(open), "ST_ERROR_IO", 0);
        }
    }
    let root = folder();
    fifo(&root.path().join(INDEX));
    let path = root.path().to_owned();
    fails(promptly(move || open(path)), "ST_ERROR_IO", 0);

    let root = folder();
    sharded(root.path());
    fs::remove_file(root.path().join("2.safetensors")).unwrap();
    fifo(&root.path().join("2.safetensors"));
    let path = root.path().to_owned();
    let message = fails(promptly(move || open(path)), "ST_ERROR_SHARD", 0);
    assert!(message.contains("2.safetensors"), "{message}");
}

#[test]
fn devices_and_sockets_are_refused() {
    for device in ["/dev/null", "/dev/zero", "/dev/full", "/dev/urandom"] {
        fails(promptly(move || open(device)), "ST_ERROR_IO", 0);
    }
    let root = folder();
    let path = root.path().join("x.safetensors");
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    fails(open(&path), "ST_ERROR_IO", 0);
    let link = root.path().join("y.safetensors");
    symlink("/dev/zero", &link).unwrap();
    fails(open(&link), "ST_ERROR_IO", 0);
}

#[test]
fn files_of_proc_are_files_like_others() {
    for open in [open as fn(_) -> _, open_read] {
        fails(open("/proc/self/status"), "ST_ERROR_TRUNCATED", 0);
        fails(open("/proc/self/mem"), "ST_ERROR_TRUNCATED", 0);
        fails(open("/proc/self"), "ST_ERROR_IO", libc::ENOENT);
    }
    // They can't be mapped, which is an error only for those who insist.
    fails(open_map("/proc/self/status"), "ST_ERROR_IO", libc::ENODEV);
}

#[test]
fn what_is_not_there_says_so() {
    let root = folder();
    fails(open(root.path().join("no.safetensors")), "ST_ERROR_IO", libc::ENOENT);
    fails(open(root.path().join("no.safetensors.index.json")), "ST_ERROR_IO", libc::ENOENT);
    assert!(fails(open(""), "ST_ERROR_IO", libc::ENOENT).starts_with("\"\": opening: "), "an empty path is named too");
    fails(open(root.path()), "ST_ERROR_IO", libc::ENOENT);
    let file = root.path().join("m.safetensors");
    fs::write(&file, file_of(&["w"], 4)).unwrap();
    fails(open(file.join("x")), "ST_ERROR_IO", libc::ENOTDIR);
    fails(open(root.path().join("x".repeat(300))), "ST_ERROR_IO", libc::ENAMETOOLONG);
    assert_eq!(open(&file).unwrap().tensors().len(), 1);
    // The ending means nothing for a file that is no index.
    fs::rename(&file, root.path().join("weights")).unwrap();
    assert_eq!(open(root.path().join("weights")).unwrap().tensors().len(), 1);
}

/// Runs with the rights of nobody over files; only root has others to give up.
fn as_nobody(work: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let nobody = scope.spawn(|| {
            // SAFETY: changes this thread's file system identity only; threads that it makes inherit it.
            unsafe { libc::setfsuid(65534) };
            work();
        });
        nobody.join().unwrap();
    });
}

#[test]
fn forbidden_files_and_folders_give_their_errno() {
    let root = folder();
    let allow = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    allow(root.path(), 0o755);
    let (plain, set, closed) = (root.path().join("m.safetensors"), root.path().join("set"), root.path().join("closed"));
    fs::write(&plain, file_of(&["w"], 4)).unwrap();
    fs::create_dir(&set).unwrap();
    fs::create_dir(&closed).unwrap();
    sharded(&set);
    sharded(&closed);
    allow(&plain, 0);
    allow(&set, 0o755);
    allow(&set.join("1.safetensors"), 0o644);
    allow(&set.join(INDEX), 0o644);
    allow(&set.join("2.safetensors"), 0);
    allow(&closed, 0);
    as_nobody(|| {
        if fs::read(&plain).is_ok() {
            return println!("skipped: this user may read everything");
        }
        for open in [open_read, open_map] {
            fails(open(plain.clone()), "ST_ERROR_IO", libc::EACCES);
            let message = fails(open(set.clone()), "ST_ERROR_SHARD", libc::EACCES);
            assert!(message.contains("2.safetensors") && message.to_lowercase().contains("permission"), "{message}");
            fails(open(closed.clone()), "ST_ERROR_IO", libc::EACCES);
            fails(open(closed.join("1.safetensors")), "ST_ERROR_IO", libc::EACCES);
        }
    });
    allow(&closed, 0o755);
}

#[test]
fn links_are_followed() {
    let root = folder();
    let at = |name: &str| root.path().join(name);
    fs::create_dir(at("real")).unwrap();
    sharded(&at("real"));
    fs::write(at("one"), file_of(&["w"], 4)).unwrap();
    symlink("one", at("m.safetensors")).unwrap();
    symlink("m.safetensors", at("again.safetensors")).unwrap();
    symlink("real", at("set")).unwrap();
    symlink("nowhere", at("dangling.safetensors")).unwrap();
    symlink("loop.safetensors", at("loop.safetensors")).unwrap();
    let found = open(at("again.safetensors")).unwrap();
    assert_eq!(found.get("w").unwrap().data().unwrap(), pattern(4));
    assert_eq!(open(at("set")).unwrap().tensors().len(), 3);
    assert_eq!(open(at("set").join(INDEX)).unwrap().tensors().len(), 3);
    fails(open(at("dangling.safetensors")), "ST_ERROR_IO", libc::ENOENT);
    fails(open(at("loop.safetensors")), "ST_ERROR_IO", libc::ELOOP);
    fs::remove_file(at("real").join("2.safetensors")).unwrap();
    symlink("gone", at("real").join("2.safetensors")).unwrap();
    fails(open(at("set")), "ST_ERROR_SHARD", libc::ENOENT);
}

#[test]
fn a_hub_cache_opens_as_it_lies() {
    let root = folder();
    let blobs = root.path().join("models--a--b/blobs");
    let snapshot = root.path().join("models--a--b/snapshots/0123456789abcdef0123456789abcdef01234567");
    fs::create_dir_all(&blobs).unwrap();
    fs::create_dir_all(&snapshot).unwrap();
    let names =
        ["model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors", "model-00003-of-00003.safetensors"];
    for (i, name) in names.iter().enumerate() {
        let blob = format!("{:064x}", i * 7919 + 5);
        fs::write(blobs.join(&blob), file_of(&[format!("t{i}"), format!("u{i}")], 16)).unwrap();
        symlink(format!("../../blobs/{blob}"), snapshot.join(name)).unwrap();
    }
    let map = (0..3).flat_map(|i| [(format!("t{i}"), names[i]), (format!("u{i}"), names[i])]);
    fs::write(blobs.join("abcdef"), index_of(map)).unwrap();
    symlink("../../blobs/abcdef", snapshot.join(INDEX)).unwrap();
    fs::write(snapshot.join("config.json"), "{}").unwrap();
    for path in [snapshot.clone(), snapshot.join(INDEX)] {
        for open in [open_map, open_read] {
            let found = open(path.clone()).unwrap();
            assert_eq!((found.shards().len(), found.tensors().len()), (3, 6));
            assert_eq!(found.get("u2").unwrap().data().unwrap(), &pattern(32)[16..]);
            found.contents();
        }
    }
    fs::remove_file(blobs.join(format!("{:064x}", 5))).unwrap();
    let message = fails(open(&snapshot), "ST_ERROR_SHARD", libc::ENOENT);
    assert!(message.contains(names[0]), "{message}");
}

#[test]
fn only_tensors_make_a_folder_a_checkpoint() {
    let root = folder();
    let at = |name: &str| root.path().join(name);
    fs::write(at("model.bin"), b"x").unwrap();
    fs::create_dir(at("deep.safetensors")).unwrap();
    fs::write(at("deep.safetensors/w.safetensors"), file_of(&["w"], 4)).unwrap();
    fails(open(root.path()), "ST_ERROR_IO", libc::ENOENT);
    fs::write(at("b.safetensors"), file_of(&["w"], 4)).unwrap();
    // What desktop systems leave beside a file.
    fs::write(at("._b.safetensors"), b"junk").unwrap();
    assert_eq!(open(root.path()).unwrap().tensors().len(), 1);
    fs::write(at("x.safetensors.index.json"), index_of([("w", "b.safetensors")])).unwrap();
    fs::write(at("y.safetensors.index.json"), b"").unwrap();
    let message = fails(open(root.path()), "ST_ERROR_INDEX", 0);
    assert!(message.contains("x.safetensors.index.json") && message.contains("y.safetensors.index.json"), "{message}");
}

#[test]
fn an_index_has_a_largest_size() {
    let root = folder();
    sharded(root.path());
    let index = root.path().join(INDEX);
    // The limit holds for headers as well, which are smaller.
    fs::write(&index, [fs::read(&index).unwrap(), vec![b' '; 500]].concat()).unwrap();
    let size = fs::metadata(&index).unwrap().len();
    let open = |most| open_with(root.path(), &st_open_options { max_header_size: most, ..init_options() });
    open(size).unwrap();
    let message = fails(open(size - 1), "ST_ERROR_INDEX", 0);
    for word in [INDEX, &format!("{size} bytes"), &format!("limit of {}", size - 1)] {
        assert!(message.contains(word), "{word}: {message}");
    }
}

#[test]
fn a_file_that_shrinks_is_an_error_and_no_signal() {
    let root = folder();
    let path = root.path().join("m.safetensors");
    for (open, maps) in [(open_read as fn(_) -> _, false), (open_map, true)] {
        fs::write(&path, file_of(&["a", "b"], 1 << 20)).unwrap();
        let found: Handle = open(path.clone()).unwrap();
        let shard = &found.shards()[0];
        assert_eq!(shard.access(), if maps { ST_ACCESS_MAP } else { ST_ACCESS_READ });
        File::options().write(true).open(&path).unwrap().set_len(shard.data_offset() + (1 << 20) + 5).unwrap();
        assert_eq!(found.read(&found.tensors()[0]).unwrap(), &pattern(2 << 20)[..1 << 20]);
        let failure = found.read(&found.tensors()[1]).unwrap_err();
        assert_eq!(failure.status(), "ST_ERROR_IO");
        assert!(failure.message.contains("\"b\"") && failure.message.contains("m.safetensors"), "{}", failure.message);
        if !maps {
            assert_eq!(found.get("b").err().unwrap().status(), "ST_ERROR_IO");
            assert!(found.get("a").is_ok());
            // A failure is not kept: the file may come back.
            fs::write(&path, file_of(&["a", "b"], 1 << 20)).unwrap();
            assert_eq!(found.get("b").unwrap().data().unwrap(), &pattern(2 << 20)[1 << 20..]);
        }
    }
}

#[test]
fn a_replaced_file_stays_the_one_that_was_opened() {
    let root = folder();
    let (path, new) = (root.path().join("m.safetensors"), root.path().join("new"));
    for open in [open_read, open_map] {
        fs::write(&path, file_of(&["a"], 100)).unwrap();
        let found: Handle = open(path.clone()).unwrap();
        fs::write(&new, vec![b'x'; 4096]).unwrap();
        fs::rename(&new, &path).unwrap();
        assert_eq!(found.read(&found.tensors()[0]).unwrap(), pattern(100));
        assert_eq!(found.get("a").unwrap().data().unwrap(), pattern(100));
        fs::remove_file(&path).unwrap();
        assert_eq!(found.read(&found.tensors()[0]).unwrap(), pattern(100));
    }
}

#[test]
fn prefetch_changes_nothing_but_time() {
    let root = folder();
    sharded(root.path());
    let plain = open(root.path()).unwrap().contents();
    for access in [ST_ACCESS_MAP, ST_ACCESS_READ] {
        for prefetch in [ST_PREFETCH_ADVISE, ST_PREFETCH_POPULATE] {
            let options = st_open_options { access, prefetch, ..init_options() };
            assert_eq!(open_with(root.path(), &options).unwrap().contents(), plain);
        }
    }
    fs::write(root.path().join("empty.safetensors"), file_of(&[""; 0], 0)).unwrap();
    let options = st_open_options { prefetch: ST_PREFETCH_POPULATE, ..init_options() };
    assert!(open_with(root.path().join("empty.safetensors"), &options).unwrap().tensors().is_empty());
}

/// Open descriptors of this process.
fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Many shards with one tensor each.
fn many_shards(root: &Path, count: usize) {
    let name = |i: usize| format!("model-{i:05}-of-{count:05}.safetensors");
    for i in 0..count {
        fs::write(root.join(name(i)), file_of(&[format!("t{i}")], 8)).unwrap();
    }
    fs::write(root.join(INDEX), index_of((0..count).map(|i| (format!("t{i}"), name(i))))).unwrap();
}

#[test]
fn descriptors_are_one_a_shard_at_most_and_all_are_given_back() {
    if !child::is_child() {
        return child::succeeds(
            "descriptors_are_one_a_shard_at_most_and_all_are_given_back",
            Duration::from_secs(60),
            || Ok(()),
        );
    }
    let root = folder();
    many_shards(root.path(), 20);
    for access in [ST_ACCESS_MAP, ST_ACCESS_READ] {
        let before = descriptors();
        let options = st_open_options { access, ..init_options() };
        let found = open_with(root.path(), &options).unwrap();
        found.contents();
        assert!(descriptors() <= before + 20, "{} for 20 shards", descriptors() - before);
        drop(found);
        assert_eq!(descriptors(), before);
        for bad in ["/proc/self/status", "/nowhere", "/dev/null"] {
            assert!(open_with(bad, &options).is_err());
        }
        fs::write(root.path().join("bad.safetensors"), b"not one").unwrap();
        assert!(open_with(root.path().join("bad.safetensors"), &options).is_err());
        assert_eq!(descriptors(), before, "after failures");
    }
}

#[test]
fn ten_thousand_shards_open_with_1024_descriptors() {
    if !child::is_child() {
        let test = "ten_thousand_shards_open_with_1024_descriptors";
        return child::succeeds(test, Duration::from_secs(120), || child::limit(libc::RLIMIT_NOFILE, 1024));
    }
    let root = folder();
    many_shards(root.path(), 10_000);
    for access in [ST_ACCESS_MAP, ST_ACCESS_READ] {
        let before = descriptors();
        let found = open_with(root.path(), &st_open_options { access, ..init_options() }).unwrap();
        assert_eq!((found.shards().len(), found.tensors().len()), (10_000, 10_000));
        for i in (0..10_000).step_by(97) {
            let tensor = found.get(format!("t{i}")).unwrap();
            assert_eq!((tensor.data().unwrap(), tensor.shard()), (&pattern(8)[..], i));
            assert_eq!(found.read(tensor).unwrap(), pattern(8));
        }
        // Room is left for the program's own files.
        assert!(descriptors() < before + 512, "{}", descriptors() - before);
        drop(found);
        assert_eq!(descriptors(), before);
    }
}

#[test]
fn shards_that_are_not_kept_open_are_recognised() {
    if !child::is_child() {
        let test = "shards_that_are_not_kept_open_are_recognised";
        return child::succeeds(test, Duration::from_secs(60), || child::limit(libc::RLIMIT_NOFILE, 96));
    }
    let root = folder();
    many_shards(root.path(), 90);
    let shard = |i: usize| root.path().join(format!("model-{i:05}-of-00090.safetensors"));
    for open in [open_read, open_map] {
        let found: Handle = open(root.path().to_owned()).unwrap();
        let read = |i: usize| found.read(&found.tensors()[i]);
        assert_eq!(read(5).unwrap(), pattern(8));
        fs::rename(shard(0), root.path().join("kept")).unwrap();
        fs::write(shard(0), vec![b'x'; 4096]).unwrap();
        assert_eq!(read(0).unwrap_err().status(), "ST_ERROR_IO", "another file in its place");
        fs::remove_file(shard(1)).unwrap();
        let gone = read(1).unwrap_err();
        assert_eq!((gone.status(), gone.errno), ("ST_ERROR_IO", libc::ENOENT));
        fs::remove_file(shard(2)).unwrap();
        fifo(&shard(2));
        assert_eq!(read(2).unwrap_err().status(), "ST_ERROR_IO", "a pipe in its place");
        File::options().write(true).open(shard(3)).unwrap().set_len(20).unwrap();
        assert_eq!(read(3).unwrap_err().status(), "ST_ERROR_IO", "cut short");
        for i in 0..4 {
            let _ = fs::remove_file(shard(i));
            fs::write(shard(i), file_of(&[format!("t{i}")], 8)).unwrap();
        }
    }
}
