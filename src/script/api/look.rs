//! The looking functions, by their plain names: what `inspect` of the library defines.

use std::any::TypeId;
use std::rc::Rc;

use rhai::{AST, Dynamic, Engine, NativeCallContext, Shared};

use super::super::call::call;
use super::super::resolver::{self, check_names};
use super::super::session::Session;
use super::super::value::Answer;
use super::method::compile;

/// Names and numbers of arguments.
const FUNCTIONS: [(&str, &[usize]); 10] = [
    ("lab", &[1, 2]),
    ("conflicts", &[1, 2]),
    ("worst_pairs", &[1, 2]),
    ("explain", &[3, 4]),
    ("peek", &[1]),
    ("compare", &[3, 4]),
    ("what_if", &[2]),
    ("cone", &[1, 2]),
    ("realised", &[1, 2]),
    ("fork", &[3]),
];

/// Reads the library at the first call, so that a script that looks at nothing does not wait for it.
fn library(session: &Session, engine: &Engine) -> Answer<Shared<AST>> {
    if let Some(ast) = &*session.inspect.borrow() {
        return Ok(ast.clone());
    }
    let source = resolver::find(session, "inspect")?;
    let ast = compile(session, engine, &source)?;
    check_names(session, &source.name, &ast)?;
    Ok(session.inspect.borrow_mut().insert(ast.into()).clone())
}

pub(super) fn register(engine: &mut Engine, session: &Rc<Session>) {
    for (name, counts) in FUNCTIONS {
        for &count in counts {
            let session = session.clone();
            let types = vec![TypeId::of::<Dynamic>(); count];
            let run = move |context: NativeCallContext, args: &mut [&mut Dynamic]| -> Answer<Dynamic> {
                let ast = library(&session, context.engine())?;
                let args = args.iter().map(|value| (**value).clone()).collect();
                call(context.engine(), &ast, name, args)
            };
            engine.register_raw_fn(name, types, run);
        }
    }
}
