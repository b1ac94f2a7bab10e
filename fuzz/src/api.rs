// SPDX-License-Identifier: Apache-2.0
//! A byte script of calls to the C functions, with NULL, absurd numbers and
//! records that were tampered with. Every call has to give a status of the
//! header's, and an error exactly where it fails. What the header leaves to the
//! caller (that pointers lead to as much as their sizes say) is kept.

use std::ffi::{c_void, CStr, CString};
use std::mem::{zeroed, MaybeUninit};
use std::ptr;

use safetensors::ffi::*;
use safetensors::record::{st_metadata, st_range, st_tensor};

use crate::script::Script;
use crate::support::callbacks::{Manner, Reader};
use crate::support::handle::{init_io, ErrorSlot, Handle};
use crate::support::made::file_of;
use crate::support::records::{Entry, Record};

/// Bytes in every buffer that a call may read or write.
const ROOM: usize = 4096;

/// What a call was given for its error; checked when it has returned.
struct Call {
    slot: ErrorSlot,
    without: bool,
}

impl Call {
    fn new(script: &mut Script<'_>) -> Self {
        Self { slot: ErrorSlot::default(), without: script.byte() == 0 }
    }

    fn error(&mut self) -> *mut st_error {
        if self.without {
            ptr::null_mut()
        } else {
            self.slot.as_mut()
        }
    }

    /// A status of the header's, and the error that goes with it.
    fn returned(self, status: i32) {
        if self.without || status == ST_OK {
            assert!(self.slot.untouched());
        } else {
            assert_eq!(self.slot.failure().code, status);
        }
    }

    fn returned_pointer<T>(self, pointer: *const T) {
        match pointer.is_null() && !self.without {
            true => drop(self.slot.failure()),
            false => assert!(self.slot.untouched()),
        }
    }
}

struct World {
    /// Kept for as long as handles borrow from them: declared after those.
    handles: Vec<Handle>,
    files: Vec<Box<[u8]>>,
    buffer: Vec<u8>,
    shape: Vec<i64>,
    texts: Vec<CString>,
}

/// See the module.
pub fn api(data: &[u8]) {
    let mut script = Script(data);
    let mut world = World {
        handles: Vec::new(),
        files: vec![file_of(&["a", "b", ""], 40).into()],
        buffer: vec![0; ROOM],
        shape: vec![1; 64],
        texts: ["a", "b", "é", "__metadata__", "nope", "a\"\\\n"].map(|text| CString::new(text).unwrap()).to_vec(),
    };
    let mut calls = 0;
    while !script.is_empty() && calls < 64 {
        calls += 1;
        // SAFETY: see the module.
        unsafe {
            match script.below(14) {
                0..=2 => world.open(&mut script),
                3 => world.open_io(&mut script),
                4 => world.close(&mut script),
                5 => world.look(&mut script),
                6 => world.get(&mut script),
                7 => world.read(&mut script),
                8..=9 => world.slice(&mut script),
                10 => world.convert(&mut script),
                11..=12 => world.serialize(&mut script),
                _ => names(&mut script),
            }
        }
    }
    world.handles.clear();
}

impl World {
    /// One of the handles, or NULL.
    fn handle(&self, script: &mut Script<'_>) -> *mut st_checkpoint {
        self.handles.get(script.below(6)).map_or(ptr::null_mut(), |handle| handle.0)
    }

    fn keep(&mut self, handle: *mut st_checkpoint) {
        if !handle.is_null() {
            self.handles.push(Handle(handle));
            if self.handles.len() > 5 {
                self.handles.remove(0);
            }
        }
    }

    unsafe fn open(&mut self, script: &mut Script<'_>) {
        let file = match script.below(3) {
            0 => {
                let len = usize::from(script.byte());
                let header = script.bytes(len);
                let text = [&(header.len() as u64).to_le_bytes(), header, &[7; 50][..script.below(50)]].concat();
                self.files.push(text.into());
                self.files.last().unwrap()
            }
            _ => &self.files[0],
        };
        // As large as any struct may claim to be; its tail is the newer caller's.
        let mut options = [0_u64; ROOM / 8];
        options[0] = script.choose(&[72, 72, 56, 56, 48, 64, 80, 8, 7, 0, 4096, 4097, usize::MAX]) as u64;
        for _ in 0..script.below(4) {
            options[1 + script.below(10)] = script.number();
        }
        // The variant is a text or NULL.
        if options[7] != 0 {
            options[7] = c"fp16".as_ptr().addr() as u64;
        }
        let options = script.choose(&[ptr::null(), options.as_ptr()]).cast::<st_open_options>();
        let (data, size) = match script.byte() {
            255 => (ptr::null(), script.number() as usize),
            254 => (file.as_ptr(), usize::MAX - script.below(3)),
            _ => (file.as_ptr(), file.len()),
        };
        if data.is_null() || size <= file.len() || size > isize::MAX as usize {
            let mut call = Call::new(script);
            let handle = st_open_memory(data.cast(), size, options, call.error());
            call.returned_pointer(handle);
            self.keep(handle);
        }
    }

    unsafe fn open_io(&mut self, script: &mut Script<'_>) {
        let manner = match script.below(5) {
            0 => Manner::Whole,
            1 => Manner::Short(1 + script.below(9)),
            2 => Manner::Fails(script.below(4), script.number() as i32, script.number() as i32, c"no"),
            _ => Manner::Claims(script.number() as usize),
        };
        // The status of success with nothing read is a claim as well.
        if matches!(manner, Manner::Fails(_, ST_OK, ..)) {
            return;
        }
        let reader = Reader {
            preferred_read: script.number() as usize,
            max_parallel: script.below(3),
            ..Reader::new(self.files[0].to_vec()).manner(manner)
        };
        let mut io = reader.io();
        match script.byte() {
            255 => {
                (io.release.unwrap())(io.user_data);
                io = init_io();
            }
            254 => io.size = io.size.min(script.number()),
            _ => {}
        }
        let mut call = Call::new(script);
        let handle = st_open_io(&io, ptr::null(), call.error());
        call.returned_pointer(handle);
        self.keep(handle);
    }

    unsafe fn close(&mut self, script: &mut Script<'_>) {
        match script.below(3) {
            0 => st_free(ptr::null_mut()),
            1 if !self.handles.is_empty() => drop(self.handles.remove(script.below(self.handles.len()))),
            _ => {
                let retained = st_retain(self.handle(script));
                self.keep(retained);
            }
        }
    }

    unsafe fn look(&mut self, script: &mut Script<'_>) {
        let handle = self.handle(script);
        let mut count = usize::MAX;
        let count_at = script.choose(&[ptr::null_mut(), &raw mut count]);
        let found = [
            st_tensors(handle, count_at).cast::<c_void>(),
            st_shards(handle, count_at).cast(),
            st_metadata_entries(handle, count_at).cast(),
        ];
        assert!(!handle.is_null() || found.iter().all(|found| found.is_null()));
        let key = &self.texts[script.below(self.texts.len())];
        let value = st_get_metadata(handle, script.choose(&[ptr::null(), key.as_ptr()]), count_at);
        assert!(value.is_null() || !CStr::from_ptr(value).is_empty() || count == 0 || count == usize::MAX);
    }

    unsafe fn get(&mut self, script: &mut Script<'_>) {
        let handle = self.handle(script);
        let name = script.bytes(3);
        let (name, len) =
            script.choose(&[(name.as_ptr(), name.len()), (ptr::null(), 0), (ptr::null(), 5), (b"b".as_ptr(), 1)]);
        let found = st_find_tensor_n(handle, name.cast(), len);
        let mut call = Call::new(script);
        let got = st_get_tensor_n(handle, name.cast(), len, call.error());
        call.returned_pointer(got);
        assert!(!found.is_null() || got.is_null());
        if let Some(tensor) = got.as_ref() {
            assert!(tensor.data().is_some_and(|data| data.len() as u64 == tensor.size()));
        }
    }

    /// A record of a handle's with some fields changed, or one that is made up.
    unsafe fn record(&mut self, script: &mut Script<'_>, handle: *mut st_checkpoint) -> Record {
        let mut count = 0;
        let tensors = st_tensors(handle, &raw mut count).cast::<Record>();
        for size in &mut self.shape {
            *size = script.number() as i64;
        }
        let mut record: Record = match script.byte() {
            _ if count == 0 => zeroed(),
            250.. => zeroed(),
            number => tensors.add(usize::from(number) % count).read(),
        };
        for _ in 0..script.below(4) {
            match script.below(8) {
                0 => record.offset = script.number(),
                1 => record.size = script.number(),
                2 => record.shard = script.number() as u32,
                3 => record.dtype = script.number() as i32,
                4 => (record.rank, record.shape) = (script.below(64), self.shape.as_ptr()),
                5 => record.element_count = script.number(),
                6 => record.data = script.choose(&[ptr::null(), self.buffer.as_ptr().cast()]),
                _ => {
                    let text = &self.texts[script.below(self.texts.len())];
                    (record.name, record.name_len) = (text.as_ptr(), text.as_bytes().len());
                }
            }
        }
        record
    }

    unsafe fn read(&mut self, script: &mut Script<'_>) {
        let handle = self.handle(script);
        let record = self.record(script, handle);
        let dst_size = script.number() as usize % (ROOM + 1);
        let dst = script.choose(&[ptr::null_mut(), self.buffer.as_mut_ptr(), self.buffer.as_mut_ptr()]);
        let record = script.choose(&[ptr::null(), &raw const record, &raw const record, &raw const record]);
        let mut call = Call::new(script);
        let status = st_read_tensor(handle, record.cast::<st_tensor>(), dst.cast(), dst_size, call.error());
        call.returned(status);
    }

    unsafe fn slice(&mut self, script: &mut Script<'_>) {
        let handle = self.handle(script);
        let record = self.record(script, handle);
        let ranges: Vec<st_range> = (0..script.below(5))
            .map(|_| st_range {
                start: script.number() as i64,
                stop: script.number() as i64,
                step: script.number() as i64,
            })
            .collect();
        let (ranges_at, count) = script.choose(&[(ptr::null(), 0), (ptr::null(), 3), (ranges.as_ptr(), ranges.len())]);
        let dst_size = script.number() as usize % (ROOM + 1);
        let dst = script.choose(&[ptr::null_mut(), self.buffer.as_mut_ptr(), self.buffer.as_mut_ptr()]);
        let record = script.choose(&[ptr::null(), &raw const record, &raw const record]).cast::<st_tensor>();
        let mut call = Call::new(script);
        let status = st_read_slice(handle, record, ranges_at, count, dst.cast(), dst_size, call.error());
        call.returned(status);
        let (mut shape, mut size) = ([0_i64; 256], 0_u64);
        let mut call = Call::new(script);
        let status = st_slice_shape(record, ranges_at, count, shape.as_mut_ptr(), &raw mut size, call.error());
        call.returned(status);
    }

    unsafe fn convert(&mut self, script: &mut Script<'_>) {
        let (from, to) = (script.number() as i32, script.number() as i32);
        let known = |dtype: i32| st_dtype_bits(dtype) != 0;
        // Both known: as many as there is room for. Else any, as nothing is to be touched.
        let count = if known(from) && known(to) { script.below(200) } else { script.number() as usize };
        let (src, dst) = self.buffer.split_at_mut(ROOM / 2);
        let src = script.choose(&[ptr::null(), src.as_ptr(), src.as_ptr()]);
        let dst = script.choose(&[ptr::null_mut(), dst.as_mut_ptr(), dst.as_mut_ptr()]);
        let mut call = Call::new(script);
        let status = st_convert(from, src.cast(), to, dst.cast(), count, call.error());
        call.returned(status);
    }

    unsafe fn serialize(&mut self, script: &mut Script<'_>) {
        let mut records = Vec::new();
        for _ in 0..script.below(4) {
            let handle = self.handle(script);
            let mut record = self.record(script, handle);
            // What is given is as much as is said, and never 0: that would mean as much as it takes.
            record.size = record.size.clamp(1, ROOM as u64);
            record.data = script.choose(&[ptr::null(), self.buffer.as_ptr().cast(), self.buffer.as_ptr().cast()]);
            records.push(record);
        }
        let entries: Vec<Entry> = (0..script.below(3))
            .map(|_| {
                let (key, value) =
                    (&self.texts[script.below(self.texts.len())], &self.texts[script.below(self.texts.len())]);
                Entry {
                    key: key.as_ptr(),
                    key_len: script.below(2),
                    value: value.as_ptr(),
                    value_len: 0,
                    reserved: [9; 2],
                }
            })
            .collect();
        let mut options: st_save_options = MaybeUninit::zeroed().assume_init();
        options.struct_size = script.choose(&[64, 64, 64, 64, 24, 8, 0, 7, usize::MAX]);
        (options.order, options.alignment) =
            (script.choose(&[0, 0, 1, 2, -1]), script.choose(&[0, 0, 8, 64, 3, 1 << 30]));
        options.max_shard_size = script.choose(&[0, 0, 0, 1, u64::MAX]);
        options.header_reserve = script.choose(&[0, 0, 1, 100, u64::MAX, 1 << 62]);
        options.source = self.handle(script);
        let options = script.choose(&[ptr::null(), &raw const options]);
        let mut out = st_buffer { data: ptr::null_mut(), size: 0 };
        let count = script.choose(&[records.len(), records.len(), records.len(), 0]);
        let metadata = script.choose(&[ptr::null(), entries.as_ptr()]).cast::<st_metadata>();
        let metadata_count = if metadata.is_null() { script.below(2) } else { entries.len() };
        let out_at = script.choose(&[&raw mut out, &raw mut out, &raw mut out, ptr::null_mut()]);
        let mut call = Call::new(script);
        let status =
            st_serialize(records.as_ptr().cast(), count, metadata, metadata_count, options, out_at, call.error());
        call.returned(status);
        if status == ST_OK {
            // What it writes, it reads.
            let written = std::slice::from_raw_parts(out.data.cast::<u8>(), out.size).to_vec();
            self.files.push(written.into());
            let written = self.files.last().unwrap();
            let handle = st_open_memory(written.as_ptr().cast(), written.len(), ptr::null(), ptr::null_mut());
            assert!(!handle.is_null(), "{:?}", String::from_utf8_lossy(written));
            self.keep(handle);
        }
        st_buffer_free(&raw mut out);
        st_buffer_free(&raw mut out);
    }
}

unsafe fn names(script: &mut Script<'_>) {
    let number = script.number() as i32;
    assert!(!CStr::from_ptr(st_status_name(number)).is_empty() && !CStr::from_ptr(st_dtype_name(number)).is_empty());
    let name = CString::new(script.text().replace('\0', "")).unwrap();
    let dtype = st_dtype_from_name(script.choose(&[ptr::null(), name.as_ptr()]));
    assert!(dtype == 0 || CStr::from_ptr(st_dtype_name(dtype)) == &*name);
}
