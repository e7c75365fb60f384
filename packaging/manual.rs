//! Writes the man page and the shells' completions from the command line's own definition:
//! `cargo run --example manual -- FOLDER`.

use clap::CommandFactory;
use clap_complete::Shell;
use std::path::PathBuf;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let folder = env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.ok_or_else(|| io::Error::other("usage: manual FOLDER"))?;
    fs::create_dir_all(&folder)?;
    let mut command = pollgate::cli::Cli::command().disable_help_subcommand(true);
    command.build();
    clap_mangen::generate_to(command.clone(), &folder)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command, "pollgate", &folder)?;
    }
    Ok(())
}
