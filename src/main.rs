//! Picks the sub-command.

fn main() {}
