//! What `deploy/kubernetes` gives: the objects, as JSON.

use crate::need::root;
use crate::servers::KUBERNETES;
use crate::servers::folder::Folder;
use crate::servers::process::without_surroundings;
use serde_json::Value;
use std::process::Command;

/// The objects of a Kustomize folder below `deploy/`, or of one elsewhere by its whole path, in their order.
///
/// # Panics
/// When it isn't one.
#[must_use]
pub fn objects(folder: &str) -> Vec<Value> {
    let kubectl = KUBERNETES.program("kubectl").unwrap_or_else(|missing| panic!("{missing}"));
    let mut command = without_surroundings(Command::new(kubectl));
    // Takes an annotation away that isn't there: of kubectl's ways to read files, one that asks no server.
    command.args(["annotate", "--local", "--output", "json", "none-"]);
    command.arg("--kustomize").arg(root().join("deploy").join(folder));
    let output = command.output().expect("kubectl starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let objects = serde_json::Deserializer::from_slice(&output.stdout).into_iter();
    objects.collect::<Result<_, _>>().expect("kubectl writes JSON")
}

/// A folder with this `kustomization.yaml`, in which `path/to` is where the project is.
///
/// # Panics
/// When it can't be written.
#[must_use]
pub fn overlay(text: &str) -> Folder {
    let folder = Folder::new();
    // Kustomize takes no absolute paths.
    let up = "../".repeat(folder.path().components().count() - 1);
    let project = format!("{up}{}", root().display().to_string().trim_start_matches('/'));
    folder.write("kustomization.yaml", text.replace("path/to", &project));
    folder
}

/// The object of a kind; the first where there are several.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn of_kind<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    objects.iter().find(|object| object["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"))
}
