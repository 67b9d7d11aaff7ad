//! What the image is built from.

use mermin_tests::need::root;

/// Podman reads the one, Docker the other.
#[test]
fn podman_and_docker_leave_out_the_same() {
    let read = |name: &str| std::fs::read_to_string(root().join(name)).unwrap();
    assert_eq!(read("deploy/Containerfile.dockerignore"), read(".containerignore"));
}
