//! Reads head and blocks as one: series by series, their samples merged by time. Blocks may overlap each other and the head;
//! of samples with the same time stamp one is kept.

use std::cmp::{Ordering, Reverse};
use std::sync::Arc;

use hashbrown::HashSet;

use crate::model::labels::Labels;
use crate::model::matcher::{MatchOp, Matcher};
use crate::model::names::Names;
use crate::model::read::{
    ClassedSeries, ListingOf, LookedAt, Queryable, ReadBudget, ReadError, ReadView, Scope, SelectedSeries,
};
use crate::model::time::TimeRange;
use crate::storage::block::catalog::{Catalog, CatalogState};
use crate::storage::block::listing::{self, Add};
use crate::storage::block::merged::joined;
use crate::storage::block::notes::Notes;
use crate::storage::block::read::Block;
use crate::storage::block::series::select_block;
use crate::storage::label_sets::merged;

/// Opens views of a head and of the blocks of a catalog.
pub struct StoreQueryable {
    head: Arc<dyn Queryable>,
    catalog: Arc<Catalog>,
}

impl StoreQueryable {
    /// Both as one.
    pub fn new(head: Arc<dyn Queryable>, catalog: Arc<Catalog>) -> Self {
        Self { head, catalog }
    }
}

impl Queryable for StoreQueryable {
    fn view(&self) -> Result<Arc<dyn ReadView>, ReadError> {
        let notes = Arc::new(Notes::new(self.catalog.on_damage()));
        self.catalog.beside_deletions(|| {
            // The head first: what it gives up between the two steps stands in a block by then.
            let (head, notes) = (Some(self.head.view()?), Arc::clone(&notes));
            let view: Arc<dyn ReadView> = Arc::new(StoreView { head, blocks: self.catalog.state(), notes });
            Ok(view)
        })
    }
}

/// A view of head and blocks.
pub struct StoreView {
    head: Option<Arc<dyn ReadView>>,
    blocks: Arc<CatalogState>,
    notes: Arc<Notes>,
}

impl StoreView {
    /// A view of blocks alone, for tools.
    pub fn of_blocks(blocks: Arc<CatalogState>) -> Self {
        Self { head: None, blocks, notes: Arc::default() }
    }

    /// The blocks that a read of `range` has to look at. Errors if one of them is damaged.
    fn touched(&self, range: TimeRange) -> Result<impl Iterator<Item = &Arc<Block>>, ReadError> {
        let (min, max) = (range.min().0, range.max().0);
        for damaged in self.blocks.damaged_in(min, max) {
            self.notes.take(format!("block {} cannot be read: {}", damaged.name, damaged.reason))?;
        }
        Ok(self.blocks.blocks.iter().filter(move |block| block.overlaps(min, max)))
    }

    /// Gathers texts of the head and of the blocks, sorted and unique.
    fn gather(
        &self,
        range: TimeRange,
        budget: &dyn ReadBudget,
        of_head: impl Fn(&dyn ReadView) -> Result<Names, ReadError>,
        of_block: impl Fn(&Arc<Block>, &mut dyn FnMut(&str) -> Result<(), ReadError>) -> Result<(), ReadError>,
    ) -> Result<Names, ReadError> {
        let of_head = match &self.head {
            Some(head) => of_head(&**head)?,
            None => Names::default(),
        };
        let mut touched = self.touched(range)?.peekable();
        if touched.peek().is_none() {
            return Ok(of_head);
        }
        let mut all = of_head;
        for block in touched {
            budget.check()?;
            let mut texts = Texts::new(&all, budget);
            let taken = of_block(block, &mut |text| texts.take(text));
            taken.or_else(|error| self.notes.met(block, error))?;
            let more = texts.sorted();
            if !more.is_empty() {
                // The merged list stands beside its parts for a moment.
                budget.charge(all.memory_len() + more.memory_len())?;
                all = Names::merged(vec![all, more]);
            }
        }
        Ok(all)
    }
}

impl ReadView for StoreView {
    fn select(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        budget: &dyn ReadBudget,
    ) -> Result<Vec<SelectedSeries>, ReadError> {
        // In Prometheus's order, which decides what stays of samples with one time stamp.
        let mut sources = Vec::new();
        if let Some(head) = &self.head {
            sources.push(head.select(matchers, range, budget)?);
        }
        let mut touched: Vec<&Arc<Block>> = self.touched(range)?.collect();
        touched.sort_by_key(|block| (block.meta().min_time, Reverse(block.meta().max_time)));
        for block in touched {
            match select_block(block, matchers, range, budget, &self.notes) {
                Ok(selected) => sources.push(selected),
                Err(error) => self.notes.met(block, error)?,
            }
        }
        sources.retain(|source| !source.is_empty());
        if sources.len() <= 1 {
            return Ok(sources.pop().unwrap_or_default());
        }
        joined(sources, budget)
    }

    fn select_classed(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        looked_at: LookedAt<'_>,
        budget: &dyn ReadBudget,
    ) -> Result<Option<Box<dyn ClassedSeries>>, ReadError> {
        match &self.head {
            Some(head) if !self.reads_files(range) => head.select_classed(matchers, range, looked_at, budget),
            _ => Ok(None),
        }
    }

    fn label_names(&self, scope: &Scope<'_>, budget: &dyn ReadBudget) -> Result<Names, ReadError> {
        let of_head = |head: &dyn ReadView| head.label_names(scope, budget);
        self.gather(scope.range, budget, of_head, |block, add| listing::names(block, scope, budget, add))
    }

    fn label_values(&self, name: &str, scope: &Scope<'_>, budget: &dyn ReadBudget) -> Result<Names, ReadError> {
        let of_head = |head: &dyn ReadView| head.label_values(name, scope, budget);
        let of_block = |block: &Arc<Block>, add: Add<'_>| listing::values(block, name, scope, budget, add);
        let mut values = self.gather(scope.range, budget, of_head, of_block)?;
        values.truncate(scope.limit);
        Ok(values)
    }

    fn series_labels(&self, scope: &Scope<'_>, budget: &dyn ReadBudget) -> Result<Vec<Labels>, ReadError> {
        // The first of each are enough for the first of all.
        let mut lists = Vec::new();
        if let Some(head) = &self.head {
            lists.push(head.series_labels(scope, budget)?);
        }
        for block in self.touched(scope.range)? {
            match listing::series(block, scope, budget, &self.notes) {
                Ok(listed) => lists.push(listed),
                Err(error) => self.notes.met(block, error)?,
            }
        }
        let mut listed = merged(lists, budget)?;
        listed.truncate(scope.limit);
        Ok(listed)
    }

    fn series_estimate(&self, matchers: &[Matcher], range: TimeRange) -> Result<Option<usize>, ReadError> {
        let mut count = match &self.head {
            Some(head) => match head.series_estimate(matchers, range)? {
                Some(count) => count,
                None => return Ok(None),
            },
            None => 0,
        };
        for block in self.touched(range)? {
            let mut least = usize::MAX;
            for matcher in matchers.iter().filter(|m| m.op() == MatchOp::Equal && !m.value().is_empty()) {
                let of_pair = match block.index.postings_of(matcher.name(), matcher.value()) {
                    Ok(Some(offset)) => block.index.postings_len(offset).map_err(ReadError::from),
                    Ok(None) => Ok(0),
                    Err(error) => Err(error),
                };
                match of_pair {
                    Ok(of_pair) => least = least.min(of_pair),
                    Err(error) => self.notes.met(block, error)?,
                }
            }
            count = count.saturating_add(least);
        }
        Ok(Some(count))
    }

    fn listing_estimate(&self, listing: ListingOf<'_>, scope: &Scope<'_>) -> Result<Option<usize>, ReadError> {
        let of_head = self.head.as_ref().map_or(Ok(Some(0)), |head| head.listing_estimate(listing, scope));
        let Some(mut all) = of_head? else { return Ok(None) };
        for block in self.touched(scope.range)? {
            match listing::estimate(block, listing, scope) {
                Ok(Some(more)) => all = all.saturating_add(more),
                Ok(None) => return Ok(None),
                Err(error) => self.notes.met(block, error)?,
            }
        }
        Ok(Some(all))
    }

    fn reads_files(&self, range: TimeRange) -> bool {
        let (min, max) = (range.min().0, range.max().0);
        self.blocks.damaged_in(min, max).next().is_some() || self.blocks.blocks.iter().any(|b| b.overlaps(min, max))
    }

    fn warnings(&self) -> Vec<String> {
        let of_head = self.head.iter().flat_map(|head| head.warnings());
        of_head.chain(self.notes.texts()).collect()
    }
}

/// Texts that are not known yet, each once, charged as they come. Mostly they come in order and are known.
struct Texts<'a> {
    known: &'a Names,
    /// Behind the text of `known` that was found last.
    next: usize,
    budget: &'a dyn ReadBudget,
    in_order: Names,
    /// What came late and is not in `in_order`.
    more: HashSet<String, foldhash::fast::RandomState>,
}

impl<'a> Texts<'a> {
    fn new(known: &'a Names, budget: &'a dyn ReadBudget) -> Self {
        Self { known, next: 0, budget, in_order: Names::default(), more: HashSet::default() }
    }

    fn take(&mut self, text: &str) -> Result<(), ReadError> {
        if self.known.get(self.next) == Some(text) {
            self.next += 1;
            return Ok(());
        }
        let place = self.known.place_of(text);
        self.next = place.map_or_else(|place| place, |place| place + 1);
        if text.is_empty() || place.is_ok() || self.more.contains(text) {
            return Ok(());
        }
        match self.in_order.last().map_or(Ordering::Less, |last| last.cmp(text)) {
            Ordering::Equal => {}
            Ordering::Less => {
                self.budget.charge(text.len() + size_of::<usize>())?;
                self.in_order.push(text);
            }
            Ordering::Greater if self.in_order.place_of(text).is_ok() => {}
            Ordering::Greater => {
                self.budget.charge(text.len() + 2 * size_of::<String>())?;
                self.more.insert(text.to_owned());
            }
        }
        Ok(())
    }

    fn sorted(self) -> Names {
        match self.more.is_empty() {
            true => self.in_order,
            false => Names::merged(vec![self.in_order, self.more.into_iter().collect()]),
        }
    }
}
