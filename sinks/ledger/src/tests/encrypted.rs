//! A server that speaks TLS: what is encrypted, and whose certificate is good.

use super::postgres::Server;
use super::*;
use crate::StateLocation;

#[test]
fn a_connection_is_encrypted_and_the_certificate_checked_as_the_address_says() {
    let Some(mut server) = Server::start() else { return };
    let Some((port, authority)) = server.encrypt() else { return };
    let authority = authority.display();
    let open = |host: &str, query: &str| {
        let url = format!("postgres://postgres@{host}:{port}/postgres{query}");
        // Sockets take such a short lease too.
        let settings = LedgerSettings { lease_ms: 1_000, ..LedgerSettings::default() };
        DatabaseLedger::open(StateLocation::new(&url), "default", &settings).map_err(|error| error.to_string())
    };
    let encrypted = |ledger: &DatabaseLedger| {
        let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        ledger.reader().read(|tx| tx.one(sql, &[], |row| row.get::<bool>(0))).expect("reads")
    };
    for (host, query, expected) in [
        ("127.0.0.1", "", true),
        ("127.0.0.1", "?sslmode=require", true),
        ("127.0.0.1", "?sslmode=disable", false),
        ("localhost", &format!("?sslmode=verify-full&sslrootcert={authority}"), true),
    ] {
        let ledger = open(host, query).unwrap_or_else(|error| panic!("{host} {query}: {error}"));
        wait(ledger.append(start())).expect("is legal");
        assert_eq!(encrypted(&ledger), Some(expected), "{host} {query}");
    }
    // An authority that the system does not know, and a name that is not in the certificate.
    for (host, query) in
        [("localhost", "?sslmode=verify-full".to_owned()), ("127.0.0.1", format!("?sslrootcert={authority}"))]
    {
        let refused = open(host, &query).err().unwrap_or_else(|| panic!("{host} {query} is taken"));
        assert!(refused.contains("certificate") && refused.contains("sslrootcert=FILE"), "{refused}");
    }
}

#[test]
fn a_socket_of_one_machine_is_as_safe_as_it_is_whatever_the_address_says() {
    let Some(server) = Server::shared() else { return };
    for mode in ["require", "verify-full", "prefer"] {
        let url = format!("{}&sslmode={mode}", server.schema("postgres"));
        DatabaseLedger::open(StateLocation::new(&url), "default", &LedgerSettings::default()).expect(mode);
    }
}
