//! A body in passing, kept up to a bound.

use crate::server::limits::body_memory::BodyShare;

/// A body, kept up to a bound.
pub(super) struct Body {
    /// Its share of the memory for all bodies.
    pub(super) share: BodyShare,
    /// There was no room for it.
    pub(super) crowded: bool,
    /// `None` = no rule needs it.
    pub(super) bytes: Option<Vec<u8>>,
    pub(super) most: usize,
    /// It was longer than the bound.
    pub(super) over: bool,
}

impl Body {
    pub(super) fn add(&mut self, piece: &[u8]) {
        let Some(bytes) = self.bytes.as_mut().filter(|_| !self.over) else { return };
        let too_long = bytes.len() + piece.len() > self.most;
        if too_long || !self.share.grow(piece.len()) {
            (self.over, self.crowded) = (true, !too_long);
            *bytes = Vec::new();
            self.share.shrink_to(0);
        } else {
            bytes.extend_from_slice(piece);
        }
    }

    /// It comes again from its beginning.
    pub(super) fn begin(&mut self) {
        (self.over, self.crowded) = (false, false);
        self.bytes.iter_mut().for_each(Vec::clear);
        self.share.shrink_to(0);
    }

    /// All of it, if it was kept and is not too long.
    pub(super) fn whole(&self) -> Result<&[u8], String> {
        match &self.bytes {
            Some(bytes) if !self.over => Ok(bytes),
            _ if self.crowded => {
                Err("there was no room to keep the body (limits.body_memory)".to_owned())
            }
            _ => Err(format!("the body is longer than {} bytes (history.max_message)", self.most)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::server::limits::body_memory::BodyMemory;
    use std::sync::Arc;

    #[test]
    fn a_body_beyond_the_bound_is_not_kept() {
        let memory = Arc::new(BodyMemory::default());
        let share = || BodyShare::new(&memory);
        let body = || Body {
            share: share(),
            crowded: false,
            bytes: Some(Vec::new()),
            most: 4,
            over: false,
        };
        memory.allow(5);
        let mut first = body();
        let mut second = body();
        first.add(b"abc");
        second.add(b"abc");
        assert!(second.whole().unwrap_err().contains("body_memory"));
        drop((first, second));
        let mut body = body();
        body.add(b"ab");
        body.add(b"cd");
        assert_eq!(body.whole(), Ok(b"abcd".as_slice()));
        body.add(b"e");
        assert!(body.whole().is_err() && body.bytes.unwrap().is_empty());
        drop(body.share);
        assert_eq!(memory.used(), 0);
    }
}
