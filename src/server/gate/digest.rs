//! A digest over parts that no client can make collide.

use ring::digest::{Context, SHA256};
use std::hash::Hasher;

/// Takes what is hashed into SHA-256. Each part brings its length or its end, so none can be
/// taken for two.
#[derive(Clone)]
pub(super) struct Digest(Context);

impl Digest {
    pub(super) fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    /// Marks the end of a part of unknown length.
    pub(super) fn write_part_end(&mut self) {
        self.write(&[0xfe]);
    }

    pub(super) fn end(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.finish().as_ref());
        bytes
    }
}

impl Hasher for Digest {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        // Nothing asks for the short form.
        0
    }
}
