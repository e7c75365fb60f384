//! The division of a cluster's slots, from the reply of one of its nodes to `CLUSTER NODES`, read
//! for the slots that our partitions are in.

use super::Server;
use super::keys::PARTITIONS;
use std::sync::LazyLock;

/// A set of partitions, a bit for each.
pub(super) type Partitions = u64;
const _: () = assert!(PARTITIONS == Partitions::BITS);

/// A master, as the node that was asked knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Master {
    /// The id that the cluster gives it, as long as it lives.
    pub(super) id: String,
    pub(super) server: Server,
    /// Config epoch: of two masters that claim a slot, the one with the greater has it.
    pub(super) epoch: u64,
    /// Those of our partitions whose slots it has.
    pub(super) has: Partitions,
    /// It is the node that was asked.
    pub(super) is_asked: bool,
}

/// The masters in the reply of the node at `asked`; `None` if it is no such reply.
pub(super) fn masters(answer: &str, asked: &Server) -> Option<Vec<Master>> {
    let mut known = false;
    let mut masters = Vec::new();
    for line in answer.lines() {
        let words: Vec<_> = line.split(' ').collect();
        let [id, address, flags, _, _, _, epoch, _, slots @ ..] = words.as_slice() else {
            return None;
        };
        let flags: Vec<_> = flags.split(',').collect();
        let is = |flag| flags.contains(&flag);
        known |= is("myself");
        if !is("master") || is("handshake") || is("noaddr") {
            continue;
        }
        masters.push(Master {
            id: (*id).to_owned(),
            server: server(address, asked)?,
            epoch: epoch.parse().ok()?,
            has: slots.iter().fold(0, |has, slots| has | partitions_in(slots)),
            is_asked: is("myself"),
        });
    }
    known.then_some(masters)
}

/// `ip:port@bus-port[,host name[,...]]`. A node that does not know its own address has the address
/// at which it was asked; a certificate can name a host, so the host name goes first.
fn server(text: &str, asked: &Server) -> Option<Server> {
    let (address, name) = text.split_once(',').unwrap_or((text, ""));
    let name = name.split(',').next().filter(|name| !name.is_empty() && !name.contains('='));
    let (address, _) = address.split_once('@').unwrap_or((address, ""));
    let (ip, port) = address.rsplit_once(':')?;
    let host = match name {
        Some(name) => name,
        None if ip.is_empty() => &asked.host,
        None => ip,
    };
    Some(Server { host: host.to_owned(), port: port.parse().ok()? })
}

/// Our partitions in `5` or `0-100`; none in `[5->-id]`, which is about to move but has not.
fn partitions_in(slots: &str) -> Partitions {
    let (first, last) = slots.split_once('-').unwrap_or((slots, slots));
    let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) else { return 0 };
    let inside = SLOTS.iter().enumerate().filter(|(_, slot)| (first..=last).contains(*slot));
    inside.fold(0, |has, (partition, _)| has | 1 << partition)
}

/// The slot of each partition.
static SLOTS: LazyLock<Vec<u16>> = LazyLock::new(|| (0..PARTITIONS).map(slot).collect());

/// The slot of a partition: that of a key with its number in braces
/// (Redis Cluster specification, "Hash tags").
pub(super) fn slot(partition: u32) -> u16 {
    crc16(partition.to_string().as_bytes()) % 16_384
}

/// CRC-16/XMODEM: polynomial 0x1021, begun with 0.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| {
            crc << 1 ^ if crc & 0x8000 == 0 { 0 } else { 0x1021 }
        })
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    fn asked() -> Server {
        Server { host: "10.0.0.9".to_owned(), port: 7000 }
    }

    #[test]
    fn slots_are_counted_as_redis_does() {
        // The check value of the specification; the slots are those of CLUSTER KEYSLOT.
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!((slot(0), slot(5), slot(63)), (13_907, 9_974, 10_499));
    }

    #[test]
    fn masters_are_read_with_the_partitions_that_they_have() {
        let answer = "\
            a1 :7000@17000 myself,master - 0 0 3 connected 0-9973 9975-16383 [9974-<-b2]\n\
            b2 10.0.0.2:7001@17001,redis-2.example,shard-id=x master - 0 1 2 connected 9974\n\
            c3 ::1:7002@17002,,tls-port=0 master,fail - 0 1 1 disconnected\n\
            d4 10.0.0.4:7003@17003 slave a1 0 1 3 connected\n\
            e5 :0@0 master,noaddr - 0 0 0 disconnected\n";
        let masters = masters(answer, &asked()).unwrap();
        let [a, b, c] = masters.as_slice() else { panic!("{masters:?}") };
        assert_eq!((a.server.to_string(), a.is_asked, a.epoch), ("10.0.0.9:7000".into(), true, 3));
        assert_eq!(a.has, !(1 << 5));
        assert_eq!((b.server.to_string(), b.has), ("redis-2.example:7001".into(), 1 << 5));
        assert_eq!((c.server.to_string(), c.has), ("[::1]:7002".into(), 0));
    }

    #[test]
    fn what_is_no_such_answer_is_told() {
        for answer in ["", "OK", "a1 :7000@17000 master - 0 0 3 connected 0-5\n"] {
            assert_eq!(masters(answer, &asked()), None, "{answer}");
        }
    }
}
