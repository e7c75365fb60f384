//! Causes of refused requests, on either listener.

use super::metrics::labels;

labels! {
    /// Cause of a refused request. A refusal is a response of the gate in place of the requested
    /// one; a failure of the upstream is none.
    Refusal {
        /// As many polls as `hold.max` are held.
        HoldMax = "hold_max",
        /// As many polls as `limits.per_address` are held for this address.
        PerAddress = "per_address",
        /// As many polls as `limits.per_grant` are held by this grant.
        PerGrant = "per_grant",
        /// More connections a second than `limits.connections_per_second` from this address.
        ConnectionRate = "connection_rate",
        /// More requests a second than `limits.requests_per_second` from this address.
        RequestRate = "request_rate",
        /// More messages a second than `publish.messages_per_second` for the hook.
        PublishRate = "publish_rate",
        /// A message longer than `history.max_message`, or a body that is longer than any message.
        MessageSize = "message_size",
        /// A request that passed and whose captured message was not published, since PHP may have
        /// read another.
        UnclearCapture = "unclear_capture",
        /// As many connections as the limit of open files allows the public side.
        FdLimit = "fd_limit",
        /// As many polls as `limits.per_channel` are held on this channel.
        PerChannel = "per_channel",
        /// A poll that the upstream answers waited too long for its slot there.
        SiteQueue = "site_queue",
        /// A poll names more channels than `limits.channels_per_poll`.
        ChannelsPerPoll = "channels_per_poll",
        /// A poll names a channel that its rule does not list.
        UnknownChannel = "unknown_channel",
        /// As many channels that were never published to are waited on as there is room for.
        TableFull = "table_full",
        /// As many sessions as `limits.pusher_sessions` are open.
        PusherSessions = "pusher_sessions",
        /// As many bodies as `limits.body_memory` has room for are kept.
        BodyMemory = "body_memory",
        /// As many HTTP/2 streams as may wait for the upstream wait already.
        Http2Streams = "http2_streams",
        /// A poll that its dialect cannot parse.
        BadRequest = "bad_request",
        /// A method that the path does not have.
        Method = "method",
        /// A poll without authorization: no token, a bad one, or a refusal by the upstream.
        Rejection = "denied",
        /// A poll for which the upstream gave no authorization decision.
        Auth = "auth",
        /// A head that is no HTTP, or could be read in two ways.
        MalformedHead = "malformed_head",
        /// A head with too many bytes or lines.
        HeadTooLarge = "head_too_large",
        /// A head that took too long.
        HeadTimeout = "head_timeout",
        /// A body that is framed wrongly.
        MalformedBody = "malformed_body",
        /// A body that took too long.
        BodyTimeout = "body_timeout",
        /// No token, or a wrong one, on the internal listener.
        Unauthorized = "unauthorized",
        /// A browser page from elsewhere, or a host name that may belong to one, on the internal
        /// listener.
        CrossOrigin = "cross_origin",
        /// A host that no site has, or that the connection's certificate does not name.
        Misdirected = "misdirected",
    }
}

impl Refusal {
    /// The cause of a head refused with `status`.
    pub fn of_head(status: u16) -> Self {
        match status {
            408 => Self::HeadTimeout,
            431 => Self::HeadTooLarge,
            _ => Self::MalformedHead,
        }
    }
}
