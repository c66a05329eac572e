//! The kinds of actor there are: name, rank and number of slots of each. The fault matrix of `tests/actor_faults.rs` is
//! generated from [`ALL`], so a new kind without fault cases fails the tests.

use crate::actors::{
    aggregation_group, alert_dispatcher, compactor, config_reloader, discovery, discovery_provider, log_writer,
    notifier, notifier_manager, query_gateway, receiver, remote_write_manager, remote_write_queue, root, rule_group,
    rule_manager, scrape_manager, scrape_pool, scrape_target, storage_shard,
};

/// Where an actor stands in the order of asking: [`ask`](super::mailbox::BoundedAddr::ask) goes from a lower number to a
/// higher one only, so that no two actors can wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(pub u8);

impl Rank {
    /// The root.
    pub const ROOT: Self = Self(0);
    /// HTTP workers; they are no actors of ours and may ask every actor.
    pub const HTTP: Self = Self(10);
    /// The configuration reloader.
    pub const RELOADER: Self = Self(20);
    /// Discovery, rules, scrape and remote write managers; what stands below one of them in the tree adds 1 per level.
    pub const MANAGER: Self = Self(30);
    /// Query gateway and alert dispatcher; what stands below adds 1 per level.
    pub const GATEWAY: Self = Self(40);
    /// Storage shards and the compactor.
    pub const SHARD: Self = Self(50);
    /// Log writer and chunk writer.
    pub const WRITER: Self = Self(60);

    /// The rank of an actor that stands `levels` below one of this rank in the same part of the tree.
    #[must_use]
    pub const fn below(self, levels: u8) -> Self {
        assert!(levels < 10, "a tenth level would reach the next part of the tree");
        Self(self.0 + levels)
    }
}

/// What the actors of one kind have in common.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// Name in metrics, logs and the actors endpoint, such as `scrape_target`.
    pub name: &'static str,
    /// Place in the order of asking.
    pub rank: Rank,
    /// How many messages an actor may have admitted and not yet done, unless its place says otherwise.
    pub slots: u32,
}

/// All kinds that the server runs.
pub const ALL: &[&Kind] = &[
    &root::ROOT,
    &config_reloader::CONFIG_RELOADER,
    &discovery::DISCOVERY_MANAGER,
    &discovery_provider::DISCOVERY_PROVIDER,
    &scrape_manager::SCRAPE_MANAGER,
    &scrape_pool::SCRAPE_POOL,
    &scrape_target::SCRAPE_TARGET,
    &rule_manager::RULE_MANAGER,
    &rule_group::RULE_GROUP,
    &query_gateway::QUERY_GATEWAY,
    &notifier_manager::NOTIFIER_MANAGER,
    &notifier::NOTIFIER,
    &alert_dispatcher::ALERT_DISPATCHER,
    &aggregation_group::AGGREGATION_GROUP,
    &receiver::RECEIVER,
    &remote_write_manager::REMOTE_WRITE_MANAGER,
    &remote_write_queue::REMOTE_WRITE_QUEUE,
    &storage_shard::STORAGE_SHARD,
    &compactor::COMPACTOR,
    &log_writer::LOG_WRITER,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_fit_a_label() {
        let mut names: Vec<_> = ALL.iter().map(|kind| kind.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
        assert!(names.iter().all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
    }

    #[test]
    fn a_level_keeps_its_part_of_the_tree() {
        assert!(Rank::MANAGER < Rank::MANAGER.below(2) && Rank::MANAGER.below(9) < Rank::GATEWAY);
    }
}
