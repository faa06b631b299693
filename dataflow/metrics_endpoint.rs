//! Metrics for Prometheus: `GET /metrics`, in its text format 0.0.4.
//!
//! Everything is read when it is asked for: counters of this process from its metrics, counts of entries from the ledger.
//! Promise: no label is a URL, a host or anything else that the web decides, so there are as many series as there are stages.

use std::fmt::{Display, Write};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use faceflow_core::Time;
use faceflow_core::executor::Executor;
use faceflow_core::invariants::conserved;
use faceflow_core::ledger::{FailingHosts, Ledger};
use faceflow_core::metrics::StageMetrics;
use faceflow_core::tally::Tally;
use faceflow_sources::serve::{listen, serve};
use faceflow_web::{HeldBack, Web};
use tokio::task::spawn_blocking;

/// How long one answer may take.
const LIMIT: Duration = Duration::from_secs(10);

/// A socket at which metrics are going to be served.
pub struct MetricsEndpoint {
    listener: TcpListener,
    address: SocketAddr,
}

impl MetricsEndpoint {
    /// Listens at `address`. Callers wait until the job has started.
    pub fn listen(address: &str) -> io::Result<Self> {
        let listener = listen(address)?;
        Ok(Self { address: listener.local_addr()?, listener })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves what `executor`, `ledger` and `web` count, as long as the runtime lives.
    pub fn serve(self, executor: &Executor, ledger: Arc<dyn Ledger>, web: Arc<dyn Web>) {
        let counted = Counted { executor: executor.clone(), ledger, web };
        let routes = Router::new().route("/metrics", get(answer)).with_state(counted);
        executor.runtime.spawn(async move {
            if let Err(error) = serve(self.listener, routes, LIMIT).await {
                tracing::error!("there are no more metrics: {error}");
            }
        });
    }
}

/// Who counts.
#[derive(Clone)]
struct Counted {
    executor: Executor,
    ledger: Arc<dyn Ledger>,
    web: Arc<dyn Web>,
}

async fn answer(State(counted): State<Counted>) -> impl IntoResponse {
    let text = spawn_blocking(move || exposition(&counted)).await;
    let text = text.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()));
    text.map(|text| ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text))
}

/// All metrics as they are now, in the text format.
fn exposition(Counted { executor, ledger, web }: &Counted) -> String {
    let mut text = Text::default();
    text.stages(&executor.metrics.stages());
    // What the ledger cannot say now is left out, which is not the same as zero.
    match ledger.tally() {
        Ok((pages, images)) => text.entries(&[("page", pages), ("image", images)]),
        Err(error) => tracing::warn!("metrics without counts of entries: {error}"),
    }
    match ledger.failing_hosts() {
        Ok(hosts) => text.failing_hosts(hosts),
        Err(error) => tracing::warn!("metrics without failing hosts: {error}"),
    }
    text.held_back(web.held_back());
    match ledger.quarantined() {
        Ok(count) => {
            let help = "Facts that the ledger could not take and that wait for faceflow retry.";
            text.family("faceflow_quarantined", "gauge", help, [(String::new(), count)]);
        }
        Err(error) => tracing::warn!("metrics without the count of the quarantine: {error}"),
    }
    if let Some(frontier) = executor.metrics.frontier() {
        text.frontier(frontier, executor.clock.now());
    }
    if let Some(bytes) = resident_bytes() {
        let help = "Resident memory size in bytes.";
        text.family("process_resident_memory_bytes", "gauge", help, [(String::new(), bytes)]);
    }
    text.0
}

#[derive(Default)]
struct Text(String);

impl Text {
    /// A metric with all its samples: labels, and value.
    fn family<V: Display>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        samples: impl IntoIterator<Item = (String, V)>,
    ) {
        let mut text = format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for (labels, value) in samples {
            let labels = if labels.is_empty() { labels } else { format!("{{{labels}}}") };
            writeln!(text, "{name}{labels} {value}").expect("a string takes what is written to it");
        }
        self.0 += &text;
    }

    fn stages(&mut self, stages: &[(&'static str, Arc<StageMetrics>)]) {
        type Count = fn(&StageMetrics) -> &AtomicUsize;
        let families: [(&str, &str, &str, Count); 5] = [
            ("waiting", "gauge", "Records that arrived at a stage and were not started.", |stage| &stage.waiting),
            ("in_flight", "gauge", "Records whose work is under way.", |stage| &stage.in_flight),
            (
                "dispatched",
                "gauge",
                "Records dispatched from the ledger and not settled yet; each counts at another stage too.",
                |stage| &stage.dispatched,
            ),
            ("ended_total", "counter", "Records whose work ended, well or badly.", |stage| &stage.ended),
            ("failed_total", "counter", "Attempts that failed; most of them are tried again.", |stage| &stage.failed),
        ];
        for (name, kind, help, count) in families {
            let sample = |(stage, counts): &(&str, Arc<StageMetrics>)| {
                (format!("stage=\"{stage}\""), count(counts).load(Relaxed))
            };
            self.family(&format!("faceflow_stage_{name}"), kind, help, stages.iter().map(sample));
        }
    }

    fn entries(&mut self, tallies: &[(&str, Tally)]) {
        let discovered = tallies.iter().map(|(kind, tally)| (format!("kind=\"{kind}\""), tally.discovered));
        self.family("faceflow_discovered", "gauge", "Pages and images discovered, by the ledger.", discovered);
        let states = tallies.iter().flat_map(|(kind, tally)| {
            let Tally { discovered: _, done, duplicate, rejected, dead, open } = *tally;
            let states =
                [("done", done), ("duplicate", duplicate), ("rejected", rejected), ("dead", dead), ("open", open)];
            states.map(|(state, count)| (format!("kind=\"{kind}\",state=\"{state}\""), count))
        });
        self.family("faceflow_entries", "gauge", "Pages and images by state, by the ledger.", states);
        let conserved = u8::from(tallies.iter().all(|(_, tally)| conserved(tally).is_ok()));
        let help = "Whether everything discovered is done, a duplicate, rejected, dead or open: 1 if so.";
        self.family("faceflow_conservation_ok", "gauge", help, [(String::new(), conserved)]);
    }

    fn failing_hosts(&mut self, FailingHosts { held_back, given_up }: FailingHosts) {
        let samples = [("held_back", held_back), ("given_up", given_up)];
        let samples = samples.map(|(state, count)| (format!("state=\"{state}\""), count));
        self.family("faceflow_failing_hosts", "gauge", "Hosts that fail as a whole, by the ledger.", samples);
    }

    fn held_back(&mut self, HeldBack { hosts, addresses, refused }: HeldBack) {
        let one = |count: u64| [(String::new(), count)];
        let help = "Hosts that want to be left alone for now, as they told this process.";
        self.family("faceflow_resting_hosts", "gauge", help, one(hosts as u64));
        let help = "Addresses that are not asked by this process, because nothing there takes connections.";
        self.family("faceflow_open_circuits", "gauge", help, one(addresses as u64));
        let help = "Requests that were not made because of either.";
        self.family("faceflow_requests_refused_total", "counter", help, one(refused));
    }

    /// How far the frontier lags. In a stream that has nothing to do it follows the clock.
    fn frontier(&mut self, frontier: Time, now: Time) {
        let help =
            "How long the oldest work under way has been due, in milliseconds; below 0: nothing is due for so long.";
        self.family("faceflow_frontier_lag_ms", "gauge", help, [(String::new(), now as i64 - frontier as i64)]);
    }
}

/// Memory of this process, where the system says so (Linux).
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix("kB")?;
    kib.trim().parse::<u64>().ok().map(|kib| kib * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_listed_by_state_and_conservation_is_one_or_zero() {
        let whole = Tally { discovered: 3, done: 1, open: 2, ..Tally::default() };
        let text_of = |tally| {
            let mut text = Text::default();
            text.entries(&[("page", whole), ("image", tally)]);
            text.0
        };
        let text = text_of(whole);
        for line in [
            "# TYPE faceflow_discovered gauge",
            "faceflow_discovered{kind=\"page\"} 3",
            "faceflow_entries{kind=\"image\",state=\"open\"} 2",
            "faceflow_entries{kind=\"image\",state=\"dead\"} 0",
            "faceflow_conservation_ok 1",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is not in {text}");
        }
        assert!(text_of(Tally { open: 1, ..whole }).ends_with("\nfaceflow_conservation_ok 0\n"));
    }

    #[test]
    fn hosts_that_fail_are_counted_and_not_named() {
        let mut text = Text::default();
        text.failing_hosts(FailingHosts { held_back: 3, given_up: 1 });
        text.held_back(HeldBack { hosts: 2, addresses: 4, refused: 9 });
        for line in [
            "faceflow_failing_hosts{state=\"held_back\"} 3",
            "faceflow_failing_hosts{state=\"given_up\"} 1",
            "faceflow_resting_hosts 2",
            "faceflow_open_circuits 4",
            "# TYPE faceflow_requests_refused_total counter",
            "faceflow_requests_refused_total 9",
        ] {
            assert!(text.0.lines().any(|other| other == line), "{line} is not in {}", text.0);
        }
    }

    #[test]
    fn a_frontier_lags_or_lies_ahead() {
        let text_of = |frontier| {
            let mut text = Text::default();
            text.frontier(frontier, 1_000);
            text.0
        };
        assert!(text_of(400).ends_with("\nfaceflow_frontier_lag_ms 600\n"));
        assert!(text_of(1_500).ends_with("\nfaceflow_frontier_lag_ms -500\n"));
    }
}
