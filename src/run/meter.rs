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

/// Time and memory since a point in the program.
#[derive(Debug, Clone, Copy)]
pub struct Meter {
    wall: Instant,
    cpu_ms: Option<f64>,
    resident_mib: Option<f64>,
}

impl Meter {
    /// Begins now.
    pub fn start() -> Self {
        Self { wall: Instant::now(), cpu_ms: process_cpu_ms(), resident_mib: None }
    }

    /// Begins now and forgets the most memory that was ever resident, so that [`Meter::peak_mib`] can be told: for
    /// the whole process, so one such meter at a time.
    pub fn start_with_memory() -> Self {
        // Linux: sets VmHWM back to VmRSS; where that is not allowed no peak is told
        let cleared = std::fs::write("/proc/self/clear_refs", "5").is_ok();
        let resident_mib = memory().filter(|_| cleared).map(|m| m.current_mib);
        Self { resident_mib, ..Self::start() }
    }

    /// Most memory resident since the start beyond what was resident then; `None` where the system does not tell.
    pub fn peak_mib(&self) -> Option<f64> {
        Some((memory()?.peak_mib - self.resident_mib?).max(0.0))
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
