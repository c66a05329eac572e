//! Sizes of everything that exists for each series or chunk. A change here changes `docs/memory.md`.

use std::sync::Arc;

use crate::storage::chunk::sealed::{DIRECTORY_ENTRY_LEN, SealedChunks};
use crate::storage::chunk::words::OpenWords;
use crate::storage::chunk::xor::XorEncoder;
use crate::storage::head::column::{Column, SeriesCell};
use crate::storage::head::index::segment::PairId;
use crate::storage::head::index::tail::TailEntry;
use crate::storage::head::partition::staged::StagedSample;
use crate::storage::head::route::RoutedSample;
use crate::storage::head::series::{Encoder, WriterSeries};
use crate::storage::head::table::SeriesId;

/// The two counts of an `Arc`.
const ARC_HEADER_LEN: usize = 16;

#[test]
fn a_series_keeps_to_its_budget() {
    assert_eq!(size_of::<SeriesCell>() + ARC_HEADER_LEN, 32);
    assert_eq!(size_of::<Column>() + ARC_HEADER_LEN, 80);
    assert_eq!(size_of::<OpenWords>(), 24);
    assert_eq!(size_of::<XorEncoder>(), 32);
    assert_eq!(size_of::<Encoder>(), 32, "a series of floats pays nothing for histograms");
    assert_eq!(size_of::<WriterSeries>(), 64);
    assert_eq!(size_of::<Option<WriterSeries>>(), 64, "an empty place costs no more");
    assert_eq!(size_of::<SeriesId>(), 4);
    assert_eq!(size_of::<PairId>(), 4);
    assert_eq!(size_of::<Arc<SeriesCell>>(), 8);
}

#[test]
fn chunks_and_samples_in_flight_keep_to_their_budget() {
    assert_eq!(DIRECTORY_ENTRY_LEN, 5);
    assert_eq!(size_of::<SealedChunks>() + ARC_HEADER_LEN, 64);
    assert_eq!(size_of::<TailEntry>(), 32);
    assert_eq!(size_of::<StagedSample>(), 32);
    assert_eq!(size_of::<RoutedSample>(), 48);
}

#[test]
fn exemplars_keep_to_their_budget() {
    assert_eq!(super::exemplars::SIZES, (56, 32));
}
