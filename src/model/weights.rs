//! The parameters of a decoder.

use std::sync::Arc;

use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Tensor};

use super::values::{host, values};
use super::{Adapter, Kernels, LayerParams, Precision};
use crate::error::{Error, Place, Result};

/// A named tensor.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// Name in the safetensors file.
    pub name: String,
    /// Values, contiguous: f32, or bf16 where the model is not trained.
    pub tensor: Tensor,
}

/// Names, shapes and places of the parameters in one long vector of P numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterSpace {
    /// Names, in order.
    pub names: Vec<String>,
    /// Shapes, in order.
    pub shapes: Vec<Vec<usize>>,
    /// Where each begins; one more entry at the end: P.
    pub offsets: Vec<usize>,
}

impl ParameterSpace {
    /// The space of parameters of these names and shapes.
    pub fn new(parameters: impl IntoIterator<Item = (String, Vec<usize>)>) -> Self {
        let mut space = Self { names: Vec::new(), shapes: Vec::new(), offsets: vec![0] };
        for (name, shape) in parameters {
            let end = space.size() + shape.iter().product::<usize>();
            space.names.push(name);
            space.shapes.push(shape);
            space.offsets.push(end);
        }
        space
    }

    /// Number of scalars P.
    pub fn size(&self) -> usize {
        self.offsets.last().copied().unwrap_or(0)
    }

    /// The name of the parameter that holds scalar `index`.
    pub fn name_at(&self, index: usize) -> &str {
        let parameter = self.offsets.partition_point(|&offset| offset <= index).saturating_sub(1);
        self.names.get(parameter).map_or("?", String::as_str)
    }
}

/// All parameters of a model, in a fixed order.
#[derive(Debug)]
pub struct Weights {
    parameters: Vec<Parameter>,
    space: Arc<ParameterSpace>,
}

impl Weights {
    /// Takes the parameters in their order.
    pub fn new(parameters: Vec<Parameter>) -> Self {
        let space =
            ParameterSpace::new(parameters.iter().map(|p| (p.name.clone(), p.tensor.dims().to_vec())));
        Self { parameters, space: Arc::new(space) }
    }

    /// The parameters in order.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Names, shapes and offsets.
    pub fn space(&self) -> &Arc<ParameterSpace> {
        &self.space
    }

    /// How they are kept.
    pub fn precision(&self) -> Precision {
        match self.parameters.first().map(|p| p.tensor.dtype()) {
            Some(DType::BF16) => Precision::Bf16,
            _ => Precision::F32,
        }
    }

    /// Refuses weights that cannot be trained.
    ///
    /// # Errors
    /// Weights that are kept as bf16: a step would be lost in their rounding.
    pub fn check_trainable(&self) -> Result<()> {
        match self.precision() {
            Precision::F32 => Ok(()),
            Precision::Bf16 => Err(Error::new("the weights are kept as bf16, and only f32 ones are trained")
                .help(
                    "load the model without `dtype: \"bf16\"`, or train an adapter of it: `policy.lora()`",
                )),
        }
    }

    /// Weights of the same values as f32, in memory of their own: cloning a tensor would share what
    /// [`Weights::change`] writes to.
    ///
    /// # Errors
    /// A tensor operation that failed.
    pub fn copy(&self) -> Result<Self> {
        let copy = |p: &Parameter| {
            Ok(Parameter { name: p.name.clone(), tensor: p.tensor.to_dtype(DType::F32)?.copy()? })
        };
        let parameters = self.parameters.iter().map(copy).collect::<Result<_>>()?;
        Ok(Self { parameters, space: self.space.clone() })
    }

    /// The device that holds them.
    pub fn device(&self) -> Device {
        self.parameters.first().map_or(Device::Cpu, |p| p.tensor.device().clone())
    }

    /// These weights on `device`; shared where they are there already.
    pub(super) fn moved(self, device: &Device) -> Result<Self> {
        let move_one = |p: Parameter| Ok(Parameter { tensor: p.tensor.to_device(device)?, ..p });
        let parameters = self.parameters.into_iter().map(move_one).collect::<Result<_>>()?;
        Ok(Self { parameters, space: self.space })
    }

    /// Weights of the same values, as they are kept, in memory of their own on `device`.
    pub(super) fn copied(&self, device: &Device) -> Result<Self> {
        let copy = |p: &Parameter| {
            let here = p.tensor.device().same_device(device);
            let tensor = if here { p.tensor.copy()? } else { p.tensor.to_device(device)? };
            Ok(Parameter { name: p.name.clone(), tensor })
        };
        let parameters = self.parameters.iter().map(copy).collect::<Result<_>>()?;
        Ok(Self { parameters, space: self.space.clone() })
    }

    /// The same parameters with a tensor each of `change(index, tensor)`, those before the first error.
    pub(super) fn replace(&mut self, mut change: impl FnMut(usize, &Tensor) -> Result<Tensor>) -> Result<()> {
        for (i, parameter) in self.parameters.iter_mut().enumerate() {
            parameter.tensor = change(i, &parameter.tensor)?;
        }
        Ok(())
    }

    /// The same parameters; copies share their tensors, which [`Weights::replace`] leaves as they are.
    pub(super) fn shared(&self) -> Self {
        Self { parameters: self.parameters.clone(), space: self.space.clone() }
    }

    /// Changes the values of one parameter in place; on another device than the CPU, by a copy there and back.
    ///
    /// # Errors
    /// What `change` returns.
    pub fn change(&mut self, index: usize, change: impl FnOnce(&mut [f32]) -> Result<()>) -> Result<()> {
        let parameter = &mut self.parameters[index];
        let device = parameter.tensor.device().clone();
        if !device.is_cpu() {
            let mut numbers = host(&parameter.tensor)?.flatten_all()?.to_vec1::<f32>()?;
            change(&mut numbers)?;
            parameter.tensor = Tensor::from_vec(numbers, parameter.tensor.shape(), &device)?;
            return Ok(());
        }
        let op = InPlace(std::cell::RefCell::new((Some(change), Ok(()))));
        parameter.tensor.inplace_op1(&op)?;
        op.0.into_inner().1
    }
}

/// All weights that a model computes with.
#[derive(Clone)]
pub(crate) struct Parts {
    /// The decoder's, in the order of its layout.
    pub(crate) decoder: Arc<Weights>,
    /// The adapter's, which are then the only ones that are trained.
    pub(crate) adapter: Option<(Arc<Adapter>, Arc<Weights>)>,
    /// The code that computes with them.
    pub(crate) kernels: Kernels,
}

impl Parts {
    /// True if a layer has something that is trained.
    pub(super) fn train(&self, layer: &LayerParams) -> bool {
        let linear = [layer.q, layer.k, layer.v, layer.o, layer.gate, layer.up, layer.down];
        self.adapter.as_ref().is_none_or(|(adapter, _)| linear.iter().any(|&p| adapter.adapts(p)))
    }

    /// The parameters of the decoder, then those of the adapter.
    pub(super) fn parameters(&self) -> impl Iterator<Item = &Parameter> {
        let adapter = self.adapter.iter().flat_map(|(_, weights)| weights.parameters());
        self.decoder.parameters().iter().chain(adapter)
    }

    /// Adds the tensor that a result which is not finite comes from: one with a NaN or an infinity, otherwise the
    /// one with the largest weight.
    pub(super) fn blame(&self, error: Error) -> Error {
        let mut heaviest = (0f32, "");
        for Parameter { name, tensor } in self.parameters() {
            let Ok(tensor) = host(tensor).and_then(|t| Ok(t.to_dtype(DType::F32)?)) else { continue };
            let Ok(values) = values::<f32>(&tensor) else { continue };
            if values.iter().any(|x| !x.is_finite()) {
                return error
                    .at(Place::Tensor(name.clone()))
                    .help("this weight holds a NaN or an infinity: go back to an earlier checkpoint");
            }
            heaviest = values.iter().fold(heaviest, |a, x| if x.abs() > a.0 { (x.abs(), name) } else { a });
        }
        error.at(Place::Tensor(heaviest.1.to_owned())).help(format!(
            "the weights are finite, up to `{:e}` in this tensor, the activations are not: go back to an earlier \
             checkpoint and lower the learning rate",
            heaviest.0
        ))
    }
}

struct InPlace<F>(std::cell::RefCell<(Option<F>, Result<()>)>);

impl<F: FnOnce(&mut [f32]) -> Result<()>> InplaceOp1 for InPlace<F> {
    fn name(&self) -> &'static str {
        "change"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let mut cell = self.0.borrow_mut();
        let (CpuStorage::F32(values), Some((start, end)), Some(change)) =
            (storage, layout.contiguous_offsets(), cell.0.take())
        else {
            candle_core::bail!("parameters are contiguous f32")
        };
        cell.1 = change(&mut values[start..end]);
        Ok(())
    }
}
