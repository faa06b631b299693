//! What the processes of a cluster must agree on, taken from the job of one of them.

use faceflow_config::load::leaves_of;
use faceflow_core::detector::EngineInfo;
use faceflow_core::record::ContentId;
use faceflow_ledger::StateLocation;

use crate::cluster::Agreement;
use crate::job::Job;

/// Settings of which other processes are sent a digest, because they are secret.
const SECRET: [&str; 1] = ["submit.token"];
/// And because they are longer than this, in bytes.
const SHOWN_MAX: usize = 60;

/// What every process of the cluster of `job` must agree on.
pub(crate) fn agreement(job: &Job, engine: &EngineInfo) -> Agreement {
    let digest = |text: String| ContentId::of(text.as_bytes()).to_string()[..16].to_owned();
    let settings = leaves_of(&job.settings).into_iter().map(|(key, value)| {
        let text = value.to_string();
        let shown = text.len() <= SHOWN_MAX && !SECRET.contains(&&key[..]);
        (key, if shown { text } else { format!("sha256:{}", digest(text)) })
    });
    Agreement {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        addresses: job.cluster.as_ref().map(|membership| membership.addresses.clone()).unwrap_or_default(),
        workers: job.options.workers.max(1),
        endless: job.options.endless,
        places: format!("{} {} {}", StateLocation::new(&job.state), job.out, job.tenant),
        model: digest(engine.model_sha256.clone()),
        settings: settings.collect(),
    }
}
