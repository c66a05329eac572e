//! Fuzzing: hostile inputs for whatever reads text, one target a file. Made from grammars, from a corpus, and by mutation.
//!
//! `cargo test --test fuzz` runs a bounded number of cases of each target. `WATCHFIRE_FUZZ_CASES=1000000` with
//! `cargo test --release --test fuzz parser` runs more, `WATCHFIRE_FUZZ_SEED` others. A case that fails is named by seed and
//! number and shown; each is independent of those before it.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that prints its figures")]

#[path = "../tests/promql_differential/answer.rs"]
#[expect(dead_code, reason = "the form of the API is not asked here")]
mod answer;
mod corpus;
#[path = "../tests/promql_differential/dice.rs"]
mod dice;
mod directories;
mod evaluator;
#[path = "../tests/promql_differential/grammar.rs"]
mod grammar;
mod http;
mod mutate;
mod parser;
mod records;
mod regexp;
#[path = "../tests/promql_differential/samples.rs"]
#[expect(dead_code, reason = "samples are not sent anywhere here")]
mod samples;
mod storage;

use std::panic::{AssertUnwindSafe, catch_unwind};

use dice::Dice;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// Runs `case` with `count` inputs that `make` makes; what panics is shown with its input.
fn run(target: &str, count: u64, make: impl Fn(&mut Dice) -> String, case: impl Fn(&mut Dice, &str)) {
    let seed = number("WATCHFIRE_FUZZ_SEED").unwrap_or(1);
    let count = number("WATCHFIRE_FUZZ_CASES").unwrap_or(count);
    for index in 0..count {
        let mut dice = Dice::new(seed.wrapping_mul(0x0100_0000_01b3) ^ index);
        dice.next();
        let input = make(&mut dice);
        if catch_unwind(AssertUnwindSafe(|| case(&mut dice, &input))).is_err() {
            let shown: String = input.chars().take(2_000).collect();
            panic!("{target}: seed {seed}, case {index}, {} bytes: {shown:?}", input.len());
        }
    }
    println!("{target}: {count} cases");
}
