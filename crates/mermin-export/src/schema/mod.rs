//! The schema of a record for programs that read it in other languages: Protobuf and JSON Schema, both made of the
//! attribute table, so that names and meaning are written once.
//!
//! Readers keep what they have generated for years, so a field number is never used for anything else: numbers are written
//! down in `fields.rs`, and a test holds them against those of every version that was released.

#[cfg(test)]
mod compatible;
mod fields;
mod json_schema;
#[cfg(any(test, feature = "kafka"))]
mod message;
mod proto;

pub use json_schema::json_schema;
#[cfg(feature = "kafka")]
pub(crate) use message::Messages;
pub use proto::proto;

/// The schema's name and version: the package of the messages, a header of each message. Another one is another schema,
/// whose readers have to be changed; what is only added to this one is not.
pub const SCHEMA: &str = "mermin.flow.v1";

/// The message of a record.
pub const MESSAGE: &str = "Flow";

#[cfg(test)]
fn folder() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas/mermin/flow/v1")
}

#[cfg(test)]
fn assert_fresh(name: &str, content: &str) {
    let path = folder().join(name);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == content, "{} is stale: UPDATE=1 cargo test -p mermin-export", path.display());
}
