//! The settings of a command line: defaults, file, environment, `--set`, and the flags that stand for settings.

use std::path::Path;

use anyhow::Result;
use faceflow::config::{Layers, Settings, SettingsError};

use crate::cli::{Common, CrawlArgs};
use crate::exit_status::Usage;

/// The settings of a command line: file, environment, `--set`, and the flags that stand for settings.
pub fn settings(common: &Common, flags: &[Flag]) -> Result<Settings> {
    let layered = layered(common.config.as_deref(), &common.set, flags);
    Ok(layered.map_err(|error| Usage(error.to_string()))?)
}

/// A flag that stands for a setting.
#[derive(Clone, Debug)]
pub struct Flag {
    /// As the user typed it.
    said: String,
    /// As after `--set`.
    assignment: String,
}

/// The same, from its services.
pub fn layered(file: Option<&Path>, set: &[String], flags: &[Flag]) -> Result<Settings, SettingsError> {
    let layers = match file {
        Some(path) => Layers::default().file(path),
        None => Ok(Layers::default()),
    };
    let layers = layers.map(|layers| layers.environment(std::env::vars()));
    let layers = set.iter().fold(layers, |layers, assignment| layers?.set(assignment));
    let layers = flags.iter().fold(layers, |layers, flag| layers?.assign(&flag.said, &flag.assignment));
    layers.and_then(Layers::settings)
}

/// The flags that stand for settings.
pub fn crawl_flags(args: &CrawlArgs) -> Vec<Flag> {
    let flag = |name: &str, key: &str, value: Option<String>| {
        value.map(|value| Flag { said: format!("{name} {value}"), assignment: format!("{key}={value}") })
    };
    let flags = [
        flag("--max-pages", "crawl.max_pages", args.max_pages.map(|n| n.to_string())),
        flag("--max-images", "crawl.max_images", args.max_images.map(|n| n.to_string())),
        flag("--max-concurrent-images", "image.concurrent_max", args.max_concurrent_images.map(|n| n.to_string())),
        flag("--crawl", "crawl.shape", args.shape.clone()),
    ];
    flags.into_iter().flatten().collect()
}
