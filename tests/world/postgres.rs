//! A real PostgreSQL server for tests, started for this process alone.
//!
//! It listens on a socket in a folder of its own, as the user `postgres` where we are root, because it refuses to run as root. A
//! shell waits for the end of this process, however it ends, then stops the server and removes the folder.

use std::ffi::OsStr;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// A PostgreSQL server.
pub struct Server {
    folder: PathBuf,
    programs: PathBuf,
    schemas: AtomicU32,
    /// Ends the server when this process ends, because it reads the end of what nobody writes.
    _watch: Child,
}

impl Server {
    /// The server of this process, or nothing, with the reason printed.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Server>> = OnceLock::new();
        let shared = SHARED.get_or_init(Self::start);
        if shared.is_none() {
            println!(
                "skipped: no PostgreSQL server is installed (initdb is neither in PATH nor under /usr/lib/postgresql)"
            );
        }
        shared.as_ref()
    }

    /// One of a test's own, to be killed.
    pub fn start() -> Option<Self> {
        let programs = programs()?;
        let folder = tempfile::Builder::new().prefix("faceflow-pg").tempdir().expect("a folder").keep();
        if is_root() {
            let id = |flag: &str| {
                let said = Command::new("id").args([flag, "postgres"]).output().expect("id runs").stdout;
                String::from_utf8_lossy(&said).trim().parse::<u32>().expect("the user postgres")
            };
            chown(&folder, Some(id("-u")), Some(id("-g"))).expect("is given to its user");
        }
        let data = folder.join("data");
        let initdb = [OsStr::new("-D"), data.as_os_str()];
        let options = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"].map(OsStr::new);
        run(program(&programs, "initdb").args(initdb).args(options));
        let stop = format!(
            "read -r _; '{0}/pg_ctl' -D '{1}/data' -m immediate -w stop; rm -rf '{1}'",
            programs.display(),
            folder.display()
        );
        let mut watch = as_postgres(OsStr::new("sh"));
        watch.args(["-c", &stop]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let watch = watch.spawn().expect("starts");
        let server = Self { folder, programs, schemas: AtomicU32::new(0), _watch: watch };
        assert!(server.up(), "the server starts; see {}", server.folder.join("log").display());
        Some(server)
    }

    /// Starts it; whether it did.
    pub fn up(&self) -> bool {
        let folder = self.folder.display();
        let settings =
            format!("-c listen_addresses= -c unix_socket_directories='{folder}' -c max_connections=300 -c fsync=off");
        let (data, log) = (self.folder.join("data"), self.folder.join("log"));
        let mut start = program(&self.programs, "pg_ctl");
        start.arg("-D").arg(data).arg("-l").arg(log).args(["-o", &settings, "-w", "start"]);
        start.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("pg_ctl runs").success()
    }

    /// Kills its first process with SIGKILL; the others leave when they notice.
    pub fn kill(&self) {
        let pid = std::fs::read_to_string(self.folder.join("data/postmaster.pid")).expect("it runs");
        run(Command::new("kill").args(["-KILL", pid.lines().next().expect("a process id")]));
    }

    /// Stops it at once, as a failing machine would: no connection is ended in good order.
    #[allow(dead_code, reason = "not everyone who shares this file stops a server")]
    pub fn stop(&self) {
        let mut stop = program(&self.programs, "pg_ctl");
        run(stop.arg("-D").arg(self.folder.join("data")).args(["-m", "immediate", "-w", "stop"]));
    }

    /// The URL of a new schema, for the login `login`.
    pub fn schema(&self, login: &str) -> String {
        let schema = format!("t{}", self.schemas.fetch_add(1, Ordering::Relaxed));
        let place =
            ["-h", &self.folder.display().to_string(), "-U", "postgres", "-d", "postgres", "-q"].map(str::to_owned);
        run(program(&self.programs, "psql").args(place).args(["-c", &format!("CREATE SCHEMA {schema}")]));
        let url = format!("postgres://{login}@/postgres?host={}", self.folder.display());
        format!("{url}&options=-csearch_path%3D{schema}")
    }
}

fn programs() -> Option<PathBuf> {
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut found: Vec<PathBuf> = debian.filter_map(|entry| Some(entry.ok()?.path().join("bin"))).collect();
    found.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    found.extend(std::env::split_paths(&path));
    let whole = |folder: &PathBuf| ["initdb", "pg_ctl", "psql"].iter().all(|name| folder.join(name).is_file());
    found.into_iter().rev().find(whole)
}

fn program(programs: &Path, name: &str) -> Command {
    as_postgres(programs.join(name).as_os_str())
}

fn as_postgres(program: &OsStr) -> Command {
    let mut command = if is_root() { Command::new("setpriv") } else { Command::new(program) };
    if is_root() {
        command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(program);
    }
    command.current_dir("/");
    command
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().expect("id runs").stdout.trim_ascii() == b"0"
}

fn run(command: &mut Command) {
    let ended = command.output().expect("starts");
    assert!(ended.status.success(), "{command:?}: {}", String::from_utf8_lossy(&ended.stderr));
}
