//! How much memory a model takes, and how much there is.

use std::path::{Path, PathBuf};

use super::{Config, Precision, parameters};
use crate::error::{Error, Result};

/// Bytes that a model takes in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Of its weights, as they are kept.
    pub weights: u64,
    /// Of the gradient of each objective, f32.
    pub gradients: u64,
    /// Of AdamW's two moments, f32.
    pub optimizer: u64,
}

impl Memory {
    /// For scoring and generating, or with `objectives` for the training of all weights.
    pub fn estimate(config: &Config, precision: Precision, objectives: Option<usize>) -> Self {
        let numbers: u64 = parameters(config)
            .iter()
            .map(|(_, shape)| shape.iter().map(|&n| n as u64).product::<u64>())
            .sum();
        let rows = objectives.unwrap_or(0) as u64;
        Self {
            weights: precision.bytes() * numbers,
            gradients: 4 * rows * numbers,
            optimizer: if rows > 0 { 8 * numbers } else { 0 },
        }
    }

    /// Their sum.
    pub fn total(&self) -> u64 {
        self.weights + self.gradients + self.optimizer
    }

    /// Refuses what cannot fit; `available` is `None` where the system does not tell.
    ///
    /// # Errors
    /// The sum is more than is available.
    pub fn check(&self, precision: Precision, available: Option<u64>) -> Result<()> {
        let Some(available) = available.filter(|&available| self.total() > available) else { return Ok(()) };
        let mut parts = format!("the weights take {} MiB as {}", mib(self.weights), precision.short());
        if self.gradients > 0 {
            parts = format!(
                "{parts}, the gradients of the objectives {} MiB, AdamW {} MiB",
                mib(self.gradients),
                mib(self.optimizer)
            );
        }
        Err(Error::new(format!("{parts}, and {} MiB of memory are available", available >> 20)).help(match (
            precision,
            self.gradients,
        ) {
            (_, 1..) => {
                "train an adapter instead of all weights, choose a smaller model, or free some memory"
            }
            (Precision::F32, 0) => {
                "keep them as bf16 if the model is not trained, choose a smaller model, or free some memory"
            }
            (Precision::Bf16, 0) => "choose a smaller model, or free some memory",
        }))
    }
}

/// Refuses an allocation that cannot fit, before it is made; small ones pass.
///
/// # Errors
/// More than [`allowed_bytes`].
pub fn reserve(what: &str, bytes: u64) -> Result<()> {
    const SMALL: u64 = 256 << 20;
    // asking the system takes longer than a small allocation
    match Some(bytes).filter(|&bytes| bytes > SMALL).and_then(|_| allowed_bytes()) {
        Some(allowed) if bytes > allowed => Err(Error::new(format!(
            "{what} take {} MiB, and {} MiB of memory are available",
            mib(bytes),
            allowed >> 20
        ))
        .help("train an adapter instead of all weights, choose a smaller model, or free some memory")),
        _ => Ok(()),
    }
}

fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

/// Memory that this process may still take, in bytes: what is available, within `RACO_MEMORY_MIB` where that is set.
pub fn allowed_bytes() -> Option<u64> {
    let limit: Option<u64> = std::env::var("RACO_MEMORY_MIB").ok().and_then(|mib| mib.parse().ok());
    let own = limit.map(|mib| (mib << 20).saturating_sub(resident_bytes().unwrap_or(0)));
    [available_bytes(), own].into_iter().flatten().min()
}

/// Memory that programs can still take, in bytes, where the system tells (Linux): of the machine, and of the control
/// group that this process is in.
pub fn available_bytes() -> Option<u64> {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib << 10)
    });
    [machine, group_bytes()].into_iter().flatten().min()
}

/// What the control group still allows; each group around it has a limit of its own.
fn group_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let roots = text.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let root = match controllers {
            "" => "/sys/fs/cgroup",
            _ if controllers.split(',').any(|c| c == "memory") => "/sys/fs/cgroup/memory",
            _ => return None,
        };
        Some((PathBuf::from(root), path.trim_start_matches('/').to_owned()))
    });
    let left = |(root, path): (PathBuf, String)| {
        let own = root.join(path);
        let groups = own.ancestors().take_while(|group| group.starts_with(&root));
        groups.filter_map(group_left).min()
    };
    roots.filter_map(left).min()
}

/// Limit less use of one group; pages of files are given back when others need them.
fn group_left(group: &Path) -> Option<u64> {
    let read = |name: &str| std::fs::read_to_string(group.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    let limit = number("memory.max").or_else(|| number("memory.limit_in_bytes"))?;
    let used = number("memory.current").or_else(|| number("memory.usage_in_bytes"))?;
    let files = read("memory.stat").and_then(|stat| {
        let line = stat.lines().find_map(|line| line.strip_prefix("inactive_file "))?;
        line.trim().parse::<u64>().ok()
    });
    Some(limit.saturating_sub(used.saturating_sub(files.unwrap_or(0))))
}

/// Memory that this process holds.
fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}
