//! `presence` and the keys beside it in a `[[channel]]`.

use super::Channel;
use crate::config::read::section::Section;
use crate::hub::channel::SiteName;
use crate::hub::presence::{Rules, Settings};
use std::ops::RangeInclusive;
use std::sync::Arc;

/// Beyond it a list is of no use, and it is one message.
const MEMBERS: RangeInclusive<usize> = 1..=1_000_000;

/// The presence of the `channels` of a site.
pub(in crate::config) fn rules(site: &SiteName, channels: &[Channel]) -> Rules {
    let channels = channels.iter().map(|(pattern, _, present)| (pattern.clone(), present.clone()));
    Rules { site: site.clone(), channels: channels.collect(), occupancy: false }
}

/// The presence of a channel; `None` = off.
pub(in crate::config) fn presence(section: &mut Section) -> Option<Arc<Settings>> {
    let default = Settings::default();
    let on = section.flag_or("presence", "public");
    let settings = Settings {
        grace: section.duration("grace", default.grace),
        stream_grace: section.duration("stream_grace", default.stream_grace),
        members: section.number("members", default.members, MEMBERS),
        public: on.is_none(),
    };
    (on != Some(false)).then(|| Arc::new(settings))
}
