//! The publisher of the numbers of one channel.

use super::ledger::Published;
use super::stamps::{micros, stamp_of};
use super::{CAPTURED, CHANNELS, Client, FILE, Response, World, pause, unless_broken};
use fastrand::Rng;
use std::sync::Arc;

/// Publishes one number after the other; how many there were in the end.
pub(crate) async fn publish(world: Arc<World>, channel: usize, rng: Rng) -> u64 {
    let mut publisher = Publisher { world, channel, rng, connection: None };
    for number in 0.. {
        // The last one comes after the last kill: nothing can take it away.
        let is_last = publisher.world.is_over();
        if channel == FILE {
            publisher.write(number);
        } else {
            publisher.publish_one(number).await;
        }
        if is_last {
            return number + 1;
        }
        pause(&mut publisher.rng, 20..200).await;
    }
    unreachable!("numbers do not end")
}

struct Publisher {
    world: Arc<World>,
    channel: usize,
    rng: Rng,
    connection: Option<Client>,
}

/// Outcome of an attempt.
enum Attempt {
    Answered(Response),
    /// This side did not wait for the answer.
    Left,
    /// The gate closed the connection before the answer.
    CutOff,
}

impl Publisher {
    /// Beside the file and renamed, or in its place.
    fn write(&mut self, number: u64) {
        let file = &self.world.file;
        let text = number.to_string();
        if self.rng.bool() {
            let beside = file.with_extension("new");
            std::fs::write(&beside, text).unwrap();
            std::fs::rename(beside, file).unwrap();
        } else {
            std::fs::write(file, text).unwrap();
        }
    }

    async fn publish_one(&mut self, number: u64) {
        let mut published = Published::default();
        let answer = loop {
            let first = self.world.life();
            let attempt = self.attempt(number).await;
            let lives = (first, self.world.life());
            match attempt {
                Attempt::CutOff => published.cut_off.push(lives),
                Attempt::Left => published.left.push(lives),
                // The gate is about to end, or the site is not there.
                Attempt::Answered(answer) if (502..=504).contains(&answer.status) => {}
                Attempt::Answered(answer) => {
                    assert_eq!(answer.status, 200, "publish: {}", answer.text());
                    published.confirmed = lives;
                    break answer;
                }
            }
            pause(&mut self.rng, 10..100).await;
        };
        let mut ledger = self.world.ledger.lock();
        if self.channel != CAPTURED {
            let id = answer.json()["id"].as_str().unwrap().to_owned();
            published.stamp = micros(&stamp_of(&answer.text(), "stamp"));
            ledger.note(self.channel, &id, number);
        }
        ledger.published[self.channel].push(published);
    }

    async fn attempt(&mut self, number: u64) -> Attempt {
        let name = CHANNELS[self.channel];
        let key = format!("{name}-{number}");
        let (to, path, headers, body) = if self.channel == CAPTURED {
            let form = ("Content-Type", "application/x-www-form-urlencoded".to_owned());
            (&self.world.listen, "/send".to_owned(), vec![form], format!("msg={number}"))
        } else {
            let headers = vec![("Content-Type", "text/plain".to_owned()), ("Idempotency-Key", key)];
            (&self.world.internal, format!("/channels/{name}"), headers, number.to_string())
        };
        let to = to.clone();
        let connection = self.connection.take();
        let leaves = self.rng.u8(..100) < 8;
        let asked = unless_broken(async move {
            let mut client = match connection {
                Some(client) => client,
                None => Client::connect(&to).await,
            };
            let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, &**value)).collect();
            client.send("POST", &path, &headers, body.as_bytes()).await;
            let answer = if leaves { None } else { Some(client.read_response().await) };
            (client, answer)
        });
        let Some((client, answer)) = asked.await else { return Attempt::CutOff };
        let Some(answer) = answer else { return Attempt::Left };
        if answer.header("connection") != Some("close") && self.rng.bool() {
            self.connection = Some(client);
        }
        Attempt::Answered(answer)
    }
}
