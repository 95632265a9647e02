//! Calls of functions that another file defines.

use rhai::{AST, CallFnOptions, Dynamic, Engine, EvalAltResult, FuncArgs, Position, Scope};

use super::value::Answer;

/// Arguments of a call, as Rhai takes them.
pub(super) struct Arguments(pub Vec<Dynamic>);

impl FuncArgs for Arguments {
    fn parse<C: Extend<Dynamic>>(self, container: &mut C) {
        container.extend(self.0);
    }
}

/// Calls a function of a file, after its imports and constants.
pub(super) fn call(engine: &Engine, ast: &AST, function: &str, args: Vec<Dynamic>) -> Answer<Dynamic> {
    let options = CallFnOptions::new().eval_ast(true);
    let result = engine.call_fn_with_options(options, &mut Scope::new(), ast, function, Arguments(args));
    // the error knows its line, but not that it lies in this file
    result.map_err(|error: Box<EvalAltResult>| match *error {
        error @ EvalAltResult::ErrorTerminated(..) => error.into(),
        error => {
            let source = ast.source().unwrap_or_default().to_owned();
            EvalAltResult::ErrorInFunctionCall(function.into(), source, error.into(), Position::NONE).into()
        }
    })
}
