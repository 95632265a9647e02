//! Time and memory of this process.

use std::time::Instant;

/// Memory of the process, in MiB.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Memory {
    /// Resident now.
    pub current_mib: f64,
    /// Most that was ever resident.
    pub peak_mib: f64,
}

/// Memory of this process; `None` where the system does not tell.
pub fn memory() -> Option<Memory> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let mib = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        Some(line.trim_start_matches(':').split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
    };
    Some(Memory { current_mib: mib("VmRSS")?, peak_mib: mib("VmHWM")? })
}

/// Forgets the most memory that was ever resident, so that [`Memory::peak_mib`] counts from here; false where the system
/// does not allow it. Memory that is kept for later is given back first.
pub fn reset_peak_memory() -> bool {
    #[cfg(unix)]
    crate::recycle::give_back();
    // Linux: sets VmHWM back to VmRSS
    std::fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// Time since a point in the program.
#[derive(Debug, Clone, Copy)]
pub struct Meter {
    wall: Instant,
    cpu_ms: Option<f64>,
}

impl Meter {
    /// Begins now.
    pub fn start() -> Self {
        Self { wall: Instant::now(), cpu_ms: process_cpu_ms() }
    }

    /// Time on the clock.
    pub fn wall_ms(&self) -> f64 {
        self.wall.elapsed().as_secs_f64() * 1e3
    }

    /// Time of all threads on the processors; `None` where the system does not tell.
    pub fn cpu_ms(&self) -> Option<f64> {
        Some(process_cpu_ms()? - self.cpu_ms?)
    }
}

fn process_cpu_ms() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // the second field is the program's name in brackets and may hold spaces
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let user: f64 = fields.nth(11)?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    // USER_HZ, 100 on every Linux
    Some((user + system) * 10.0)
}
