//! The `pollgate` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    pollgate::cli::main()
}
