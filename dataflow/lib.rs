//! faceflow turns a list of sites into a deduplicated, face-annotated image store, and never loses a face.
//!
//! The whole pipeline is one chain in [`graph`]; [`parts`] makes what it runs on from settings; [`run`] drives it. The
//! examples show how to run it, and how to bring a sink or an engine of one's own.

pub mod cluster;
pub mod graph;
pub mod job;
pub mod local;
pub mod metrics;
pub mod parts;
pub mod reload;
pub mod run;

pub use faceflow_config as config;
pub use faceflow_core as core;
pub use faceflow_engine as engine;
pub use faceflow_operators as operators;
pub use faceflow_sinks as sinks;
pub use faceflow_sources as sources;
