// SPDX-License-Identifier: Apache-2.0
//! Which file systems are worth mapping.
//!
//! On network and FUSE file systems a page fault is 5 to 50 times slower than a
//! read, and a page that can't be fetched kills the process. So only file
//! systems known to be local are mapped. Numbers: linux/magic.h, statfs(2).

use std::borrow::Cow;
use std::fs::File;

/// Local file systems, by the type that statfs reports.
const LOCAL: &[(u32, &str)] = &[
    (0x0000_EF53, "ext"),
    (0x5846_5342, "xfs"),
    (0x9123_683E, "btrfs"),
    (0xF2F5_2010, "f2fs"),
    (0x2FC1_2FC1, "zfs"),
    (0x0102_1994, "tmpfs"),
    (0x794C_7630, "overlay"),
    (0x8584_58F6, "ramfs"),
    (0xCA45_1A4E, "bcachefs"),
    (0x7371_7368, "squashfs"),
    (0xE0F5_E1E2, "erofs"),
    (0x0000_9660, "iso9660"),
    (0x1501_3346, "udf"),
    (0x0000_4D44, "vfat"),
    (0x2011_BAB0, "exfat"),
    (0x7366_746E, "ntfs3"),
    (0x3153_464A, "jfs"),
    (0x5265_4973, "reiserfs"),
    (0x0000_3434, "nilfs2"),
    (0x9584_58F6, "hugetlbfs"),
];

/// Remote ones, only to name them in the reason.
const REMOTE: &[(u32, &str)] = &[
    (0x0000_6969, "nfs"),
    (0xFE53_4D42, "smb2"),
    (0xFF53_4D42, "cifs"),
    (0x0000_517B, "smb"),
    (0x0102_1997, "9p"),
    (0x00C3_6400, "ceph"),
    (0x6573_5546, "fuse"),
    (0x0BD0_0BD0, "lustre"),
    (0x4750_4653, "gpfs"),
    (0x5346_414F, "afs"),
    (0x786F_4256, "vboxsf"),
];

/// Those among both that copy without moving bytes: xfs, btrfs, bcachefs, nfs
/// (4.2), smb2, cifs, ceph.
const SHARING: &[u32] = &[0x5846_5342, 0x9123_683E, 0xCA45_1A4E, 0x0000_6969, 0xFE53_4D42, 0xFF53_4D42, 0x00C3_6400];

/// Whether the file is on one of those.
pub(super) fn shares_blocks(file: &File) -> bool {
    magic(file).is_some_and(|magic| SHARING.contains(&magic))
}

/// The name of the local file system, or why the file is better read.
pub(super) fn is_local(file: &File) -> Result<&'static str, Cow<'static, str>> {
    let Some(magic) = magic(file) else {
        return Err("the file system's type is not known".into());
    };
    let name = |list: &[(u32, &'static str)]| list.iter().find(|(known, _)| *known == magic).map(|(_, name)| *name);
    if let Some(local) = name(LOCAL) {
        return Ok(local);
    }
    Err(match name(REMOTE) {
        Some(remote) => format!("the file system ({remote}) is not local").into(),
        None => format!("the file system (type {magic:#x}) is not known to be local").into(),
    })
}

#[cfg(target_os = "linux")]
fn magic(file: &File) -> Option<u32> {
    use std::mem::MaybeUninit;
    use std::os::fd::AsRawFd;
    let mut found = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the descriptor is open, and fstatfs fills the struct when it returns 0.
    let found = unsafe {
        if libc::fstatfs(file.as_raw_fd(), found.as_mut_ptr()) != 0 {
            return None;
        }
        found.assume_init()
    };
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the field's type differs by platform and all types are 32-bit numbers"
    )]
    let magic = found.f_type as u32;
    Some(magic)
}

#[cfg(not(target_os = "linux"))]
fn magic(_file: &File) -> Option<u32> {
    None
}
