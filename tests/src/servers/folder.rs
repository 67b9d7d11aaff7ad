//! A folder for one server's files: certificates, data, logs.
//!
//! Letting go of it removes it. A test program that was killed, or a server that lives in a `static`, leaves its folder
//! behind; the next test program that makes one removes those of programs that are gone.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;
use tempfile::TempDir;

const PREFIX: &str = "mermin-servers-";

/// A folder that goes with its owner.
#[derive(Debug)]
pub struct Folder(TempDir);

impl Folder {
    /// Makes one.
    ///
    /// # Panics
    /// When the temporary folder takes none.
    #[must_use]
    pub fn new() -> Self {
        static SWEPT: Once = Once::new();
        SWEPT.call_once(sweep);
        let mut builder = tempfile::Builder::new();
        Self(builder.prefix(&format!("{PREFIX}{}-", std::process::id())).tempdir().expect("a folder"))
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file into it, only for this user to read.
    ///
    /// # Panics
    /// When it can't.
    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, contents).expect("the folder takes a file");
        let only_user = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(&path, only_user).expect("it is ours");
        path
    }
}

impl Default for Folder {
    fn default() -> Self {
        Self::new()
    }
}

fn sweep() {
    let entries = fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
        if let Some(owner) = owner
            && !Path::new("/proc").join(owner).exists()
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
