// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::{Kind, Part, tokens};

fn kinds(source: &str) -> Vec<Kind> {
    tokens(source).into_iter().map(|token| token.kind).collect()
}

fn text(text: &str) -> Kind {
    Kind::Text(text.to_owned())
}

#[test]
fn text_outside_of_php_is_no_code() {
    assert_eq!(kinds("<b>$x</b>"), [Kind::Html]);
    let name = |name: &str| Kind::Name(name.to_owned());
    assert_eq!(
        kinds("a<?= $x ?>b<?php c"),
        [
            Kind::Html,
            name("echo"),
            Kind::Variable("x".into()),
            Kind::Sign(";"),
            Kind::Html,
            name("c"),
        ]
    );
    assert_eq!(kinds("<?xml version=\"1.0\"?>"), [Kind::Html]);
}

#[test]
fn comments_are_passed_over() {
    let sources = ["// sleep(1)", "# sleep(1)", "/* sleep(1)\n */", "/** never ended", "#[A([1])]"];
    for source in sources {
        assert_eq!(kinds(&format!("<?php {source}")), [], "{source}");
    }
    assert_eq!(kinds("<?php // ends ?>x"), [Kind::Sign(";"), Kind::Html]);
}

#[test]
fn strings_are_read_as_php_reads_them() {
    assert_eq!(kinds(r#"<?php 'it\'s \n' "a\n\"\$b" "#), [text(r"it's \n"), text("a\n\"$b")]);
    assert_eq!(kinds("<?php <<<'X'\n $a\n X;\n"), [text("$a"), Kind::Sign(";")]);
    assert_eq!(kinds("<?php <<<X\n  a\n   b\n  X . 1")[0], text("a\n b"));
    assert_eq!(kinds("<?php 'never ended"), [text("never ended")]);
}

#[test]
fn variables_in_strings_are_code() {
    for source in ["\"$a[key]/x\"", "\"{$a['key']}/x\"", "<<<E\n$a[key]/x\nE"] {
        let kinds = kinds(&format!("<?php {source}"));
        let Kind::Template(parts) = &kinds[0] else { panic!("{source}: {kinds:?}") };
        let Part::Code(code) = &parts[0] else { panic!("{source}: {parts:?}") };
        assert_eq!(code[0].kind, Kind::Variable("a".into()), "{source}");
        assert_eq!(code[2].kind, text("key"), "{source}");
        assert_eq!(parts[1], Part::Text("/x".into()), "{source}");
    }
}

#[test]
fn tokens_know_their_lines() {
    let tokens = tokens("<html>\n<?php\n/* \n */ $a = 'x\ny';\n$b");
    let lines: Vec<u32> = tokens.iter().map(|token| token.line).collect();
    assert_eq!(lines, [1, 4, 4, 4, 5, 6]);
}
