//! A bug of the tests' own.

/// A panic without the hook's words on standard error: hundreds of them would hide why a test has failed.
pub(crate) fn bug() -> ! {
    std::panic::resume_unwind(Box::new("this panic is the test's"))
}
