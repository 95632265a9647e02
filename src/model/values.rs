//! The numbers of a CPU tensor as a slice.

use std::ops::{Deref, Range};

use candle_core::{CpuStorage, Device, Shape, Storage, Tensor, WithDType};

use crate::error::{Error, Result};

/// Borrowed values of a contiguous CPU tensor.
pub(crate) struct Values<'a, T> {
    storage: Box<dyn Deref<Target = Storage> + 'a>,
    range: Range<usize>,
    read: fn(&CpuStorage) -> Option<&[T]>,
}

impl<T> Deref for Values<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &**self.storage {
            Storage::Cpu(storage) => (self.read)(storage).map_or(&[], |x| &x[self.range.clone()]),
            _ => &[],
        }
    }
}

/// The values of `tensor`, row after row.
///
/// # Errors
/// A tensor of another type or device, or one that is not contiguous.
pub(crate) fn values<T: WithDType>(tensor: &Tensor) -> Result<Values<'_, T>> {
    let read: fn(&CpuStorage) -> Option<&[T]> = |storage| storage.as_slice::<T>().ok();
    let (storage, layout) = tensor.storage_and_layout();
    let (true, Storage::Cpu(_), Some((start, end))) =
        (tensor.dtype() == T::DTYPE, &*storage, layout.contiguous_offsets())
    else {
        let found = (tensor.dtype(), tensor.device().location());
        return Err(Error::internal(format!(
            "expected contiguous {:?} on the CPU, found {found:?}",
            T::DTYPE
        )));
    };
    Ok(Values { storage: Box::new(storage), range: start..end, read })
}

/// The same numbers, contiguous on the CPU; shared where they are already.
pub(crate) fn host(tensor: &Tensor) -> Result<Tensor> {
    if tensor.device().is_cpu() {
        return Ok(tensor.contiguous()?);
    }
    // a copy first: a view would take everything that it is a part of along
    Ok(tensor.force_contiguous()?.to_device(&Device::Cpu)?)
}

/// A CPU tensor that takes over `values`.
pub(crate) fn tensor<T: WithDType>(values: Vec<T>, shape: impl Into<Shape>) -> Result<Tensor> {
    Ok(Tensor::from_vec(values, shape.into(), &Device::Cpu)?)
}
