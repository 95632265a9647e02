//! What a step costs, counted from shapes, against counts by hand and against the products of the bound.

use std::sync::Arc;

use raco::data::{Batch, Packed};
use raco::engine::{Costs, LogProbs, Memory, Moments, Plan, Products, Runs, Shape, TAPE_BYTES, shapes};
use raco::model::{Config, Keep, Lora, Model, Targets};
use raco::script::{Host, Options};

use super::jacobian::least;
use crate::common::random::{config, model, pair, ragged, rng};

/// Rows of a batch in one pass: T, N.
fn sizes(batch: &Batch) -> (f64, f64) {
    let packed = batch.packed().unwrap();
    (packed.len() as f64, packed.targets.len() as f64)
}

/// Numbers of the linear maps of all layers.
fn linear(config: &Config) -> f64 {
    let Config { hidden, heads, kv_heads, head_dim, intermediate, layers, .. } = *config;
    (layers * hidden * (2 * (heads + kv_heads) * head_dim + 3 * intermediate)) as f64
}

/// Numbers of the maps of one layer after its attention, which in the last layer have N rows.
fn after(config: &Config) -> f64 {
    let Config { hidden, heads, head_dim, intermediate, .. } = *config;
    (hidden * (heads * head_dim + 3 * intermediate)) as f64
}

fn products(model: &Model, batch: &Batch, bytes: usize) -> f64 {
    Products::new(&LogProbs::new(model, batch, bytes).unwrap()).flops()
}

#[test]
fn operations_of_the_products() {
    let model = model(&config("llama", true), 2);
    let batch = ragged(61, 3, true);
    let ((t, n), config) = (sizes(&batch), model.config());
    let head = n * (config.hidden * config.vocab) as f64;
    let layers = t * linear(config) - (t - n) * after(config);
    let full = 6.0 * layers + 6.0 * head;
    assert_eq!(products(&model, &batch, TAPE_BYTES), full);

    let shapes = shapes(config, &batch.examples, true).unwrap();
    let whole: Shape = shapes.iter().copied().sum();
    let costs = Costs::of(&model);
    // all but the logits: the head runs forward twice
    let but_logits = costs.pass(whole, Keep::Layers);
    assert_eq!(products(&model, &batch, but_logits), full + 2.0 * head);
    // inputs kept in one pass: the layers too
    let inputs = costs.pass(whole, Keep::Inputs);
    assert_eq!(products(&model, &batch, inputs), full + 2.0 * layers + 2.0 * head);
    // in several passes that keep inputs: three times, both
    let bytes = least(&model, &batch);
    assert_eq!(Plan::new(&costs, &shapes, bytes).unwrap().keep, Keep::Inputs);
    assert_eq!(products(&model, &batch, bytes), full + 4.0 * layers + 4.0 * head);

    // the phases are the same operations, sorted
    let phases = costs.phases(&[whole], Keep::Everything, 1, Moments::None);
    let [forward, activations, weights] =
        [phases.forward, phases.activations, phases.weights].map(|work| work.flops);
    assert_eq!(forward + activations + weights + phases.head.flops, full);
    assert!(forward == activations && activations == weights && phases.combination.flops == 0.0);
    assert_eq!(phases.head.flops, 6.0 * head);
}

#[test]
fn operations_of_an_adapter() {
    let lora = Lora { rank: 3, ..Lora::default() };
    let model = model(&config("llama", false), 2).with_adapter(lora, 1).unwrap();
    let batch = ragged(61, 3, true);
    let ((t, n), config) = (sizes(&batch), model.config());
    let Config { hidden: d, heads, kv_heads, head_dim, intermediate: f, layers, vocab, .. } = *config;
    let (q, s) = (heads * head_dim, (heads + 2 * kv_heads) * head_dim);
    let ends_after = (q + d + 2 * d + 2 * f + f + d) as f64;
    let ends = t * layers as f64 * ((3 * d + s) as f64 + ends_after) - (t - n) * ends_after;
    // nothing trained is below the first layer's q, k, v: their input has no gradient
    let spared = 2.0 * t * (d * s + 3 * 3 * d) as f64;
    let head = 4.0 * n * (d * vocab) as f64;
    let maps = t * linear(config) - (t - n) * after(config);
    let expected = 4.0 * maps + 18.0 * ends - spared + head;
    assert_eq!(products(&model, &batch, TAPE_BYTES), expected);

    // an adapter on the last layer alone: below it everything is constant, and leaves nothing on the tape
    let targets = Targets::pattern(r".*layers\.2\.mlp\.down_proj");
    let model = crate::common::random::model(config, 2);
    let low = model.with_adapter(Lora { rank: 3, targets, ..Lora::default() }, 1).unwrap();
    let whole = Shape::new(config, &batch.packed().unwrap());
    let costs = Costs::of(&low);
    assert_eq!(costs.trained(), 3 * (d + f));
    let tape = 4 * whole.scored * (f + 3 + d + 2);
    assert_eq!(costs.tape(whole, Keep::Layers), tape);
    assert_eq!(costs.tape(whole, Keep::Everything), tape + 4 * whole.scored * vocab);
    let phases = costs.phases(&[whole], Keep::Everything, 1, Moments::None);
    // of the decoder no gradient of an activation is computed, of the adapter that between B and A
    assert_eq!(phases.activations.flops, 2.0 * n * (3 * d) as f64);
    assert_eq!(phases.attention.flops, 4.0 * (layers * heads * head_dim * whole.scores[0]) as f64);
}

#[test]
fn scores_of_attention_are_counted_in_blocks() {
    let count = |window: Option<usize>, prompt: usize, response: usize, share: bool| {
        let mut config = config("gemma3_text", true);
        if let (Some(window), Some(local)) = (window, &mut config.local) {
            local.window = window;
        }
        let words = [0; 256];
        let sequence = (&words[..prompt], vec![&words[..response], &words[..response]]);
        Shape::new(&config, &Packed::new([sequence], share).unwrap()).scores
    };
    // a prompt of two blocks of 64, each response (but its last token) of one that sees the prompt and itself
    assert_eq!(count(None, 128, 65, true)[0], 64 * 64 + 64 * 128 + 2 * 64 * (128 + 64));
    // each response with a prompt of its own: three blocks
    assert_eq!(count(None, 128, 65, false)[0], 2 * 64 * (64 + 128 + 192));
    // a window of 32: the rows of a block see at most 63 + 32 keys
    assert_eq!(count(Some(32), 128, 65, true)[1], 64 * 64 + 64 * 95 + 2 * 64 * 95);
}

#[test]
fn memory_by_part() {
    let model = model(&config("qwen3", true), 2);
    let p = model.weights().space().size();
    let shape = Shape::new(model.config(), &ragged(61, 3, true).packed().unwrap());
    let costs = Costs::of(&model);
    let of = |m, moments| costs.memory(&[shape], Keep::Everything, m, moments, 4 * p);
    let memory = of(3, Moments::Two);
    assert_eq!((memory.weights, memory.reference, memory.gradients), (4 * p, 4 * p, 12 * p));
    assert_eq!((memory.update, memory.optimizer), (4 * p, 8 * p));
    assert_eq!(memory.tape + memory.workspace, costs.pass(shape, Keep::Everything));
    assert!(memory.tape > memory.update);
    // the update takes the place of tape and workspace, which are larger here
    let used = 28 * p + memory.tape + memory.workspace + memory.program;
    assert_eq!((memory.total(), of(3, Moments::None).optimizer), (used + used / 32, 0));
    let small = Memory { tape: p, workspace: p, ..memory };
    assert_eq!(small.total(), (32 * p + memory.program) * 33 / 32);
    assert!(costs.tape(shape, Keep::Inputs) < costs.tape(shape, Keep::Everything));

    memory.check(0, None).unwrap();
    memory.check(0, Some(memory.total() as u64)).unwrap();
    memory.check(4 * p, Some((memory.total() - 4 * p) as u64)).unwrap();
    let large = Memory { gradients: 3 << 30, ..memory };
    let error = large.check(0, Some(1 << 30)).unwrap_err().to_string();
    assert!(
        error.contains("gradients of the objectives 3GiB") && error.contains("train an adapter"),
        "{error}"
    );
}

#[test]
fn split_and_recomputed_parts_run_again() {
    let runs = |keep, passes| (Runs::new(keep, passes).layers, Runs::new(keep, passes).head);
    assert_eq!([runs(Keep::Everything, 1), runs(Keep::Inputs, 1)], [(1, 1), (2, 1)]);
    assert_eq!([runs(Keep::Everything, 3), runs(Keep::Inputs, 3)], [(2, 2), (3, 2)]);
}

/// The published models of `scripts/bench/models.rhai` have as many parameters as they are known to have.
#[test]
fn published_models_have_their_parameters() {
    let host = Host::new(Options::default()).unwrap();
    let counts = r#"
        import "scripts/bench/models.rhai" as models;
        let all = models::published();
        let counts = "";
        for name in all.keys() { counts += `${name} ${estimate(all[name], #{}).parameters}, `; }
        counts
    "#;
    let found = host.run(counts, "counts.rhai").unwrap_or_else(|failure| panic!("{failure}"));
    // Qwen3-4B and Llama-3.1-8B as their files have them; Gemma-3-4B without its vision tower (419,816,304)
    let expected = "Gemma-3-4B 3880263168, Llama-3.1-8B 8030261248, Qwen3-4B 4022468096, ";
    assert_eq!(found.to_string(), expected);
}

#[test]
fn one_long_example_needs_what_the_message_says() {
    let model = model(&config("llama", true), 2);
    let mut rng = rng(4);
    let lengths = [[40, 9, 11], [5, 3, 2]];
    let examples = lengths.iter().map(|&l| Arc::new(pair(&mut rng, 61, l, 0))).collect();
    let batch = Batch { examples, ..ragged(61, 3, true) };
    let least = least(&model, &batch);
    LogProbs::new(&model, &batch, least).unwrap();
    let error = LogProbs::new(&model, &batch, least - 1).err().unwrap();
    assert!(error.what().starts_with("one example of 58 token rows takes"), "{error}");
    assert!(error.help_text().unwrap().contains("`max_length`"), "{error}");
    // what the help says is enough
    let help = error.help_text().unwrap();
    let size = help.split(' ').nth(2).unwrap();
    LogProbs::new(&model, &batch, raco::model::parse_bytes(size).unwrap()).unwrap();
}
