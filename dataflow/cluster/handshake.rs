//! How the processes of a cluster connect: each calls those before it and answers those after it, and both sides of a connection
//! send what they believe about the cluster before anything else.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};

use super::agreement::Agreement;
use super::error::ClusterError;
use super::membership::Membership;
use super::messages::{receive, send};

/// How long a caller may take to send its [`Hello`].
const HELLO_LIMIT: Duration = Duration::from_secs(2);
/// The pause between two tries to reach a process that is not there yet.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// The first message of a connection, in both directions.
#[derive(Serialize, Deserialize)]
struct Hello {
    process: usize,
    /// Called `terms` on the wire, where other versions look for it.
    #[serde(rename = "terms")]
    agreement: Agreement,
}

/// Connects to every other process: those before this one are called, those after it call. `sockets` has a place for each.
pub(super) async fn connect_all(
    membership: &Membership,
    agreement: &Agreement,
    listener: &TcpListener,
    sockets: &mut [Option<TcpStream>],
) -> Result<(), ClusterError> {
    let (before, from_here) = sockets.split_at_mut(membership.process);
    let calls = async {
        for (other, socket) in before.iter_mut().enumerate() {
            *socket = Some(call(membership, agreement, other).await?);
        }
        Ok(())
    };
    tokio::try_join!(calls, answer_calls(membership.process, agreement, listener, from_here)).map(drop)
}

/// Answers until each of the processes after `process` has called. `sockets` begins with the place of `process` itself.
async fn answer_calls(
    process: usize,
    agreement: &Agreement,
    listener: &TcpListener,
    sockets: &mut [Option<TcpStream>],
) -> Result<(), ClusterError> {
    while sockets[1..].iter().any(Option::is_none) {
        // A caller that hangs up, or is no process of ours, is ignored.
        let Ok((mut socket, _)) = listener.accept().await else { continue };
        let ours = Hello { process, agreement: agreement.clone() };
        let exchanged = async {
            let theirs = receive::<Value>(&mut socket).await?;
            send(&mut socket, &ours).await.map(|()| theirs)
        };
        let Ok(Ok(theirs)) = tokio::time::timeout(HELLO_LIMIT, exchanged).await else { continue };
        let Some(theirs) = parse_hello(agreement, theirs)? else { continue };
        let place = theirs.process.checked_sub(process).filter(|place| *place > 0);
        if let Some(place) = place.and_then(|place| sockets.get_mut(place)).filter(|place| place.is_none()) {
            check_agreement(agreement, &theirs)?;
            *place = Some(socket);
        }
    }
    Ok(())
}

/// Calls a process until it answers.
async fn call(membership: &Membership, agreement: &Agreement, other: usize) -> Result<TcpStream, ClusterError> {
    loop {
        if let Ok(mut socket) = TcpStream::connect(&membership.addresses[other]).await {
            let ours = Hello { process: membership.process, agreement: agreement.clone() };
            let sent = send(&mut socket, &ours).await;
            if let (Ok(()), Ok(theirs)) = (sent, receive::<Value>(&mut socket).await)
                && let Some(theirs) = parse_hello(agreement, theirs)?
            {
                check_agreement(agreement, &theirs)?;
                if theirs.process == other {
                    return Ok(socket);
                }
                let what = "who is at its address".to_owned();
                let (ours, theirs) = (other.to_string(), theirs.process.to_string());
                return Err(ClusterError::Differs { process: other, what, ours, theirs });
            }
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// What the other side believes; `None` if it is no process of ours. Another version may send other fields: the version is named
/// then.
fn parse_hello(ours: &Agreement, message: Value) -> Result<Option<Hello>, ClusterError> {
    let (process, version) = (message["process"].as_u64(), message["terms"]["version"].as_str().map(str::to_owned));
    match (serde_json::from_value(message), process, version) {
        (Ok(hello), ..) => Ok(Some(hello)),
        (Err(_), Some(process), Some(theirs)) if theirs != ours.version => Err(ClusterError::Differs {
            process: process as usize,
            what: "the version".to_owned(),
            ours: ours.version.clone(),
            theirs,
        }),
        _ => Ok(None),
    }
}

/// Refuses a process that believes something else about the cluster.
fn check_agreement(ours: &Agreement, hello: &Hello) -> Result<(), ClusterError> {
    match ours.difference(&hello.agreement) {
        Some((what, ours, theirs)) => Err(ClusterError::Differs { process: hello.process, what, ours, theirs }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::agreement::tests::agreement;

    #[test]
    fn another_version_is_named_even_if_its_fields_are_unknown() {
        let parsed = |version: &str, terms: Value| {
            let mut said = json!({"process": 1, "terms": terms});
            said["terms"]["version"] = version.into();
            parse_hello(&agreement(), said)
        };
        let whole = serde_json::to_value(agreement()).expect("JSON");
        assert!(parsed("1.2.3", whole).is_ok_and(|hello| hello.is_some_and(|hello| hello.process == 1)));
        let refused = parsed("9.9.9", json!({"what": "a later version says"})).err().expect("differs").to_string();
        assert!(refused.contains("process 1 differ in the version: 1.2.3 here, 9.9.9 there"), "{refused}");
        assert!(parsed("1.2.3", json!({})).is_ok_and(|hello| hello.is_none()), "that is none of ours");
    }
}
