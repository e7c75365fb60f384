//! Copies the hub, with the model checker's locks and atomics in place of the real ones.
//!
//! The text is changed, so the product's code needs no switch for it.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let source = Path::new("../src/hub");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("hub");
    let mut replaced = 0;
    println!("cargo::rerun-if-changed=../src/hub");
    copy(source, &out, &mut replaced)?;
    assert!(replaced > 4, "the hub's locks and atomics were not found; see models/build.rs");
    let module = format!("#[path = {:?}]\npub mod hub;\n", out.join("mod.rs"));
    fs::write(out.with_file_name("hub.rs"), module)
}

fn copy(from: &Path, to: &Path, replaced: &mut usize) -> io::Result<()> {
    if from.is_dir() {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let name = entry?.file_name();
            copy(&from.join(&name), &to.join(&name), replaced)?;
        }
        return Ok(());
    }
    let mut text = fs::read_to_string(from)?;
    for (real, model) in
        [("std::sync::atomic", "shuttle::sync::atomic"), ("parking_lot::", "crate::locks::")]
    {
        *replaced += text.matches(real).count();
        text = text.replace(real, model);
    }
    fs::write(to, text)
}
