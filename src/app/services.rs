//! The services that pingora's server runs: the listeners, and the background tasks on threads of
//! their own.

use super::backplane::BackplaneService;
use super::parts::Parts;
use super::presence::WebhookService;
use super::reexec::Reexec;
use super::reload::ReloadTriggers;
use super::sweeper::Sweeper;
use crate::protocol::address::Address;
use crate::server::admin::page::Page;
use crate::server::gate::forward::Forwarder;
use crate::server::gate::front::{AdmissionFilter, Front, Transport};
use crate::server::gate::proxy::Proxy;
use crate::server::gate::upstream::HealthChecks;
use crate::server::internal::Internal;
use crate::server::net::listener::{Accepting, Bound, Buffers, Listening};
use crate::server::publish::capture::Captures;
use pingora::proxy::http_proxy;
use pingora::server::configuration::ServerConf;
use pingora::server::{Server, ShutdownWatch};
use pingora::services::Service;
use pingora::services::background::{BackgroundService, GenBackgroundService};
use std::sync::Arc;
use tokio::signal::unix::Signal;
use tokio::sync::watch;

pub(super) struct Services {
    server: Server,
    accepted: watch::Receiver<Accepting>,
}

impl Services {
    pub(super) fn new(settings: ServerConf, accepted: watch::Receiver<Accepting>) -> Self {
        let mut server = Server::new_with_opt_and_conf(None, settings);
        server.bootstrap();
        Self { server, accepted }
    }

    pub(super) fn into_server(self) -> Server {
        self.server
    }

    pub(super) fn add(&mut self, service: impl Service + 'static) {
        self.server.add_service(service);
    }

    /// A background service on its own thread.
    pub(super) fn background<T>(&mut self, name: &str, task: Arc<T>)
    where
        T: BackgroundService + Send + Sync + 'static,
    {
        let mut service = GenBackgroundService::new(name.to_owned(), task);
        service.threads = Some(1);
        self.server.add_service(service);
    }

    /// The public listener, and the one that redirects plain HTTP to its first port.
    pub(super) fn add_public(
        &mut self,
        parts: &Parts,
        public: Vec<Bound>,
        redirect: Vec<Bound>,
        stopped: &ShutdownWatch,
    ) {
        let settings = &self.server.configuration;
        let captures = Arc::new(Captures::new(parts.publisher.clone()));
        let max_idle = settings.upstream_keepalive_pool_size;
        let forwarder = Arc::new(Forwarder::new(max_idle, captures.clone()));
        let proxy = Arc::new(http_proxy(settings, Proxy::new(parts.gate.clone(), captures)));
        let front =
            |transport| Front::new(parts.gate.clone(), proxy.clone(), forwarder.clone(), transport);
        let filter = || AdmissionFilter::new(parts.gate.clone());
        let tls = parts.reload.live().tls.clone();
        let port = public.iter().find_map(|bound| match &bound.address {
            Address::Tcp { port, .. } => Some(*port),
            Address::Unix(_) => None,
        });
        let transport = tls.map_or(Transport::Plain, Transport::Tls);
        let gate = Listening::new("gate", front(transport), public, Buffers::None, stopped.clone());
        let gate = gate.accepting(self.accepted.clone()).share_runtime(parts.runtime.clone());
        self.server.add_service(gate.door(filter()));
        if let (false, Some(port)) = (redirect.is_empty(), port) {
            let front = front(Transport::Redirect(port));
            let service =
                Listening::new("redirect", front, redirect, Buffers::None, stopped.clone());
            let service = service.door(filter()).accepting(self.accepted.clone());
            self.server.add_service(service.threads(1));
        }
    }

    pub(super) fn add_internal(
        &mut self,
        app: Internal,
        bound: Vec<Bound>,
        stopped: ShutdownWatch,
    ) {
        let service = Listening::new("internal", app, bound, Buffers::Write, stopped);
        self.server.add_service(service.accepting(self.accepted.clone()).threads(1));
    }

    pub(super) fn add_background(&mut self, parts: &Parts, page: Arc<Page>) {
        let live = parts.reload.live();
        let health_checks = HealthChecks::new(live.upstreams.subscribe());
        self.background("health checks", Arc::new(health_checks));
        let sweeper = Sweeper { hub: live.hub.clone(), gate: parts.gate.clone() };
        self.background("sweeper", Arc::new(sweeper));
        self.background("webhooks", Arc::new(WebhookService(live.webhooks.clone())));
        self.background("page", page);
        self.background("snapshot", parts.snapshot_writer.clone());
        if let Some(backplane) = live.backplane.clone() {
            let publisher = parts.publisher.clone();
            self.background("backplane", Arc::new(BackplaneService { backplane, publisher }));
        }
    }

    /// The services that signals set off: a reload, and a new process in the place of this one.
    pub(super) fn add_signals(&mut self, parts: &Parts, hangup: Signal, renew: Signal) {
        let triggers = ReloadTriggers::new(parts.reload.clone(), hangup);
        self.background("reload", Arc::new(triggers));
        self.background("renewal", Arc::new(Reexec::new(renew)));
    }
}
