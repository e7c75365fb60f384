//! Randomness from the system, for secrets.

use crate::protocol::auth::secret::Secret;
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use std::io;

/// A new secret of 128 random bits; an error if the system has no randomness.
pub fn secret() -> io::Result<Secret> {
    let mut bits = [0; 16];
    loop {
        match getrandom(&mut bits, GetRandomFlags::empty()) {
            Ok(length) if length == bits.len() => return Ok(Secret::from_bits(bits)),
            // Interrupted by a signal.
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::secret;

    #[test]
    fn two_secrets_differ() {
        let one = secret().unwrap();
        let other = secret().unwrap();
        assert!(one.reveal().len() == 32 && one != other);
    }
}
