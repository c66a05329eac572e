//! `watchfire-torture`: kills a server that is written to, again and again, and counts what was acknowledged and is gone.
//!
//! `cargo bench --bench torture -- --rounds 200`; `--binary` names another binary than the one that was built with it, `--seed`
//! other moments, `--folder` a data directory to be kept. Ends with 1 if anything was lost or invented. The last results are in
//! `docs/torture.md`.
#![allow(missing_docs, reason = "a bench")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program that prints its figures")]

#[path = "../tests/support/torture.rs"]
mod torture;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use torture::Torture;

const HELP: &str = "watchfire-torture: kill -9 in the middle of writes, and count what is lost

  --rounds N      how often to kill (200)
  --binary PATH   the server; the one that was built with this program if not given
  --folder PATH   where the data directory is kept; a temporary one if not given
  --seed N        other moments (1)
";

fn main() -> ExitCode {
    let (mut rounds, mut seed) = (200u32, 1u64);
    let mut binary = PathBuf::from(env!("CARGO_BIN_EXE_watchfire"));
    let mut folder = None;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_default();
        match arg.as_str() {
            "--rounds" => rounds = value().parse().unwrap(),
            "--seed" => seed = value().parse().unwrap(),
            "--binary" => binary = value().into(),
            "--folder" => folder = Some(PathBuf::from(value())),
            // Cargo says this to every bench.
            "--bench" => {}
            _ => {
                print!("{HELP}");
                return ExitCode::from(u8::from(arg != "--help"));
            }
        }
    }
    let temporary = tempfile::tempdir().unwrap();
    let folder = folder.unwrap_or_else(|| temporary.path().to_owned());
    let begun = Instant::now();
    let mut torture = Torture::new(&folder, &binary, seed);
    let (mut acknowledged, mut lost, mut invented) = (0, 0, 0);
    let mut starts: Vec<Duration> = Vec::new();
    for number in 1..=rounds + 1 {
        let round = if number <= rounds { torture.round() } else { torture.last_check() };
        acknowledged += round.acknowledged;
        lost += round.lost;
        invented += round.invented;
        starts.push(round.start);
        if 0 < round.lost + round.invented || number % 50 == 0 {
            println!("round {number}: {round:?}");
        }
    }
    starts.sort();
    println!("kills                          {rounds}");
    println!("acknowledged samples           {acknowledged}");
    println!("of these lost                  {lost}");
    println!("invented or wrong              {invented}");
    println!("ready after a kill, median     {:.3} s", starts[starts.len() / 2].as_secs_f64());
    println!("ready after a kill, slowest    {:.3} s", starts[starts.len() - 1].as_secs_f64());
    println!("took                           {:.0} s", begun.elapsed().as_secs_f64());
    ExitCode::from(u8::from(0 < lost + invented))
}
