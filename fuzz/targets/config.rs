//! Any text as a configuration: it is accepted or told what is wrong, and what is accepted is the same when it is
//! written out and read again.
//!
//! Input: a configuration file; or, after a first line `#layers`, lines that are environment variables (`MERMIN_…=…`)
//! or else `--set` options.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mermin::config::{Config, Inputs, Origin, Problems, load, parse};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match text.strip_prefix("#layers\n") {
        Some(lines) => check(load(&layers(lines)), usize::MAX),
        // The scanner puts the end of a text on a line of its own.
        None => check(parse(text), 2 + text.matches(['\n', '\r']).count()),
    }
});

fn layers(lines: &str) -> Inputs {
    let mut inputs = Inputs::default();
    for line in lines.lines() {
        match line.split_once('=') {
            Some((name, value)) if name.starts_with("MERMIN_") => {
                inputs.environment.push((name.to_owned(), value.to_owned()));
            }
            _ => inputs.set.push(line.to_owned()),
        }
    }
    inputs
}

fn check(outcome: Result<Config, Problems>, lines: usize) {
    match outcome {
        Ok(config) => {
            let written = serde_json::to_string(&config).expect("a configuration can be written");
            match parse(&written) {
                Ok(again) => assert_eq!(again, config, "{written}"),
                Err(problems) => panic!("{written}\n{problems}"),
            }
        }
        Err(problems) => {
            assert!(!problems.0.is_empty(), "refused without a reason");
            for problem in &problems.0 {
                assert!(!problem.what.is_empty() && !problem.help.is_empty(), "{problem:?}");
                if let Some(Origin::Text { line, column, .. }) = problem.origin {
                    assert!((1..=lines).contains(&line) && column >= 1, "{problem:?}");
                }
            }
        }
    }
}
