// SPDX-License-Identifier: Apache-2.0
//! System calls that std does not offer. What a system lacks or declines is
//! not an error here; callers say what they do without.

#![allow(unsafe_code, reason = "calls into libc on descriptors that are open for the call")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Declined rather than failed.
pub(super) fn declined(error: &io::Error) -> bool {
    let errno = error.raw_os_error().unwrap_or(0);
    errno == libc::EOPNOTSUPP
        || matches!(errno, libc::ENOSYS | libc::EINVAL | libc::ENOTTY | libc::ENOLCK | libc::ENOTSUP)
}

fn retry(mut call: impl FnMut() -> bool) -> io::Result<()> {
    loop {
        if call() {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// What became of an attempt to lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lock {
    Held,
    /// Somebody else has it.
    Busy,
    /// The file system has no locks.
    Unsupported,
}

/// Locks the file against other opens of it, for as long as it is open.
pub(super) fn lock(file: &File) -> Lock {
    // SAFETY: the descriptor is open.
    match retry(|| unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0) {
        Ok(()) => Lock::Held,
        Err(error) if error.raw_os_error() == Some(libc::EWOULDBLOCK) => Lock::Busy,
        Err(_) => Lock::Unsupported,
    }
}

/// For whom this process makes files.
pub(super) fn user() -> u32 {
    // SAFETY: no arguments, and it can't fail.
    unsafe { libc::geteuid() }
}

/// Gives the lock up, also for copies of the descriptor.
pub(super) fn unlock(file: &File) {
    // SAFETY: the descriptor is open.
    unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_UN) };
}

/// Sets room for `size` bytes aside where the file system can: no space is an
/// error now and not in the middle, and blocks follow one another. (Elsewhere
/// the length is not set either: FAT would write zeros up to it.)
pub(super) fn allocate(file: &File, size: u64) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        let len = libc::off64_t::try_from(size).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
        // SAFETY: the descriptor is open.
        match retry(|| unsafe { libc::fallocate64(file.as_raw_fd(), 0, 0, len) } == 0) {
            Err(error) if !declined(&error) => return Err(error),
            _ => {}
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (file, size);
    Ok(())
}

/// Starts writing to the disk what has been written to the file so far.
pub(super) fn start_writeback(file: &File) {
    #[cfg(target_os = "linux")]
    // SAFETY: the descriptor is open; a hint.
    unsafe {
        libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}

/// Brings the file to the disk, where its file system knows of such a thing.
pub(super) fn sync(file: &File) -> io::Result<()> {
    match file.sync_all() {
        Err(error) if declined(&error) => Ok(()),
        synced => synced,
    }
}

/// Makes the file system say now what it would have said at the last close:
/// NFS reports a full disk there.
pub(super) fn flush(file: &File) -> io::Result<()> {
    match file.try_clone() {
        Ok(copy) => close(copy),
        // No descriptor is left: a sync says as much, only later.
        Err(_) => sync(file),
    }
}

/// Closes the file and tells what came of it: mounts of object stores upload it then.
pub(super) fn close(file: File) -> io::Result<()> {
    use std::os::fd::IntoRawFd;
    // SAFETY: the descriptor is ours and not used again, whatever close says.
    match unsafe { libc::close(file.into_raw_fd()) } {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            // The descriptor is closed all the same.
            error if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            error => Err(error),
        },
    }
}

/// Copies inside the kernel, which may share blocks or copy on the server.
/// `None`: not possible between these two, read and write instead.
pub(super) fn copy_range(
    from: &File,
    from_offset: u64,
    to: &File,
    to_offset: u64,
    len: u64,
) -> io::Result<Option<u64>> {
    #[cfg(target_os = "linux")]
    {
        let offset =
            |offset: u64| libc::off64_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG));
        let (mut from_offset, mut to_offset) = (offset(from_offset)?, offset(to_offset)?);
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let mut copied = 0;
        let call = || {
            // By number, as C libraries older than glibc 2.27 and musl 1.2.3 have no function for it.
            // SAFETY: the descriptors are open and the offsets are ours.
            copied = unsafe {
                let (from_offset, to_offset) = (&raw mut from_offset, &raw mut to_offset);
                let (from, to) = (from.as_raw_fd(), to.as_raw_fd());
                libc::syscall(libc::SYS_copy_file_range, from, from_offset, to, to_offset, len, 0)
            };
            copied >= 0
        };
        match retry(call) {
            // Nothing left to copy: reading will say that the source has become shorter.
            Ok(()) => Ok(u64::try_from(copied).ok().filter(|copied| *copied != 0)),
            Err(error) if declined(&error) => Ok(None),
            Err(error) => match error.raw_os_error() {
                Some(libc::EXDEV | libc::EBADF | libc::EPERM | libc::ETXTBSY) => Ok(None),
                _ => Err(error),
            },
        }
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (from, from_offset, to, to_offset, len);
        Ok(None)
    }
}

/// Makes `to` share the blocks of `from` from `from_offset` to its end.
/// `false`: the file system can't.
pub(super) fn clone_tail(from: &File, from_offset: u64, to: &File, to_offset: u64) -> io::Result<bool> {
    #[cfg(target_os = "linux")]
    {
        /// linux/fs.h
        #[repr(C)]
        struct FileCloneRange {
            src_fd: i64,
            src_offset: u64,
            src_length: u64,
            dest_offset: u64,
        }
        /// _IOW(0x94, 13, struct file_clone_range)
        const FICLONERANGE: u64 = 0x4020_940D;
        // A length of 0 means to the end.
        let range = FileCloneRange {
            src_fd: i64::from(from.as_raw_fd()),
            src_offset: from_offset,
            src_length: 0,
            dest_offset: to_offset,
        };
        // The parameter's type differs between C libraries, and the number fits all of them.
        #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "see above")]
        // SAFETY: the struct is the request's own and lives through the call.
        match retry(|| unsafe { libc::ioctl(to.as_raw_fd(), FICLONERANGE as _, &raw const range) } == 0) {
            Ok(()) => Ok(true),
            Err(error) if declined(&error) || error.raw_os_error() == Some(libc::EXDEV) => Ok(false),
            Err(error) => Err(error),
        }
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (from, from_offset, to, to_offset);
        Ok(false)
    }
}

/// Renames, and replaces what is there.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    loop {
        match std::fs::rename(from, to) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Renames unless `to` exists: `EEXIST`.
pub(super) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        let c = |path: &Path| std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from);
        let (c_from, c_to) = (c(from)?, c(to)?);
        let (at, flags) = (libc::AT_FDCWD, libc::RENAME_NOREPLACE);
        // The system call, as not every C library has the function.
        // SAFETY: two paths that end in NUL.
        let call = || unsafe { libc::syscall(libc::SYS_renameat2, at, c_from.as_ptr(), at, c_to.as_ptr(), flags) } == 0;
        match retry(call) {
            Ok(()) => return Ok(()),
            Err(error) if declined(&error) => {}
            Err(error) => return Err(error),
        }
    }
    // A link does not replace either; for a moment the file has both names.
    std::fs::hard_link(from, to)?;
    // Left behind, it would be cleared as stale by the next save.
    drop(std::fs::remove_file(from));
    Ok(())
}

/// Gives a file another name beside its own; `false` where the file system has
/// no such thing, or not for this file: a copy would have to do.
pub(super) fn link(from: &Path, to: &Path) -> io::Result<bool> {
    match std::fs::hard_link(from, to) {
        Ok(()) => Ok(true),
        Err(error) if declined(&error) => Ok(false),
        Err(error) => match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES | libc::EXDEV | libc::EMLINK) => Ok(false),
            _ => Err(error),
        },
    }
}

/// The access list of a file, as the system keeps it; `None` without one.
pub(super) fn access_list(path: &Path) -> io::Result<Option<Vec<u8>>> {
    #[cfg(target_os = "linux")]
    {
        let path = std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from)?;
        // SAFETY: texts that end in NUL, and room of the length that is said.
        list_from(|list, room| unsafe { libc::lgetxattr(path.as_ptr(), ACCESS.as_ptr(), list, room) })
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = path;
        Ok(None)
    }
}

/// The same for an open file.
pub(super) fn access_list_of(file: &File) -> io::Result<Option<Vec<u8>>> {
    #[cfg(target_os = "linux")]
    // SAFETY: the descriptor is open, a text that ends in NUL, and room of the length that is said.
    return list_from(|list, room| unsafe { libc::fgetxattr(file.as_raw_fd(), ACCESS.as_ptr(), list, room) });
    #[cfg(not(target_os = "linux"))]
    {
        let _ = file;
        Ok(None)
    }
}

#[cfg(target_os = "linux")]
const ACCESS: &std::ffi::CStr = c"system.posix_acl_access";

#[cfg(target_os = "linux")]
fn list_from(mut get: impl FnMut(*mut libc::c_void, usize) -> isize) -> io::Result<Option<Vec<u8>>> {
    // No file system keeps longer ones.
    let (mut list, mut found) = (Vec::new(), -1);
    for room in [1 << 10, 64 << 10] {
        list.resize(room, 0);
        let got = retry(|| {
            found = get(list.as_mut_ptr().cast(), room);
            found >= 0
        });
        match got {
            Ok(()) => break,
            Err(error) if error.raw_os_error() == Some(libc::ERANGE) => {}
            Err(error) if declined(&error) || error.raw_os_error() == Some(libc::ENODATA) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    let found = usize::try_from(found).map_err(|_| io::Error::from_raw_os_error(libc::ERANGE))?;
    list.truncate(found);
    Ok(Some(list))
}

/// Gives the file an access list, and the mode that goes with it.
pub(super) fn set_access_list(file: &File, list: &[u8]) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    // SAFETY: the descriptor is open, a text that ends in NUL, and bytes of the length that is said.
    return retry(|| unsafe {
        libc::fsetxattr(file.as_raw_fd(), ACCESS.as_ptr(), list.as_ptr().cast(), list.len(), 0) == 0
    });
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (file, list);
        Err(io::Error::from_raw_os_error(libc::ENOTSUP))
    }
}

/// Takes its access list away from the file.
pub(super) fn remove_access_list(file: &File) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    // SAFETY: the descriptor is open, and a text that ends in NUL.
    return retry(|| unsafe { libc::fremovexattr(file.as_raw_fd(), ACCESS.as_ptr()) == 0 });
    #[cfg(not(target_os = "linux"))]
    {
        let _ = file;
        Err(io::Error::from_raw_os_error(libc::ENOTSUP))
    }
}

/// Reads and writes past the page cache from now on; false where the file
/// system declines.
pub(super) fn direct(file: &File, on: bool) -> bool {
    #[cfg(target_os = "linux")]
    // SAFETY: the descriptor is open.
    unsafe {
        let flags = libc::fcntl(file.as_raw_fd(), libc::F_GETFL);
        let wanted = if on { flags | libc::O_DIRECT } else { flags & !libc::O_DIRECT };
        flags >= 0 && libc::fcntl(file.as_raw_fd(), libc::F_SETFL, wanted) == 0
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (file, on);
        false
    }
}
