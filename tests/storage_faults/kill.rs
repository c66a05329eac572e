//! Kill -9 at random moments, 20 times.

use std::path::Path;

use crate::torture::Torture;

fn ten_kills(seed: u64) {
    let folder = tempfile::tempdir().unwrap();
    let mut torture = Torture::new(folder.path(), Path::new(env!("CARGO_BIN_EXE_watchfire")), seed);
    for number in 0..=10 {
        let round = if number < 10 { torture.round() } else { torture.last_check() };
        assert_eq!((round.lost, round.invented), (0, 0), "seed {seed}, kill {number}: {round:?}");
        assert!(number == 10 || 0 < round.acknowledged);
    }
}

#[test]
fn nothing_acknowledged_is_lost_by_ten_kills() {
    ten_kills(11);
}

#[test]
fn nothing_acknowledged_is_lost_by_ten_other_kills() {
    ten_kills(12);
}
