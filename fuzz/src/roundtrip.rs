// SPDX-License-Identifier: Apache-2.0
//! What is written can be read back: by the reference implementation and by
//! the library, name for name and byte for byte. And where both write, they
//! write the same.

use std::collections::{BTreeSet, HashMap};

use reference::tensor::{serialize, SafeTensors, TensorView};
use safetensors::writer::{self, SaveOptions, TensorOrder};
use safetensors::{Checkpoint, Dtype, ErrorKind, NewTensor, OpenOptions};

use crate::script::Script;
use crate::support::made::pattern;

struct Given {
    name: String,
    dtype: Dtype,
    shape: Vec<i64>,
    bytes: Vec<u8>,
}

/// See the module.
pub fn roundtrip(data: &[u8]) {
    let mut script = Script(data);
    let options = SaveOptions {
        order: script.choose(&[TensorOrder::Reference, TensorOrder::Given]),
        alignment: script.choose(&[0, 0, 8, 64, 4096, 12, 1, 4 << 20]),
        header_reserve: script.choose(&[0, 0, 1, 500]),
        ..SaveOptions::default()
    };
    let pairs =
        |script: &mut Script<'_>| (0..script.below(4)).map(|_| (script.text(), script.text())).collect::<Vec<_>>();
    let metadata = (script.byte() & 1 != 0).then(|| pairs(&mut script));
    let given: Vec<_> = (0..script.below(8)).map(|_| tensor(&mut script)).collect();

    let entries: Option<Vec<(&str, &str)>> =
        metadata.as_ref().map(|pairs| pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect());
    let mut made = Vec::new();
    for Given { name, dtype, shape, bytes } in &given {
        // From left to right, as the format's readers multiply.
        let elements = shape.iter().try_fold(1_u64, |all, size| all.checked_mul(u64::try_from(*size).ok()?));
        let bits = elements.and_then(|elements| elements.checked_mul(u64::from(dtype.bits())));
        let wanted = match bits {
            _ if name == "__metadata__" => Some(ErrorKind::InvalidArgument),
            None => Some(ErrorKind::Shape),
            Some(bits) if bits % 8 != 0 => Some(ErrorKind::SubByte),
            Some(bits) if bits / 8 != bytes.len() as u64 => Some(ErrorKind::SizeMismatch),
            Some(_) => None,
        };
        match (NewTensor::new(name, *dtype, shape).and_then(|tensor| tensor.with_data(bytes)), wanted) {
            (Ok(tensor), None) => made.push(tensor),
            (Err(error), Some(wanted)) => return assert_eq!(error.kind(), wanted, "{error}"),
            (found, wanted) => panic!("{found:?}, {wanted:?}"),
        }
    }
    let names: BTreeSet<_> = given.iter().map(|given| &given.name).collect();
    let keys: BTreeSet<_> = entries.iter().flatten().map(|(key, _)| key).collect();
    let twice = names.len() != given.len() || keys.len() != entries.as_ref().map_or(0, Vec::len);
    let alignment = matches!(options.alignment, 0 | 8 | 64 | 4096);
    let written = match writer::serialize(&made, entries.as_deref(), &options, None, None) {
        Ok(written) => written,
        Err(error) => {
            let wanted = if alignment { ErrorKind::DuplicateKey } else { ErrorKind::InvalidArgument };
            return assert!(error.kind() == wanted && (twice || !alignment), "{error}");
        }
    };
    assert!(!twice && alignment);
    let length = u64::from_le_bytes(*written.first_chunk().unwrap());
    assert_eq!((length + 8) % options.alignment.max(8), 0);
    read_back(&written, &given, metadata.as_deref());
    if options.order == TensorOrder::Reference && options.alignment <= 8 && options.header_reserve == 0 {
        as_the_reference(&written, &given, metadata.as_deref());
    }
}

fn tensor(script: &mut Script<'_>) -> Given {
    let dtype = script.choose(Dtype::ALL);
    let dtype = if dtype == Dtype::Unknown { Dtype::U8 } else { dtype };
    let name = if script.byte() == 0 { "__metadata__".to_owned() } else { script.text() };
    let shape: Vec<i64> = (0..script.below(4))
        .map(|_| match script.byte() {
            255 => script.word() as i64,
            size => i64::from(size % 9),
        })
        .collect();
    let elements = shape.iter().try_fold(1_u64, |all, size| all.checked_mul(u64::try_from(*size).ok()?));
    let size =
        elements.map_or(0, |elements| elements.saturating_mul(u64::from(dtype.bits())) / 8).min(100_000) as usize;
    let size = if script.byte() == 7 { size + 1 } else { size };
    Given { name, dtype, shape, bytes: pattern(size) }
}

fn read_back(written: &[u8], given: &[Given], metadata: Option<&[(String, String)]>) {
    let theirs = SafeTensors::deserialize(written).unwrap();
    assert_eq!(theirs.len(), given.len());
    let leaked: &'static [u8] = Box::leak(written.to_vec().into_boxed_slice());
    let ours = Checkpoint::open_memory(leaked, &OpenOptions::default()).unwrap();
    assert_eq!(ours.tensors().len(), given.len());
    for Given { name, dtype, shape, bytes } in given {
        let view = theirs.tensor(name).unwrap();
        assert_eq!((view.dtype().to_string(), view.data()), (dtype.name().to_owned(), &bytes[..]));
        assert!(view.shape().iter().map(|size| *size as i64).eq(shape.iter().copied()));
        let record = ours.find(name.as_bytes()).unwrap();
        assert_eq!((record.dtype(), record.shape(), record.data()), (*dtype, &shape[..], Some(&bytes[..])));
    }
    let (_, info) = SafeTensors::read_metadata(written).unwrap();
    let wanted: Option<HashMap<String, String>> = metadata.map(|pairs| pairs.iter().cloned().collect());
    assert_eq!(info.metadata(), &wanted);
    let held = ours
        .metadata()
        .map(|entries| entries.iter().map(|entry| (entry.key(), entry.value())).collect::<HashMap<_, _>>());
    let wanted = wanted.as_ref().map(|map| map.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes())).collect());
    assert_eq!(held, wanted);
    drop(ours);
    // SAFETY: leaked above, and nobody looks at it any more.
    drop(unsafe { Box::from_raw(std::ptr::from_ref(leaked).cast_mut()) });
}

/// The reference orders metadata as a hash map does, and fails on an empty one
/// without tensors: with one entry there is one way.
fn as_the_reference(written: &[u8], given: &[Given], metadata: Option<&[(String, String)]>) {
    if metadata.is_some_and(|pairs| pairs.len() != 1) {
        return;
    }
    let theirs = SafeTensors::deserialize(written).unwrap();
    let views = given.iter().map(|given| {
        let shape = given.shape.iter().map(|size| *size as usize).collect();
        let dtype = theirs.tensor(&given.name).unwrap().dtype();
        (given.name.as_str(), TensorView::new(dtype, shape, &given.bytes).unwrap())
    });
    let metadata = metadata.map(|pairs| pairs.iter().cloned().collect());
    assert_eq!(serialize(views, metadata).unwrap(), written);
}
