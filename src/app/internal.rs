//! The app of the internal listener, and the figures and reasons that it gives.

use super::parts::Parts;
use super::pusher::PusherChannels;
use super::stats::StatsSources;
use super::{AppError, mercure, presence};
use crate::hub::Subscription;
use crate::hub::channel::{Cursor, SiteName, Take};
use crate::protocol::dialect::native::{self, Native};
use crate::protocol::http::Endpoint;
use crate::server::admin::page::Page;
use crate::server::admin::{self, Admin, Grants};
use crate::server::backplane::Backplane;
use crate::server::gate::Gate;
use crate::server::internal::pusher::Rest;
use crate::server::internal::{Internal, Mercure};
use crate::server::limits::descriptors;
use crate::server::net::random;
use crate::server::publish::grip::Grip;
use crate::server::publish::nchan::NchanPublisher;
use crate::server::publish::{self, Hook, system_time};
use pingora::server::ShutdownWatch;
use std::sync::Arc;

impl Parts {
    /// The app of the internal listener: the hook, the admin endpoints and the page.
    pub(super) fn internal(
        &self,
        stopping: ShutdownWatch,
    ) -> Result<(Internal, Arc<Page>), AppError> {
        let hook = Hook::new(self.publisher.clone(), self.history(), self.answers.clone());
        let hook = hook.listing(presence::hook_roster(&self.gate));
        let in_force = self.reload.clone();
        let reload = self.reload.clone();
        let sources = self.sources();
        let stats = sources.clone();
        let metrics = sources.clone();
        let site = sources.clone();
        let backplane = self.reload.live().backplane.clone();
        let unready = unready(self.gate.clone(), backplane, stopping);
        let admin = Admin::new(admin::Sources {
            unready: Box::new(unready.clone()),
            stats: Box::new(move || stats.stats()),
            site: Box::new(move |name| site.site(name)),
            metrics: Box::new(move || metrics.metrics()),
            config: Box::new(move || in_force.in_force().config.to_toml()),
            reload: Box::new(move || {
                let reload = reload.clone();
                Box::pin(async move { reload.now("POST /reload").await })
            }),
        });
        let token = random::secret().map_err(AppError::Random)?;
        let overview = Box::new(move || sources.overview(unready(&SiteName::NONE)));
        let page = Arc::new(Page::new(&token, system_time, overview));
        let gate = self.gate.clone();
        let grants = Grants::new(Box::new(move |site, channel, credential| {
            gate.revoke(site, channel, credential)
        }));
        let grip = Grip::new(self.publisher.clone(), self.reload.live().grip.clone());
        let nchan = NchanPublisher::new(self.publisher.clone());
        let live = self.reload.live();
        let publish = mercure::publish(&self.publisher, &live.gate);
        let millis = || system_time().0 / 1_000;
        let mercure = Mercure::new(live.internal.clone(), publish, millis);
        let publisher = self.publisher.clone();
        let gate = self.gate.clone();
        let rest = Rest::new(Box::new(PusherChannels { publisher, gate }));
        let endpoints: Vec<Arc<dyn Endpoint>> = vec![
            Arc::new(hook),
            Arc::new(admin),
            Arc::new(grants),
            Arc::new(rest),
            page.clone(),
            Arc::new(grip),
            Arc::new(nchan),
            Arc::new(mercure),
        ];
        let settings = self.reload.live().internal.clone();
        let most = descriptors::internal(descriptors::soft_limit());
        Ok((Internal::new(settings, token, endpoints, self.metrics.clone(), most), page))
    }

    /// A channel's history, in the native dialect.
    fn history(&self) -> publish::History {
        let hub = self.publisher.hub().clone();
        Arc::new(move |channel, cursor| {
            let cursor = match cursor {
                None => Cursor::Oldest,
                Some(text) => match native::cursor(channel, text) {
                    Ok(cursor) => cursor,
                    Err(reply) => return Some(reply),
                },
            };
            let subscription = Subscription { channel: channel.clone(), cursor };
            let update = hub.read(&subscription, Take::All, system_time())?;
            Some(Native::default().render(&smallvec::smallvec![update], None))
        })
    }

    fn sources(&self) -> StatsSources {
        let Self { gate, publisher, reload, metrics, snapshot_writer, .. } = self;
        StatsSources {
            hub: publisher.hub().clone(),
            gate: gate.clone(),
            publisher: publisher.clone(),
            reload: reload.clone(),
            metrics: metrics.clone(),
            snapshot_writer: snapshot_writer.clone(),
            started: system_time(),
        }
    }
}

fn unready(
    gate: Gate,
    backplane: Option<Backplane>,
    stopping: ShutdownWatch,
) -> impl Fn(&SiteName) -> Vec<String> + Clone + Send + Sync + 'static {
    move |site| {
        let mut reasons = Vec::new();
        if *stopping.borrow() {
            reasons.push("the gate is draining".to_owned());
        }
        if !gate.settings().is_upstream_healthy(site) {
            reasons.push("no upstream server answers".to_owned());
        }
        reasons.extend(backplane.iter().flat_map(Backplane::unready));
        reasons
    }
}
