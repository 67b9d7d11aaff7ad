//! `cargo xtask example-capture`: writes the captures in `examples/` from code.

use crate::run::root;
use anyhow::{Context, Result};

#[derive(clap::Args)]
pub(crate) struct ExampleCapture {}

impl ExampleCapture {
    pub(crate) fn run(self) -> Result<()> {
        let path = root().join("examples/web.pcap");
        let bytes = mermin_tests::example::web();
        std::fs::write(&path, &bytes).with_context(|| format!("can't write {}", path.display()))?;
        println!("{}: {} bytes", path.display(), bytes.len());
        Ok(())
    }
}
