//! Gradients of adapters: by the engine, by autograd in f64, by differences; what is frozen costs and moves nothing.

use std::sync::Arc;

use candle_core::DType;
use raco::data::Batch;
use raco::engine::{LogProbs, TAPE_BYTES, jacobian};
use raco::model::{Lora, Model, Targets};

use super::jacobian::{Kind, least, lengths, losses, relative, rows};
use crate::common::oracle::Oracle;
use crate::common::random::{config, model, normal, ragged, rng};

fn names(names: &[&str]) -> Targets {
    Targets::Names(names.iter().map(|&name| name.into()).collect())
}

/// A model whose adapter has numbers other than zero in every B.
pub fn adapted(family: &str, targets: Targets, rslora: bool) -> Model {
    let lora = Lora { rank: 3, alpha: 5.0, rslora, targets };
    let model = model(&config(family, family == "qwen3"), 7).with_adapter(lora, 1).unwrap();
    let mut rng = rng(3);
    model
        .update(|_, values| {
            values.iter_mut().for_each(|v| *v += 0.2 * normal(&mut rng) as f32);
            Ok(())
        })
        .unwrap();
    model
}

#[test]
fn rows_equal_m_autograd_backwards() {
    for (family, targets, rslora) in [
        ("llama", Targets::AllLinear, false),
        ("qwen3", Targets::AllLinear, true),
        ("qwen3", names(&["v_proj", "up_proj"]), false),
        ("llama", Targets::pattern(r".*layers\.[12]\.(mlp|self_attn)\.[kd].*"), true),
    ] {
        let model = adapted(family, targets.clone(), rslora);
        let oracle = Oracle::new(&model, DType::F64);
        let batch = ragged(61, 3, true);
        let plain = oracle.batch(&batch).unwrap();
        let log_probs = LogProbs::new(&model, &batch, TAPE_BYTES).unwrap();
        let (found, expected) = (log_probs.tokens().to_vec1().unwrap(), plain.to_vec1().unwrap());
        assert!(relative(&found, &expected) < 1e-6, "{family} {targets:?}: log-probs");
        for (kind, m) in [(Kind::Difference, 1), (Kind::Difference, 3), (Kind::Apart, 2), (Kind::Tokens, 3)] {
            let expected = oracle.rows(&losses(kind, &plain, &lengths(&batch), m, 5).unwrap()).unwrap();
            for tape in [TAPE_BYTES, least(&model, &batch)] {
                let (found, _) = rows(&model, &batch, kind, m, tape);
                assert_eq!(found[0].len(), model.weights().space().size());
                for (found, expected) in found.iter().zip(&expected) {
                    let error = relative(found, expected);
                    assert!(error < 1e-5, "{family} {targets:?} {kind:?} m {m}: off by {error:.1e}");
                }
            }
        }
    }
}

fn loss(model: &Model, batch: &Batch) -> f64 {
    let log_probs = LogProbs::new(model, batch, TAPE_BYTES).unwrap();
    losses(Kind::Difference, log_probs.tokens(), &lengths(batch), 1, 5).unwrap()[0].to_scalar().unwrap()
}

#[test]
fn gradients_equal_differences_of_the_loss() {
    let model = adapted("qwen3", Targets::AllLinear, false);
    let batch = ragged(61, 3, true);
    let (gradient, _) = rows(&model, &batch, Kind::Difference, 1, TAPE_BYTES);
    let space = model.weights().space().clone();
    let whole: f64 = gradient[0].iter().map(|g| g * g).sum::<f64>().sqrt();
    for (tensor, name) in space.names.iter().enumerate() {
        let part = &gradient[0][space.offsets[tensor]..space.offsets[tensor + 1]];
        let norm = part.iter().map(|g| g * g).sum::<f64>().sqrt();
        if norm < 0.05 * whole {
            continue; // lost in the rounding of the f32 forward
        }
        let step = 3e-2;
        let shift = |by: f64| {
            model
                .update(|i, values| {
                    let along = values.iter_mut().zip(part);
                    if i == tensor {
                        along.for_each(|(v, g)| *v += (by * g / norm) as f32);
                    }
                    Ok(())
                })
                .unwrap();
            loss(&model, &batch)
        };
        let (up, down) = (shift(step), shift(-2.0 * step));
        shift(step);
        let slope = (up - down) / (2.0 * step);
        assert!((slope / norm - 1.0).abs() < 2e-2, "{name}: {slope}, expected {norm}");
    }
}

fn gradients(model: &Model, batch: &Batch) -> raco::Result<raco::engine::Gradients> {
    let log_probs = LogProbs::new(model, batch, TAPE_BYTES).unwrap();
    let losses = losses(Kind::Difference, log_probs.tokens(), &lengths(batch), 2, 9).unwrap();
    jacobian(Arc::new(vec!["a".into(), "b".into()]), &losses, &log_probs)
}

#[test]
fn a_is_out_of_reach_while_b_is_zero() {
    let base = model(&config("llama", true), 2);
    let batch = ragged(61, 6, true);
    let policy = base.with_adapter(Lora::default(), 0).unwrap();
    for _ in 0..2 {
        let gradients = gradients(&policy, &batch).unwrap();
        let space = gradients.space();
        for (name, range) in space.names.iter().zip(space.offsets.windows(2)) {
            let h = gradients.gramian_over(std::iter::once(range[0]..range[1])).unwrap();
            assert_eq!(h[(0, 0)] == 0.0, name.contains("lora_A"), "{name}");
        }
    }
    // an A that stays without gradient when its B moves is refused, and so is a B without one
    let still = |factor: &str, o_is_zero: bool| {
        if o_is_zero {
            let base = model(&config("llama", true), 2);
            let dead = base.weights().space().names.iter().position(|n| n.contains("1.self_attn.o")).unwrap();
            base.update(|i, values| {
                if i == dead {
                    values.fill(0.0);
                }
                Ok(())
            })
            .unwrap();
            return base.with_adapter(Lora { targets: names(&["v_proj"]), ..Lora::default() }, 0).unwrap();
        }
        let policy = base.with_adapter(Lora::default(), 0).unwrap();
        let space = policy.weights().space().clone();
        policy
            .update(|i, values| {
                if space.names[i].contains("1.self_attn.q_proj.lora") {
                    values.fill(if space.names[i].contains(factor) { 0.0 } else { 0.1 });
                }
                Ok(())
            })
            .unwrap();
        policy
    };
    let error = gradients(&still("lora_A", false), &batch).unwrap_err().to_string();
    assert!(error.contains("zero") && error.contains("layers.1.self_attn.q_proj.lora_B"), "{error}");
    let error = gradients(&still("", true), &batch).unwrap_err().to_string();
    assert!(error.contains("zero") && error.contains("layers.1.self_attn.v_proj.lora_B"), "{error}");
}

#[test]
fn the_reference_is_the_decoder_itself() {
    let base = model(&config("qwen3", true), 4);
    let decoder = base.weights();
    let policy = base.with_adapter(Lora { rank: 4, ..Lora::default() }, 0).unwrap();
    let reference = policy.frozen();
    assert!(reference.adapter().is_none());
    assert!(Arc::ptr_eq(&reference.weights(), &decoder));
    assert_eq!(reference.fingerprint().unwrap(), base.fingerprint().unwrap());

    let batch = ragged(61, 6, true);
    let tokens =
        |model: &Model| LogProbs::new(model, &batch, TAPE_BYTES).unwrap().tokens().to_vec1::<f64>().unwrap();
    assert_eq!(tokens(&policy), tokens(&base), "a fresh adapter changes nothing");
    policy
        .update(|_, values| {
            values.iter_mut().for_each(|v| *v += 0.05);
            Ok(())
        })
        .unwrap();
    assert!(relative(&tokens(&policy), &tokens(&base)) > 1e-3);
    // a copy of a trained adapter keeps it, and shares the decoder still
    let (kept, before) = (policy.frozen(), tokens(&policy));
    assert!(Arc::ptr_eq(kept.adapter().unwrap().base(), &decoder));
    policy
        .update(|_, values| {
            values.iter_mut().for_each(|v| *v *= 2.0);
            Ok(())
        })
        .unwrap();
    assert_eq!(tokens(&kept), before);
    assert_ne!(tokens(&policy), before);
    assert!(Arc::ptr_eq(&policy.base().weights(), &decoder));
    let all = [&base, &policy, &kept].map(|m| m.fingerprint().unwrap());
    assert!(all[0] != all[1] && all[1] != all[2] && all[0] != all[2]);

    // merged, it is a model of its own that computes the same
    let merged = policy.merged().unwrap();
    assert!(merged.adapter().is_none());
    assert!(relative(&tokens(&merged), &tokens(&policy)) < 1e-5);
    assert_eq!(merged.weights().space().names, base.weights().space().names);
    assert!(policy.with_adapter(Lora::default(), 0).is_err());
}
