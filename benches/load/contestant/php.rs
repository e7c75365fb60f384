//! The method of the old sites: PHP that sleeps and checks again, under PHP-FPM behind nginx.

use super::process::{Place, Running, free_address};
use super::{Abilities, Contestant, Step, Wire, first_line, get, nginx, post, text};
use crate::crowd::Cursor;
use crate::http::Answer;
use crate::message;
use std::io;
use std::net::SocketAddr;

/// PHP-FPM's workers. One must be left for the request that publishes.
const WORKERS: usize = 5;

/// A poll: one file a channel, holding the number of its newest message and the message.
const POLL: &str = r#"<?php
$file = __DIR__ . '/state/' . (int) $_GET['id'];
$seen = (int) ($_GET['cursor'] ?? 0);
$began = time();
do {
    $now = @file_get_contents($file);
    if ($now !== false) {
        [$number, $message] = explode(' ', $now, 2);
        if ($seen === 0) {
            $seen = (int) $number;
        } elseif ((int) $number > $seen) {
            header('ETag: ' . $number);
            exit($message);
        }
    } elseif ($seen === 0) {
        $seen = -1;
    }
    usleep(10000);
} while (time() - $began < 300);
"#;

const PUBLISH: &str = r#"<?php
$file = __DIR__ . '/state/' . (int) $_GET['id'];
file_put_contents($file . '.new', $_GET['number'] . ' ' . file_get_contents('php://input'));
rename($file . '.new', $file);
"#;

pub(super) fn contestant() -> Contestant {
    let missing = if program().is_none() {
        Some("php-fpm is not installed".to_owned())
    } else {
        nginx::proxy().missing
    };
    let version = program().map_or_else(String::new, |path| first_line(&path, &["-v"]));
    Contestant {
        name: "php-fpm",
        about: format!(
            "{WORKERS} workers of {version} behind nginx; a poll looks at a file every 10 ms"
        ),
        abilities: Abilities {
            polls: WORKERS - 1,
            bound: "its workers",
            restless: true,
            forwards: false,
            keeps: false,
            ..Abilities::ALL
        },
        missing,
        start,
    }
}

/// PHP-FPM bears its version in its name.
fn program() -> Option<String> {
    let entries = std::fs::read_dir("/usr/sbin").ok()?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let newest = names.filter(|name| name.starts_with("php-fpm")).max()?;
    Some(format!("/usr/sbin/{newest}"))
}

fn start(mut place: Place) -> io::Result<Running> {
    let public = free_address()?;
    let fpm = free_address()?;
    let folder = place.folder();
    place.shared_folder("state")?;
    let poll = place.write("poll.php", POLL)?;
    let publish = place.write("publish.php", PUBLISH)?;
    let config = format!(
        "[global]\nerror_log = {folder}/fpm.log\ndaemonize = no\n[www]\nuser = nobody\n\
         group = nogroup\nlisten = {fpm}\npm = static\npm.max_children = {WORKERS}\n"
    );
    let config = place.write("fpm.conf", &config)?;
    let program = program().ok_or_else(|| io::Error::other("php-fpm is not installed"))?;
    place.start(&program, &["-n", "-y", &config])?;
    let script = |path: &str| {
        format!(
            "fastcgi_pass {fpm}; fastcgi_read_timeout 400s; fastcgi_keep_conn off;\n\
             fastcgi_param REQUEST_METHOD $request_method; fastcgi_param SCRIPT_FILENAME {path};\n\
             fastcgi_param QUERY_STRING $query_string; fastcgi_param CONTENT_TYPE $content_type;\n\
             fastcgi_param CONTENT_LENGTH $content_length;"
        )
    };
    let http = format!(
        "access_log off;\nserver {{\nlisten {public};\nlocation = /poll {{ {} }}\nlocation = /publish {{ {} }}\n}}",
        script(&poll),
        script(&publish)
    );
    nginx::start(&mut place, "", &http)?;
    place.wait_for(fpm)?;
    place.wait_for(public)?;
    Ok(place.run(Php { public }))
}

struct Php {
    public: SocketAddr,
}

impl Wire for Php {
    fn public(&self) -> SocketAddr {
        self.public
    }

    fn poll(&self, channel: u32, cursor: &[u8], out: &mut Vec<u8>) {
        get(format_args!("/poll?id={channel}&cursor={}", text(cursor)), "", out);
    }

    fn publish(&self, channel: u32, seq: u64) -> Vec<Step> {
        let target = format!("/publish?id={channel}&number={seq}");
        vec![Step { to: self.public, request: post(&target, "text/plain", &message::body(seq)) }]
    }

    fn cursor(&self, answer: &Answer<'_>, cursor: &mut Cursor) {
        *cursor = Cursor::from_slice(answer.etag);
    }
}
