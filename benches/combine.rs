//! Gramian, weights and combination of m gradient rows, against a plain read of the same bytes in the same run.
//!
//! ```text
//! cargo bench --bench combine               # m = 2, 3, 8, 32 at d = 1e6 and 1e7, and the weights
//! cargo bench --bench combine -- 3          # one m
//! ```
//!
//! The plain read sums all m·d numbers of J in f32, on the same threads and in the same blocks. The kinds of work
//! alternate; medians of wall time are printed as ratios to the read. Then times from a Gramian to weights: the Rust
//! primitives, and `pcgrad`, a method that is all script, called from a running script. The least of many calls is
//! given beside the median: the one says what the work needs, the other what a busy machine makes of it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use candle_core::{CpuStorage, Device, Storage, Tensor};
use raco::engine::Gradients;
use raco::math::{self, Matrix};
use raco::model::ParameterSpace;
use raco::script::contract::{Family, case};
use raco::script::{Host, Options};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

const BLOCK: usize = 1 << 16;

/// Σ x.
fn read(x: &[f32]) -> f32 {
    let block = |x: &[f32]| {
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || {
                let mut lanes = [0f32; 64];
                for x in x.chunks_exact(64) {
                    for i in 0..64 {
                        lanes[i] += x[i];
                    }
                }
                lanes.iter().sum::<f32>() + x.chunks_exact(64).remainder().iter().sum::<f32>()
            },
        )
    };
    x.par_chunks(BLOCK).map(block).sum()
}

/// Seconds of one call, at the least and in the middle of `samples` calls of each, taken in turns.
fn times(samples: usize, work: &mut [&mut dyn FnMut()]) -> Vec<[f64; 2]> {
    let mut seconds = vec![Vec::with_capacity(samples); work.len()];
    for round in 0..=samples {
        for (work, seconds) in work.iter_mut().zip(&mut seconds) {
            let begun = Instant::now();
            work();
            if round > 0 {
                seconds.push(begun.elapsed().as_secs_f64());
            }
        }
    }
    let summary = |mut s: Vec<f64>| {
        s.sort_by(f64::total_cmp);
        [s[0], s[s.len() / 2]]
    };
    seconds.into_iter().map(summary).collect()
}

fn passes(m: usize, d: usize) {
    let mut rng = ChaCha8Rng::seed_from_u64(m as u64);
    let values: Vec<f32> = (0..m * d).map(|_| rng.random_range(-1.0..1.0)).collect();
    let rows = Tensor::from_vec(values, (m, d), &Device::Cpu).unwrap();
    let space = Arc::new(ParameterSpace::new([("x".to_owned(), vec![d])]));
    let names = Arc::new((0..m).map(|i| format!("o{i}")).collect());
    let gradients = Gradients::new(names, space, rows, vec![0.0; m], 1).unwrap();
    let (storage, _) = gradients.tensor().unwrap().storage_and_layout();
    let Storage::Cpu(CpuStorage::F32(x)) = &*storage else { panic!("f32 on the CPU") };
    let w = vec![1.0 / m as f64; m];
    let h = gradients.gramian().unwrap();
    let samples = if m * d > 50_000_000 { 7 } else { 15 };
    let found = times(
        samples,
        &mut [
            &mut || {
                black_box(read(black_box(x)));
            },
            // over a range, for the Gramian of all is kept
            &mut || {
                black_box(gradients.gramian_over(std::iter::once(0..d)).unwrap());
            },
            &mut || {
                black_box(math::cagrad_dual(&h, &w, 0.4).unwrap());
            },
            &mut || {
                black_box(gradients.combine(&w).unwrap());
            },
        ],
    );
    let [base, gramian, weights, combine] = [0, 1, 2, 3].map(|i: usize| found[i]);
    println!(
        "d {d:8} m {m:2}: read {:7.2} ms ({:4.1} GB/s); of that: Gramian {:.2} (least {:.2}), combine {:.2} (least \
         {:.2}), weights {:.4}",
        1e3 * base[1],
        4e-9 * (m * d) as f64 / base[1],
        gramian[1] / base[1],
        gramian[0] / base[0],
        combine[1] / base[1],
        combine[0] / base[0],
        weights[1] / base[1],
    );
}

fn primitives(m: usize) {
    let case = case(Family::Conflicting, m, 7);
    let (h, w) = (case.gramian(), vec![1.0 / m as f64; m]);
    let each = Matrix::from_diagonal(&w);
    type Primitive<'a> = (&'a str, Box<dyn Fn() + 'a>);
    let all: Vec<Primitive> = vec![
        ("simplex_project", Box::new(|| drop(black_box(math::simplex_project(&w).unwrap())))),
        ("cagrad_dual", Box::new(|| drop(black_box(math::cagrad_dual(&h, &w, 0.4).unwrap())))),
        ("min_norm_point", Box::new(|| drop(black_box(math::min_norm_point(&h).unwrap())))),
        ("cone_project", Box::new(|| drop(black_box(math::cone_project(&h, &w).unwrap())))),
        (
            "cone_project, m targets",
            Box::new(|| drop(black_box(math::cone_project_each(&h, &each).unwrap()))),
        ),
        ("nash_bargaining", Box::new(|| drop(black_box(math::nash_bargaining(&h).unwrap())))),
        ("fair_scaling", Box::new(|| drop(black_box(math::fair_scaling(&h, 2.0).unwrap())))),
        ("eigh", Box::new(|| drop(black_box(math::eigh(&h).unwrap())))),
        ("pinv", Box::new(|| drop(black_box(math::pinv(&h).unwrap())))),
        ("solve", Box::new(|| drop(black_box(math::solve(&h, &w).unwrap())))),
    ];
    for (name, call) in all {
        // ten at a time: one takes less than the clock can tell, many more than a busy machine leaves alone
        let [least, median] = times(301, &mut [&mut || (0..10).for_each(|_| call())])[0];
        println!("m {m:2} {name:24} {:7.2} µs (least {:7.2})", 1e5 * median, 1e5 * least);
    }
}

/// `pcgrad` from inside a script, so that its start does not count.
fn scripted(m: usize) {
    let case = case(Family::Conflicting, m, 7);
    let rows = format!("{:?}", case.rows);
    let script = format!(
        "import \"aggregators/pcgrad\" as pcgrad;
         let h = matrix({rows}).gram();
         let w = filled({m}, 1.0 / {m});
         let state = pcgrad::init({m});
         let times = [];
         for round in 0..101 {{
             let begun = timestamp();
             let found = pcgrad::weights(h, w, #{{}}, state);
             times.push(begun.elapsed * 1000.0);
             state = found.state;
         }}
         [median(times), minimum(times)]"
    );
    let found = Host::new(Options::default()).unwrap().run(&script, "bench").unwrap();
    let [median, least] = [0, 1].map(|i| found.as_array_ref().unwrap()[i].as_float().unwrap());
    println!("m {m:2} pcgrad, all script       {median:7.3} ms (least {least:7.3})");
}

fn main() {
    let ms: Vec<usize> = std::env::args().filter_map(|a| a.parse().ok()).collect();
    let ms = if ms.is_empty() { vec![2, 3, 8, 32] } else { ms };
    println!("{} threads", rayon::current_num_threads());
    for d in [1_000_000, 10_000_000] {
        ms.iter().for_each(|m| passes(*m, d));
    }
    for &m in ms.iter().filter(|m| **m <= 8) {
        primitives(m);
        scripted(m);
    }
}
