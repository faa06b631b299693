//! Where a state on a server is: its URL, connections to it, and a name for it that holds no password.

use std::sync::Arc;
use std::time::Duration;

use super::address::Address;
use super::client::{Client, Wire};
use super::tls::Route;
use crate::{LedgerSettings, OpenError};

/// A server, with how to connect to it.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub address: Address,
    pub settings: LedgerSettings,
    route: Route,
    wire: Arc<Wire>,
}

impl Server {
    pub fn new(address: Address, settings: &LedgerSettings) -> Result<Self, OpenError> {
        let refused = |reason: String| OpenError::Storage { place: address.to_string(), reason };
        // The parser's words may hold a piece of the password.
        let limit = Duration::from_millis(settings.connect_timeout_ms);
        let mut route = Route::to(&address.url, limit, NO_ADDRESS).map_err(refused)?;
        let config = &mut route.config;
        let lease = Duration::from_millis(settings.lease_ms);
        // A peer that is gone without a word is noticed within about a lease; sockets count these in whole seconds.
        let [idle, interval] = [lease / 3, lease / 9].map(|pause| pause.max(Duration::from_secs(1)));
        config.keepalives_idle(idle).keepalives_interval(interval).tcp_user_timeout(lease);
        config.application_name("faceflow");
        if config.get_password().is_none()
            && let Ok(password) = std::env::var("PGPASSWORD")
        {
            config.password(password);
        }
        let wire = Wire::new().map_err(|error| refused(error.to_string()))?;
        Ok(Self { settings: settings.clone(), route, wire: Arc::new(wire), address })
    }

    /// A connection.
    pub fn connect(&self) -> Result<Client, OpenError> {
        Client::connect(&self.wire, &self.route).map_err(|error| self.refused(error.to_string()))
    }

    pub fn wire(&self) -> &Arc<Wire> {
        &self.wire
    }

    pub fn route(&self) -> &Route {
        &self.route
    }

    pub fn refused(&self, reason: String) -> OpenError {
        OpenError::Storage { place: self.address.to_string(), reason }
    }
}

/// What an address is.
const NO_ADDRESS: &str = "it is no address of a database; expected postgres://USER@HOST/DATABASE, with the special \
    characters of a password written as %XX";

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let cases = [
            ("postgres://u:secret@host/db", "postgres://u:***@host/db"),
            ("postgresql://u:se:cr@et@host:5432/db", "postgresql://u:***@host:5432/db"),
            ("postgres://u:secret/x@host/db", "postgres://u:***@host/db"),
            ("postgres://u:secret?x@host/db", "postgres://u:***@host/db"),
            ("postgres://u@host/db?password=secret&host=/run", "postgres://u@host/db?password=***&host=/run"),
            ("postgres://host/db?user=u&Password=secret", "postgres://host/db?user=u&Password=***"),
            ("postgres://u@/db?host=/run/x", "postgres://u@/db?host=/run/x"),
            ("postgres://u:secret@", "postgres://u:***@"),
            ("POSTGRES://u:secret@host/db", "postgres://u:***@host/db"),
        ];
        for (url, shown) in cases {
            let address = Address::new(url);
            assert_eq!(address.to_string(), shown);
            assert_eq!(format!("{address:?}"), format!("{shown:?}"));
            let server = Server::new(address, &LedgerSettings::default());
            assert!(!format!("{server:?}").contains("secret"), "{server:?}");
        }
        for meant in ["postgres:/u:secret@host/db", "Postgresql:u:secret@host/db", "host=h password=secret"] {
            assert!(Address::is_one(meant), "{meant}");
            let refused =
                Server::new(Address::new(meant), &LedgerSettings::default()).expect_err("is none").to_string();
            assert!(refused.contains("expected postgres://") && !refused.contains("secret"), "{refused}");
        }
        let wrong = Address::new("postgres://u:secret@host:none/db");
        let refused = Server::new(wrong, &LedgerSettings::default()).expect_err("has no port").to_string();
        assert!(refused.contains("expected postgres://") && !refused.contains("secret"), "{refused}");
    }

    #[test]
    fn a_server_that_says_nothing_is_given_up() {
        // The system takes the connection, and nobody reads from it.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = silent.local_addr().expect("an address").port();
        for mode in ["disable", "require"] {
            let url = format!("postgres://u@127.0.0.1:{port}/db?sslmode={mode}");
            let settings = LedgerSettings { connect_timeout_ms: 200, lease_ms: 1_000, ..LedgerSettings::default() };
            let server = Server::new(Address::new(&url), &settings).expect("it is an address");
            let refused = server.connect().err().expect("nobody answers").to_string();
            assert!(refused.contains("nothing for 200 ms (ledger.connect_timeout_ms)"), "{refused}");
        }
    }

    #[test]
    fn a_server_without_tls_is_refused_where_it_is_required() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let answering = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().expect("is called");
            client.read_exact(&mut [0; 8]).expect("is asked for TLS");
            client.write_all(b"N").expect("says no");
        });
        let url = format!("postgres://u@127.0.0.1:{port}/db?sslmode=require");
        let server = Server::new(Address::new(&url), &LedgerSettings::default()).expect("it is an address");
        let refused = server.connect().err().expect("it would not be encrypted").to_string();
        assert!(refused.contains("does not support TLS") && refused.contains("sslmode=prefer"), "{refused}");
        answering.join().expect("answers");
    }

    #[test]
    fn a_server_that_is_not_there_is_named_with_what_to_do() {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("postgres://u:secret@/db?host={}", folder.path().display());
        let server = Server::new(Address::new(&url), &LedgerSettings::default()).expect("it is an address");
        let refused = server.connect().err().expect("nobody listens").to_string();
        assert!(refused.contains(&folder.path().display().to_string()) && refused.contains("is up"), "{refused}");
        assert!(!refused.contains("secret"), "{refused}");
    }
}
