// SPDX-License-Identifier: Apache-2.0
//! The integers of a config.json, by their names.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// What a config.json says, as far as plans can ask for it.
#[derive(Debug)]
pub(super) enum Setting {
    Integer(u64),
    Null,
    Object(Settings),
    /// Text, lists, numbers that are no integers of 0 or more.
    Other,
}

/// An object of it.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    entries: HashMap<Box<str>, Setting>,
    /// The value of `model_type`.
    pub(super) model_type: Option<Box<str>>,
}

impl Settings {
    /// What names joined by dots lead to.
    pub(super) fn find(&self, path: &str) -> Option<&Setting> {
        let mut names = path.split('.');
        let mut found = self.entries.get(names.next()?)?;
        for name in names {
            let Setting::Object(object) = found else { return None };
            found = object.entries.get(name)?;
        }
        Some(found)
    }
}

impl<'de> Deserialize<'de> for Settings {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(ObjectVisitor)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Settings;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Settings, A::Error> {
        let mut settings = Settings::default();
        while let Some(key) = map.next_key::<Box<str>>()? {
            let Found(setting, text) = map.next_value()?;
            if &*key == "model_type" {
                settings.model_type = text;
            }
            if settings.entries.contains_key(&key) {
                return Err(A::Error::custom(format_args!("the key {key:?} comes twice")));
            }
            settings.entries.insert(key, setting);
        }
        Ok(settings)
    }
}

/// A setting, and its text where it is one.
struct Found(Setting, Option<Box<str>>);

impl<'de> Deserialize<'de> for Found {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(SettingVisitor)
    }
}

struct SettingVisitor;

impl<'de> Visitor<'de> for SettingVisitor {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Found, E> {
        Ok(Found(Setting::Integer(value.into()), None))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Found, E> {
        Ok(Found(Setting::Integer(value), None))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Found, E> {
        Ok(Found(Setting::Other, None))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Found, E> {
        Ok(Found(Setting::Other, None))
    }

    fn visit_str<E>(self, text: &str) -> Result<Found, E> {
        Ok(Found(Setting::Other, Some(text.into())))
    }

    fn visit_unit<E>(self) -> Result<Found, E> {
        Ok(Found(Setting::Null, None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Found, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Found(Setting::Other, None))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Found, A::Error> {
        Ok(Found(Setting::Object(ObjectVisitor.visit_map(map)?), None))
    }
}
