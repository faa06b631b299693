//! What a server says when it refuses or is gone, with what to do about it.

use tokio_postgres::error::{DbError, Severity, SqlState};

/// What to do where a connection could not be made or is gone.
const ADVICE: &str = "; see that the server is up, then run the same command again: it goes on from here";

/// What to do where user and password do not fit.
const PASSWORD: &str = "; correct the user name in the address, or the password there or in PGPASSWORD";

/// What to do where a certificate is not trusted.
const CERTIFICATE: &str = "; name the certificate of its authority with sslrootcert=FILE in the address, and the host as the \
    certificate does, or take any certificate with sslmode=require alone";

/// What to do where a certificate is too old.
const EXPIRED: &str = "; renew the server's certificate";

/// What to do where a server speaks no TLS.
const NO_TLS: &str = "; let the server offer it (ssl = on), or say sslmode=prefer";

/// How the driver ends when the server asks for a password and none is given.
const NO_PASSWORD: &str = "password missing";

/// The server's words, with those of the causes, and what to do where it is gone.
pub(crate) fn said(error: &tokio_postgres::Error) -> String {
    if let Some(theirs) = error.as_db_error() {
        let detail = theirs.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
        return format!("the server says: {}{detail}{}", theirs.message(), advice(theirs));
    }
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        let next_words = next.to_string();
        if !words.contains(&next_words) {
            words = format!("{words}: {next_words}");
        }
        cause = next.source();
    }
    let advice = if words.ends_with(NO_PASSWORD) {
        PASSWORD
    } else if words.contains("does not support TLS") {
        NO_TLS
    } else if words.contains("certificate expired") {
        EXPIRED
    } else if words.contains("certificate") {
        CERTIFICATE
    } else {
        ADVICE
    };
    words + advice
}

/// What to do about what the server says.
fn advice(theirs: &DbError) -> &'static str {
    match *theirs.code() {
        SqlState::INVALID_PASSWORD => PASSWORD,
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            "; correct the user name in the address, or let the server have that role and admit it (CREATE ROLE … LOGIN)"
        }
        SqlState::INVALID_CATALOG_NAME => "; correct the database in the address, or create it (CREATE DATABASE)",
        _ if theirs.parsed_severity() == Some(Severity::Error) => "",
        _ => ADVICE,
    }
}
