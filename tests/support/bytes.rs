//! Bytes by rule, the same as in `tests/sites/plain/bytes.php`.

/// The first `size` bytes: records of 256, each its number (8 bytes,
/// big-endian) and then the values 8..=255. A lost, doubled or swapped stretch
/// shows, and every byte value occurs.
pub fn by_rule(size: usize) -> Vec<u8> {
    let tail: Vec<u8> = (8..=255).collect();
    let mut out = Vec::with_capacity(size + 256);
    for record in 0u64.. {
        if out.len() >= size {
            break;
        }
        out.extend_from_slice(&record.to_be_bytes());
        out.extend_from_slice(&tail);
    }
    out.truncate(size);
    out
}

/// Index of the first difference of two byte strings, for a message shorter than both.
pub fn first_difference(a: &[u8], b: &[u8]) -> Option<usize> {
    if a == b {
        return None;
    }
    let common = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    Some(common)
}
