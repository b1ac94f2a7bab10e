// SPDX-License-Identifier: Apache-2.0
//! Who may read and write a file that takes another's place: the same people, or fewer
//! where that is not possible; never more.
#![forbid(unsafe_code)]

use std::fs::{File, Metadata, Permissions};
use std::os::unix::fs::{fchown, MetadataExt, PermissionsExt};
use std::path::Path;

use super::system;

/// The mode to create a file with that will replace the one at `path`. Until
/// owner and list are taken over, nobody is let in whom the older file keeps out.
pub(super) fn mode_to_create(path: &Path, existing: Option<&Metadata>) -> u32 {
    let Some(existing) = existing else { return 0o666 };
    let mode = existing.mode() & 0o777;
    // What everybody may, any group may.
    let for_all = mode & 0o070 == (mode & 0o007) << 3;
    match for_all && matches!(system::access_list(path), Ok(None)) {
        true => mode | 0o600,
        false => 0o600,
    }
}

/// Gives `file` owner, access list and mode of the file at `path`. What the
/// system has not or does not allow narrows the access and costs nothing else.
pub(super) fn take_over(file: &File, path: &Path, existing: &Metadata) {
    let Ok(made) = file.metadata() else { return };
    let (owner, group) = (existing.uid(), existing.gid());
    let (mut same_owner, mut same_group) = (made.uid() == owner, made.gid() == group);
    // Only the superuser may give files away; for others the writer owns it, in
    // the same group if the writer is in it.
    if !(same_owner && same_group) {
        let both = fchown(file, Some(owner), Some(group)).is_ok();
        same_group = both || same_group || fchown(file, None, Some(group)).is_ok();
        same_owner |= both;
    }
    // The list of a file that has none is what its folder gives to new ones.
    let inherited = matches!(system::access_list_of(file), Ok(Some(_)));
    let mut mode = existing.mode() & 0o777;
    match system::access_list(path) {
        Ok(Some(list)) => {
            if same_owner && same_group && system::set_access_list(file, &list).is_ok() {
                return;
            }
            if inherited && system::remove_access_list(file).is_err() {
                return;
            }
            mode = without_list(mode, &list);
        }
        Ok(None) if inherited && system::remove_access_list(file).is_err() => return,
        Ok(None) => {}
        // Nobody knows who is on it.
        Err(_) => mode &= 0o700,
    }
    if !same_owner {
        // The older owner is one of the group or of the others now.
        let owner = (mode & 0o700) >> 6;
        mode &= 0o700 | owner << 3 | owner;
    }
    if !same_group {
        // Its group are others now, and others its group.
        let both = (mode >> 3) & mode & 0o007;
        mode = mode & 0o700 | both << 3 | both;
    }
    if file.metadata().map_or(made.mode(), |now| now.mode()) & 0o777 != mode {
        drop(file.set_permissions(Permissions::from_mode(mode)));
    }
}

/// What is left of a mode where the list that went with it can't be kept: with
/// a list its middle bits are the most that anybody on it may do, so a group or
/// a user with less would get more.
fn without_list(mode: u32, list: &[u8]) -> u32 {
    const OWNER: u16 = 1;
    let entries = list.get(4..).unwrap_or_default().chunks_exact(8);
    let least = entries.fold(0o7, |least, entry| match entry {
        [tag, tag_high, permissions, ..] if u16::from_le_bytes([*tag, *tag_high]) != OWNER => {
            least & u32::from(*permissions)
        }
        _ => least,
    });
    mode & 0o700 | least << 3 | least
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[(u16, u16)]) -> Vec<u8> {
        let entry = |(tag, permissions): &(u16, u16)| {
            [&tag.to_le_bytes()[..], &permissions.to_le_bytes()[..], &[0xFF; 4][..]].concat()
        };
        [vec![2, 0, 0, 0], entries.iter().flat_map(entry).collect()].concat()
    }

    #[test]
    fn without_its_list_a_file_lets_in_nobody_new() {
        // user::rw- user:bob:--- group::r-- mask::rw- other::r--
        assert_eq!(without_list(0o664, &list(&[(1, 6), (2, 0), (4, 4), (16, 6), (32, 4)])), 0o600);
        // user::rw- user:bob:rw- group::r-- mask::rw- other::r--
        assert_eq!(without_list(0o664, &list(&[(1, 6), (2, 6), (4, 4), (16, 6), (32, 4)])), 0o644);
        assert_eq!(without_list(0o660, &list(&[(1, 6), (2, 6), (4, 0), (16, 6), (32, 0)])), 0o600);
    }
}
