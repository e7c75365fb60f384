//! Commands to the servers: each goes to the node of its channel, all for one node in one go, and
//! the replies come in the order of the commands.

use super::link::{LinkConnection, TIMEOUT, is_redirection, reason};
use super::nodes::Node;
use super::scripts::Scripts;
use super::{Failure, Shared};
use crate::hub::channel::ChannelName;
use redis::aio::ConnectionLike;
use redis::{Cmd, ServerErrorKind, Value};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// A command, and the channel that it is about.
pub(super) type Call = (ChannelName, Cmd);
/// The result of a command.
pub(super) type Answer = Result<Value, Failure>;

/// The calls to one node, by their numbers.
type Share = (Arc<Node>, Vec<usize>);

/// Time to wait before a call is sent again that a cluster did not take.
const RETRY_DELAY: Duration = Duration::from_millis(50);

impl Shared {
    /// Sends `calls`; returns a reply for each, in their order. A call that was surely not
    /// executed, as its script is missing or its slot is on its way to another node, is sent again
    /// for a while.
    pub(super) async fn call(&self, calls: &[Call]) -> Vec<Answer> {
        let end = Instant::now() + TIMEOUT;
        let mut answers = Vec::new();
        answers.resize_with(calls.len(), || Ok(Value::Nil));
        let mut open: Vec<_> = (0..calls.len()).collect();
        let mut tries = 0;
        loop {
            let mut moved = false;
            for (number, answer) in self.send(calls, open.split_off(0)).await {
                let answer = match answer {
                    Ok(Value::ServerError(error)) => {
                        let redirected = self.cluster.is_some() && is_redirection(&error);
                        if redirected || error.kind() == Some(ServerErrorKind::NoScript) {
                            open.push(number);
                            moved |= redirected;
                        }
                        Err(Failure::of_server(&error))
                    }
                    other => other,
                };
                answers[number] = answer;
            }
            tries += 1;
            if open.is_empty() || !moved && tries > 1 || Instant::now() > end {
                return answers;
            }
            if moved {
                self.look_again();
                tokio::time::sleep(RETRY_DELAY).await;
            }
            open.sort_unstable();
        }
    }

    /// Sends one call.
    pub(super) async fn call_one(&self, channel: &ChannelName, command: Cmd) -> Answer {
        let answer = self.call(&[(channel.clone(), command)]).await.pop();
        answer.unwrap_or_else(|| Err(Failure::Unknown("Redis has not answered".to_owned())))
    }

    /// Sends the calls `open`; returns their replies with their numbers, which may be errors of a
    /// server.
    async fn send(&self, calls: &[Call], open: Vec<usize>) -> Vec<(usize, Answer)> {
        let commands = |numbers: &[usize]| -> Vec<_> {
            numbers.iter().map(|number| calls[*number].1.clone()).collect()
        };
        let mut shares = self.shares(calls, open);
        if shares.len() == 1 {
            let (node, numbers) = shares.remove(0);
            let answers = node.send(commands(&numbers), &self.scripts).await;
            return numbers.into_iter().zip(answers).collect();
        }
        let mut sending = JoinSet::new();
        for (node, numbers) in shares {
            let commands = commands(&numbers);
            let scripts = self.scripts.clone();
            sending.spawn(async move { (node.send(commands, &scripts).await, numbers) });
        }
        let mut all = Vec::with_capacity(calls.len());
        while let Some(sent) = sending.join_next().await {
            // It does not panic; if it did, its calls would go unanswered.
            let Ok((answers, numbers)) = sent else { continue };
            all.extend(numbers.into_iter().zip(answers));
        }
        all
    }

    /// The calls `open`, by the node that each goes to.
    fn shares(&self, calls: &[Call], open: Vec<usize>) -> Vec<Share> {
        let now = self.nodes.now();
        let mut shares: Vec<Share> = Vec::new();
        for number in open {
            let node = now.of(&calls[number].0);
            match shares.iter_mut().find(|(known, _)| Arc::ptr_eq(known, node)) {
                Some((_, numbers)) => numbers.push(number),
                None => shares.push((node.clone(), vec![number])),
            }
        }
        shares
    }
}

impl Node {
    /// Sends commands in one go; returns the replies in their order, which may be errors of the
    /// server.
    async fn send(&self, commands: Vec<Cmd>, scripts: &Scripts) -> Vec<Answer> {
        let mut line = match self.link.line() {
            Ok(line) => line,
            Err(reason) => {
                return commands.iter().map(|_| Err(Failure::Away(reason.clone()))).collect();
            }
        };
        let mut pipe = redis::pipe();
        for command in &commands {
            pipe.add_command(command.clone());
        }
        let sent = line.connection.req_packed_commands(&pipe, 0, commands.len());
        let reason = match tokio::time::timeout(TIMEOUT * 2, sent).await {
            Ok(Ok(values)) => {
                self.handle_errors(&values, &mut line, scripts).await;
                return values.into_iter().map(Ok).collect();
            }
            Ok(Err(error)) => reason(&error),
            Err(_) => "it does not answer".to_owned(),
        };
        self.link.give_up(&line, reason.clone());
        let unknown = format!("Redis at {} has not answered: {reason}", self.link.name());
        commands.iter().map(|_| Err(Failure::Unknown(unknown.clone()))).collect()
    }

    /// Handles the errors among `values`.
    async fn handle_errors(&self, values: &[Value], line: &mut LinkConnection, scripts: &Scripts) {
        match values.iter().find_map(kind_of_error) {
            // The server's scripts have been flushed.
            Some(ServerErrorKind::NoScript) => {
                for script in scripts.all() {
                    // If this fails, the next command reports it.
                    let _ = script.load_async(&mut line.connection).await;
                }
            }
            Some(ServerErrorKind::Moved) if !scripts.is_for_one() => {}
            Some(ServerErrorKind::ReadOnly | ServerErrorKind::Moved) => {
                self.link.give_up(line, "it is not the master any more");
            }
            _ => {}
        }
    }
}

/// The kind of error of a value, if it is one.
fn kind_of_error(value: &Value) -> Option<ServerErrorKind> {
    match value {
        Value::ServerError(error) => error.kind(),
        _ => None,
    }
}
