//! The operators of the pipeline: one file per operator, each an extension trait on exactly one flow, so that a wrong
//! chain does not compile. Beside them the parts they run: the web client, the HTML miner, sitemaps and
//! feeds, pixels and clusters.

pub mod address;
pub mod clusters;
pub mod darkroom;
pub mod html;
pub mod listing;
pub mod pixels;
pub mod recrawl;
pub mod web;

pub mod admit;
pub mod aside;
pub mod cluster;
pub mod decode;
pub mod deliver;
pub mod detect;
pub mod download;
pub mod drain;
pub mod fetch;
pub mod frontier;
pub mod intake;
pub mod keep;
pub mod mine;
pub mod recall;
pub mod record;
pub mod route;
pub mod schedule;
pub mod unique;
