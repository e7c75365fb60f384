//! The parts that the listeners share: the publisher, the gate and the reload of their settings.

use super::backplane::RedisSequencer;
use super::live::LiveSettings;
use super::reload::Reload;
use super::snapshot_writer::SnapshotWriter;
use super::{mercure, presence, pusher};
use crate::config::{Config, Site, Sources};
use crate::server::gate::pusher::EventPublish;
use crate::server::gate::{BrowserPublish, Gate};
use crate::server::limits::descriptors::{self, FdBudget};
use crate::server::publish::{self, IdempotencyCache, Publisher, Source, system_time};
use crate::server::telemetry::metrics::SharedMetrics;
use std::sync::{Arc, OnceLock};
use tokio::runtime::Handle;

/// The shared parts of the listeners.
pub(super) struct Parts {
    pub(super) publisher: Publisher,
    pub(super) gate: Gate,
    pub(super) reload: Reload,
    /// The runtime of the held polls, after its start.
    pub(super) runtime: Arc<OnceLock<Handle>>,
    pub(super) metrics: Arc<SharedMetrics>,
    pub(super) snapshot_writer: Arc<SnapshotWriter>,
    /// The replies that publishes with a known idempotency key get again.
    pub(super) answers: IdempotencyCache,
}

impl Parts {
    pub(super) fn new(
        config: Config,
        sources: Sources,
        site: Site,
        live: Arc<LiveSettings>,
        kept: (Arc<SnapshotWriter>, IdempotencyCache),
    ) -> Self {
        let (snapshot_writer, answers) = kept;
        let hub = live.hub.clone();
        let metrics = live.metrics.clone();
        let runtime = Arc::default();
        let clock = Arc::new(system_time);
        let limits = live.publish.clone();
        let sequencer = live.backplane.clone().map(|gates| Arc::new(RedisSequencer(gates)) as _);
        let publisher_runtime = Arc::clone(&runtime);
        let tally_of = metrics.clone();
        let publisher =
            Publisher::new(hub.clone(), sequencer, clock, limits, publisher_runtime, tally_of);
        let publish = (browser_publish(&publisher), event_publish(&publisher));
        let files = FdBudget::within(descriptors::soft_limit());
        let gate = Gate::new(live.gate.clone(), hub, system_time, publish, metrics.clone(), files);
        presence::connect(&live, &publisher);
        gate.publish_updates(mercure::publish(&publisher, &live.gate));
        presence::list(&gate, &live);
        mercure::share(&gate, &live);
        gate.report_pusher_to(pusher::report(live.webhooks.clone()));
        let reload = Reload::new(sources, site, config, live);
        Self { publisher, gate, reload, runtime, metrics, snapshot_writer, answers }
    }
}

fn browser_publish(publisher: &Publisher) -> BrowserPublish {
    let publisher = publisher.clone();
    Arc::new(move |channel| {
        let publisher = publisher.clone();
        let posts = vec![(channel, crate::hub::channel::Payload::empty())];
        Box::pin(async move { publisher.publish(posts, Source::Capture).await.is_ok() })
    })
}

fn event_publish(publisher: &Publisher) -> EventPublish {
    let publisher = publisher.clone();
    Arc::new(move |channel, payload| {
        let publisher = publisher.clone();
        Box::pin(async move {
            // What a client sends as JSON is bounded as what the hook takes.
            let Ok(payload) = publish::payload(Some(&payload.content_type), payload.body) else {
                return false;
            };
            publisher.publish(vec![(channel, payload)], Source::Client).await.is_ok()
        })
    })
}
