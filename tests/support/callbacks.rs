// SPDX-License-Identifier: Apache-2.0
//! st_io and st_resolver over bytes in memory, with faults on demand and counts
//! of all that happened.

use std::collections::HashMap;
use std::ffi::{c_char, c_void, CStr};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use safetensors::ffi::{st_error, st_status, ST_OK};
use safetensors::ffi::{st_io, st_resolver};

use super::handle::{init_io, init_resolver};

/// What a reader does with a request.
#[derive(Clone, Copy, Default)]
pub(crate) enum Manner {
    /// All that was asked for.
    #[default]
    Whole,
    /// At most that many bytes.
    Short(usize),
    /// This status, errno and text, from the request of this number on.
    Fails(usize, st_status, i32, &'static CStr),
    /// ST_OK, and this for `done`.
    Claims(usize),
}

/// A status, an errno and a text.
pub(crate) type Refusal = (st_status, i32, &'static CStr);

/// What is done within a read of these bytes, and how many of them it gives.
pub(crate) type Within = Arc<dyn Fn(u64, usize) -> Result<usize, Refusal> + Send + Sync>;

/// What happened to one reader or resolver.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) reads: AtomicUsize,
    pub(crate) released: AtomicUsize,
    pub(crate) under_way: AtomicUsize,
    pub(crate) most_under_way: AtomicUsize,
    pub(crate) requests: Mutex<Vec<(u64, usize)>>,
}

impl Counts {
    pub(crate) fn released(&self) -> usize {
        self.released.load(SeqCst)
    }

    pub(crate) fn reads(&self) -> usize {
        self.reads.load(SeqCst)
    }
}

/// Bytes behind an st_io.
#[derive(Clone, Default)]
pub(crate) struct Reader {
    pub(crate) bytes: Arc<Vec<u8>>,
    pub(crate) manner: Manner,
    pub(crate) delay: Duration,
    pub(crate) within: Option<Within>,
    pub(crate) preferred_read: usize,
    pub(crate) max_parallel: usize,
    pub(crate) counts: Arc<Counts>,
}

impl Reader {
    pub(crate) fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: Arc::new(bytes.into()), ..Self::default() }
    }

    pub(crate) fn manner(self, manner: Manner) -> Self {
        Self { manner, ..self }
    }

    /// The same with something done within each read.
    pub(crate) fn within(self, within: impl Fn(u64, usize) -> Result<usize, Refusal> + Send + Sync + 'static) -> Self {
        Self { within: Some(Arc::new(within)), ..self }
    }

    /// An st_io whose release frees what this allocates.
    pub(crate) fn io(&self) -> st_io {
        st_io {
            size: self.bytes.len() as u64,
            read_at: Some(read_at),
            release: Some(release),
            user_data: Box::into_raw(Box::new(self.clone())).cast(),
            preferred_read: self.preferred_read,
            max_parallel: self.max_parallel,
            ..init_io()
        }
    }

    fn read(&self, offset: u64, len: usize) -> Result<&[u8], Refusal> {
        let number = self.counts.reads.fetch_add(1, SeqCst);
        self.counts.requests.lock().unwrap().push((offset, len));
        let under_way = self.counts.under_way.fetch_add(1, SeqCst) + 1;
        self.counts.most_under_way.fetch_max(under_way, SeqCst);
        std::thread::sleep(self.delay);
        let given = self.within.as_ref().map(|within| within(offset, len));
        self.counts.under_way.fetch_sub(1, SeqCst);
        if let Manner::Fails(from, status, errno, text) = self.manner {
            if number >= from {
                return Err((status, errno, text));
            }
        }
        assert!(len > 0, "nothing is asked for");
        let all = &self.bytes[offset as usize..][..given.unwrap_or(Ok(len))?];
        match self.manner {
            Manner::Short(most) => Ok(&all[..len.min(most)]),
            _ => Ok(all),
        }
    }
}

pub(crate) unsafe extern "C" fn read_at(
    user_data: *mut c_void,
    offset: u64,
    dst: *mut c_void,
    len: usize,
    done: *mut usize,
    error: *mut st_error,
) -> st_status {
    // SAFETY: what the library was given in io(), and what it promises for the rest.
    unsafe {
        let reader = &*user_data.cast::<Reader>();
        match reader.read(offset, len) {
            Ok(bytes) => {
                dst.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
                done.write(match reader.manner {
                    Manner::Claims(number) => number,
                    _ => bytes.len(),
                });
                ST_OK
            }
            Err((status, errno, text)) => {
                (*error).os_errno = errno;
                say(error, text);
                status
            }
        }
    }
}

/// # Safety
/// `error` is writable.
pub(crate) unsafe fn say(error: *mut st_error, text: &CStr) {
    // SAFETY: the caller's promise; texts here are short.
    unsafe {
        (&raw mut (*error).message)
            .cast::<c_char>()
            .copy_from_nonoverlapping(text.as_ptr(), text.to_bytes_with_nul().len())
    }
}

unsafe extern "C" fn release(user_data: *mut c_void) {
    // SAFETY: made in io(), and given up here. A second call would be caught by
    // valgrind and AddressSanitizer, and by the count, which others hold.
    let reader = unsafe { Box::from_raw(user_data.cast::<Reader>()) };
    reader.counts.released.fetch_add(1, SeqCst);
}

/// Readers by name, for an st_resolver.
#[derive(Clone, Default)]
pub(crate) struct Files {
    pub(crate) readers: HashMap<String, Reader>,
    /// What opening an unknown name gives.
    pub(crate) missing: (st_status, i32),
    pub(crate) counts: Arc<Counts>,
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
}

impl Files {
    pub(crate) fn new<N: Into<String>>(readers: impl IntoIterator<Item = (N, Reader)>) -> Self {
        let readers = readers.into_iter().map(|(name, reader)| (name.into(), reader)).collect();
        Self { readers, missing: (3, 2), ..Self::default() }
    }

    pub(crate) fn resolver(&self) -> st_resolver {
        let user_data = Box::into_raw(Box::new(self.clone())).cast();
        st_resolver { open: Some(resolve), release: Some(release_files), user_data, ..init_resolver() }
    }
}

unsafe extern "C" fn resolve(
    user_data: *mut c_void,
    name: *const c_char,
    out: *mut st_io,
    error: *mut st_error,
) -> st_status {
    // SAFETY: what the library was given in resolver(), and what it promises for the rest.
    unsafe {
        let files = &*user_data.cast::<Files>();
        let name = CStr::from_ptr(name).to_str().unwrap().to_owned();
        assert_eq!((*out).struct_size, size_of::<st_io>());
        let found = files.readers.get(&name).map(Reader::io);
        files.asked.lock().unwrap().push(name);
        match found {
            Some(io) => {
                out.write(io);
                ST_OK
            }
            None => {
                (*error).os_errno = files.missing.1;
                say(error, c"no such key");
                files.missing.0
            }
        }
    }
}

unsafe extern "C" fn release_files(user_data: *mut c_void) {
    // SAFETY: made in resolver(), and given up here.
    let files = unsafe { Box::from_raw(user_data.cast::<Files>()) };
    files.counts.released.fetch_add(1, SeqCst);
}
