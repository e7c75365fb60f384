//! A body in passing, kept up to a bound.

/// A body, kept up to a bound.
pub(super) struct Body {
    /// `None` = no rule needs it.
    pub(super) bytes: Option<Vec<u8>>,
    pub(super) most: usize,
    /// It was longer than the bound.
    pub(super) over: bool,
}

impl Body {
    pub(super) fn add(&mut self, piece: &[u8]) {
        let Some(bytes) = self.bytes.as_mut().filter(|_| !self.over) else { return };
        if bytes.len() + piece.len() > self.most {
            self.over = true;
            *bytes = Vec::new();
        } else {
            bytes.extend_from_slice(piece);
        }
    }

    /// All of it, if it was kept and is not too long.
    pub(super) fn whole(&self) -> Result<&[u8], String> {
        match &self.bytes {
            Some(bytes) if !self.over => Ok(bytes),
            _ => Err(format!("the body is longer than {} bytes (history.max_message)", self.most)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_body_beyond_the_bound_is_not_kept() {
        let mut body = Body { bytes: Some(Vec::new()), most: 4, over: false };
        body.add(b"ab");
        body.add(b"cd");
        assert_eq!(body.whole(), Ok(b"abcd".as_slice()));
        body.add(b"e");
        assert!(body.whole().is_err() && body.bytes.unwrap().is_empty());
    }
}
