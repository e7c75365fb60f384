//! The bytes of an item: text or base64 in JSON, and shared by all that they are sent to.

use base64::engine::general_purpose::STANDARD as BASE64;
use base64::{DecodeError, Engine};
use bytes::Bytes;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;

/// See the [module](self).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Content {
    /// Text.
    #[serde(serialize_with = "write_text", deserialize_with = "read_text")]
    Text(Bytes),
    /// Any bytes, in base64.
    #[serde(serialize_with = "write_base64", deserialize_with = "read_base64")]
    Bin(Bytes),
}

impl Content {
    /// A text.
    pub fn of_text(text: &str) -> Self {
        Self::Text(Bytes::copy_from_slice(text.as_bytes()))
    }

    /// Bytes that are given in base64.
    pub fn of_base64(coded: &str) -> Result<Self, DecodeError> {
        BASE64.decode(coded).map(|bytes| Self::Bin(bytes.into()))
    }

    /// The bytes.
    pub fn bytes(&self) -> Bytes {
        match self {
            Self::Text(bytes) | Self::Bin(bytes) => bytes.clone(),
        }
    }
}

fn write_text<S: Serializer>(text: &Bytes, out: S) -> Result<S::Ok, S::Error> {
    // It was made of text.
    out.serialize_str(&String::from_utf8_lossy(text))
}

fn read_text<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
    String::deserialize(from).map(Bytes::from)
}

fn write_base64<S: Serializer>(bytes: &Bytes, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(&BASE64.encode(bytes))
}

fn read_base64<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
    let coded = Cow::<str>::deserialize(from)?;
    BASE64.decode(coded.as_bytes()).map(Bytes::from).map_err(D::Error::custom)
}
