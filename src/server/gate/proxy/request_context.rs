//! The context that travels with a request that is handed off to pingora.
//!
//! Pingora makes a request's context by itself, with nothing to make it of. So the front leaves its
//! findings in the task that hands the request off; nothing is determined twice, and one snapshot
//! of the settings serves the request from end to end.

use super::connection_state::ConnectionState;
use super::forwarded::Client;
use crate::server::gate::replay::ReleasedReplay;
use crate::server::gate::{Gate, Open, Settings};
use std::cell::Cell;
use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

/// Facts known of a request when pingora gets it.
pub(in crate::server::gate) struct RequestContext {
    /// The settings it is served with.
    pub(in crate::server::gate) settings: Arc<Settings>,
    /// The sender.
    pub(in crate::server::gate) client: Client,
    /// Time at which its head was there.
    pub(in crate::server::gate) began: Instant,
    /// Its classification.
    pub(in crate::server::gate) finding: Classification,
    /// The state of its connection.
    pub(in crate::server::gate) state: Arc<ConnectionState>,
    /// It may make its connection one of another protocol, of which nothing was said yet.
    pub(in crate::server::gate) upgrade: bool,
    /// Counts it as under way.
    pub(in crate::server::gate) open: Open,
}

/// Classification of a request.
pub(in crate::server::gate) enum Classification {
    /// It goes to the upstream.
    Site,
    /// It was held, and now goes to the upstream.
    Released(Box<ReleasedReplay>),
    /// Not determined yet: it is an odd one, or has a body that may have to be read for it.
    Undecided,
}

tokio::task_local! {
    static HANDED: Cell<Option<Box<RequestContext>>>;
}

impl RequestContext {
    /// A request of `client` that has just come.
    pub(in crate::server::gate) fn new(
        gate: &Gate,
        settings: Arc<Settings>,
        client: Client,
    ) -> Box<Self> {
        let began = Instant::now();
        let finding = Classification::Undecided;
        let open = gate.open();
        let state = Arc::default();
        let upgrade = false;
        Box::new(Self { settings, client, began, finding, state, upgrade, open })
    }

    /// The same, known to go to the upstream.
    pub(in crate::server::gate) fn for_site(mut self: Box<Self>) -> Box<Self> {
        self.finding = Classification::Site;
        self
    }

    /// The same, on a connection of which `state` is known.
    pub(in crate::server::gate) fn on(
        mut self: Box<Self>,
        state: Arc<ConnectionState>,
    ) -> Box<Self> {
        self.state = state;
        self
    }

    /// The same, for a poll that was held until now.
    pub(in crate::server::gate) fn released(
        mut self: Box<Self>,
        released: Box<ReleasedReplay>,
    ) -> Box<Self> {
        self.began = released.began;
        self.finding = Classification::Released(released);
        self
    }

    /// Runs `engine`, which serves just this request, with this context in its task.
    pub(in crate::server::gate) async fn scope<F: Future>(self: Box<Self>, engine: F) -> F::Output {
        HANDED.scope(Cell::new(Some(self)), engine).await
    }

    /// The context handed off with the request that this task serves; the first caller gets it.
    pub(in crate::server::gate) fn take() -> Option<Box<Self>> {
        HANDED.try_with(Cell::take).ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub;
    use crate::hub::channel;
    use crate::server::gate;
    use crate::server::gate::poll::hold;
    use crate::server::gate::route::Routes;
    use crate::server::gate::upstream::Upstream;
    use crate::server::limits::descriptors::FdBudget;
    use crate::server::limits::permit;
    use crate::server::limits::rate::AddressRate;
    use arc_swap::ArcSwap;
    use std::time::Duration;

    fn settings() -> Settings {
        Settings {
            client_script: None,
            grip: None,
            mercure: None,
            pusher: gate::pusher::PusherSettings::default(),
            routes: Routes::new(Vec::new()),
            hold: hold::Settings::default(),
            stream: Arc::default(),
            limits: permit::Settings::default(),
            connections: Arc::new(AddressRate::new(0)),
            requests: Arc::new(AddressRate::new(0)),
            trusted_proxies: Vec::new(),
            mask: Vec::new(),
            upstream: Arc::new(Upstream::new(&[]).unwrap_or_else(|_| unreachable!("no names"))),
            connect_timeout: Duration::from_secs(1),
            read_timeout: Duration::from_secs(1),
            head: gate::front::Bounds { bytes: 1000, headers: 10 },
            body_rate: 0,
            bodies: Arc::default(),
            head_timeout: None,
            idle_timeout: None,
            write_timeout: None,
            site: None,
            sites: None,
        }
    }

    #[tokio::test]
    async fn every_request_finds_its_own_and_once() {
        let swap = Arc::new(ArcSwap::from_pointee(settings()));
        let hub = hub::Hub::new(hub::Settings::default(), 1);
        let gate = Gate::new(
            swap.clone(),
            hub,
            || channel::Time(1),
            (Arc::new(|_| Box::pin(async { true })), Arc::new(|_, _| Box::pin(async { true }))),
            Arc::default(),
            FdBudget::within(1024),
        );
        let client = Client { peer: None, trusted: true, address: None };
        let old = gate.settings();
        let new = Arc::new(settings());
        let first = RequestContext::new(&gate, old.clone(), client).for_site();
        // A reload between two requests of one connection.
        swap.store(new.clone());
        let second = RequestContext::new(&gate, gate.settings(), client);
        assert_eq!(gate.under_way(), 2);
        let (first, second) = tokio::join!(
            first.scope(async {
                tokio::task::yield_now().await;
                (RequestContext::take(), RequestContext::take().is_none())
            }),
            second.scope(async { (RequestContext::take(), RequestContext::take().is_none()) }),
        );
        assert!(first.1 && second.1 && RequestContext::take().is_none());
        let finding = |handed: &RequestContext| matches!(handed.finding, Classification::Site);
        let ((Some(first), _), (Some(second), _)) = (first, second) else {
            unreachable!("both are there")
        };
        assert!(Arc::ptr_eq(&first.settings, &old) && finding(&first));
        assert!(Arc::ptr_eq(&second.settings, &new) && !finding(&second));
        drop((first, second));
        assert_eq!(gate.under_way(), 0);
    }
}
