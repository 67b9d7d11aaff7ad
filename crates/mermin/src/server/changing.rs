//! Something made of files that is made again when they change: certificates and tokens are renewed while the agent
//! runs.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tracing::{info, warn};

/// How often the files are looked at, at most.
const LOOK: Duration = Duration::from_secs(1);

/// Makes a `T` of the files, or says why it can't.
type Make<T> = Box<dyn Fn() -> Result<T, String> + Send + Sync>;

/// See the module's text.
pub(super) struct Changing<T> {
    what: &'static str,
    files: Vec<PathBuf>,
    make: Make<T>,
    current: Mutex<Current<T>>,
}

struct Current<T> {
    value: Arc<T>,
    stamps: Vec<Stamp>,
    looked: Instant,
}

/// A file's time of change and length; nothing where it isn't there.
type Stamp = Option<(SystemTime, u64)>;

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |file: &PathBuf| {
        let metadata = std::fs::metadata(file).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    files.iter().map(stamp).collect()
}

impl<T> Changing<T> {
    /// Makes the first one.
    pub(super) fn new(
        what: &'static str,
        files: Vec<PathBuf>,
        make: impl Fn() -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let stamps = stamps(&files);
        let current = Current { value: Arc::new(make()?), stamps, looked: Instant::now() };
        Ok(Self { what, files, make: Box::new(make), current: Mutex::new(current) })
    }

    /// The present one: the last that could be made.
    pub(super) fn get(&self) -> Arc<T> {
        self.get_at(Instant::now())
    }

    fn get_at(&self, now: Instant) -> Arc<T> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(current.looked) >= LOOK {
            current.looked = now;
            let stamps = stamps(&self.files);
            if stamps != current.stamps {
                current.stamps = stamps;
                match (self.make)() {
                    Ok(value) => {
                        current.value = Arc::new(value);
                        info!("The server's {} was renewed", self.what);
                    }
                    Err(error) => warn!("The server keeps its old {}: {error}", self.what),
                }
            }
        }
        Arc::clone(&current.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_makes_a_new_value_and_a_bad_one_keeps_the_old() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let file = path.clone();
        let make = move || {
            let text = std::fs::read_to_string(&file).map_err(|error| error.to_string())?;
            if text.is_empty() { Err("empty".to_owned()) } else { Ok(text) }
        };
        assert!(Changing::new("token", vec![path.clone()], make.clone()).is_err());
        std::fs::write(&path, "one").unwrap();
        let changing = Changing::new("token", vec![path.clone()], make).unwrap();
        let began = Instant::now();
        let after = |looks: u32| changing.get_at(began + LOOK * 2 * looks).as_str().to_owned();
        std::fs::write(&path, "second").unwrap();
        assert_eq!(changing.get_at(began).as_str(), "one", "it is not looked at all the time");
        assert_eq!(after(1), "second");
        std::fs::write(&path, "").unwrap();
        assert_eq!(after(2), "second");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(after(3), "second");
        std::fs::write(&path, "the third").unwrap();
        assert_eq!(after(4), "the third");
    }
}
