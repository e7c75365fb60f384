//! The list of a channel's users as JSON.

use super::json::{self, Safe};
use super::native_cursor;
use crate::hub::channel::{Stamp, Tick};
use crate::hub::presence::Roster;
use smallvec::smallvec;
use std::fmt::Write;

/// One list as an object; several as an array of such objects.
pub fn lists(rosters: &[Roster]) -> String {
    if let [only] = rosters {
        return list(only);
    }
    let lists: Vec<String> = rosters.iter().map(list).collect();
    format!("[{}]", lists.join(","))
}

/// `{"channel","cursor","count","connections","members":[{"user","info","since"}]}`; from the cursor
/// on, the joins and leaves are on the channel `presence:{channel}`.
pub fn list(roster: &Roster) -> String {
    let mut out = String::with_capacity(128 + roster.members.len() * 64);
    out.push_str("{\"channel\":");
    json::string(&mut out, &roster.channel, Safe::Json);
    out.push_str(",\"cursor\":\"");
    native_cursor::encode(&mut out, &smallvec![roster.place.clone()]);
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        "\",\"count\":{},\"connections\":{},\"members\":[",
        roster.count, roster.connections
    );
    for (index, member) in roster.members.iter().enumerate() {
        out.push_str(if index > 0 { ",{\"user\":" } else { "{\"user\":" });
        json::string(&mut out, &member.user, Safe::Json);
        let info = member.info.as_deref().unwrap_or("null");
        let since = Tick::Micros.show(Stamp(member.since.0));
        let _ = write!(out, ",\"info\":{info},\"since\":{since}}}");
    }
    out.push_str("]}");
    out
}
