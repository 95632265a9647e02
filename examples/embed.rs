//! raco inside another program: a function and an aggregator of its own, and a script that uses both.
//!
//!     cargo run --release --example embed

use std::rc::Rc;

use raco::math::Matrix;
use raco::script::rhai::{Array, Module, Scope};
use raco::script::{Console, Host, Options};

/// Where the script's output goes: here to stdout, in your program to a window or a log.
struct Out;

impl Console for Out {
    fn print(&self, text: &str) {
        println!("{text}");
    }

    fn progress(&self, _done: usize, _total: usize, _message: &str) {}

    fn progress_end(&self) {}

    fn width(&self) -> Option<usize> {
        None
    }
}

const SCRIPT: &str = r#"
    // two gradients that disagree, tried on paper before a model is
    let rows = gradients([[1.0, 0.0], [-0.5, 1.0]], ["quality", "brevity"]);
    let weights = #{ quality: 0.5, brevity: 0.5 };
    for name in ["linear", "cagrad_clip", "mgda"] {
        let update = aggregator(name).update(rows, weights);
        print(`${name}: ${alignment(rows, update.direction)}`);
    }
    let own = aggregator(|h, w, options| softmin(h, w, options.temperature), #{ temperature: 0.5 });
    let update = own.update(rows, weights);
    print(`softmin: ${alignment(rows, update.direction)}`);
    update.alpha
"#;

/// Runs the script and prints what it returned.
pub fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut host = Host::new(Options { console: Rc::new(Out), ..Options::default() })?;
    let engine = host.engine_mut();
    // an aggregator in Rust: less weight for objectives with longer gradients
    engine.register_fn("softmin", |h: Matrix, w: Array, temperature: f64| -> Array {
        let length = |i: usize| h[(i, i)].sqrt();
        let share: Vec<f64> = (0..h.rows())
            .map(|i| w[i].as_float().unwrap_or(0.0) * (-length(i) / temperature).exp())
            .collect();
        let sum: f64 = share.iter().sum();
        share.iter().map(|x| (x / sum).into()).collect()
    });
    // a function in Rhai that the script finds like a built-in one
    let ast = engine.compile(
        "fn alignment(rows, direction) { [rows[0].cosine(direction), rows[1].cosine(direction)] }",
    )?;
    let module = Module::eval_ast_as_new(Scope::new(), &ast, engine)?;
    engine.register_global_module(module.into());
    let alpha = host.run(SCRIPT, "embedded.rhai")?;
    println!("alpha {alpha}");
    Ok(())
}
