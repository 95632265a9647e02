//! The generic kernels against the fused ones: log-probs, rows, their algebra, steps, adapters, generation.
//!
//! `RACO_TEST_DEVICE=cuda:0` runs the generic side on a GPU, in a build with the feature `cuda`.

use std::sync::Arc;

use candle_core::DType;
use raco::data::Batch;
use raco::engine::{By, Forming, Gradients, LogProbs, Reference, TAPE_BYTES, jacobian_with};
use raco::math::Matrix;
use raco::model::{Config, Kernels, Load, Lora, Model, Precision, Processor, Sampling, Targets, Weights};
use raco::optim::{AdamW, Optimizer, Options, Schedule, Sgd};
use serde_json::json;

use super::adapter::adapted;
use super::jacobian::{Kind, least, lengths, losses, relative, rows};
use crate::common::random::{config, model, ragged};

fn processor() -> Processor {
    std::env::var("RACO_TEST_DEVICE").map_or(Processor::Cpu, |name| name.parse().unwrap())
}

/// The same model by ordinary tensor operations.
fn generic(model: &Model) -> Model {
    let twin = model.on(processor(), Some(Kernels::Generic)).unwrap();
    assert_eq!((twin.kernels(), model.kernels()), (Kernels::Generic, Kernels::Fused));
    assert_eq!(twin.processor(), processor());
    twin
}

fn models() -> Vec<(String, Model)> {
    let families =
        [("llama", false), ("llama", true), ("qwen3", true), ("gemma3_text", true), ("gemma3_text", false)];
    let name = |family: &str, tied| format!("{family}, tied {tied}");
    families.map(|(family, tied)| (name(family, tied), model(&config(family, tied), 7))).into()
}

fn flat(weights: &Weights) -> Vec<f64> {
    let one = |t: &candle_core::Tensor| t.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>();
    weights.parameters().iter().flat_map(|p| one(&p.tensor).unwrap()).collect()
}

fn differentiate(model: &Model, batch: &Batch, kind: Kind, m: usize, pairs: bool) -> (LogProbs, Gradients) {
    let log_probs = LogProbs::new(model, batch, TAPE_BYTES).unwrap();
    let losses = losses(kind, log_probs.tokens(), &lengths(batch), m, 5).unwrap();
    let names = Arc::new((0..m).map(|i| format!("o{i}")).collect());
    let form = if pairs { Forming::Pairs } else { Forming::Auto };
    let gradients = jacobian_with(names, &losses, &log_probs, form).unwrap();
    (log_probs, gradients)
}

fn near(found: &Matrix, expected: &Matrix, what: &str) {
    let error = relative(found.data(), expected.data());
    assert!(error < 1e-5, "{what}: off by {error:.1e}");
}

#[test]
fn log_probs_and_rows_are_those_of_the_fused_kernels() {
    for (name, fused) in models() {
        let generic = generic(&fused);
        for share_prompt in [true, false] {
            let batch = ragged(61, 3, share_prompt);
            let tokens = |model: &Model| {
                LogProbs::new(model, &batch, TAPE_BYTES).unwrap().tokens().to_vec1::<f64>().unwrap()
            };
            let error = relative(&tokens(&generic), &tokens(&fused));
            assert!(error < 1e-6, "{name}, shared {share_prompt}: log-probs off by {error:.1e}");
            let split = least(&fused, &batch);
            for (kind, m, tape) in [
                (Kind::Difference, 1, TAPE_BYTES),
                (Kind::Difference, 3, TAPE_BYTES),
                (Kind::Difference, 3, split),
                (Kind::Apart, 3, TAPE_BYTES),
                (Kind::Tokens, 2, TAPE_BYTES),
                (Kind::Tokens, 3, split),
            ] {
                let (found, terms) = rows(&generic, &batch, kind, m, tape);
                let (expected, fused_terms) = rows(&fused, &batch, kind, m, tape);
                assert_eq!(terms, fused_terms, "{name} {kind:?}");
                for (found, expected) in found.iter().zip(&expected) {
                    let error = relative(found, expected);
                    assert!(
                        error < 1e-5,
                        "{name}, shared {share_prompt}, {kind:?}, m {m}, tape {tape}: off by {error:.1e}"
                    );
                }
            }
        }
    }
}

/// A vocabulary of several blocks of the head, with and without a cap.
#[test]
fn a_wide_head_is_computed_block_by_block() {
    for cap in [None, Some(3.0)] {
        let mut json = config("llama", true).json;
        json["vocab_size"] = json!(60_000);
        json["hidden_size"] = json!(8);
        if let Some(cap) = cap {
            json = config("gemma3_text", true).json;
            json["vocab_size"] = json!(60_000);
            json["hidden_size"] = json!(8);
            json["final_logit_softcapping"] = json!(cap);
        }
        let fused = model(&Config::from_json(json).unwrap(), 3);
        let generic = generic(&fused);
        let batch = ragged(60_000, 3, true);
        let (found, _) = rows(&generic, &batch, Kind::Difference, 2, TAPE_BYTES);
        let (expected, _) = rows(&fused, &batch, Kind::Difference, 2, TAPE_BYTES);
        for (found, expected) in found.iter().zip(&expected) {
            let error = relative(found, expected);
            assert!(error < 1e-5, "cap {cap:?}: off by {error:.1e}");
        }
    }
}

#[test]
fn the_algebra_of_rows_is_that_of_the_fused_kernels() {
    for (name, fused) in
        models().into_iter().chain([("adapter".to_owned(), adapted("qwen3", Targets::AllLinear, true))])
    {
        let generic = generic(&fused);
        let batch = ragged(61, 3, true);
        let (log_probs, found) = differentiate(&generic, &batch, Kind::Difference, 3, true);
        let (fused_log_probs, expected) = differentiate(&fused, &batch, Kind::Difference, 3, true);
        near(&found.gramian().unwrap(), &expected.gramian().unwrap(), &name);
        for (found, expected) in
            found.layer_gramians().unwrap().iter().zip(expected.layer_gramians().unwrap())
        {
            assert_eq!(found.0, expected.0);
            near(&found.1, &expected.1, &format!("{name} {}", found.0));
        }
        for (found, expected) in
            found.gramians(By::Kind).unwrap().iter().zip(expected.gramians(By::Kind).unwrap())
        {
            near(&found.1, &expected.1, &format!("{name} {}", found.0));
        }
        let pairs = |g: &Gradients, l: &LogProbs| g.pair_gramian(l).unwrap().clone();
        near(&pairs(&found, &log_probs), &pairs(&expected, &fused_log_probs), &format!("{name}, pairs"));
        // the Gramian of the pairs from a backward of its own
        let (log_probs, later) = differentiate(&generic, &batch, Kind::Difference, 3, false);
        near(
            &pairs(&later, &log_probs),
            &pairs(&expected, &fused_log_probs),
            &format!("{name}, pairs later"),
        );

        let numbers =
            |g: &raco::engine::Gradient| g.tensor().to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap();
        let close = |a: &raco::engine::Gradient, b: &raco::engine::Gradient, what: &str| {
            let error = relative(&numbers(a), &numbers(b));
            assert!(error < 1e-5, "{name}, {what}: off by {error:.1e}");
        };
        let alpha = [0.5, -0.25, 2.0];
        let (a, b) = (found.combine(&alpha).unwrap(), expected.combine(&alpha).unwrap());
        close(&a, &b, "direction");
        close(&found.rank_mean(1..2).unwrap(), &expected.rank_mean(1..2).unwrap(), "median");
        assert_eq!(numbers(&a.uniform(3).unwrap()), numbers(&b.uniform(3).unwrap()));
        let (dot, fused_dot) =
            (a.dot(&found.row(1).unwrap()).unwrap(), b.dot(&expected.row(1).unwrap()).unwrap());
        assert!(
            (dot - fused_dot).abs() < 1e-5 * b.norm().unwrap() * expected.row(1).unwrap().norm().unwrap()
        );
        assert!(relative(&a.norms_by_tensor().unwrap(), &b.norms_by_tensor().unwrap()) < 1e-5, "{name}");
        let blocks = |g: &Gradients| g.blocks(By::Layer).unwrap();
        let halves = |g: &Gradients| -> Vec<_> {
            blocks(g).iter().map(|(_, block)| block.combine(&alpha).unwrap()).collect()
        };
        close(&found.join(&halves(&found)).unwrap(), &a, "joined blocks");
    }
}

/// A number that is not finite is found where the algebra is that of tensors.
#[test]
fn a_gradient_that_is_not_finite_is_named() {
    let generic = generic(&model(&config("llama", true), 7));
    let (_, gradients) = differentiate(&generic, &ragged(61, 3, true), Kind::Difference, 2, false);
    let row = gradients.row(1).unwrap();
    row.check_finite("it").unwrap();
    let space = generic.weights().space().clone();
    let at = space.names.iter().position(|name| name.contains("layers.1.mlp.up")).unwrap();
    for bad in [f32::NAN, f32::INFINITY] {
        let broken = row
            .map(|t| {
                let mut numbers = t.to_vec1::<f32>()?;
                numbers[space.offsets[at + 1] - 1] = bad;
                candle_core::Tensor::from_vec(numbers, t.shape(), t.device())
            })
            .unwrap();
        let error = broken.check_finite("it").unwrap_err();
        assert!(error.to_string().contains(&space.names[at]), "{error}");
        let options = Options { lr: 0.1, schedule: Schedule::default(), clip: None };
        let before = flat(&generic.weights());
        let error = Optimizer::adamw(&generic, AdamW::default(), options).unwrap().step(&broken).unwrap_err();
        assert!(error.to_string().contains(&space.names[at]), "{error}");
        assert_eq!(flat(&generic.weights()), before);
    }
}

fn optimizers(model: &Model) -> Vec<Optimizer> {
    let options = |lr, clip| Options { lr, schedule: Schedule::default(), clip };
    let sgd = |momentum, decay, nesterov| Sgd { momentum, decay, nesterov };
    let adamw = |decay| AdamW { eps: 1e-4, decay, ..AdamW::default() };
    vec![
        Optimizer::sgd(model, sgd(0.0, 0.0, false), options(0.05, None)).unwrap(),
        Optimizer::sgd(model, sgd(0.9, 0.01, false), options(0.05, Some(0.5))).unwrap(),
        Optimizer::sgd(model, sgd(0.8, 0.0, true), options(0.05, None)).unwrap(),
        Optimizer::adamw(model, adamw(0.0), options(0.002, None)).unwrap(),
        Optimizer::adamw(model, adamw(0.1), options(0.002, Some(0.5))).unwrap(),
    ]
}

fn step(model: &Model, optimizer: &mut Optimizer, batch: &Batch) -> raco::optim::StepReport {
    let (_, gradients) = differentiate(model, batch, Kind::Difference, 2, false);
    optimizer.step(&gradients.combine(&[0.7, 0.3]).unwrap()).unwrap()
}

#[test]
fn steps_move_as_those_of_the_fused_kernels() {
    let batch = ragged(61, 3, true);
    let start = |which: usize| match which {
        0 => model(&config("llama", true), 7),
        1 => model(&config("gemma3_text", true), 7),
        _ => adapted("qwen3", Targets::AllLinear, false),
    };
    for which in 0..3 {
        for rule in 0..5 {
            let (fused, generic) = (start(which), generic(&start(which)));
            let reference = generic.frozen();
            let first = flat(&fused.weights());
            let mut both = [optimizers(&fused).swap_remove(rule), optimizers(&generic).swap_remove(rule)];
            for _ in 0..3 {
                let reports = [step(&fused, &mut both[0], &batch), step(&generic, &mut both[1], &batch)];
                assert!((reports[0].norm / reports[1].norm - 1.0).abs() < 1e-4);
                assert_eq!(reports[0].clipped, reports[1].clipped);
            }
            let moved = |model: &Model| -> Vec<f64> {
                flat(&model.weights()).iter().zip(&first).map(|(after, before)| after - before).collect()
            };
            let error = relative(&moved(&generic), &moved(&fused));
            assert!(error < 1e-4, "model {which}, rule {rule}: moves off by {error:.1e}");
            assert_eq!(flat(&reference.weights()), first, "a frozen copy stays as it was");
        }
    }
}

/// States in memory and in files, and steps that are only looked at.
#[test]
fn states_are_put_back_saved_and_read() {
    let folder = tempfile::tempdir().unwrap();
    let batch = ragged(61, 3, true);
    for rule in 0..5 {
        let generic = generic(&model(&config("qwen3", true), 7));
        let mut optimizer = optimizers(&generic).swap_remove(rule);
        step(&generic, &mut optimizer, &batch);
        let (weights, state) = (generic.weights(), optimizer.snapshot());
        let at = flat(&weights);
        let file = folder.path().join(format!("{rule}.safetensors"));
        optimizer.save(&file).unwrap();

        let (_, gradients) = differentiate(&generic, &batch, Kind::Difference, 2, false);
        let update = gradients.combine(&[0.7, 0.3]).unwrap();
        let preview = optimizer.preview(&update).unwrap();
        assert_eq!(flat(&generic.weights()), at);
        optimizer.step(&update).unwrap();
        let after = flat(&generic.weights());
        let seen = preview.tensor().to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap();
        let moved: Vec<f64> = after.iter().zip(&at).map(|(a, b)| a - b).collect();
        assert!(relative(&seen, &moved) < 1e-5);

        generic.restore(weights.clone()).unwrap();
        optimizer.put_back(&state).unwrap();
        optimizer.step(&update).unwrap();
        assert_eq!(flat(&generic.weights()), after, "rule {rule}: from memory");

        generic.restore(weights).unwrap();
        let mut fresh = optimizers(&generic).swap_remove(rule);
        fresh.restore(&file).unwrap();
        fresh.step(&update).unwrap();
        assert_eq!(flat(&generic.weights()), after, "rule {rule}: from a file");

        // the file is that of the fused kernels
        let fused = model(&config("qwen3", true), 7);
        optimizers(&fused).swap_remove(rule).restore(&file).unwrap();
        assert!(optimizers(&fused).swap_remove(rule).put_back(&state).is_err());
    }
}

#[test]
fn adapters_are_those_of_the_fused_kernels() {
    for (family, rslora) in [("llama", false), ("qwen3", true), ("gemma3_text", false)] {
        let fused = adapted(family, Targets::AllLinear, rslora);
        let generic = generic(&fused);
        let batch = ragged(61, 3, true);
        for (kind, m, tape) in [
            (Kind::Difference, 1, TAPE_BYTES),
            (Kind::Difference, 3, least(&fused, &batch)),
            (Kind::Tokens, 3, TAPE_BYTES),
        ] {
            let (found, _) = rows(&generic, &batch, kind, m, tape);
            let (expected, _) = rows(&fused, &batch, kind, m, tape);
            for (found, expected) in found.iter().zip(&expected) {
                let error = relative(found, expected);
                assert!(error < 1e-5, "{family} {kind:?} m {m}: off by {error:.1e}");
            }
        }
        assert_eq!(generic.fingerprint().unwrap(), fused.fingerprint().unwrap());
        let merged = |model: &Model| flat(&model.merged().unwrap().weights());
        assert!(relative(&merged(&generic), &merged(&fused)) < 1e-6);
        // a fresh adapter changes nothing, so that its frozen copy is the decoder
        let fresh = generic.base().with_adapter(Lora { rank: 2, ..Lora::default() }, 1).unwrap();
        assert_eq!((fresh.kernels(), fresh.processor()), (Kernels::Generic, processor()));
        assert!(fresh.frozen().adapter().is_none());
    }
}

#[test]
fn greedy_responses_are_those_of_the_fused_kernels() {
    for (name, fused) in models() {
        let generic = generic(&fused);
        let prompts: Vec<Vec<u32>> = vec![vec![5; 3], (0..60).collect(), vec![7], vec![9, 8, 7, 6, 5, 4]];
        let sampling = Sampling { stop_tokens: vec![11, 23], ..Sampling::greedy(&fused, 30) };
        let responses = |model: &Model| model.generate(&prompts, &sampling, &|| false).unwrap();
        assert_eq!(responses(&generic), responses(&fused), "{name}");
    }
}

#[test]
fn the_reference_scores_alike() {
    let fused = model(&config("gemma3_text", true), 7);
    let batch = ragged(61, 3, true);
    let score = |model: &Model| {
        Reference::new(model.frozen(), None)
            .unwrap()
            .log_probs(&batch.examples, |_, _| true)
            .unwrap()
            .concat()
    };
    assert!(relative(&score(&generic(&fused)), &score(&fused)) < 1e-6);
}

/// From disk, kept as bf16 under an adapter, and to disk again.
#[test]
fn models_are_loaded_and_saved() {
    let folder = tempfile::tempdir().unwrap();
    let path = std::path::Path::new("data/model");
    let load = |kernels, precision| {
        let processor = if kernels == Kernels::Generic { processor() } else { Processor::Cpu };
        Model::load_as(path, Load { precision, kernels: Some(kernels), processor }).unwrap()
    };
    let whole = load(Kernels::Generic, Precision::F32);
    assert_eq!(whole.kernels(), Kernels::Generic);
    assert_eq!(whole.fingerprint().unwrap(), load(Kernels::Fused, Precision::F32).fingerprint().unwrap());
    let saved = folder.path().join("saved");
    whole.save(&saved, Precision::F32).unwrap();
    assert_eq!(Model::load(&saved).unwrap().fingerprint().unwrap(), whole.fingerprint().unwrap());

    let lora = Lora { rank: 2, alpha: 4.0, rslora: false, targets: Targets::AllLinear };
    let [generic, fused] = [Kernels::Generic, Kernels::Fused].map(|kernels| {
        let model = load(kernels, Precision::Bf16).with_adapter(lora.clone(), 1).unwrap();
        model
            .update(|_, values| {
                values.iter_mut().enumerate().for_each(|(i, v)| *v += 0.01 * (i % 7) as f32);
                Ok(())
            })
            .unwrap();
        model
    });
    assert_eq!(generic.precision(), Precision::Bf16);
    let batch = ragged(generic.config().vocab, 3, true);
    let (found, _) = rows(&generic, &batch, Kind::Difference, 2, TAPE_BYTES);
    let (expected, _) = rows(&fused, &batch, Kind::Difference, 2, TAPE_BYTES);
    for (found, expected) in found.iter().zip(&expected) {
        assert!(relative(found, expected) < 1e-5);
    }
}

#[test]
fn devices_have_names() {
    for (name, expected) in
        [("cpu", Processor::Cpu), ("cuda", Processor::Cuda(0)), ("cuda:3", Processor::Cuda(3))]
    {
        assert_eq!(name.parse::<Processor>().unwrap(), expected);
    }
    for name in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "CPU"] {
        let error = name.parse::<Processor>().unwrap_err();
        assert_eq!(error.what(), format!("unknown device `{name}`"));
        assert!(error.help_text().unwrap().contains("cuda:0"));
    }
    if !cfg!(feature = "cuda") {
        let error = Processor::Cuda(1).open().unwrap_err();
        assert_eq!(error.what(), "no device `cuda:1`: this program was built without CUDA");
        assert!(error.help_text().unwrap().contains("--features cuda"));
    }
}
