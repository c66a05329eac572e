//! Looks names up, and spreads connections over all addresses of a name where that is wanted (`round_robin_dns`).

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use futures::future::{BoxFuture, FutureExt};
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use tower_service::Service;

use crate::model::random::Random;

/// In which order the addresses of a name are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AddressOrder {
    /// As the system gives them.
    System,
    /// Another one for each connection.
    Random,
}

/// The system's resolver.
#[derive(Clone)]
pub(super) struct Resolver {
    system: GaiResolver,
    order: AddressOrder,
}

impl Resolver {
    pub(super) fn new(order: AddressOrder) -> Self {
        Self { system: GaiResolver::new(), order }
    }
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.system.poll_ready(task)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (looked_up, order) = (self.system.call(name), self.order);
        async move {
            let mut addresses: Vec<SocketAddr> = looked_up.await?.collect();
            if order == AddressOrder::Random {
                shuffle(&mut addresses, &mut Random::from_process());
            }
            Ok(addresses.into_iter())
        }
        .boxed()
    }
}

fn shuffle(addresses: &mut [SocketAddr], random: &mut Random) {
    for last in (1..addresses.len()).rev() {
        let other = usize::try_from(random.next_u64() % (last as u64 + 1)).unwrap_or(0);
        addresses.swap(last, other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_comes_first_at_times() {
        let addresses: Vec<SocketAddr> = (1..4).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect();
        let mut random = Random::seeded(7);
        let mut first = std::collections::BTreeSet::new();
        for _ in 0..100 {
            let mut some = addresses.clone();
            shuffle(&mut some, &mut random);
            first.insert(some[0]);
            some.sort();
            assert_eq!(some, addresses);
        }
        assert_eq!(first.len(), 3);
    }
}
