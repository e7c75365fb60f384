//! Rules for the sites of `tests/sites` that more than one test goes through.

/// The site `backend`, and every other with one script for both ways.
pub const BACKEND: &str = r#"
    [[poll]]
    path    = "/backend.php"
    unless  = ["msg"]
    dialect = "timestamp"
    channel = "data.txt"
"#;

/// The site `sendmsg`.
pub const SENDMSG: &str = r#"
    [[poll]]
    path    = "/backend.php"
    unless  = ["msg"]
    dialect = "timestamp"
    channel = "live"
    first   = "latest"
"#;

/// The site `novcomet`.
pub const NOVCOMET: &str = r#"
    [[poll]]
    path    = "/comet.php"
    when    = ["subscribed"]
    unless  = ["publish"]
    dialect = "novcomet"
"#;
