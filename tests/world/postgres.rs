//! A real PostgreSQL server for tests, started for this process alone.
//!
//! It listens on a socket in a folder of its own, as the user `postgres` where we are root, because it refuses to run as root. A
//! shell waits for the end of this process, however it ends, then stops the server and removes the folder.

use std::ffi::OsStr;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use faceflow_core::testing::require;

/// An authority, and a certificate by it.
const CERTIFICATES: &str = "
    key='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
    openssl req -x509 $key -days 2 -subj /CN=authority -keyout ca.key -out ca.crt
    openssl req $key -subj /CN=localhost -keyout server.key -out server.csr
    openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.crt
    chmod 600 server.key";

const NO_SERVER: &str = "no server is installed (initdb is neither in PATH nor under /usr/lib/postgresql)";

/// A PostgreSQL server.
pub struct Server {
    folder: PathBuf,
    programs: PathBuf,
    schemas: AtomicU32,
    /// What it is started with besides.
    more: String,
    /// Ends the server when this process ends, because it reads the end of what nobody writes.
    _watch: Child,
}

impl Server {
    /// The server of this process, or nothing, with the reason printed.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Server>> = OnceLock::new();
        let shared = SHARED.get_or_init(Self::start);
        if shared.is_none() {
            require::skip("postgresql", NO_SERVER);
        }
        shared.as_ref()
    }

    /// One of a test's own that waits for its disk at every commit, as servers do; or nothing, with the reason printed.
    #[allow(dead_code)]
    pub fn durable() -> Option<Self> {
        Self::start_with("-c fsync=on")
    }

    /// One of a test's own, to be killed; or nothing, with the reason printed.
    pub fn start() -> Option<Self> {
        Self::start_with("")
    }

    fn start_with(more: &str) -> Option<Self> {
        let Some(programs) = programs() else {
            require::skip("postgresql", NO_SERVER);
            return None;
        };
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
        let server = Self { folder, programs, schemas: AtomicU32::new(0), more: more.to_owned(), _watch: watch };
        assert!(server.up(), "the server starts; see {}", server.folder.join("log").display());
        Some(server)
    }

    /// Starts it; whether it did.
    pub fn up(&self) -> bool {
        let folder = self.folder.display();
        let settings = format!(
            "-c listen_addresses= -c unix_socket_directories='{folder}' -c max_connections=300 -c fsync=off {}",
            self.more
        );
        let (data, log) = (self.folder.join("data"), self.folder.join("log"));
        let mut start = program(&self.programs, "pg_ctl");
        start.arg("-D").arg(data).arg("-l").arg(log).args(["-o", &settings, "-w", "start"]);
        start.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("pg_ctl runs").success()
    }

    /// Starts it again at a port of its own, where it speaks TLS as `localhost`, with a certificate of an authority of its own.
    /// The port and that authority's file; `None` (and a word about it) where no certificate can be made.
    pub fn encrypt(&mut self) -> Option<(u16, PathBuf)> {
        let folder = self.folder.join("tls");
        std::fs::create_dir(&folder).expect("makes");
        std::fs::write(folder.join("names"), "subjectAltName=DNS:localhost").expect("writes");
        let made = Command::new("sh").current_dir(&folder).args(["-ec", CERTIFICATES]).output().expect("sh runs");
        if !made.status.success() {
            require::skip("openssl", format_args!("no certificate: {}", String::from_utf8_lossy(&made.stderr)));
            return None;
        }
        let key = folder.join("server.key");
        let owner = std::fs::metadata(&self.folder).expect("is there");
        chown(&key, Some(owner.uid()), Some(owner.gid())).expect("is given to its user");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let place = folder.display();
        self.more = format!(
            "-c listen_addresses=127.0.0.1 -c port={port} -c ssl=on -c ssl_cert_file='{place}/server.crt' -c ssl_key_file='{place}/server.key'"
        );
        self.stop();
        assert!(self.up(), "the server starts; see {}", self.folder.join("log").display());
        Some((port, folder.join("ca.crt")))
    }

    /// Kills its first process with SIGKILL; the others leave when they notice.
    pub fn kill(&self) {
        let pid = std::fs::read_to_string(self.folder.join("data/postmaster.pid")).expect("it runs");
        run(Command::new("kill").args(["-KILL", pid.lines().next().expect("a process id")]));
    }

    /// Stops it at once, as a failing machine would: no connection is ended in good order.
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

impl Server {
    /// Runs statements in the schema of this URL.
    #[allow(dead_code)]
    pub fn sql(url: &str, statements: &str) {
        let programs = programs().expect("they made the schema");
        run(program(&programs, "psql").args([url, "-q", "-v", "ON_ERROR_STOP=1", "-c", statements]));
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
