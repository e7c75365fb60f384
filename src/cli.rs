//! The command line: parses flags and subcommands and runs the app.

use crate::adopt;
use crate::adopt::document_root;
use crate::app;
use crate::app::{App, Inherited};
use crate::config::{Config, Contact, Mistakes, Site, Sources, assignment};
use crate::hub::channel::SiteName;
use crate::protocol::address::Address;
use crate::protocol::auth::secret::Secret;
use crate::server::gate::sites::HostPattern;
use crate::server::limits::descriptors;
use crate::server::net::client::{self, Call};
use crate::server::telemetry::log;
use clap::{Args, Parser, Subcommand};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Holds a PHP site's long polls and releases them when the site publishes.
#[derive(Debug, Parser)]
#[command(name = "pollgate", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunFlags,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gate (the default).
    Run(RunFlags),
    /// Take over from the running gate, without losing a connection or a message, and continue in
    /// its place; run it with the new binary.
    Upgrade(RunFlags),
    /// Run the gate with an embedded demo site behind it: a chat page in the browser.
    Demo(DemoFlags),
    /// Check a config and print it as it takes effect.
    Check(CheckFlags),
    /// Publish a message through the hook of a running gate.
    Publish(PublishFlags),
    /// Print the figures of a running gate.
    Status(StatusFlags),
    /// Let a running gate read its config again; a bad one is refused and changes nothing.
    Reload(HookFlags),
    /// Read a PHP site and print a config for it.
    Adopt(AdoptFlags),
}

#[derive(Debug, Args)]
struct RunFlags {
    /// The config file (TOML).
    #[arg(long, value_name = "FILE", env = "POLLGATE_CONFIG")]
    config: Option<PathBuf>,
    /// Public listening address; may be repeated.
    #[arg(long, value_name = "ADDR")]
    listen: Vec<String>,
    /// Upstream server of the site; may be repeated.
    #[arg(long, value_name = "ADDR")]
    upstream: Vec<String>,
    /// Internal address, to which the site publishes; may be repeated.
    #[arg(long, value_name = "ADDR")]
    internal: Vec<String>,
    /// Any other key of the config, as in `--set hold.timeout=10s`; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Debug, Args)]
struct DemoFlags {
    /// Public address, for the browser.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: String,
    /// Internal address, to which the demo site publishes.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7080")]
    internal: String,
    /// Any other key of the config; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Debug, Args)]
struct CheckFlags {
    /// The config file (TOML).
    #[arg(long, value_name = "FILE", env = "POLLGATE_CONFIG")]
    config: PathBuf,
    /// Any key of the config, over the file; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Debug, Args)]
struct HookFlags {
    /// The internal address of the gate.
    #[arg(long, value_name = "ADDR")]
    internal: Option<Address>,
    /// The config file that names the internal address and the token.
    #[arg(long, value_name = "FILE", env = "POLLGATE_CONFIG")]
    config: Option<PathBuf>,
    /// The token of the hook.
    #[arg(long, value_name = "TOKEN", env = "POLLGATE__PUBLISH__TOKEN", hide_env_values = true)]
    token: Option<String>,
}

#[derive(Debug, Args)]
struct PublishFlags {
    /// The channel.
    channel: String,
    /// The message; `-` reads it from standard input, nothing at all is an empty message.
    data: Option<String>,
    /// The message's content type; without it, UTF-8 is text and anything else is bytes.
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// The site that the channel belongs to, where the gate has several.
    #[arg(long, value_name = "NAME")]
    site: Option<String>,
    #[command(flatten)]
    hook: HookFlags,
}

#[derive(Debug, Args)]
struct StatusFlags {
    /// One site alone, where the gate has several.
    #[arg(long, value_name = "NAME")]
    site: Option<String>,
    #[command(flatten)]
    hook: HookFlags,
}

#[derive(Debug, Args)]
struct AdoptFlags {
    /// The site's document root. It is only read.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Print a report for programs instead: the config, and a verdict for each script that waits.
    #[arg(long)]
    json: bool,
    /// Run the config beside the site for a moment, send its polls to both and say where the answers
    /// differ.
    #[arg(long = "try", value_name = "URL", conflicts_with = "json")]
    trial: Option<String>,
    /// Print a [[site]] of that name, to stand beside others in one config.
    #[arg(long, value_name = "NAME", requires = "host", conflicts_with_all = ["json", "trial"])]
    site: Option<String>,
    /// A host of that site; may be repeated.
    #[arg(long, value_name = "HOST", requires = "site")]
    host: Vec<HostPattern>,
}

/// A failure, which determines the exit code.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// At run time: exit code 1.
    #[error("{0}")]
    Runtime(String),
    /// In the config or the flags: exit code 2.
    #[error("{0}")]
    Usage(String),
}

impl From<Mistakes> for Failure {
    fn from(mistakes: Mistakes) -> Self {
        Self::Usage(mistakes.to_string())
    }
}

/// Runs the command line; the exit code is 0 for success, 1 for a failure at run time, 2 for a
/// mistake in the usage or the config.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command.unwrap_or(Command::Run(cli.run)) {
        Command::Run(flags) => run(&flags, Start::Anew),
        Command::Upgrade(flags) => run(&flags, Start::TakingOver),
        Command::Demo(flags) => demo(&flags),
        Command::Check(flags) => check(&flags),
        Command::Publish(flags) => publish(&flags),
        Command::Status(flags) => status(&flags),
        Command::Reload(flags) => reload(&flags),
        Command::Adopt(flags) => adopt(&flags),
    };
    let Err(failure) = done else { return ExitCode::SUCCESS };
    // Standard error may be closed; the exit code is still right.
    let _ = writeln!(std::io::stderr(), "pollgate: {failure}");
    match failure {
        Failure::Runtime(_) => ExitCode::from(1),
        Failure::Usage(_) => ExitCode::from(2),
    }
}

fn run(flags: &RunFlags, how: Start) -> Result<(), Failure> {
    let mut sources = sources(flags.config.clone(), &flags.set)?;
    sources.set_list("listen", &flags.listen);
    sources.set_list("upstream.servers", &flags.upstream);
    sources.set_list("internal", &flags.internal);
    start(sources, Site::Configured, how)
}

fn demo(flags: &DemoFlags) -> Result<(), Failure> {
    let mut sources = sources(None, &flags.set)?;
    sources.presets =
        app::demo::CONFIG.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    sources.set_list("listen", std::slice::from_ref(&flags.listen));
    sources.set_list("internal", std::slice::from_ref(&flags.internal));
    start(sources, Site::Supplied, Start::Anew)
}

/// Origin of the gate's sockets and history.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    Anew,
    TakingOver,
}

fn start(sources: Sources, site: Site, how: Start) -> Result<(), Failure> {
    let config = Config::read(&sources, site)?;
    let format = config.log.format;
    let log = log::begin(&config.log);
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    // Each held poll is an open file.
    if let Err(error) = descriptors::raise_limit() {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    let public = if config.is_tls() { "https://" } else { "http://" };
    let heritage = match how {
        Start::Anew => Ok(Inherited::default()),
        Start::TakingOver => Inherited::ask(&config),
    };
    let app = heritage.and_then(|heritage| App::new(config, sources, site, log, heritage));
    let app = app.map_err(|error| {
        log::flush();
        Failure::Runtime(error.to_string())
    })?;
    let mut lines = started(format, "pollgate", env!("CARGO_PKG_VERSION"));
    for (what, scheme, addresses) in [
        ("gate", public, &app.addresses.public),
        ("redirect", "http://", &app.addresses.redirect),
        ("internal", "http://", &app.addresses.internal),
        ("upstream", "", &app.upstream),
    ] {
        for address in addresses {
            let url = match address {
                Address::Unix(_) => address.to_string(),
                Address::Tcp { .. } => format!("{scheme}{address}"),
            };
            lines.push_str(&started(format, what, &url));
        }
    }
    if let (Site::Supplied, Some(address), log::Format::Text) =
        (site, app.addresses.public.first(), format)
    {
        lines.push_str(&format!("\nOpen {public}{address}/ in two browser windows.\n"));
    }
    print(&lines)?;
    app.run();
    log::flush();
    Ok(())
}

/// A line about what has started, in the format of the log.
fn started(format: log::Format, what: &str, value: &str) -> String {
    match format {
        log::Format::Text if what == "pollgate" => format!("{what} {value}\n"),
        log::Format::Text => format!("{what:<9} {value}\n"),
        log::Format::Json => {
            let fields = serde_json::json!({ "message": "started", "what": what, "value": value });
            let line =
                serde_json::json!({ "level": "INFO", "fields": fields, "target": "pollgate" });
            format!("{line}\n")
        }
    }
}

fn check(flags: &CheckFlags) -> Result<(), Failure> {
    let sources = sources(Some(flags.config.clone()), &flags.set)?;
    let config = Config::read(&sources, Site::Configured)?;
    for warning in &config.warnings {
        // Standard error may be closed; the config is good all the same.
        let _ = writeln!(std::io::stderr(), "warning: {warning}");
    }
    print(&config.to_toml())
}

fn publish(flags: &PublishFlags) -> Result<(), Failure> {
    let body = match flags.data.as_deref() {
        None => Vec::new(),
        Some("-") => {
            let mut body = Vec::new();
            let read = std::io::stdin().read_to_end(&mut body);
            read.map_err(|error| Failure::Runtime(format!("standard input: {error}")))?;
            body
        }
        Some(data) => data.as_bytes().to_vec(),
    };
    let name = utf8_percent_encode(&flags.channel, NON_ALPHANUMERIC);
    let target = in_site(flags.site.as_deref(), &format!("/channels/{name}"));
    let content_type = flags.content_type.as_deref();
    ask(&flags.hook, Call { method: "POST", target: &target, content_type, body: body.into() })
}

fn status(flags: &StatusFlags) -> Result<(), Failure> {
    let target = in_site(flags.site.as_deref(), "/status");
    ask(&flags.hook, Call { method: "GET", target: &target, ..Call::default() })
}

/// Reports a file with mistakes: prints the gate's response unchanged, and then the mistakes for
/// people.
fn reload(flags: &HookFlags) -> Result<(), Failure> {
    let (status, body) =
        answer(flags, Call { method: "POST", target: "/reload", ..Call::default() })?;
    if status != 422 {
        return show(status, &body);
    }
    print(&format!("{}\n", body.trim_end()))?;
    Err(Failure::Usage(refused(&body)))
}

/// The mistakes in the gate's response, one per line.
fn refused(body: &str) -> String {
    let answer: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let mut lines = "the gate refused the config and nothing has changed".to_owned();
    for mistake in answer["mistakes"].as_array().into_iter().flatten() {
        lines.push('\n');
        if let Some(line) = mistake["line"].as_u64() {
            lines.push_str(&format!("line {line}: "));
        }
        if let Some(key) = mistake["key"].as_str().filter(|key| !key.is_empty()) {
            lines.push_str(&format!("{key}: "));
        }
        lines.push_str(mistake["message"].as_str().unwrap_or_default());
    }
    lines
}

fn adopt(flags: &AdoptFlags) -> Result<(), Failure> {
    let site = document_root::read(&flags.dir, &document_root::Bounds::default());
    let site = site.map_err(|error| Failure::Usage(error.to_string()))?;
    let adopted = adopt::adopted(&site);
    if flags.json {
        return print(&format!("{:#}\n", adopted.to_json()));
    }
    if let Some(name) = &flags.site {
        if SiteName::new(name).is_none() {
            let most = SiteName::MAX_BYTES;
            let wrong = format!("--site {name}: a name is 1 to {most} of a-z, 0-9 and -");
            return Err(Failure::Usage(wrong));
        }
        let hosts: Vec<String> = flags.host.iter().map(ToString::to_string).collect();
        return print(&adopt::as_site(&adopted.config, name, &hosts));
    }
    let Some(url) = &flags.trial else { return print(&adopted.config) };
    let failed = |error: String| Failure::Runtime(error);
    let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
    let lines = adopt::trial::run(&program, &adopted, url).map_err(|error| match error {
        adopt::trial::Error::Url(_) => Failure::Usage(error.to_string()),
        error => failed(error.to_string()),
    })?;
    print(&lines.iter().map(|line| format!("{line}\n")).collect::<String>())
}

/// `path` at that site.
fn in_site(site: Option<&str>, path: &str) -> String {
    let site = site.map(|site| utf8_percent_encode(site, NON_ALPHANUMERIC));
    // A hyphen in a name needs no escape, and there is one way to write a site.
    let site = site.map(|site| format!("/sites/{}", site.to_string().replace("%2D", "-")));
    format!("{}{path}", site.unwrap_or_default())
}

/// Sends a request to a running gate and prints its response.
fn ask(flags: &HookFlags, call: Call<'_>) -> Result<(), Failure> {
    let (status, body) = answer(flags, call)?;
    show(status, &body)
}

/// Prints the response of a running gate, if it succeeded.
fn show(status: u16, body: &str) -> Result<(), Failure> {
    if !(200..300).contains(&status) {
        return Err(Failure::Runtime(format!("the gate answered {status}: {}", body.trim_end())));
    }
    print(&format!("{}\n", body.trim_end()))
}

/// The response of a running gate.
fn answer(flags: &HookFlags, call: Call<'_>) -> Result<(u16, String), Failure> {
    let (address, token) = hook_of(flags)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Runtime(error.to_string()))?;
    let answer = runtime.block_on(client::call(&address, &token, call));
    let (status, body) = answer.map_err(|error| Failure::Runtime(error.to_string()))?;
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

/// Address and token of the gate: from the flags, else from the config file.
fn hook_of(flags: &HookFlags) -> Result<(Address, Secret), Failure> {
    let token = flags.token.clone().map(Secret::new);
    if let (Some(address), None) = (&flags.internal, &flags.config) {
        return Ok((address.clone(), token.unwrap_or_default()));
    }
    // A gate in its default config is found without any flag.
    let contact = Contact::read(&Sources::new(flags.config.clone()))?;
    let address = flags.internal.clone().or_else(|| contact.internal.first().cloned());
    let none = || Failure::Usage("the config names no internal address; use --internal".to_owned());
    Ok((address.ok_or_else(none)?, token.unwrap_or(contact.token)))
}

/// The file, the environment and the keys behind `--set`.
fn sources(file: Option<PathBuf>, set: &[String]) -> Result<Sources, Failure> {
    let mut sources = Sources::new(file);
    for text in set {
        let (key, value) = assignment(text).map_err(Failure::Usage)?;
        sources.set(&key, &value);
    }
    Ok(sources)
}

fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    let printed = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    printed.map_err(|error| Failure::Runtime(format!("standard output: {error}")))
}
