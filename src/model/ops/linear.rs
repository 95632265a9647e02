//! Rows times weights: y = [x W₁ᵀ | x W₂ᵀ | …].

use super::gemm::{Columns, Into, Threads, View, ViewMut, gemm};
use super::kept::Kept;

/// [T, D] → [T, Σ out], added `onto` rows of that width where there are some.
pub(crate) fn forward(x: View, weights: &[Kept], onto: Option<&[f32]>) -> Vec<f32> {
    let (rows, total) = (x.height(), weights.iter().map(Kept::len).sum());
    let Some(onto) = onto else {
        let mut y = Columns::new(rows, total);
        weights.iter().for_each(|weight| weight.for_rows(|_, w| y.push(x, w.t(), Threads::All)));
        return y.finish();
    };
    let (mut y, mut at) = (onto.to_vec(), 0);
    for weight in weights {
        weight.for_rows(|first, w| {
            let dst = ViewMut::strided(&mut y[at + first..], rows, w.height(), total);
            gemm(dst, Into::Add, 1.0, x, w.t(), Threads::All);
        });
        at += weight.len();
    }
    y
}

/// The gradient of x, Σ dyᵢ Wᵢ: [T, Σ out] → [T, D].
pub(crate) fn backward(dy: View, weights: &[Kept]) -> Vec<f32> {
    let (mut dx, mut at) = (Vec::new(), 0);
    for weight in weights {
        weight.for_rows(|first, w| {
            let dy = dy.cols(at + first..at + first + w.height());
            if at + first == 0 {
                let mut first = Columns::new(dy.height(), w.width());
                first.push(dy, w, Threads::All);
                dx = first.finish();
            } else {
                let dst = ViewMut::new(&mut dx, dy.height(), w.width());
                gemm(dst, Into::Add, 1.0, dy, w, Threads::All);
            }
        });
        at += weight.len();
    }
    dx
}
