//! The system's data about this process.

use std::fs;

/// Resident memory in bytes; `None` if the system does not provide it.
pub fn resident_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Number of open file descriptors.
pub fn open_fds() -> Option<u64> {
    // Since Linux 6.2 the folder's size is their number; with very many of them, counting takes
    // a while.
    match fs::metadata("/proc/self/fd").ok()?.len() {
        0 => Some(fs::read_dir("/proc/self/fd").ok()?.count() as u64),
        count => Some(count),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::server::limits::descriptors::soft_limit;

    #[test]
    fn this_process_has_memory_and_files() {
        assert!(resident_memory().unwrap() > 1 << 20);
        let open = open_fds().unwrap();
        let max = soft_limit();
        assert!((3..=max).contains(&open), "{open} of {max}");
    }
}
