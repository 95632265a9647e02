//! Parts of the parameters: layers, kinds of modules, tensors, the factors of adapters.

use std::ops::Range;
use std::sync::Arc;

use candle_core::Tensor;

use super::gradients::{Gradient, Gradients};
use crate::error::{Error, Result, nearest};
use crate::math::Matrix;
use crate::model::ParameterSpace;

/// How parameters are grouped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// `layer 0`, …, and what lies outside the layers by its kind.
    Layer,
    /// `q_proj`, `input_layernorm`, …
    Kind,
    /// Each tensor.
    Parameter,
    /// `lora_A` and `lora_B`.
    Factor,
}

impl By {
    /// By its name in scripts.
    ///
    /// # Errors
    /// Another name.
    pub fn named(name: &str) -> Result<Self> {
        let all = [
            ("layer", Self::Layer),
            ("kind", Self::Kind),
            ("parameter", Self::Parameter),
            ("factor", Self::Factor),
        ];
        if let Some((_, by)) = all.iter().find(|(known, _)| *known == name) {
            return Ok(*by);
        }
        let near = nearest(name, all.iter().map(|(known, _)| *known));
        let hint = near.first().map_or_else(String::new, |near| format!("did you mean `{near}`? "));
        Err(Error::new(format!("no blocks by `{name}`"))
            .help(format!("{hint}there are `layer`, `kind`, `parameter` and `factor`")))
    }

    /// The block of a tensor.
    fn block(self, name: &str) -> Result<String> {
        let parts: Vec<&str> = name.trim_end_matches(".weight").split('.').collect();
        let factor = parts.last().copied().filter(|part| part.starts_with("lora_"));
        let kind = parts.iter().rev().find(|part| !part.starts_with("lora_")).copied().unwrap_or(name);
        Ok(match self {
            Self::Parameter => name.to_owned(),
            Self::Kind => kind.to_owned(),
            Self::Factor => factor
                .ok_or_else(|| {
                    Error::new(format!("`{name}` is no factor of an adapter"))
                        .help("group the parameters of a whole model by `layer`, `kind` or `parameter`")
                })?
                .to_owned(),
            Self::Layer => match parts.iter().position(|part| *part == "layers") {
                Some(at) => format!("layer {}", parts.get(at + 1).copied().unwrap_or("?")),
                None => kind.to_owned(),
            },
        })
    }

    /// The blocks of a space in the order of their first tensor: name, and indices of its tensors.
    fn groups(self, space: &ParameterSpace) -> Result<Vec<(String, Vec<usize>)>> {
        let mut groups: Vec<(String, Vec<usize>)> = Vec::new();
        for (i, name) in space.names.iter().enumerate() {
            let block = self.block(name)?;
            match groups.iter_mut().find(|(known, _)| *known == block) {
                Some((_, tensors)) => tensors.push(i),
                None => groups.push((block, vec![i])),
            }
        }
        Ok(groups)
    }
}

fn range(space: &ParameterSpace, tensor: usize) -> Range<usize> {
    space.offsets[tensor]..space.offsets[tensor + 1]
}

impl Gradients {
    /// The Gramian over each block alone, in the order of the parameters; they add up to the whole one.
    ///
    /// # Errors
    /// As [`Gradients::gramian`]; factors of a model without an adapter.
    pub fn gramians(&self, by: By) -> Result<Vec<(String, Matrix)>> {
        match by {
            By::Layer => Ok(self.layer_gramians()?.to_vec()),
            by => self.compute_gramians(by),
        }
    }

    pub(super) fn compute_gramians(&self, by: By) -> Result<Vec<(String, Matrix)>> {
        let (names, groups): (Vec<String>, Vec<Vec<usize>>) = by.groups(self.space())?.into_iter().unzip();
        Ok(names.into_iter().zip(self.gramian_of(&groups)?).collect())
    }

    /// The rows over each block alone, copied, in the order of the parameters.
    ///
    /// # Errors
    /// Factors of a model without an adapter.
    pub fn blocks(&self, by: By) -> Result<Vec<(String, Self)>> {
        let (space, rows) = (self.space(), self.tensor()?);
        let block = |(name, tensors): (String, Vec<usize>)| {
            let parts = tensors.iter().map(|&i| {
                let range = range(space, i);
                rows.narrow(1, range.start, range.len())
            });
            let rows = Tensor::cat(&parts.collect::<candle_core::Result<Vec<_>>>()?, 1)?.contiguous()?;
            let own = tensors.iter().map(|&i| (space.names[i].clone(), space.shapes[i].clone()));
            let own = Arc::new(ParameterSpace::new(own));
            let names = Arc::new(self.names().to_vec());
            let block = Self::new(names, own, rows, self.losses().to_vec(), self.terms())?;
            Ok((name, block.computed_by(self.kernels())))
        };
        by.groups(space)?.into_iter().map(block).collect()
    }

    /// One vector over all parameters from vectors over blocks that share none and leave none out.
    ///
    /// # Errors
    /// A tensor that is in two parts, in none, or not among these parameters.
    pub fn join(&self, parts: &[Gradient]) -> Result<Gradient> {
        let space = self.space();
        let mut places: Vec<Option<Tensor>> = vec![None; space.names.len()];
        for part in parts {
            for (i, name) in part.space().names.iter().enumerate() {
                let error = |what: &str| {
                    Error::new(format!("`{name}` {what}"))
                        .help("join what came of each block of these gradients, once")
                };
                let at = space.names.iter().position(|known| known == name);
                let at = at.filter(|&at| space.shapes[at] == part.space().shapes[i]);
                let at = at.ok_or_else(|| error("is no tensor of these gradients"))?;
                let range = range(part.space(), i);
                if places[at].replace(part.tensor().narrow(0, range.start, range.len())?).is_some() {
                    return Err(error("is in two of the blocks"));
                }
            }
        }
        let tensors: Vec<Tensor> = places
            .into_iter()
            .zip(&space.names)
            .map(|(tensor, name)| {
                tensor.ok_or_else(|| {
                    Error::new(format!("`{name}` is in none of the blocks"))
                        .help("join what came of each block of these gradients, once")
                })
            })
            .collect::<Result<_>>()?;
        Ok(Gradient::new(space.clone(), Tensor::cat(&tensors, 0)?)?.computed_by(self.kernels()))
    }
}
