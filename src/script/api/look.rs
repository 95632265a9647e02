//! The looking functions, by their plain names: what `inspect` of the library defines.

use std::any::TypeId;
use std::rc::Rc;

use rhai::{
    AST, CallFnOptions, Dynamic, Engine, EvalAltResult, FuncArgs, NativeCallContext, Position, Scope, Shared,
};

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

struct Arguments(Vec<Dynamic>);

impl FuncArgs for Arguments {
    fn parse<C: Extend<Dynamic>>(self, container: &mut C) {
        container.extend(self.0);
    }
}

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
                let args = Arguments(args.iter().map(|value| (**value).clone()).collect());
                let options = CallFnOptions::new().eval_ast(true);
                let result =
                    context.engine().call_fn_with_options(options, &mut Scope::new(), &ast, name, args);
                // the error knows its line, but not that it lies in the library
                result.map_err(|error: Box<EvalAltResult>| match *error {
                    error @ EvalAltResult::ErrorTerminated(..) => error.into(),
                    error => {
                        let source = ast.source().unwrap_or_default().to_owned();
                        EvalAltResult::ErrorInFunctionCall(name.into(), source, error.into(), Position::NONE)
                            .into()
                    }
                })
            };
            engine.register_raw_fn(name, types, run);
        }
    }
}
