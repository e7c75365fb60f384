//! Secret text.

use std::fmt;
use subtle::ConstantTimeEq;

/// A token or key. It is displayed as `"***"` and compared in constant time.
#[derive(Clone, Default)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// A secret of 128 bits, as 32 hex digits.
    pub fn from_bits(bits: [u8; 16]) -> Self {
        Self(format!("{:032x}", u128::from_be_bytes(bits)))
    }

    /// True if there is no text.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text itself, for sending it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// True if `offered` is this secret. The time it takes reveals only the lengths.
    pub fn is(&self, offered: &str) -> bool {
        self.0.as_bytes().ct_eq(offered.as_bytes()).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "\"\"" } else { "\"***\"" })
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.is(&other.0)
    }
}

impl Eq for Secret {}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn a_secret_masks_itself() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "\"***\"");
        assert!(Secret::new("a").is("a") && !Secret::new("a").is("b"));
    }
}
