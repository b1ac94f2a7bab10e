// SPDX-License-Identifier: Apache-2.0
//! ComfyUI's markers: a small JSON beside a weight, or in the file's metadata.
#![forbid(unsafe_code)]

use super::settings::Table;
use crate::checkpoint::Checkpoint;
use crate::model::config::MAX_CONFIG;
use crate::model::json::Json;

/// The markers of the metadata.
#[derive(Default)]
pub(super) struct Markers {
    names: Table,
    layers: Vec<Marker>,
    fault: Option<String>,
}

/// What a marker says of a module.
#[derive(Clone, Debug, Default)]
pub(super) struct Marker {
    pub(super) format: String,
    pub(super) rotated: bool,
}

impl Marker {
    /// `None` where a text has no format.
    pub(super) fn of(json: &Json) -> Option<Self> {
        let format = json.get("format")?.text()?.to_owned();
        Some(Self { format, rotated: json.get("convrot").and_then(Json::bool) == Some(true) })
    }
}

impl Markers {
    /// Those in a checkpoint's metadata.
    pub(super) fn of(checkpoint: &Checkpoint) -> Self {
        let mut entries = checkpoint.metadata().unwrap_or_default().iter();
        let Some(entry) = entries.find(|entry| entry.key() == b"_quantization_metadata") else {
            return Self::default();
        };
        match Json::parse(entry.value(), MAX_CONFIG) {
            Ok(json) => {
                let mut this = Self::default();
                for (name, layer) in json.map("layers").unwrap_or_default() {
                    if let Some(marker) = Marker::of(layer) {
                        this.names.insert(name.as_bytes().to_vec(), this.layers.len());
                        this.layers.push(marker);
                    }
                }
                this
            }
            Err(fault) => Self { fault: Some(fault), ..Self::default() },
        }
    }

    /// That of a module.
    ///
    /// # Errors
    /// What is wrong with the metadata, whatever the module.
    pub(super) fn find(&self, module: &[u8]) -> Result<Option<Marker>, String> {
        if let Some(fault) = &self.fault {
            return Err(["_quantization_metadata: ", fault].concat());
        }
        Ok(self.names.get(module).and_then(|number| self.layers.get(*number)).cloned())
    }
}
