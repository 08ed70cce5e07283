//! The real worker on the real runtime: an RAII child process of `workerd`.
//!
//! [`Workerd::start`] takes the worker as `cargo xtask build --worker` left it in `worker/build`, runs it with KV and
//! Durable Objects on disk in a folder that the caller names, on a port that the system chooses, and waits until it
//! listens. There is no state outside that folder and that process, so any number of instances run side by side.
//! [`Workerd::kill`] and [`Workerd::restart`] do to it what the platform may do at any time. Dropping it kills it.
//!
//! It deliberately does not build anything, and it never retries a request.

mod config;

use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

/// How long a start may take. It takes about 0.2 s on an idle machine.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a tick of the cron may take: it may poke thousands of syncs.
const CRON_TIMEOUT: Duration = Duration::from_secs(300);
/// How long a line of the log may take to arrive.
const LOG_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// The newest lines of its output that an error shows.
const ERROR_LOG_LINES: usize = 40;

const DRIVER: &str = include_str!("workerd/driver.js");

/// Where the worker may connect to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outbound {
    /// Only this machine and its local network: what every test uses.
    #[default]
    Local,
    /// The internet as well: for the demo against the real B2.
    LocalAndPublic,
}

/// Which build of the worker runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bundle {
    /// The one that is deployed: `cargo xtask build --worker`.
    #[default]
    Deployed,
    /// The same and a Durable Object `CONFORMANCE`, which runs the suites: `cargo xtask build --conformance`.
    Conformance,
}

impl Bundle {
    /// Where its build puts it, and the option of `cargo xtask build` that makes it.
    const fn place(self) -> (&'static str, &'static str) {
        match self {
            Self::Deployed => ("worker/build", "--worker"),
            Self::Conformance => ("tests/worker-conformance/build", "--conformance"),
        }
    }
}

/// How to start a [`Workerd`].
#[derive(Clone, Debug)]
pub struct WorkerdConfig {
    /// Where KV and the Durable Objects keep their data. Created when missing; two running instances must not share it.
    pub state_dir: PathBuf,
    /// Text bindings: variables and secrets (`API_KEY`, `MASTER_KEY`, `B2_API_URL`).
    pub vars: BTreeMap<String, String>,
    /// Where the worker may connect to.
    pub outbound: Outbound,
    /// Which build of the worker runs.
    pub bundle: Bundle,
}

impl WorkerdConfig {
    /// No variables, and no connections but local ones.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self { state_dir: state_dir.into(), vars: BTreeMap::new(), outbound: Outbound::Local, bundle: Bundle::Deployed }
    }

    /// The same configuration with one more variable or secret.
    #[must_use]
    pub fn var(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.vars.insert(name.into(), value.into());
        self
    }

    /// The same configuration with another build of the worker.
    #[must_use]
    pub fn bundle(mut self, bundle: Bundle) -> Self {
        self.bundle = bundle;
        self
    }

    /// The same configuration with other outgoing connections allowed.
    #[must_use]
    pub fn outbound(mut self, outbound: Outbound) -> Self {
        self.outbound = outbound;
        self
    }
}

/// Why a workerd could not be started or asked; with the newest lines that it printed.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct WorkerdError {
    message: String,
}

impl WorkerdError {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}

/// A whole answer. Any status is an answer, not an error.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text; bytes that are no UTF-8 are replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none, with the status and the text.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, WorkerdError> {
        serde_json::from_slice(&self.body).map_err(|error| {
            WorkerdError::new(format!("The answer is not the JSON expected: {error}. {} {}", self.status, self.text()))
        })
    }
}

/// A running workerd with the worker in it.
#[derive(Debug)]
pub struct Workerd {
    state_dir: PathBuf,
    logs: Logs,
    agent: ureq::Agent,
    process: Option<Process>,
    url: String,
}

#[derive(Debug)]
struct Process {
    child: Child,
    readers: Vec<thread::JoinHandle<()>>,
}

impl Workerd {
    /// Starts it and waits until it listens.
    ///
    /// # Errors
    /// When the worker is not built, workerd is not installed, or it does not listen within half a minute.
    pub fn start(config: WorkerdConfig) -> Result<Self, WorkerdError> {
        let root = workspace();
        let WorkerdConfig { state_dir, vars, outbound, bundle } = config;
        let (build, option) = bundle.place();
        for folder in ["objects", "blobs", "worker"] {
            create_folder(&state_dir.join(folder))?;
        }
        // A copy, so that a build that runs meanwhile changes nothing, and since `embed` takes no absolute paths.
        for file in ["index.js", "index_bg.wasm"] {
            let built = root.join(build).join(file);
            fs::copy(&built, state_dir.join("worker").join(file)).map_err(|error| {
                WorkerdError::new(format!(
                    "The worker is not built: {} cannot be read ({error}). Run `cargo xtask build {option}`.",
                    built.display()
                ))
            })?;
        }
        write(&state_dir.join("worker/driver.js"), DRIVER)?;
        write(&state_dir.join("config.capnp"), &config::capnp(&compatibility_date(&root)?, &vars, outbound, bundle))?;

        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .allow_non_standard_methods(true)
            .timeout_global(Some(REQUEST_TIMEOUT))
            .build()
            .into();
        let mut workerd = Self { state_dir, logs: Logs::default(), agent, process: None, url: String::new() };
        workerd.spawn(&binary(&root)?)?;
        Ok(workerd)
    }

    /// Where it listens, without a slash at the end: `http://127.0.0.1:49152`. Another one after each restart.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where KV and the Durable Objects keep their data.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// The process, as the system names it; `None` when it was killed. Another one after each restart.
    pub fn process_id(&self) -> Option<u32> {
        self.process.as_ref().map(|process| process.child.id())
    }

    /// What it has printed so far, all starts together, standard output and error interleaved. A line that a request
    /// causes may arrive a moment after its answer: see [`Workerd::await_log`].
    pub fn logs(&self) -> Vec<String> {
        self.logs.lines()
    }

    /// The first line that contains `text`, as soon as it is there.
    ///
    /// # Errors
    /// When there is none within ten seconds.
    pub fn await_log(&self, text: &str) -> Result<String, WorkerdError> {
        let deadline = Instant::now() + LOG_TIMEOUT;
        loop {
            if let Some(line) = self.logs().into_iter().find(|line| line.contains(text)) {
                return Ok(line);
            }
            if Instant::now() > deadline {
                return Err(self.error(format!("No line with {text:?} was printed.")));
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// The blocking HTTP client that the methods here use, for what they do not cover.
    pub fn agent(&self) -> &ureq::Agent {
        &self.agent
    }

    /// Fires the cron `* * * * *` with this scheduled time, and waits until its handler has ended.
    ///
    /// # Errors
    /// When there is no answer, or the handler failed.
    pub fn cron(&self, scheduled_ms: i64) -> Result<(), WorkerdError> {
        let path = format!("/__cron?cron=*+*+*+*+*&t={scheduled_ms}");
        let answer = self.send_within(CRON_TIMEOUT, "GET", &path, &[], b"")?;
        match answer.json::<serde_json::Value>()?.get("outcome").and_then(|outcome| outcome.as_str()) {
            Some("ok") => Ok(()),
            _ => Err(self.error(format!("The cron handler failed: {} {}", answer.status, answer.text()))),
        }
    }

    /// Calls one of the worker's Durable Objects with a body, as the worker itself does, and answers the text it
    /// answers.
    ///
    /// # Errors
    /// When there is no complete answer, or its status is not 200.
    pub fn object(&self, binding: &str, name: &str, body: &str) -> Result<String, WorkerdError> {
        let answer = self.send("POST", &format!("/__object?binding={binding}&name={name}"), &[], body.as_bytes())?;
        match answer.status {
            200 => Ok(answer.text()),
            status => Err(self.error(format!("{binding} {name} answered {status}: {}", answer.text()))),
        }
    }

    /// `GET` of a path, which begins with a slash.
    ///
    /// # Errors
    /// When there is no complete answer.
    pub fn get(&self, path: &str) -> Result<Answer, WorkerdError> {
        self.send("GET", path, &[], b"")
    }

    /// One request with its whole body, one answer.
    ///
    /// # Errors
    /// When there is no complete answer, or the request itself is malformed.
    pub fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer, WorkerdError> {
        self.send_within(REQUEST_TIMEOUT, method, path, headers, body)
    }

    fn send_within(
        &self,
        timeout: Duration,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer, WorkerdError> {
        let mut request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let failed = |error: &dyn std::fmt::Display| self.error(format!("{method} {path} failed: {error}"));
        let sent = if body.is_empty() && matches!(method, "GET" | "HEAD" | "DELETE") {
            let request = request.body(()).map_err(|error| failed(&error))?;
            self.agent.run(self.agent.configure_request(request).timeout_global(Some(timeout)).build())
        } else {
            let request = request.body(body).map_err(|error| failed(&error))?;
            self.agent.run(self.agent.configure_request(request).timeout_global(Some(timeout)).build())
        };
        let mut answer = sent.map_err(|error| failed(&error))?;
        let headers = answer
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec().map_err(|e| failed(&e))?;
        Ok(Answer { status: answer.status().as_u16(), headers, body })
    }

    /// Kills it as the platform would: at once (SIGKILL), nothing is told to the worker. Requests fail until
    /// [`Workerd::restart`].
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // An error means that it has ended already, which is what is wanted.
            let _ = process.child.kill();
            let _ = process.child.wait();
            for reader in process.readers {
                let _ = reader.join();
            }
        }
    }

    /// Kills it if it runs, and starts it on the same state; the port changes.
    ///
    /// # Errors
    /// As [`Workerd::start`].
    pub fn restart(&mut self) -> Result<(), WorkerdError> {
        self.kill();
        self.spawn(&binary(&workspace())?)
    }

    fn spawn(&mut self, binary: &Path) -> Result<(), WorkerdError> {
        let mut child = Command::new(binary)
            // Control messages go to standard output, where they name the port that the system chose.
            .args(["serve", "--experimental", "--control-fd=1", "config.capnp"])
            .current_dir(&self.state_dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| WorkerdError::new(format!("{} does not start: {error}", binary.display())))?;
        let (sender, listening) = mpsc::channel();
        let mut readers = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            readers.push(read_lines(stdout, self.logs.clone(), Some(sender)));
        }
        if let Some(stderr) = child.stderr.take() {
            readers.push(read_lines(stderr, self.logs.clone(), None));
        }
        let process = self.process.insert(Process { child, readers });
        match await_port(&mut process.child, &listening) {
            Ok(port) => {
                self.url = format!("http://127.0.0.1:{port}");
                Ok(())
            }
            Err(NotListening::Ended(status)) => {
                self.kill();
                Err(self.error(format!("workerd ended while it started ({status}).")))
            }
            Err(NotListening::TimedOut) => {
                self.kill();
                Err(self.error(format!("workerd did not listen within {} s.", START_TIMEOUT.as_secs())))
            }
        }
    }

    fn error(&self, message: String) -> WorkerdError {
        let lines = self.logs();
        let newest = &lines[lines.len().saturating_sub(ERROR_LOG_LINES)..];
        if newest.is_empty() {
            return WorkerdError::new(format!("{message} It has printed nothing."));
        }
        WorkerdError::new(format!("{message} The newest lines it printed:\n    {}", newest.join("\n    ")))
    }
}

impl Drop for Workerd {
    fn drop(&mut self) {
        self.kill();
    }
}

#[derive(Clone, Debug, Default)]
struct Logs(Arc<Mutex<Vec<String>>>);

impl Logs {
    fn push(&self, line: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

enum NotListening {
    Ended(ExitStatus),
    TimedOut,
}

fn await_port(child: &mut Child, listening: &Receiver<u16>) -> Result<u16, NotListening> {
    let deadline = Instant::now() + START_TIMEOUT;
    while Instant::now() < deadline {
        match listening.recv_timeout(Duration::from_millis(50)) {
            Ok(port) => return Ok(port),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                if let Ok(Some(status)) = child.try_wait() {
                    return Err(NotListening::Ended(status));
                }
            }
        }
    }
    Err(NotListening::TimedOut)
}

fn read_lines(
    stream: impl Read + Send + 'static,
    logs: Logs,
    listening: Option<Sender<u16>>,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            if let (Some(sender), Some(port)) = (&listening, listen_port(&line)) {
                let _ = sender.send(port);
            }
            logs.push(line);
        }
    })
}

/// The port in a control message such as `{"event":"listen","socket":"http","port":49152}`.
fn listen_port(line: &str) -> Option<u16> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    if message.get("event")? != "listen" || message.get("socket")? != "http" {
        return None;
    }
    message.get("port")?.as_u64()?.try_into().ok()
}

fn workspace() -> PathBuf {
    // Set by cargo when it runs a test or a binary, so that a binary built elsewhere still finds its workspace.
    let package = env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    package.ancestors().find(|folder| folder.join("wrangler.toml").exists()).unwrap_or(&package).to_path_buf()
}

/// The runtime that npm installed, or the one that `B2SYNC_WORKERD` names.
fn binary(root: &Path) -> Result<PathBuf, WorkerdError> {
    if let Some(path) = env::var_os("B2SYNC_WORKERD") {
        return Ok(path.into());
    }
    let arch = match env::consts::ARCH {
        "x86_64" => "64",
        "aarch64" => "arm64",
        other => other,
    };
    let os = if env::consts::OS == "macos" { "darwin" } else { env::consts::OS };
    let path = root.join(format!("node_modules/@cloudflare/workerd-{os}-{arch}/bin/workerd"));
    if path.exists() {
        return Ok(path);
    }
    Err(WorkerdError::new(format!(
        "workerd is not installed: there is no {}. Run `cargo xtask setup`, or name a workerd in B2SYNC_WORKERD.",
        path.display()
    )))
}

/// The compatibility date that is deployed, so that tests run what users run.
fn compatibility_date(root: &Path) -> Result<String, WorkerdError> {
    let path = root.join("wrangler.toml");
    let text = fs::read_to_string(&path)
        .map_err(|error| WorkerdError::new(format!("{} cannot be read: {error}", path.display())))?;
    text.lines()
        .find_map(|line| line.strip_prefix("compatibility_date = \"")?.strip_suffix('"'))
        .map(str::to_owned)
        .ok_or_else(|| WorkerdError::new(format!("{} has no line `compatibility_date = \"…\"`.", path.display())))
}

fn create_folder(path: &Path) -> Result<(), WorkerdError> {
    fs::create_dir_all(path)
        .map_err(|error| WorkerdError::new(format!("The folder {} cannot be created: {error}", path.display())))
}

fn write(path: &Path, text: &str) -> Result<(), WorkerdError> {
    fs::write(path, text).map_err(|error| WorkerdError::new(format!("{} cannot be written: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_control_message_of_the_http_socket_names_the_port() {
        assert_eq!(listen_port(r#"{"event":"listen","socket":"http","port":49152}"#), Some(49152));
        assert_eq!(listen_port(r#"{"event":"listen-inspector","port":9229}"#), None);
        assert_eq!(listen_port("a line of console.log"), None);
    }
}
