//! Where a model computes, and by which code.

use std::fmt;
use std::str::FromStr;
use std::sync::Mutex;

use candle_core::{Device, DeviceLocation};

use crate::error::{Error, Result};

/// What computes: the CPU, or a GPU by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Processor {
    /// The CPU and its memory.
    #[default]
    Cpu,
    /// An NVIDIA GPU; needs a program that was built with the feature `cuda`.
    Cuda(usize),
}

/// The code that computes a model's operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kernels {
    /// Fused kernels, written for the CPU.
    #[default]
    Fused,
    /// Ordinary tensor operations, on any device.
    Generic,
}

/// CUDA devices that are open: tensors of one GPU share a handle and a stream.
static OPEN: Mutex<Vec<(usize, Device)>> = Mutex::new(Vec::new());

impl Processor {
    /// The processor that holds tensors of `device`.
    pub fn of(device: &Device) -> Self {
        match device.location() {
            DeviceLocation::Cuda { gpu_id } => Self::Cuda(gpu_id),
            _ => Self::Cpu,
        }
    }

    /// Its device, opened once for the whole program.
    ///
    /// # Errors
    /// A GPU where the program was built without CUDA; a GPU that is not there or does not answer.
    pub fn open(self) -> Result<Device> {
        let Self::Cuda(number) = self else { return Ok(Device::Cpu) };
        if !cfg!(feature = "cuda") {
            return Err(Error::new(format!("no device `{self}`: this program was built without CUDA"))
                .help("build it with `cargo build --release --features cuda`, or leave out `device`"));
        }
        let mut open = OPEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some((_, device)) = open.iter().find(|(known, _)| *known == number) {
            return Ok(device.clone());
        }
        // a stream for all threads: the default one would be another in each
        let device = Device::new_cuda_with_stream(number).map_err(|e| {
            Error::new(format!("the device `{self}` cannot be used: {e}"))
                .help("`nvidia-smi -L` lists the GPUs, the first is `cuda:0`")
        })?;
        open.push((number, device.clone()));
        Ok(device)
    }
}

impl fmt::Display for Processor {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl FromStr for Processor {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let number = name.strip_prefix("cuda:").map(str::parse);
        match (name, number) {
            ("cpu", _) => Ok(Self::Cpu),
            ("cuda", _) => Ok(Self::Cuda(0)),
            (_, Some(Ok(number))) => Ok(Self::Cuda(number)),
            _ => Err(Error::new(format!("unknown device `{name}`"))
                .help("give `cpu`, or a GPU by its number: `cuda:0`")),
        }
    }
}

impl Kernels {
    /// Those that are written for `device`.
    pub fn of(device: &Device) -> Self {
        if device.is_cpu() { Self::Fused } else { Self::Generic }
    }

    /// What was asked for, or what suits the device.
    ///
    /// # Errors
    /// Fused kernels on another device than the CPU.
    pub fn choose(asked: Option<Self>, device: &Device) -> Result<Self> {
        if asked == Some(Self::Fused) && !device.is_cpu() {
            return Err(Error::new(format!(
                "the fused kernels are for the CPU, the model is on `{}`",
                Processor::of(device)
            ))
            .help("leave out `kernels`, or load the model on the CPU"));
        }
        Ok(asked.unwrap_or(Self::of(device)))
    }

    /// As scripts call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fused => "fused",
            Self::Generic => "generic",
        }
    }
}
