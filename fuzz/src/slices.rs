// SPDX-License-Identifier: Apache-2.0
//! Any ranges of any tensor, against plain index arithmetic, from memory and
//! through a reader that counts: no byte outside the tensor is read, and none
//! but what small gaps allow.

use std::sync::Arc;
use std::sync::Mutex;

use safetensors::{Checkpoint, ErrorKind, OpenOptions, Range, ReadAt};

use crate::script::Script;
use crate::support::made::{file, pattern};
use crate::support::slice_model::{naive, Naive};

/// Gaps up to this width may be read over.
const WIDEST_GAP: u64 = 64 << 10;

/// Dtypes of every width in bits.
pub(crate) const DTYPES: &[(&str, usize)] =
    &[("U8", 8), ("F4", 4), ("F6_E2M3", 6), ("BF16", 16), ("F32", 32), ("F64", 64), ("BOOL", 8), ("C64", 64)];

struct Watched {
    bytes: Vec<u8>,
    reads: Arc<Mutex<Vec<(u64, u64)>>>,
    most: usize,
}

impl ReadAt for Watched {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> safetensors::Result<usize> {
        let done = buffer.len().min(self.most);
        self.reads.lock().unwrap().push((offset, done as u64));
        buffer[..done].copy_from_slice(&self.bytes[offset as usize..][..done]);
        Ok(done)
    }
}

/// See the module.
pub fn slices(data: &[u8]) {
    let mut script = Script(data);
    let (dtype, bits) = script.choose(DTYPES);
    let mut elements = 1;
    let shape: Vec<i64> = (0..script.below(5))
        .map(|_| {
            let size = script.below(if elements > 2000 { 3 } else { 24 });
            elements *= size;
            size as i64
        })
        .collect();
    if elements * bits % 8 != 0 {
        return;
    }
    let ranges: Vec<Range> = (0..script.below(6)).map(|dimension| range(&mut script, shape.get(dimension))).collect();
    let size = elements * bits / 8;
    let header = format!(
        r#"{{"a":{{"dtype":"U8","shape":[3],"data_offsets":[0,3]}},"x":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[3,{}]}}}}"#,
        size + 3
    );
    let bytes = file(header, &pattern(size + 3));
    let held = bytes[bytes.len() - size..].to_vec();
    let expected = naive(&held, bits, &shape, &ranges);

    let reads = Arc::default();
    let watched =
        Watched { bytes: bytes.clone(), reads: Arc::clone(&reads), most: 1 + usize::from(script.byte()) * 16 };
    let after = Checkpoint::open_reader(Box::new(watched), &OpenOptions::default()).unwrap();
    let leaked: &'static [u8] = Box::leak(bytes.clone().into_boxed_slice());
    let memory = Checkpoint::open_memory(leaked, &OpenOptions::default()).unwrap();
    reads.lock().unwrap().clear();
    for checkpoint in [&memory, &after] {
        let tensor = checkpoint.find(b"x").unwrap();
        let mut buffer = vec![0xEE; size + 1];
        let result = checkpoint.read_slice(tensor, &ranges, &mut buffer);
        match &expected {
            Naive::Invalid => assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidArgument),
            Naive::SubByte => assert_eq!(result.unwrap_err().kind(), ErrorKind::SubByte),
            Naive::Picked { bytes: picked, .. } => {
                result.unwrap();
                assert_eq!(&buffer[..picked.len()], picked, "{shape:?} {ranges:?}");
                assert!(buffer[picked.len()..].iter().all(|byte| *byte == 0xEE), "nothing after what was asked for");
                if let Some(less) = picked.len().checked_sub(1) {
                    let error = checkpoint.read_slice(tensor, &ranges, &mut buffer[..less]).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::BufferSize);
                }
            }
        }
    }
    let begin = (leaked.len() - size) as u64;
    for (offset, len) in reads.lock().unwrap().iter() {
        assert!(*offset >= begin && offset + len <= leaked.len() as u64, "read {len} bytes at {offset}");
    }
    let read: u64 = reads.lock().unwrap().iter().map(|(_, len)| len).sum();
    if let Naive::Picked { bytes: picked, .. } = &expected {
        // Each picked byte is followed by a gap at most.
        assert!(read <= (picked.len() as u64).saturating_mul(WIDEST_GAP + 1) && read <= size as u64);
    }
    drop((memory, after));
    // SAFETY: leaked above, and nobody looks at it any more.
    drop(unsafe { Box::from_raw(std::ptr::from_ref(leaked).cast_mut()) });
}

/// Mostly one that is valid in a dimension of this size.
pub(crate) fn range(script: &mut Script<'_>, size: Option<&i64>) -> Range {
    let size = size.copied().unwrap_or(3);
    let bound = |script: &mut Script<'_>| match script.byte() {
        255 => script.word() as i64,
        254 => i64::MIN,
        253 => i64::MAX,
        byte if byte & 1 == 0 => i64::from(byte / 2) % (size + 2),
        byte => i64::from(byte / 2) % (size + 2) - size - 1,
    };
    match script.byte() {
        0..=40 => Range::ALL,
        _ => {
            let (start, stop) = (bound(script), bound(script));
            let step = match script.byte() {
                255 => script.word() as i64,
                step => i64::from(step % 6) - i64::from(step == 252) * 3 + i64::from(step % 6 == 0 && step != 252),
            };
            Range { start, stop, step }
        }
    }
}
