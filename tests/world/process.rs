//! The built binary as a process: run, watched, interrupted, killed.
//!
//! Promise: no process outlives its test, and one that does not end in time fails the test with what it said.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

/// How often a condition outside the process is looked at.
const GLANCE: Duration = Duration::from_millis(2);

/// A way to run the binary in a folder: `Faceflow::new(env!("CARGO_BIN_EXE_faceflow"), folder.path())`.
#[derive(Clone, Debug)]
pub struct Faceflow {
    binary: PathBuf,
    folder: PathBuf,
    environment: Vec<(String, String)>,
    deadline: Duration,
}

/// A process that has ended.
#[derive(Debug)]
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Faceflow {
    /// The binary, to be run in `folder` (state and output go there) with a deadline of two minutes.
    pub fn new(binary: impl AsRef<Path>, folder: impl AsRef<Path>) -> Self {
        let (binary, folder) = (binary.as_ref().to_owned(), folder.as_ref().to_owned());
        Self { binary, folder, environment: vec![], deadline: Duration::from_secs(120) }
    }

    /// Fails the test if a process takes longer.
    pub fn deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it. `FACEFLOW_…` variables of the test's own environment are not handed on.
    pub fn start(&self, arguments: &[&str]) -> Running {
        let mut command = Command::new(&self.binary);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("FACEFLOW_")) {
            command.env_remove(name);
        }
        command.args(arguments).current_dir(&self.folder).envs(self.environment.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot run {}: {error}", self.binary.display()));
        let said = Arc::new(Said::default());
        listen(&said, child.stdout.take().expect("piped"), |events| &mut events.stdout);
        listen(&said, child.stderr.take().expect("piped"), |events| &mut events.stderr);
        Running { child, said, deadline: self.deadline, command: arguments.join(" ") }
    }

    /// Runs it to its end.
    pub fn run(&self, arguments: &[&str]) -> Ended {
        self.start(arguments).finish()
    }

    /// Runs it to its end, which must be exit status 0, and reads standard output as one JSON object per line.
    pub fn lines(&self, arguments: &[&str]) -> Vec<Value> {
        let ended = self.run(arguments);
        assert_eq!(ended.code(), Some(0), "faceflow {}: {}", arguments.join(" "), ended.stderr);
        ended.lines()
    }

    /// `faceflow results` for what is in the folder, with more arguments (`--kind`, `pages`).
    pub fn results(&self, arguments: &[&str]) -> Vec<Value> {
        self.lines(&[&["results"], arguments].concat())
    }
}

impl Ended {
    /// The exit status, `None` after a signal.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Standard output as one JSON object per line.
    pub fn lines(&self) -> Vec<Value> {
        let read =
            |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in the line {line:?}"));
        self.stdout.lines().map(read).collect()
    }
}

/// A process under way. Dropped, it is killed.
pub struct Running {
    child: Child,
    said: Arc<Said>,
    deadline: Duration,
    command: String,
}

#[derive(Default)]
struct Said {
    events: Mutex<DedupeEvent>,
    more: Condvar,
}

#[derive(Default)]
struct DedupeEvent {
    stdout: String,
    stderr: String,
    /// Streams that have ended.
    ended: usize,
}

impl Said {
    fn events(&self) -> MutexGuard<'_, DedupeEvent> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes down what a stream says, line by line.
fn listen(said: &Arc<Said>, stream: impl Read + Send + 'static, place: fn(&mut DedupeEvent) -> &mut String) {
    let said = Arc::clone(said);
    std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        // A stream that breaks has ended, too.
        while stream.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            place(&mut said.events()).push_str(&String::from_utf8_lossy(&line));
            said.more.notify_all();
            line.clear();
        }
        said.events().ended += 1;
        said.more.notify_all();
    });
}

impl Running {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name: `INT`, `TERM`, `STOP`, …
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.id().to_string()]).status().expect("kill can be run");
        assert!(sent.success(), "cannot send SIG{name} to process {}", self.id());
    }

    /// Waits until standard error holds `text`; whether it came before the process ended.
    pub fn hears(&mut self, text: &str) -> bool {
        let said = Arc::clone(&self.said);
        self.watch(|| said.events().stderr.contains(text)).is_none()
    }

    /// Waits until `moment` has come; whether it did within `limit`, before the process ended.
    pub fn waits(&mut self, limit: Duration, mut moment: impl FnMut() -> bool) -> bool {
        #[allow(clippy::disallowed_methods)]
        let began = std::time::Instant::now();
        let mut came = false;
        let ended = self.watch(|| {
            came = moment();
            came || began.elapsed() > limit
        });
        came && ended.is_none()
    }

    /// What it has said on standard error so far.
    pub fn stderr(&self) -> String {
        self.said.events().stderr.clone()
    }

    /// Kills it (SIGKILL) once `moment` has come, unless it ended before: then `Err` with its end.
    pub fn kill9_when(mut self, moment: impl FnMut() -> bool) -> Result<Ended, Ended> {
        if self.watch(moment).is_some() {
            return Err(self.finish());
        }
        self.kill9();
        let ended = self.finish();
        if ended.code().is_none() { Ok(ended) } else { Err(ended) }
    }

    /// Kills it (SIGKILL) after so long, unless it ended before: then `Err` with its end.
    pub fn kill9_after(mut self, while_running: Duration) -> Result<Ended, Ended> {
        let said = Arc::clone(&self.said);
        let silent = |events: &mut DedupeEvent| events.ended < 2;
        drop(
            said.more.wait_timeout_while(said.events(), while_running, silent).unwrap_or_else(PoisonError::into_inner),
        );
        self.kill9();
        let ended = self.finish();
        if ended.code().is_none() { Ok(ended) } else { Err(ended) }
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Ended {
        let status = self.watch(|| false).expect("only an end stops this watch");
        let said = Arc::clone(&self.said);
        let talking = |events: &mut DedupeEvent| events.ended < 2;
        let waited = said.more.wait_timeout_while(said.events(), self.deadline, talking);
        let (mut events, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(!waited.timed_out(), "faceflow {} has ended, but its output has not", self.command);
        Ended { status, stdout: std::mem::take(&mut events.stdout), stderr: std::mem::take(&mut events.stderr) }
    }

    fn kill9(&mut self) {
        // Fails only for a process that has ended.
        self.child.kill().ok();
    }

    /// Waits for `moment`, or for the end of the process, which is returned. Both may come from outside, so both are
    /// looked at again and again.
    fn watch(&mut self, mut moment: impl FnMut() -> bool) -> Option<ExitStatus> {
        // A process lives by the machine's clock, whatever the test's own may be.
        #[allow(clippy::disallowed_methods)]
        let began = std::time::Instant::now();
        loop {
            if moment() {
                return None;
            }
            if let Some(status) = self.child.try_wait().expect("a child can be asked") {
                return Some(status);
            }
            let said = Arc::clone(&self.said);
            drop(said.more.wait_timeout(said.events(), GLANCE).unwrap_or_else(PoisonError::into_inner));
            if began.elapsed() > self.deadline {
                self.give_up();
            }
        }
    }

    fn give_up(&mut self) -> ! {
        self.kill9();
        let events = self.said.events();
        let tail: Vec<&str> = events.stderr.lines().rev().take(40).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        panic!("faceflow {} did not end within {:?}; it said last:\n{}", self.command, self.deadline, tail.join("\n"));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill9();
        // Reaps it; after a kill this does not take long.
        self.child.wait().ok();
    }
}
