//! The evaluator under small limits: whatever parses ends in a value or an error, holds no more than it may, and gives all
//! back; at any time that 64 bits hold, with any step and lookback.

use std::sync::Arc;

use watchfire::http::json::Json as Writer;
use watchfire::http::render;
use watchfire::model::time::TimestampMs;
use watchfire::promql::eval::{EngineOptions, MemoryPool, QueryContext, QueryLedger, evaluate_instant, evaluate_range};
use watchfire::promql::parser::{ParseOptions, parse_expr};

use crate::dice::Dice;
use crate::samples::{COUNT, START_MS, STEP_MS};
use crate::{answer, corpus, grammar, mutate, run, samples};

/// Memory of a query.
const LIMIT: usize = 16 << 20;

fn time(dice: &mut Dice) -> i64 {
    const EXTREMES: [i64; 9] =
        [i64::MIN, i64::MIN + 1, i64::MAX, i64::MAX - 1, 0, -1, 1, i64::MAX / 1_000_000, -62_135_596_800_000];
    if dice.chance(25) {
        EXTREMES[usize::try_from(dice.below(9)).unwrap()]
    } else {
        START_MS + dice.between(-10, COUNT + 10) * STEP_MS
    }
}

#[test]
fn evaluator() {
    let view = answer::view_of(&samples::dataset(2));
    let texts = corpus::queries();
    let make = |dice: &mut Dice| {
        let text = grammar::query(dice.next(), dice.next()).text;
        match dice.below(4) {
            0 => text,
            1 => {
                // Numbers and durations become extreme ones; the query stays one.
                let extreme =
                    dice.pick(&["1e308", "292y", "1ms", "9223372036854775807", "0", "-1", "NaN", "1e18", "100000h"]);
                let known = dice.pick(&["5m", "1m", "30s", "1", "0.5", "15s", "2", "90"]);
                text.replace(known, extreme)
            }
            2 => mutate::mutated(dice, &text, "sum(gauge)"),
            _ => {
                let other = corpus::pick(dice, &texts);
                mutate::mutated(dice, &text, other)
            }
        }
    };
    run("evaluator", 3_000, make, |dice, text| {
        let Ok(expr) = parse_expr(text, &ParseOptions::ALL) else { return };
        let opts = EngineOptions {
            max_samples: 20_000,
            lookback_ms: [300_000, 1, i64::MAX, 900_000][usize::try_from(dice.below(4)).unwrap()],
            delayed_name_removal: dice.chance(30),
            type_and_unit_labels: dice.chance(30),
            use_start_timestamps: dice.chance(30),
            ..EngineOptions::default()
        };
        let pool = MemoryPool::new(0);
        let ledger = QueryLedger::open(&pool, LIMIT);
        let ctx = QueryContext { ledger: Arc::clone(&ledger), ..QueryContext::unlimited(text) };
        let at = time(dice);
        let evaluated = if dice.chance(50) {
            evaluate_instant(&expr, &*view, TimestampMs(at), &opts, &ctx)
        } else {
            let step_ms = [1, 15_000, 60_000, i64::MAX, i64::MAX / 3][usize::try_from(dice.below(5)).unwrap()];
            let end = at.saturating_add(step_ms.saturating_mul(dice.between(0, 20)));
            evaluate_range(&expr, &*view, TimestampMs(at), TimestampMs(end), step_ms, &opts, &ctx)
        };
        if let Ok(evaluated) = evaluated {
            let mut writer = Writer::new();
            let mut object = writer.object();
            render::query_value(&mut object, &evaluated.value);
            object.end();
            serde_json::from_slice::<serde_json::Value>(&writer.into_bytes()).unwrap();
            assert_eq!(ledger.used(), evaluated.held.bytes());
        }
        assert!(ledger.peak() <= LIMIT, "{} bytes", ledger.peak());
        assert_eq!((ledger.used(), pool.used()), (0, 0), "memory is not given back");
    });
}
