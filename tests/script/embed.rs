//! The example that embeds the kernel in another program, built and run as a part of this one.

#[path = "../../examples/embed.rs"]
mod example;

#[test]
fn runs() {
    example::main().unwrap();
}
