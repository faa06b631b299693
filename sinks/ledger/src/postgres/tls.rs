//! How connections to a server are encrypted, in the words of libpq (PostgreSQL's manual, chapter "libpq", "SSL Support").
//!
//! `sslmode=prefer`, which goes without saying, encrypts where the server can, `require` always; both take any certificate.
//! `verify-full` encrypts and checks that the certificate names the host and comes from an authority that the system trusts, or
//! from one in the file `sslrootcert`, which means `verify-full` by itself. Sockets of one machine are never encrypted.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;
use url::form_urlencoded;

/// How a server is to be reached and known.
#[derive(Clone)]
pub(crate) struct Route {
    pub config: Config,
    pub tls: MakeRustlsConnect,
    /// How long it may take until a connection can be used.
    pub limit: Duration,
}

/// Never with a password.
impl fmt::Debug for Route {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.config, out)
    }
}

impl Route {
    /// The route to a `postgres://` URL, or what is wrong with it; `malformed` where nothing can be said without showing a part of
    /// the password.
    pub fn to(url: &str, limit: Duration, malformed: &str) -> Result<Self, String> {
        if url.is_empty() {
            return Err(malformed.to_owned());
        }
        let (rest, check) = split(&with_defaults(url, |name| std::env::var(name).ok()))?;
        let mut config: Config = rest.parse().map_err(|_| malformed.to_owned())?;
        if config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_))) {
            config.ssl_mode(SslMode::Disable);
        }
        Ok(Self { config, tls: MakeRustlsConnect::new(check.client()?), limit })
    }
}

/// Whose certificates are good.
#[derive(Debug, PartialEq, Eq)]
enum Check {
    /// Anybody's.
    None,
    /// Those of the authorities that the system trusts.
    System,
    /// Those of the authorities in this file.
    File(String),
}

/// The URL with what the variables of libpq say where it says nothing itself.
fn with_defaults(url: &str, variable: impl Fn(&str) -> Option<String>) -> String {
    let mut url = url.to_owned();
    for (key, name) in [("sslmode", "PGSSLMODE"), ("sslrootcert", "PGSSLROOTCERT")] {
        let said = url.contains(&format!("?{key}=")) || url.contains(&format!("&{key}="));
        if let Some(value) = variable(name).filter(|value| !value.is_empty() && !said) {
            let value: String = form_urlencoded::byte_serialize(value.as_bytes()).collect();
            url += &format!("{}{key}={}", if url.contains('?') { '&' } else { '?' }, value.replace('+', "%20"));
        }
    }
    url
}

/// The URL without what only this module knows, and what it says about certificates.
fn split(url: &str) -> Result<(String, Check), String> {
    let Some((place, query)) = url.rsplit_once('?') else { return Ok((url.to_owned(), Check::None)) };
    let (mut kept, mut check, mut mode) = (Vec::new(), Check::None, None);
    for pair in query.split('&') {
        match pair.split_once('=') {
            Some(("sslmode", "verify-full")) if check == Check::None => check = Check::System,
            Some(("sslmode", "verify-full")) => {}
            Some(("sslrootcert", file)) => {
                // Here a plus is a plus, and nothing but the first sign divides.
                let file = file.replace('+', "%2B").replace('=', "%3D");
                let file = form_urlencoded::parse(file.as_bytes()).map(|(file, _)| String::from(file)).next();
                let file = file.unwrap_or_default();
                check = if file == "system" { Check::System } else { Check::File(file) };
            }
            Some(("sslmode", known @ ("disable" | "prefer" | "require"))) => mode = Some(known),
            Some(("sslmode", other)) => {
                return Err(format!("sslmode={other} is not known here; disable, prefer, require and verify-full are"));
            }
            _ => kept.push(pair),
        }
    }
    let mode = match (&check, mode) {
        (Check::None, mode) => mode,
        (_, None | Some("require")) => Some("require"),
        (_, Some(mode)) => {
            return Err(format!(
                "sslmode={mode} does not always check what sslrootcert is for: say sslmode=verify-full"
            ));
        }
    };
    let mode = mode.map(|mode| format!("sslmode={mode}"));
    kept.extend(mode.as_deref());
    let query = if kept.is_empty() { String::new() } else { format!("?{}", kept.join("&")) };
    Ok((format!("{place}{query}"), check))
}

impl Check {
    fn client(&self) -> Result<ClientConfig, String> {
        let said = |error: Error| format!("TLS: {error}");
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().map_err(said)?;
        let builder = match self {
            Self::None => builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider))),
            Self::System => builder.with_platform_verifier().map_err(said)?,
            Self::File(file) => builder.with_root_certificates(authorities(file)?),
        };
        Ok(builder.with_no_client_auth())
    }
}

fn authorities(file: &str) -> Result<RootCertStore, String> {
    let named = |why: String| format!("sslrootcert={file}: {why}");
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| named(error.to_string()))? {
        // The reader's words may be a list of bytes.
        let certificate = certificate.map_err(|_| named("a certificate in it is cut off or no PEM".to_owned()))?;
        roots.add(certificate).map_err(|error| named(error.to_string()))?;
    }
    if roots.is_empty() { Err(named("it holds no certificate in PEM".to_owned())) } else { Ok(roots) }
}

/// Takes every certificate: nobody can listen, but anybody may answer. What it signs must be signed with it nevertheless.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_libpq_say_whose_certificates_are_good() {
        let cases = [
            ("postgres://u@h/d", "postgres://u@h/d", Check::None),
            ("postgres://u@h/d?sslmode=require", "postgres://u@h/d?sslmode=require", Check::None),
            ("postgres://u@h/d?sslmode=verify-full", "postgres://u@h/d?sslmode=require", Check::System),
            (
                "postgres://u@h/d?sslrootcert=/a%20b+c=d",
                "postgres://u@h/d?sslmode=require",
                Check::File("/a b+c=d".to_owned()),
            ),
            (
                "postgres://u@h/d?sslrootcert=ca.pem&sslmode=verify-full&port=1",
                "postgres://u@h/d?port=1&sslmode=require",
                Check::File("ca.pem".to_owned()),
            ),
            ("postgres://u@h/d?sslrootcert=system", "postgres://u@h/d?sslmode=require", Check::System),
        ];
        for (url, rest, check) in cases {
            assert_eq!(split(url), Ok((rest.to_owned(), check)), "{url}");
        }
        for mode in ["prefer", "disable"] {
            let refused = split(&format!("postgres://u@h/d?sslmode={mode}&sslrootcert=ca.pem"));
            assert!(refused.is_err_and(|why| why.contains(mode)), "it would not be checked");
        }
        assert!(split("postgres://u@h/d?sslmode=verify-ca").is_err_and(|why| why.contains("verify-full")));
    }

    #[test]
    fn the_variables_of_libpq_hold_where_the_address_says_nothing() {
        let variable = |name: &str| Some(if name == "PGSSLMODE" { "verify-full" } else { "/a b.pem" }.to_owned());
        let plain = with_defaults("postgres://u@h/d", variable);
        assert_eq!(plain, "postgres://u@h/d?sslmode=verify-full&sslrootcert=%2Fa%20b.pem");
        assert_eq!(split(&plain).map(|(_, check)| check), Ok(Check::File("/a b.pem".to_owned())));
        let own = "postgres://u@h/d?sslrootcert=c.pem&sslmode=require";
        assert_eq!(with_defaults(own, variable), own);
        assert_eq!(with_defaults("postgres://u@h/d", |_| None), "postgres://u@h/d");
    }

    #[test]
    fn a_file_without_certificates_is_refused_by_name() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let url = format!("postgres://u@h/d?sslrootcert={}", file.path().display());
        let refused = Route::to(&url, Duration::MAX, "malformed").expect_err("is empty");
        assert!(
            refused.contains("no certificate") && refused.contains(&file.path().display().to_string()),
            "{refused}"
        );
        let missing =
            Route::to("postgres://u@h/d?sslrootcert=/no/such", Duration::MAX, "malformed").expect_err("is not there");
        assert!(missing.contains("/no/such"), "{missing}");
    }
}
