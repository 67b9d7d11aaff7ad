//! Why tests have failed, in few lines: the last that a run prints, for whoever sees only the end of its log.
//!
//! libtest tells of failed tests like this, behind what it tells of those that passed:
//!
//! ```text
//! failures:
//! ---- name stdout ----
//! what it wrote
//! failures:
//!     name
//! test result: …
//! ```

use std::fmt;

/// Lines for all of them together; and for one, whatever the number of the others.
const LINES: usize = 45;
const LINES_OF_ONE: std::ops::RangeInclusive<usize> = 4..=20;
/// Characters of a line: a record or a page of statistics may stand in one.
const WIDTH: usize = 2_000;

/// Where in the output of a test program a line stands.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Part {
    /// Before failures, or where there are none.
    #[default]
    Other,
    /// What failed tests wrote.
    Said,
    /// The list of their names.
    Names,
}

/// A test, and what it wrote.
struct Test {
    name: String,
    said: Vec<String>,
}

/// The failed tests of all programs so far.
#[derive(Default)]
pub(crate) struct Failed {
    part: Part,
    tests: Vec<Test>,
    /// So many are of the programs before.
    before: usize,
}

impl Failed {
    /// Takes a line of a test program's output; whether it is of a failed test.
    pub(crate) fn take(&mut self, line: &str) -> bool {
        let heading = || line.strip_prefix("---- ")?.strip_suffix(" stdout ----");
        match (self.part, line) {
            (Part::Other, "failures:") => self.part = Part::Said,
            (_, "failures:") => self.part = Part::Names,
            (Part::Other, _) => {}
            (_, "successes:") => self.end_program(),
            (_, _) if line.starts_with("test result: ") => self.end_program(),
            (Part::Names, _) => self.name(line.trim()),
            (Part::Said, _) => match heading() {
                Some(name) => self.tests.push(Test { name: name.to_owned(), said: Vec::new() }),
                None if line.is_empty() => {}
                None => self.tests.last_mut().into_iter().for_each(|test| test.said.push(line.to_owned())),
            },
        }
        self.part != Part::Other
    }

    fn end_program(&mut self) {
        (self.part, self.before) = (Part::Other, self.tests.len());
    }

    /// One of the list: it has no place yet where it wrote nothing.
    fn name(&mut self, name: &str) {
        let known = self.tests[self.before..].iter().any(|test| test.name == name);
        if !known && !name.is_empty() {
            self.tests.push(Test { name: name.to_owned(), said: Vec::new() });
        }
    }
}

impl Test {
    /// Why it failed, in so many lines at most: its own panic, with what stands before it, which is of threads that it waited for.
    /// Without a panic the last lines.
    fn why(&self, lines: usize) -> &[String] {
        let own = format!("thread '{}' ", self.name);
        let last_panic = |of: &str| {
            let is_panic = |line: &String| line.starts_with(of) && line.contains(" panicked at ");
            self.said.iter().rposition(is_panic)
        };
        let panic = last_panic(&own).or_else(|| last_panic("thread ")).unwrap_or(self.said.len());
        let from = panic.saturating_sub(lines / 3).min(self.said.len().saturating_sub(lines));
        &self.said[from..self.said.len().min(from + lines)]
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each = LINES / self.tests.len().max(1);
        for test in &self.tests {
            writeln!(f, "failed {}", test.name)?;
            for line in test.why(each.clamp(*LINES_OF_ONE.start(), *LINES_OF_ONE.end())) {
                writeln!(f, "    {}", line.chars().take(WIDTH).collect::<String>())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Failed, LINES, WIDTH};

    /// What a program prints of tests that failed, each with what it wrote.
    fn program(tests: &[(&str, &str)]) -> String {
        let said: String =
            tests.iter().map(|(name, said)| format!("---- {name} stdout ----\n\n{said}\n\n")).collect();
        let names: String = tests.iter().map(|(name, _)| format!("    {name}\n")).collect();
        format!(
            "running 9 tests\n.F.\nsuccesses:\n\n---- good stdout ----\nall is well\n\nsuccesses:\n    good\n\n\
             failures:\n\n{said}\nfailures:\n{names}\ntest result: FAILED. 1 passed; 1 failed\n\nafter it\n"
        )
    }

    /// What is printed at the end, and how many lines went through.
    fn end(output: &str) -> (String, usize) {
        let mut failed = Failed::default();
        let shown = output.lines().filter(|line| failed.take(line)).count();
        (failed.to_string(), shown)
    }

    const OWN: &str = "thread 'm::bad' (7) panicked at a.rs:1:2:\nassertion failed: 1 == 2\nnote: run with";

    #[test]
    fn tells_the_failed_tests_of_each_program_and_nothing_else() {
        let (first, second) =
            (program(&[("m::bad", OWN)]), program(&[("m::bad", OWN), ("worse", "Error: no")]));
        let indented = OWN.replace('\n', "\n    ");
        let bad = format!("failed m::bad\n    {indented}\n");
        let (told, shown) = end(&format!("{first}{second}"));
        assert_eq!(told, format!("{bad}{bad}failed worse\n    Error: no\n"));
        assert!(shown > OWN.lines().count() * 2);
        assert_eq!(end("running 1 test\n.\ntest result: ok. 1 passed; 0 failed\n"), (String::new(), 0));
    }

    /// Where hundreds of lines of other threads are around it, too; what it waited for stands before it.
    #[test]
    fn its_own_panic_is_among_the_lines() {
        let noise = "thread 'out' (8) panicked at b.rs:1:1:\nnoise\n".repeat(300);
        let (told, _) = end(&program(&[("m::bad", &format!("{noise}the cause\n{OWN}\n{noise}"))]));
        assert!(told.contains("    the cause\n") && told.contains("1 == 2"), "{told}");
        assert_eq!(told.lines().count(), 1 + 20);
        let (told, _) =
            end(&program(&[("doc.rs - f (line 3)", &format!("{noise}error: it does not compile"))]));
        assert!(told.ends_with("it does not compile\n"), "{told}");
    }

    #[test]
    fn many_of_them_have_few_lines_each_and_none_is_left_out() {
        let said = format!("{OWN}\n{}", "more\n".repeat(50));
        let many = vec![("m::bad", said.as_str()); 9];
        let (told, _) = end(&program(&many));
        assert_eq!(told.matches("1 == 2").count(), 9);
        assert!(told.lines().count() <= LINES + 9);
        let (told, _) = end(&program(&[("m::bad", &"long".repeat(WIDTH))]));
        assert_eq!(told.lines().nth(1).unwrap().trim().len(), WIDTH);
    }

    #[test]
    fn one_that_wrote_nothing_is_named() {
        let (told, _) =
            end("failures:\n\nfailures:\n    silent\n\ntest result: FAILED. 0 passed; 1 failed\n");
        assert_eq!(told, "failed silent\n");
    }
}
