//! How much memory a model takes, and how much there is.

use std::path::{Path, PathBuf};

use super::{Config, Precision, parameters};
use crate::error::{Error, Result};

/// Bytes of the weights of an architecture as they are kept.
pub fn weight_bytes(config: &Config, precision: Precision) -> u64 {
    let numbers = |shape: &Vec<usize>| shape.iter().map(|&n| n as u64).product::<u64>();
    precision.bytes() * parameters(config).iter().map(|(_, shape)| numbers(shape)).sum::<u64>()
}

/// Refuses weights that cannot fit; `available` is `None` where the system does not tell.
///
/// # Errors
/// They take more than is available.
pub(super) fn check_weights(config: &Config, precision: Precision, available: Option<u64>) -> Result<()> {
    let weights = weight_bytes(config, precision);
    let Some(available) = available.filter(|&available| weights > available) else { return Ok(()) };
    Err(Error::new(format!(
        "the weights take {} MiB as {}, and {} MiB of memory are available",
        mib(weights),
        precision.short(),
        available >> 20
    ))
    .help(match precision {
        Precision::F32 => {
            "keep them as bf16 if the model is not trained, choose a smaller model, or free some memory"
        }
        Precision::Bf16 => "choose a smaller model, or free some memory",
    }))
}

/// Units of a size, the largest first.
const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// A size such as `512MiB`, `8 GiB` or a number of bytes.
///
/// # Errors
/// Anything else, and nothing at all.
pub fn parse_bytes(text: &str) -> Result<usize> {
    let compact = text.replace([' ', '_'], "");
    let unit = UNITS.iter().find_map(|&(unit, bytes)| Some((compact.strip_suffix(unit)?, bytes)));
    let (number, unit) = unit.unwrap_or((&compact, 1));
    let bytes = number.parse::<f64>().ok().map(|number| number * unit as f64);
    // below 2⁵³ a float is exact
    match bytes.filter(|bytes| (1.0..9e15).contains(bytes) && (unit > 1 || bytes.fract() == 0.0)) {
        Some(bytes) => Ok(bytes as usize),
        None => Err(Error::new(format!("`{text}` is no size of memory")).help(
            "give a number with KiB, MiB or GiB, for example \"512MiB\" or \"8GiB\", or a number of bytes",
        )),
    }
}

/// A size as [`parse_bytes`] reads it, rounded up to three digits or so.
pub fn show_bytes(bytes: usize) -> String {
    let bytes = bytes as u64;
    let (name, unit) = UNITS.iter().find(|(_, unit)| bytes >= *unit).unwrap_or(&UNITS[3]);
    let tenths = (10 * u128::from(bytes)).div_ceil(u128::from(*unit));
    match (tenths / 10, tenths % 10) {
        (whole, tenth) if whole < 100 && tenth > 0 => format!("{whole}.{tenth}{name}"),
        (whole, tenth) => format!("{}{name}", whole + u128::from(tenth > 0)),
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
