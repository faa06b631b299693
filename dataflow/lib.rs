//! faceflow turns a list of sites into a deduplicated, face-annotated image store, and never loses a face.
//!
//! The whole pipeline is in [`graph`]; [`services`] makes what it runs on from settings; [`run`] steps its workers to the end. A
//! [`job::Job`] is a batch or stream from settings to a finished store, and a [`job_handle::JobHandle`] one that is running. The
//! examples show how to run it, and how to bring a sink or an engine of one's own.

pub mod cluster;
mod conservation;
pub mod detect_files;
pub mod graph;
pub mod job;
mod job_agreement;
pub mod job_handle;
mod job_outcome;
pub mod job_spec;
mod job_start;
pub mod known_contents;
pub mod metrics_endpoint;
pub mod originals_check;
pub mod reload;
pub mod run;
mod run_options;
mod running_job;
mod served_jobs;
pub mod services;
mod stop_conditions;
mod tenant_views;
mod worker_loop;

pub use faceflow_config as config;
pub use faceflow_core as core;
pub use faceflow_duplicates as duplicates;
pub use faceflow_engine as engine;
pub use faceflow_ledger as ledger;
pub use faceflow_mine as mine;
pub use faceflow_operators as operators;
pub use faceflow_pixels as pixels;
pub use faceflow_sources as sources;
pub use faceflow_store as store;
pub use faceflow_views as views;
pub use faceflow_web as web;
