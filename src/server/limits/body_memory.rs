//! The memory for bodies that are kept: forms that are read, requests that are held before the
//! site gets them, and what is captured in passing. One budget bounds their sum
//! (`limits.body_memory`); a share of it comes back when it is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The default budget in bytes.
pub const DEFAULT: usize = 32 << 20;

/// The budget of all kept bodies.
#[derive(Debug)]
pub struct BodyMemory {
    most: AtomicUsize,
    used: AtomicUsize,
    refused: AtomicU64,
}

impl Default for BodyMemory {
    fn default() -> Self {
        Self {
            most: AtomicUsize::new(DEFAULT),
            used: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
        }
    }
}

impl BodyMemory {
    /// From now on so many bytes may be kept; what is kept already stays.
    pub fn allow(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// Bytes that are taken now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Number of bodies that found no room.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// The share of one body in the budget.
#[derive(Debug)]
pub struct BodyShare {
    memory: Arc<BodyMemory>,
    bytes: usize,
}

impl BodyShare {
    /// A share of nothing yet.
    pub fn new(memory: &Arc<BodyMemory>) -> Self {
        Self { memory: memory.clone(), bytes: 0 }
    }

    /// Takes `bytes` more; false = there is no room, and the share is as it was.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let most = self.memory.most.load(Ordering::Relaxed);
        let before = self.memory.used.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > most {
            self.memory.used.fetch_sub(bytes, Ordering::Relaxed);
            self.memory.refused.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        self.bytes += bytes;
        true
    }

    /// Takes or gives back until the share is of `bytes`; false = there is no room for more, and it is
    /// as it was.
    pub fn resize(&mut self, bytes: usize) -> bool {
        if bytes > self.bytes {
            return self.grow(bytes - self.bytes);
        }
        self.shrink_to(bytes);
        true
    }

    /// Gives back all but `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        let back = self.bytes.saturating_sub(bytes);
        self.memory.used.fetch_sub(back, Ordering::Relaxed);
        self.bytes -= back;
    }
}

impl Drop for BodyShare {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_bounded_by_their_sum_and_come_back() {
        let memory = Arc::new(BodyMemory::default());
        memory.allow(10);
        let mut one = BodyShare::new(&memory);
        let mut other = BodyShare::new(&memory);
        assert!(one.grow(6) && !other.grow(5) && other.grow(4));
        assert_eq!((memory.used(), memory.refused()), (10, 1));
        one.shrink_to(2);
        assert!(other.grow(4) && !other.grow(usize::MAX));
        drop((one, other));
        assert_eq!(memory.used(), 0);
    }
}
