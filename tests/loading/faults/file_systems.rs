// SPDX-License-Identifier: Apache-2.0
//! What is mapped and what is read: by the type of the file system, as statfs(2)
//! and linux/magic.h number them, and by whether the system says it at all.

use std::fs;

use crate::support::handle::{init_options, open_map, open_with};
use crate::support::{file_of, pattern};
use crate::system::*;
use safetensors::ffi::*;

const LOCAL: &[(u32, &str)] = &[
    (0xEF53, "ext"),
    (0x5846_5342, "xfs"),
    (0x9123_683E, "btrfs"),
    (0xF2F5_2010, "f2fs"),
    (0x2FC1_2FC1, "zfs"),
    (0x0102_1994, "tmpfs"),
    (0x794C_7630, "overlay"),
];

const OTHERS: &[(u32, &str)] = &[
    (0x6969, "nfs"),
    (0xFE53_4D42, "smb2"),
    (0xFF53_4D42, "cifs"),
    (0x0102_1997, "9p"),
    (0x00C3_6400, "ceph"),
    (0x6573_5546, "fuse"),
    (0x0BD0_0BD0, "lustre"),
    // Numbers that mean nothing, one of them a local one's in its lower half.
    (0x1234_5678, "0x12345678"),
    (0x0001_EF53, "0x1ef53"),
];

#[test]
fn local_files_are_mapped_and_all_others_are_read() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    fs::write(&path, file_of(&["w"], 100)).unwrap();
    let chosen = |what: &str| {
        let found = open_with(&path, &init_options()).unwrap();
        assert_eq!(found.get("w").unwrap().data().unwrap(), pattern(100), "{what}");
        assert!(what.is_empty() || found.reason().contains(what), "{what}: {}", found.reason());
        found.shards()[0].access()
    };
    for (kind, name) in LOCAL {
        from_now(&format!("fstatfs:type={kind}"));
        assert_eq!(chosen(name), ST_ACCESS_MAP, "{name}");
    }
    for (kind, name) in OTHERS {
        from_now(&format!("fstatfs:type={kind}"));
        assert_eq!(chosen(name), ST_ACCESS_READ, "{name}");
        // Whoever insists, gets a mapping.
        assert_eq!(open_map(&path).unwrap().shards()[0].access(), ST_ACCESS_MAP, "{name}");
    }
}

#[test]
fn where_the_system_does_not_say_files_are_read() {
    let _alone = alone();
    let made = made();
    from_now(&format!("fstatfs:fails={}", libc::EIO));
    let found = open_with(&made.path, &init_options()).unwrap();
    assert_eq!(found.shards()[0].access(), ST_ACCESS_READ);
    assert!(found.reason().contains("not known"), "{}", found.reason());
}
