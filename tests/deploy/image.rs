//! What the image is built from.

use mermin_tests::need::root;

/// The component `kafka` configures what a program without the feature refuses.
#[test]
fn the_image_has_what_the_manifests_configure() {
    let text = std::fs::read_to_string(root().join("deploy/Containerfile")).unwrap();
    let build = text.lines().find(|line| line.starts_with("RUN cargo build")).unwrap();
    assert!(build.contains("--features kafka"), "{build}");
    // The image that has OpenSSL: `static` and `base-nossl` haven't.
    let last = text.lines().rfind(|line| line.starts_with("FROM")).unwrap();
    assert!(last.starts_with("FROM gcr.io/distroless/cc-"), "{last}");
}

/// Podman reads the one, Docker the other.
#[test]
fn podman_and_docker_leave_out_the_same() {
    let read = |name: &str| std::fs::read_to_string(root().join(name)).unwrap();
    assert_eq!(read("deploy/Containerfile.dockerignore"), read(".containerignore"));
}
