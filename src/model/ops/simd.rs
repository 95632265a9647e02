//! Element-wise building blocks, compiled for several instruction sets.

use std::ops::Range;

/// Runs `body` compiled for the widest instruction set of this CPU; `body` must be `#[inline(always)]`.
#[inline(always)]
pub(crate) fn dispatch<R>(body: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(body)
}

const LANES: usize = 16;

/// eˣ by range reduction and a polynomial of degree 6; relative error below 3e-7, no NaN for finite input.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let x = x.clamp(-87.0, 88.0);
    // adding 1.5 · 2²³ rounds to an integer and leaves it in the low bits; a cast would not be vectorised
    const ROUND: f32 = 12_582_912.0;
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    // ln 2 in two parts, so that the reduced argument is exact
    let r = n.mul_add(-0.693_359_4, x);
    let r = n.mul_add(2.121_944_4e-4, r);
    let p = 1.987_569_2e-4_f32;
    let p = p.mul_add(r, 1.398_199_9e-3);
    let p = p.mul_add(r, 8.333_452e-3);
    let p = p.mul_add(r, 4.166_579_6e-2);
    let p = p.mul_add(r, 1.666_666_5e-1);
    let p = p.mul_add(r, 0.5);
    let e = (p * r).mul_add(r, r) + 1.0;
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127);
    f32::from_bits(exponent << 23) * e
}

/// 1 / (1 + e⁻ˣ).
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// tanh x, relative error below 5e-7.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    let square = x * x;
    // the quotient cancels near 0
    let series =
        x * square.mul_add(square.mul_add(square.mul_add(-17.0 / 315.0, 2.0 / 15.0), -1.0 / 3.0), 1.0);
    let e = exp(-2.0 * x.abs());
    let quotient = ((1.0 - e) / (1.0 + e)).copysign(x);
    if x.abs() < 0.2 { series } else { quotient }
}

/// Σ lanes, by halves: adding one lane after another would wait for each addition.
#[inline(always)]
fn total(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Σ aᵢ bᵢ.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let sum: f32 = a.remainder().iter().zip(b.remainder()).map(|(x, y)| x * y).sum();
    for (a, b) in a.zip(b) {
        for i in 0..LANES {
            lanes[i] = a[i].mul_add(b[i], lanes[i]);
        }
    }
    sum + total(lanes)
}

/// The products of each of two runs with each of two others; every one the same bits as [`dot`].
///
/// Four sums at once: one alone waits for its last addition, and each run is read half as often.
#[inline(always)]
pub(crate) fn dots([a, b]: [&[f32]; 2], [c, d]: [&[f32]; 2]) -> [[f32; 2]; 2] {
    let (mut ac, mut ad, mut bc, mut bd) = ([0f32; LANES], [0f32; LANES], [0f32; LANES], [0f32; LANES]);
    let chunks = |x| <[f32]>::chunks_exact(x, LANES);
    let (a, b, c, d) = (chunks(a), chunks(b), chunks(c), chunks(d));
    let rest = |x: &[f32], y: &[f32]| -> f32 { x.iter().zip(y).map(|(x, y)| x * y).sum() };
    let [x, y] = [a.remainder(), b.remainder()].map(|x| [rest(x, c.remainder()), rest(x, d.remainder())]);
    for (((a, b), c), d) in a.zip(b).zip(c).zip(d) {
        for i in 0..LANES {
            ac[i] = a[i].mul_add(c[i], ac[i]);
            ad[i] = a[i].mul_add(d[i], ad[i]);
            bc[i] = b[i].mul_add(c[i], bc[i]);
            bd[i] = b[i].mul_add(d[i], bd[i]);
        }
    }
    [[x[0] + total(ac), x[1] + total(ad)], [y[0] + total(bc), y[1] + total(bd)]]
}

/// Σ aᵢ bᵢ cᵢ.
#[inline(always)]
pub(crate) fn dot3(a: &[f32], b: &[f32], c: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    let (a, b, c) = (a.chunks_exact(LANES), b.chunks_exact(LANES), c.chunks_exact(LANES));
    let tail = a.remainder().iter().zip(b.remainder()).zip(c.remainder());
    let sum: f32 = tail.map(|((x, y), z)| x * y * z).sum();
    for ((a, b), c) in a.zip(b).zip(c) {
        for i in 0..LANES {
            lanes[i] = (a[i] * b[i]).mul_add(c[i], lanes[i]);
        }
    }
    sum + total(lanes)
}

/// y += c x.
#[inline(always)]
pub(crate) fn axpy(c: f32, x: &[f32], y: &mut [f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = c.mul_add(*x, *y);
    }
}

/// max xᵢ, -∞ where there is none.
#[inline(always)]
pub(crate) fn max(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = x.chunks_exact(LANES);
    let max = chunks.remainder().iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] = if chunk[i] > lanes[i] { chunk[i] } else { lanes[i] };
        }
    }
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = if lanes[i + width] > lanes[i] { lanes[i + width] } else { lanes[i] };
        }
        width /= 2;
    }
    max.max(lanes[0])
}

/// max |xᵢ|, 0 where there is none; NaN does not count.
#[inline(always)]
pub(crate) fn max_abs(x: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder().iter().fold(0f32, |a, &b| a.max(b.abs()));
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] = if chunk[i].abs() > lanes[i] { chunk[i].abs() } else { lanes[i] };
        }
    }
    lanes.iter().fold(rest, |a, &b| a.max(b))
}

/// xᵢ ← e^(xᵢ - shift); returns their sum.
#[inline(always)]
pub(crate) fn exp_in_place(x: &mut [f32], shift: f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let mut chunks = x.chunks_exact_mut(LANES);
    for chunk in &mut chunks {
        for i in 0..LANES {
            let e = exp(chunk[i] - shift);
            chunk[i] = e;
            lanes[i] += e;
        }
    }
    let mut sum = 0.0;
    for x in chunks.into_remainder() {
        *x = exp(*x - shift);
        sum += *x;
    }
    sum + total(lanes)
}

/// Σ e^(xᵢ - shift).
#[inline(always)]
pub(crate) fn exp_sum(x: &[f32], shift: f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest: f32 = chunks.remainder().iter().map(|x| exp(x - shift)).sum();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] += exp(chunk[i] - shift);
        }
    }
    rest + total(lanes)
}

/// True unless one is a NaN or an infinity.
#[inline(always)]
pub(crate) fn all_finite(x: &[f32]) -> bool {
    x.iter().fold(true, |finite, x| finite & x.is_finite())
}

/// d[i] += Σₖ u(i)[k] · s(k) over a range of columns of each d[i]; s(k) has the columns of the range alone.
///
/// A few numbers of up to four d[i] stay in registers over all k: each d[i] is read once, and s(k) once for four of them.
#[inline(always)]
pub(crate) fn mix<'a>(
    d: &mut [&mut [f32]],
    columns: Range<usize>,
    u: impl Fn(usize) -> &'a [f32],
    s: impl Fn(usize) -> &'a [f32],
) {
    for (group, d) in d.chunks_mut(4).enumerate() {
        let u = |i: usize| u(4 * group + i);
        match d {
            [a, b, c, e] => mix_rows(
                [
                    &mut a[columns.clone()],
                    &mut b[columns.clone()],
                    &mut c[columns.clone()],
                    &mut e[columns.clone()],
                ],
                [u(0), u(1), u(2), u(3)],
                &s,
            ),
            [a, b, c] => mix_rows(
                [&mut a[columns.clone()], &mut b[columns.clone()], &mut c[columns.clone()]],
                [u(0), u(1), u(2)],
                &s,
            ),
            [a, b] => mix_rows([&mut a[columns.clone()], &mut b[columns.clone()]], [u(0), u(1)], &s),
            [a] => mix_rows([&mut a[columns.clone()]], [u(0)], &s),
            _ => {}
        }
    }
}

#[inline(always)]
fn mix_rows<'a, const R: usize>(d: [&mut [f32]; R], u: [&[f32]; R], s: &impl Fn(usize) -> &'a [f32]) {
    let (terms, whole) = (u[0].len(), d[0].len() / LANES * LANES);
    for at in (0..whole).step_by(LANES) {
        let mut sums = [[0f32; LANES]; R];
        for r in 0..R {
            sums[r].copy_from_slice(&d[r][at..at + LANES]);
        }
        for k in 0..terms {
            let s = &s(k)[at..at + LANES];
            let u = u.map(|u| u[k]);
            for r in 0..R {
                for i in 0..LANES {
                    sums[r][i] = u[r].mul_add(s[i], sums[r][i]);
                }
            }
        }
        for r in 0..R {
            d[r][at..at + LANES].copy_from_slice(&sums[r]);
        }
    }
    for (d, u) in d.into_iter().zip(u) {
        u.iter().enumerate().for_each(|(k, u)| axpy(*u, &s(k)[whole..], &mut d[whole..]));
    }
}

/// d += Σₖ u[k] · s(k), four terms at a time.
#[inline(always)]
pub(crate) fn combine<'a>(d: &mut [f32], u: &[f32], s: impl Fn(usize) -> &'a [f32]) {
    let n = d.len();
    let mut k = 0;
    while k + 4 <= u.len() {
        let (a, b, c, e) = (&s(k)[..n], &s(k + 1)[..n], &s(k + 2)[..n], &s(k + 3)[..n]);
        let (ua, ub, uc, ue) = (u[k], u[k + 1], u[k + 2], u[k + 3]);
        for i in 0..n {
            d[i] += ua.mul_add(a[i], ub * b[i]) + uc.mul_add(c[i], ue * e[i]);
        }
        k += 4;
    }
    while k < u.len() {
        axpy(u[k], s(k), d);
        k += 1;
    }
}
