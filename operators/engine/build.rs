//! Finds the SeetaFace model in the package of the crate `rustface`, checks it, and puts it where the crate includes it.
//!
//! Cargo tells a build script nothing of a dependency's folder, so the version is read from the workspace's `Cargo.lock`
//! and the package looked up where cargo keeps sources: the registry under the cargo home, else the workspace's `vendor`.

use std::path::{Path, PathBuf};
use std::{env, fs};

use sha2::{Digest, Sha256};

const MODEL: (&str, &str) =
    ("model/seeta_fd_frontal_v1.0.bin", "c4619d066ed35e84d9a8e842860b0dff567aba0cbb139881075538761db3ff5d");
const SAMPLE: (&str, &str) = ("test.png", "eb854bcafbe7e0e13fb1b8073a1e6c30b67e06b463f919325c4a20b13a3c8e0c");

fn main() {
    if let Err(problem) = run() {
        // A line of its own on stderr: cargo shows it as the reason of the failed build.
        eprintln!("{problem}");
        std::process::exit(1);
    }
}

fn run() -> Result<(), String> {
    let here = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(variable("OUT_DIR")?);
    let workspace = here.ancestors().find(|folder| folder.join("Cargo.lock").is_file());
    let workspace = workspace.ok_or_else(|| format!("no Cargo.lock in {} or above it", here.display()))?;
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", workspace.join("Cargo.lock").display());
    println!("cargo::rerun-if-env-changed=CARGO_HOME");

    let version = locked_version(&workspace.join("Cargo.lock"))?;
    let places = packages(workspace, &version);
    let package = places.iter().find(|folder| folder.join(MODEL.0).is_file()).ok_or_else(|| {
        let tried: Vec<_> = places.iter().map(|folder| format!("\n  {}", folder.display())).collect();
        format!(
            "the package rustface {version}, which holds the SeetaFace model, was not found; run `cargo fetch`, or `cargo \
             vendor` for a build without network. Tried:{}",
            tried.concat()
        )
    })?;
    copy_checked(package, MODEL, &out.join("seeta.bin"))?;
    copy_checked(package, SAMPLE, &out.join("sample.png"))
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|_| format!("{name} is not set: this script is to be run by cargo"))
}

/// The version of rustface in the lock file.
fn locked_version(lock: &Path) -> Result<String, String> {
    let text = fs::read_to_string(lock).map_err(|error| format!("cannot read {}: {error}", lock.display()))?;
    let mut lines = text.lines().skip_while(|line| line.trim() != r#"name = "rustface""#).skip(1);
    let version = lines.next().and_then(|line| line.trim().strip_prefix("version = \"")?.strip_suffix('"'));
    version.map(str::to_owned).ok_or_else(|| format!("{} names no version of rustface", lock.display()))
}

/// The folders in which cargo may keep the package.
fn packages(workspace: &Path, version: &str) -> Vec<PathBuf> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    #[allow(deprecated)] // Right again since Rust 1.85.
    let home = home.or_else(|| env::home_dir().map(|home| home.join(".cargo")));
    let registries = home.map(|home| home.join("registry/src"));
    let mut places: Vec<_> = registries.iter().flat_map(|folder| folders(folder)).collect();
    for place in &mut places {
        place.push(format!("rustface-{version}"));
    }
    let vendored = folders(&workspace.join("vendor"));
    places.extend(
        vendored
            .into_iter()
            .filter(|folder| folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with("rustface"))),
    );
    places
}

fn folders(parent: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else { return Vec::new() };
    let mut folders: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    folders.sort();
    folders
}

fn copy_checked(package: &Path, (name, expected): (&str, &str), to: &Path) -> Result<(), String> {
    let from = package.join(name);
    let bytes = fs::read(&from).map_err(|error| format!("cannot read {}: {error}", from.display()))?;
    let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    if digest != expected {
        return Err(format!(
            "{} has SHA-256 {digest} but {expected} is the one that was tested: the package is damaged or a version of \
             rustface that faceflow does not know",
            from.display()
        ));
    }
    println!("cargo::rerun-if-changed={}", from.display());
    fs::write(to, bytes).map_err(|error| format!("cannot write {}: {error}", to.display()))
}
