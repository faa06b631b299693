//! Real photographs: those of the test data folder, where there is one, and the one in the package of the crate rustface.

use std::path::{Path, PathBuf};

use faceflow_core::testing::require;

/// The JPEG files of the test data folder's `photos/faces` and `photos/nofaces`, in the order of their names. `None`, with
/// the reason printed, where there are none.
pub fn photos() -> Option<Vec<PathBuf>> {
    let photos = require::testdata("photos")?;
    let mut files: Vec<PathBuf> =
        ["faces", "nofaces"].iter().flat_map(|folder| entries(&photos.join(folder))).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "jpg"));
    files.sort();
    if files.is_empty() {
        require::skip("testdata", format_args!("no photographs in {}", photos.display()));
        return None;
    }
    Some(files)
}

/// The photograph in the package of the crate rustface: a PNG of 1666 × 1136 pixels with 29 people, from 1927.
///
/// # Panics
/// When the package is neither in cargo's home nor in a vendor folder.
pub fn rustface_photo() -> Vec<u8> {
    let lock = workspace().join("Cargo.lock");
    let text = std::fs::read_to_string(&lock).unwrap_or_else(|error| panic!("cannot read {}: {error}", lock.display()));
    let version = text.split("name = \"rustface\"\nversion = \"").nth(1).and_then(|rest| rest.split('"').next());
    let version = version.unwrap_or_else(|| panic!("{} names no rustface", lock.display()));
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo"))).unwrap_or_default();
    let registry = entries(&home.join("registry/src"));
    let packages = registry.iter().map(|index| index.join(format!("rustface-{version}")));
    let vendored = entries(&workspace().join("vendor"))
        .into_iter()
        .filter(|package| package.file_name().is_some_and(|name| name.to_string_lossy().starts_with("rustface")));
    let read = packages.chain(vendored).find_map(|package| std::fs::read(package.join("test.png")).ok());
    read.unwrap_or_else(|| panic!("no rustface-{version}/test.png under {} nor vendored", home.display()))
}

/// The folder of the workspace: the nearest one above that has a Cargo.lock.
fn workspace() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let locked = package.ancestors().find(|folder| folder.join("Cargo.lock").is_file());
    locked.unwrap_or(package).to_owned()
}

/// What a folder holds; nothing where it cannot be read.
fn entries(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect()
}
