//! What tests need of the machine, and what becomes of a test where a part of that is missing.
//!
//! Promise: a test that does not run says so, and fails where [`VARIABLE`] requires the part: `FACEFLOW_REQUIRE=all` requires every
//! one, `all,-unshare` every one but that, `postgresql,s3` those two. Unset, nothing is required.

use std::fmt::Display;
use std::path::{Path, PathBuf};

/// The variable that names the parts which must be there.
pub const VARIABLE: &str = "FACEFLOW_REQUIRE";

/// Every part that a test may ask for.
pub const PARTS: [&str; 12] = [
    // Programs and libraries that can be installed anywhere.
    "azurite",
    "compiler",
    "faketime",
    "gzip",
    "onnxruntime",
    "openssl",
    "postgresql",
    "s3",
    // Models, photographs and suites that are not part of the repository.
    "testdata",
    // What the system has to permit: mounting file systems, namespaces, putting a library before others.
    "disks",
    "unshare",
    "preload",
];

/// Says that a test, or the rest of it, does not run, because `part` is missing.
///
/// # Panics
/// Where the part is required, and where there is no such part.
#[track_caller]
pub fn skip(part: &str, why: impl Display) {
    assert!(PARTS.contains(&part), "no part is called {part}");
    let setting = std::env::var(VARIABLE).unwrap_or_default();
    let required = requires(&setting, part).unwrap_or_else(|error| panic!("{error}"));
    assert!(!required, "{VARIABLE}={setting} requires {part}: {why}");
    println!("skipped without {part}: {why}");
}

/// A file or folder of the test data: in `FACEFLOW_TESTDATA`, else in `shared` beside the workspace. `None` once [`skip`] has
/// permitted it.
#[track_caller]
pub fn testdata(name: &str) -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let place = std::env::var_os("FACEFLOW_TESTDATA").map_or_else(beside, PathBuf::from).join(name);
    if place.exists() {
        return Some(place);
    }
    skip("testdata", format_args!("there is no {} (FACEFLOW_TESTDATA names the folder)", place.display()));
    None
}

/// Whether this setting requires the part. A name that is none would require nothing, so it is an error.
fn requires(setting: &str, part: &str) -> Result<bool, String> {
    let mut required = false;
    for word in setting.split(',').filter(|word| !word.is_empty()) {
        let (name, wanted) = word.strip_prefix('-').map_or((word, true), |name| (name, false));
        if name != "all" && !PARTS.contains(&name) {
            return Err(format!("{VARIABLE}={setting}: no part is called {name}; there are all, {}", PARTS.join(", ")));
        }
        if name == "all" || name == part {
            required = wanted;
        }
    }
    Ok(required)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_means_all_but_what_is_named() {
        assert_eq!(requires("", "s3"), Ok(false));
        assert_eq!(requires("all", "s3"), Ok(true));
        assert_eq!(requires("all,-unshare", "s3"), Ok(true));
        assert_eq!(requires("all,-unshare", "unshare"), Ok(false));
        assert_eq!(requires("s3,postgresql", "s3"), Ok(true));
        assert_eq!(requires("s3,postgresql", "openssl"), Ok(false));
        assert!(requires("postgres", "s3").is_err_and(|error| error.contains("no part is called postgres;")));
        assert!(requires("all,-network", "s3").is_err());
    }

    #[test]
    #[should_panic(expected = "no part is called luck")]
    fn a_part_that_is_not_listed_cannot_be_missing() {
        skip("luck", "there is none");
    }
}
