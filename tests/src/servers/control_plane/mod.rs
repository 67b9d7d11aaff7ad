//! A Kubernetes control plane: etcd, API server and, when asked for, the controllers.
//!
//! There is no kubelet and no scheduler, so nothing runs in a pod: the test says on which node a pod is
//! (`spec.nodeName`) and what a kubelet would report (`status`), see [`objects`]. RBAC is on. Tests that don't disturb
//! the servers should share one: a start takes seconds, and 300 MB.

pub mod api;
pub mod objects;
pub mod rights;

use super::certificates::{Authority, Pair};
use super::folder::Folder;
use super::http::{Client, Request};
use super::place::Place;
use super::process::{Process, without_surroundings};
use super::{ETCD, KUBERNETES, Server};
use api::Api;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// Of services, both families.
const SERVICE_ADDRESSES: &str = "10.96.0.0/16,fd00:96::/112";
/// Only written down, and refused where it is a loopback address: one for documentation.
const ADVERTISED: &str = "192.0.2.1";
/// All but those that would act on what is missing here: a node without a kubelet has no heartbeat, and its pods would
/// be evicted.
const CONTROLLERS: &str =
    "*,-node-lifecycle-controller,-taint-eviction-controller,-pod-garbage-collector-controller";

/// A running control plane.
#[derive(Debug)]
pub struct ControlPlane {
    // Let go of in this order: who calls before who is called.
    controllers: Option<Process>,
    api_server: Process,
    _etcd: Process,
    files: Files,
    etcd_address: SocketAddr,
    address: SocketAddr,
    place: Place,
    /// Arguments of the API server beside the usual ones.
    also: Vec<String>,
}

/// What the servers show each other.
#[derive(Debug)]
struct Files {
    folder: Folder,
    authority: Authority,
    server: Pair,
    admin: Pair,
    /// Signs the tokens of service accounts.
    accounts: Pair,
    kubeconfig: PathBuf,
}

impl ControlPlane {
    /// Whether its programs are there.
    ///
    /// # Errors
    /// What is missing.
    pub fn installed() -> Result<(), String> {
        crate::need::tool("setpriv")?;
        KUBERNETES.installed()?;
        ETCD.installed()
    }

    /// Starts etcd and an API server.
    #[must_use]
    pub fn start() -> Self {
        Self::start_in(&Place::Here)
    }

    /// Starts etcd and an API server on 127.0.0.1 of `place`.
    ///
    /// # Panics
    /// When they don't come up.
    #[must_use]
    pub fn start_in(place: &Place) -> Self {
        Self::start_with(place, &[])
    }

    /// The same, with more arguments for the API server.
    ///
    /// # Panics
    /// When they don't come up.
    #[must_use]
    pub fn start_with(place: &Place, also: &[&str]) -> Self {
        let also: Vec<String> = also.iter().map(|argument| (*argument).to_owned()).collect();
        let (etcd_address, address) = (place.free_address(), place.free_address());
        let files = Files::new(address);
        let mut plane = Self {
            controllers: None,
            _etcd: start_etcd(place, files.folder.path(), etcd_address),
            api_server: start_api_server(place, &files, address, etcd_address, &also),
            files,
            etcd_address,
            address,
            place: place.clone(),
            also,
        };
        plane.wait_until_ready();
        plane
    }

    /// Starts the controllers too: replica sets of deployments, pods of replica sets, endpoint slices of services.
    ///
    /// # Panics
    /// When they don't come up.
    #[must_use]
    pub fn with_controllers(mut self) -> Self {
        let files = &self.files;
        let arguments = [
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={}", self.place.free_address().port()),
            format!("--cert-dir={}", files.folder.path().join("controllers").display()),
            format!("--kubeconfig={}", files.kubeconfig.display()),
            format!("--root-ca-file={}", files.authority.certificate().display()),
            format!("--service-account-private-key-file={}", files.accounts.key.display()),
            format!("--controllers={CONTROLLERS}"),
            "--leader-elect=false".into(),
            // 300 pods would wait for their turn.
            "--kube-api-qps=1000".into(),
            "--kube-api-burst=2000".into(),
        ];
        let program = present(&KUBERNETES, "kube-controller-manager");
        let mut process = Process::start(&self.place, &program, &arguments, files.folder.path());
        let api = self.api();
        process.wait_until(|| api.get("/api/v1/namespaces/default/serviceaccounts/default").is_some());
        self.controllers = Some(process);
        self
    }

    /// `https://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.files.kubeconfig
    }

    /// The file with the authority that signed the API server's certificate.
    #[must_use]
    pub fn authority(&self) -> &Path {
        self.files.authority.certificate()
    }

    /// The API server's process.
    #[must_use]
    pub fn api_server(&self) -> &Process {
        &self.api_server
    }

    /// The API, as the administrator.
    #[must_use]
    pub fn api(&self) -> Api {
        Api(self.client(Some(&self.files.admin)))
    }

    fn client(&self, shown: Option<&Pair>) -> Client {
        let tls = Some(self.files.authority.trusting(shown));
        Client { place: self.place.clone(), address: self.address, tls, authorization: None, http2: false }
    }

    /// Runs kubectl as the administrator, `input` on its standard input; its standard output.
    ///
    /// # Errors
    /// With what it wrote to standard error.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn try_kubectl(&self, arguments: &[&str], input: &str) -> Result<String, String> {
        let mut command = without_surroundings(self.place.command(&present(&KUBERNETES, "kubectl")));
        command.arg("--kubeconfig").arg(self.kubeconfig());
        command.arg("--cache-dir").arg(self.files.folder.path().join("kubectl")).args(arguments);
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = pipes.spawn().expect("it starts");
        let mut stdin = child.stdin.take().expect("it was piped");
        let output = std::thread::scope(|scope| {
            // A kubectl that reads no input closes the pipe.
            scope.spawn(move || stdin.write_all(input.as_bytes()).is_ok());
            child.wait_with_output().expect("it was started")
        });
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    /// Runs kubectl as the administrator; its standard output.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        self.try_kubectl(arguments, "").unwrap_or_else(|error| panic!("kubectl {arguments:?}: {error}"))
    }

    /// Ends the API server by SIGKILL; etcd keeps what it had acknowledged.
    pub fn kill_api_server(&mut self) {
        self.api_server.kill();
    }

    /// Stops the API server in its tracks: connections stay open, nothing answers.
    pub fn hang_api_server(&self) {
        self.api_server.signal(Signal::STOP);
    }

    /// Lets a stopped API server go on.
    pub fn resume_api_server(&self) {
        self.api_server.signal(Signal::CONT);
    }

    /// Makes etcd forget all that was before now.
    ///
    /// # Panics
    /// When it can't.
    pub fn compact(&self) {
        let etcd = Client::plain(&self.place, self.etcd_address);
        let post = |path: &str, body: Value| {
            let (method, content_type, body) = ("POST", "application/json", body.to_string().into_bytes());
            let request = Request { method, path: path.to_owned(), content_type, body };
            let response = etcd.send(request).expect("etcd answers");
            assert_eq!(response.status, 200, "{}", response.text());
            serde_json::from_slice::<Value>(&response.body).expect("JSON")
        };
        // Any key will do: the answer's head tells the revision.
        let answer = post("/v3/kv/range", json!({ "key": "AA==" }));
        let _ =
            post("/v3/kv/compaction", json!({ "revision": answer["header"]["revision"], "physical": true }));
    }

    /// Starts the API server again at its address, over the same objects.
    ///
    /// # Panics
    /// When it doesn't come up.
    pub fn restart_api_server(&mut self) {
        self.api_server.kill();
        self.api_server =
            start_api_server(&self.place, &self.files, self.address, self.etcd_address, &self.also);
        self.wait_until_ready();
    }

    fn wait_until_ready(&mut self) {
        let client = self.client(Some(&self.files.admin));
        let ready = || client.send(Request::get("/readyz")).is_ok_and(|response| response.status == 200);
        self.api_server.wait_until(ready);
    }

    /// Writes a kubeconfig for whoever has this token.
    #[must_use]
    pub fn kubeconfig_of_token(&self, name: &str, token: &str) -> PathBuf {
        let config = kubeconfig(self.address, &self.files.authority, &json!({ "token": token }));
        self.files.folder.write(&format!("{name}.kubeconfig"), config)
    }

    /// A folder as a pod has it at `/var/run/secrets/kubernetes.io/serviceaccount`.
    ///
    /// # Panics
    /// When the temporary folder takes no files.
    #[must_use]
    pub fn mounted_account(&self, namespace: &str, token: &str) -> PathBuf {
        let authority = std::fs::read(self.authority()).expect("it was written");
        let folder = format!("account-{namespace}");
        std::fs::create_dir_all(self.files.folder.path().join(&folder)).expect("the folder takes a folder");
        for (name, contents) in
            [("token", token.as_bytes()), ("ca.crt", &authority), ("namespace", namespace.as_bytes())]
        {
            let _ = self.files.folder.write(&format!("{folder}/{name}"), contents);
        }
        self.files.folder.path().join(folder)
    }
}

impl Files {
    fn new(address: SocketAddr) -> Self {
        let (folder, authority) = (Folder::new(), Authority::new());
        let admin = authority.client("admin", &["system:masters"]);
        let shown = json!({ "client-certificate": admin.certificate, "client-key": admin.key });
        Self {
            server: authority.server("kube-apiserver", &["kubernetes.default.svc"]),
            accounts: authority.client("service-accounts", &[]),
            kubeconfig: folder.write("admin.kubeconfig", kubeconfig(address, &authority, &shown)),
            folder,
            authority,
            admin,
        }
    }
}

/// JSON is YAML.
fn kubeconfig(address: SocketAddr, authority: &Authority, user: &Value) -> String {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "tests", "cluster": {
            "server": format!("https://{address}"), "certificate-authority": authority.certificate(),
        }}],
        "users": [{ "name": "user", "user": user }],
        "contexts": [{ "name": "tests", "context": { "cluster": "tests", "user": "user" }}],
        "current-context": "tests",
    })
    .to_string()
}

/// # Panics
/// When it is not installed: tests say `need!(ControlPlane::installed())` first.
fn present(server: &Server, program: &str) -> PathBuf {
    server.program(program).unwrap_or_else(|missing| panic!("{missing}"))
}

fn start_etcd(place: &Place, folder: &Path, address: SocketAddr) -> Process {
    let (clients, peers) = (format!("http://{address}"), format!("http://{}", place.free_address()));
    let arguments = [
        format!("--data-dir={}", folder.join("etcd").display()),
        format!("--listen-client-urls={clients}"),
        format!("--advertise-client-urls={clients}"),
        format!("--listen-peer-urls={peers}"),
        format!("--initial-advertise-peer-urls={peers}"),
        format!("--initial-cluster=default={peers}"),
        // It is never started over what a crash of the machine left.
        "--unsafe-no-fsync".into(),
    ];
    let mut etcd = Process::start(place, &present(&ETCD, "etcd"), &arguments, folder);
    let client = Client::plain(place, address);
    etcd.wait_until(|| client.send(Request::get("/readyz")).is_ok_and(|response| response.status == 200));
    etcd
}

fn start_api_server(
    place: &Place,
    files: &Files,
    address: SocketAddr,
    etcd: SocketAddr,
    also: &[String],
) -> Process {
    let mut arguments = vec![
        format!("--etcd-servers=http://{etcd}"),
        "--bind-address=127.0.0.1".into(),
        format!("--secure-port={}", address.port()),
        format!("--advertise-address={ADVERTISED}"),
        "--endpoint-reconciler-type=none".into(),
        format!("--tls-cert-file={}", files.server.certificate.display()),
        format!("--tls-private-key-file={}", files.server.key.display()),
        format!("--client-ca-file={}", files.authority.certificate().display()),
        "--service-account-issuer=https://kubernetes.default.svc".into(),
        format!("--service-account-signing-key-file={}", files.accounts.key.display()),
        format!("--service-account-key-file={}", files.accounts.certificate.display()),
        "--authorization-mode=RBAC".into(),
        format!("--service-cluster-ip-range={SERVICE_ADDRESSES}"),
        // Without controllers no namespace has the default account that this would wait for.
        "--disable-admission-plugins=ServiceAccount".into(),
    ];
    arguments.extend_from_slice(also);
    Process::start(place, &present(&KUBERNETES, "kube-apiserver"), &arguments, files.folder.path())
}
