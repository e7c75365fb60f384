//! `[[watch]]`: one rule.

use crate::config::read::section::Section;
use crate::hub::channel::SiteName;
use crate::server::publish::watch::{ChannelOf, FilePattern, Rule};

/// Reads a rule of `site`; `None` is a mistake.
pub(in crate::config) fn rule(section: &mut Section, site: &SiteName) -> Option<Rule> {
    let hint = "write the files the site writes, such as \"/dev/shm/*.comet\"";
    let files = section.required("path", hint, files);
    let channel = channel(section, files.as_ref());
    let content = section.flag("content", false);
    Some(Rule { files: files?, channel: channel?, site: site.clone(), content })
}

fn files(text: &str) -> Result<FilePattern, String> {
    text.parse().map_err(|error| format!("\"{}\" {error}", text.escape_debug()))
}

fn channel(section: &mut Section, files: Option<&FilePattern>) -> Option<ChannelOf> {
    let parse = |text: &str| text.parse::<ChannelOf>().map_err(|e| format!("\"{text}\": {e}"));
    let hint = "write the channel's name; {1} is what the first * of the path stands for";
    let channel = section.required("channel", hint, parse)?;
    let stars = files.map_or(usize::MAX, FilePattern::stars);
    if channel.fields() > stars {
        let stars = if stars == 0 { "none".to_owned() } else { format!("only {stars}") };
        let field = channel.fields();
        section.mistake("channel", format!("{{{field}}} wants a * in the path, which has {stars}"));
    }
    Some(channel)
}
