//! The lane's side of an exchange.

use super::Connection;
use super::read::gone;
use crate::protocol::http::Reply;
use crate::server::gate::front::Front;
use crate::server::gate::serve::Exchange;
use crate::server::gate::{Settings, Timer};
use pingora::server::ShutdownWatch;
use std::future::Future;

/// A plain request on a connection of the lane's. It has no body.
pub(super) struct LaneExchange<'a> {
    pub(super) connection: &'a mut Connection,
    pub(super) front: &'a Front,
    pub(super) settings: &'a Settings,
    pub(super) shutdown: &'a ShutdownWatch,
    /// Whether the connection is kept after the answer.
    pub(super) keep: bool,
}

/// The answer could not be written.
pub(super) struct Unwritten;

impl Exchange for LaneExchange<'_> {
    type Error = Unwritten;

    async fn settle(&mut self, _keep: bool) -> Result<Option<Reply>, Unwritten> {
        Ok(None)
    }

    fn waiting(&mut self) -> (&mut Timer, impl Future<Output = ()> + Send) {
        let Connection { stream, pending, timer, .. } = &mut *self.connection;
        (timer, gone(stream, pending, self.settings.head.bytes))
    }

    fn close_after(&mut self) {
        self.keep = false;
    }

    async fn write(&mut self, reply: &Reply) -> Result<(), Unwritten> {
        self.keep &= !*self.shutdown.borrow() && !self.front.gate.is_draining();
        let limit = self.settings.write_timeout;
        if self.connection.write(limit, reply, self.keep).await { Ok(()) } else { Err(Unwritten) }
    }
}
