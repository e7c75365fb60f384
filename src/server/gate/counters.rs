//! Counters and gauges of the public side.

use super::Gate;
use super::poll::hold::Cause;
use super::sites::Site;
use crate::hub::Answer;
use crate::hub::channel::{ChannelName, Message, Time};
use crate::protocol::dialect::stream::Transport;
use crate::server::limits::descriptors::FdKind;
use crate::server::telemetry::channel_series::Watched;
use crate::server::telemetry::metrics::{Counts, Histogram, labels};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Counts of the public side since the start.
#[derive(Debug)]
pub struct Counters {
    /// Messages in responses.
    pub deliveries: AtomicU64,
    /// Polls answered, or left, by cause.
    pub releases: Counts<Cause>,
    /// What subscribers of Mercure hubs found when they looked.
    pub mercure_wakes: Counts<MercureWake>,
    /// Times that held polls were held.
    pub hold: Histogram,
    /// From a message's publish until the response to a poll that it released was written.
    pub publish_to_write: Histogram,
    /// Requests forwarded to the upstream, by its response.
    pub upstream: Counts<SiteAnswer>,
    /// From the moment a request is forwarded to the head of the upstream's response.
    pub upstream_time: Histogram,
    /// Requests under way now, held or forwarded.
    pub(super) open: AtomicUsize,
    /// Streams now, by transport.
    pub(super) streams: [AtomicUsize; Transport::NAMES.len()],
    /// Connections now.
    pub(super) connections: AtomicUsize,
}

/// Upper bounds of the histograms' buckets, in microseconds.
const HOLD: &[u64] = &[
    10_000,
    100_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    15_000_000,
    20_000_000,
    25_000_000,
    30_000_000,
    60_000_000,
    120_000_000,
    300_000_000,
];
const PUBLISH_TO_WRITE: &[u64] = &[
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000,
];
const UPSTREAM: &[u64] = &[
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 30_000_000, 60_000_000,
];

impl Default for Counters {
    fn default() -> Self {
        Self {
            deliveries: AtomicU64::new(0),
            releases: Counts::default(),
            mercure_wakes: Counts::default(),
            hold: Histogram::new(HOLD),
            publish_to_write: Histogram::new(PUBLISH_TO_WRITE),
            upstream: Counts::default(),
            upstream_time: Histogram::new(UPSTREAM),
            open: AtomicUsize::new(0),
            streams: Default::default(),
            connections: AtomicUsize::new(0),
        }
    }
}

labels! {
    /// What a subscriber of a Mercure hub got of the updates that it looked at.
    MercureWake {
        /// At least one of them.
        Sent = "sent",
        /// None: they were not for it.
        Filtered = "filtered",
    }
}

labels! {
    /// The upstream's response to a forwarded request.
    SiteAnswer {
        /// 101, to an upgrade.
        Informational = "1xx",
        /// Success.
        Success = "2xx",
        /// A redirect.
        Redirect = "3xx",
        /// The client's error.
        ClientError = "4xx",
        /// The upstream's error.
        ServerError = "5xx",
        /// No response: the upstream could not be reached, was silent, or broke off before one.
        None = "none",
        /// The client left before there was a response.
        Gone = "gone",
        /// A poll that the upstream held for too long, so that it was cut off there.
        Cut = "cut",
    }
}

impl SiteAnswer {
    fn of(status: u16) -> Self {
        match status {
            0..=199 => Self::Informational,
            200..=299 => Self::Success,
            300..=399 => Self::Redirect,
            400..=499 => Self::ClientError,
            _ => Self::ServerError,
        }
    }
}

/// Counts one request to the upstream, once.
#[derive(Debug, Default)]
pub(super) struct Forwarded {
    began: Option<Instant>,
}

impl Forwarded {
    /// The request is forwarded; again if another server is tried.
    pub(super) fn begin(&mut self) {
        self.began.get_or_insert_with(Instant::now);
    }

    /// The head of a response has come. An interim one is followed by another.
    pub(super) fn answered(&mut self, counters: &Counters, site: Option<&Site>, status: u16) {
        if (100..200).contains(&status) && status != 101 {
            return;
        }
        if let Some(began) = self.began.take() {
            counters.upstream_answer(site, SiteAnswer::of(status));
            counters.upstream_time.observe(began.elapsed());
        }
    }

    /// The upstream was silent for too long, and the poll is held on here.
    pub(super) fn cut(&mut self, counters: &Counters, site: Option<&Site>) {
        if self.began.take().is_some() {
            counters.upstream_answer(site, SiteAnswer::Cut);
        }
    }

    /// The request is over, with or without a response.
    pub(super) fn end(&mut self, counters: &Counters, site: Option<&Site>, client_left: bool) {
        if self.began.take().is_some() {
            let answer = if client_left { SiteAnswer::Gone } else { SiteAnswer::None };
            counters.upstream_answer(site, answer);
        }
    }
}

/// Counts one connection until it is dropped.
pub struct Connected(Gate);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.shared.counters.connections.fetch_sub(1, Ordering::Relaxed);
        self.0.shared.files.close();
    }
}

impl Connected {
    /// Counts a connection whose descriptor is counted already.
    pub(super) fn new(gate: &Gate) -> Self {
        gate.shared.counters.connections.fetch_add(1, Ordering::Relaxed);
        Self(gate.clone())
    }
}

/// The descriptor of one request to the upstream, released when it is dropped.
pub(super) struct SiteFile(Gate);

impl SiteFile {
    /// `None` if the budget has none left.
    pub(super) fn new(gate: &Gate) -> Option<Self> {
        gate.shared.files.open(FdKind::Site).then(|| Self(gate.clone()))
    }
}

impl Drop for SiteFile {
    fn drop(&mut self) {
        self.0.shared.files.close();
    }
}

/// Counts one stream until it is dropped.
pub(super) struct StreamCount(Gate, Transport);

impl StreamCount {
    pub(super) fn new(gate: &Gate, transport: Transport) -> Self {
        gate.shared.counters.streams_on(transport).fetch_add(1, Ordering::Relaxed);
        Self(gate.clone(), transport)
    }
}

impl Drop for StreamCount {
    fn drop(&mut self) {
        self.0.shared.counters.streams_on(self.1).fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts one request as under way until it is dropped.
pub struct Open(pub(super) Gate);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.shared.counters.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Counters {
    /// How many streams there are now, by the name of their transport.
    pub fn streams(&self) -> impl Iterator<Item = (&'static str, usize)> {
        let streams = Transport::NAMES.iter().filter(|(_, one)| *one != Transport::Poll);
        streams.map(|(name, one)| (*name, self.streams_on(*one).load(Ordering::Relaxed)))
    }

    fn upstream_answer(&self, site: Option<&Site>, answer: SiteAnswer) {
        self.upstream.count(answer);
        if let Some(site) = site {
            site.figures.upstream.count(answer);
        }
    }

    fn streams_on(&self, transport: Transport) -> &AtomicUsize {
        &self.streams[transport as usize]
    }

    /// Counts the messages of `found` that a stream was sent, up to `place`, as those of a poll
    /// that they released.
    pub(super) fn delivered(&self, found: &Answer, place: &Answer, watched: &Watched) {
        self.releases.count(Cause::of(found));
        for (update, place) in found.iter().zip(place) {
            let sent = |message: &&Arc<Message>| place.found.position.covers(message.position);
            let sent = update.found.messages.iter().filter(sent).count();
            if sent > 0 {
                watched.delivered(&update.channel, sent);
                self.deliveries.fetch_add(sent as u64, Ordering::Relaxed);
            }
        }
    }

    /// Counts the one message of `channel` that a stream was sent.
    pub(super) fn delivered_one(&self, channel: Option<&ChannelName>, watched: &Watched) {
        self.releases.count(Cause::Message);
        if let Some(channel) = channel {
            watched.delivered(channel, 1);
        }
        self.deliveries.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts the messages that a stream which filters was sent.
    pub(super) fn filtered(&self, channel: &ChannelName, messages: usize, watched: &Watched) {
        let wake = if messages == 0 { MercureWake::Filtered } else { MercureWake::Sent };
        self.mercure_wakes.count(wake);
        if messages == 0 {
            return;
        }
        self.releases.count(Cause::Message);
        watched.delivered(channel, messages);
        self.deliveries.fetch_add(messages as u64, Ordering::Relaxed);
    }

    /// Counts a poll that is over.
    pub(super) fn release(&self, cause: Cause, answer: Option<&Answer>, watched: &Watched) {
        self.releases.count(cause);
        let mut messages = 0;
        for update in
            answer.into_iter().flatten().filter(|update| !update.found.messages.is_empty())
        {
            let some = update.found.messages.len();
            watched.delivered(&update.channel, some);
            messages += some as u64;
        }
        if messages > 0 {
            self.deliveries.fetch_add(messages, Ordering::Relaxed);
        }
    }

    /// Counts a response that was written at `now`, to a poll that the message of `published`
    /// released.
    pub(super) fn written(&self, published: Time, now: Time) {
        self.publish_to_write.observe(Duration::from_micros(now.0.saturating_sub(published.0)));
    }
}
