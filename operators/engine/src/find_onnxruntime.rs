//! Where the library of ONNX Runtime may be. Looks at folders only: nothing is executed.

use std::path::{Path, PathBuf};
use std::{env, fs};

/// The library that the user names: the setting, else `ORT_DYLIB_PATH`.
pub(crate) fn named(setting: Option<&Path>) -> Option<PathBuf> {
    let variable = || env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()).map(PathBuf::from);
    let path = setting.map(Path::to_owned).or_else(variable)?;
    // A path is relative to the working folder; a bare name that is no file there is left to the system's loader.
    let absolute = if path.exists() { std::path::absolute(&path).ok() } else { None };
    Some(absolute.unwrap_or(path))
}

/// The libraries found on this machine, best place first: beside this program, system folders, Python packages.
pub(crate) fn installed() -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> =
        env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_owned())).into_iter().collect();
    let variable = if cfg!(target_os = "macos") { "DYLD_LIBRARY_PATH" } else { "LD_LIBRARY_PATH" };
    places.extend(env::var_os(variable).iter().flat_map(env::split_paths));
    places.extend(SYSTEM.iter().map(PathBuf::from));
    places.extend(python_packages(&python_homes()).into_iter().map(|packages| packages.join("onnxruntime/capi")));
    let mut libraries: Vec<PathBuf> = Vec::new();
    for library in places.iter().flat_map(|place| libraries_in(place)) {
        if !libraries.contains(&library) {
            libraries.push(library);
        }
    }
    libraries
}

const SYSTEM: [&str; 8] = [
    "/usr/local/lib",
    "/usr/local/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/opt/onnxruntime/lib",
    "/opt/homebrew/lib",
];

/// Folders that have `lib/python3.*` in them, the most specific first.
fn python_homes() -> Vec<PathBuf> {
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let mut homes: Vec<PathBuf> = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(variable).collect();
    let home = env::home_dir();
    let pyenv = variable("PYENV_ROOT").or_else(|| home.as_ref().map(|home| home.join(".pyenv")));
    homes.extend(pyenv.iter().flat_map(|pyenv| newest_first(&pyenv.join("versions"))));
    homes.extend(home.iter().map(|home| home.join(".local")));
    homes.extend(["/usr/local", "/usr", "/opt/homebrew"].map(PathBuf::from));
    homes
}

/// The package folders of every Python 3 under these homes.
fn python_packages(homes: &[PathBuf]) -> Vec<PathBuf> {
    let pythons = homes.iter().flat_map(|home| newest_first(&home.join("lib")));
    let pythons = pythons.filter(|path| file_name(path).starts_with("python3"));
    pythons.flat_map(|python| ["site-packages", "dist-packages"].map(|packages| python.join(packages))).collect()
}

/// The files in a folder that are, by their names, the library.
fn libraries_in(folder: &Path) -> Vec<PathBuf> {
    let is_library = |path: &PathBuf| {
        let name = file_name(path);
        let unix = name.starts_with("libonnxruntime.") && (name.contains(".so") || name.ends_with(".dylib"));
        (unix || name == "onnxruntime.dll") && path.is_file()
    };
    newest_first(folder).into_iter().filter(is_library).collect()
}

/// What a folder holds, higher versions first: of two names the longer has the larger number (3.11 before 3.9).
fn newest_first(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort_by_cached_key(|path| std::cmp::Reverse((path.as_os_str().len(), path.clone())));
    paths
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_packages_are_searched_newest_first() {
        let home = tempfile::tempdir().expect("a folder");
        for (version, file) in [("3.9", "libonnxruntime.so.1.20.0"), ("3.11", "libonnxruntime.so.1.31.1")] {
            let capi = home.path().join(format!("lib/python{version}/site-packages/onnxruntime/capi"));
            fs::create_dir_all(&capi).expect("a folder");
            for name in [file, "libonnxruntime_providers_shared.so", "onnxruntime_pybind11_state.so"] {
                fs::write(capi.join(name), b"").expect("a file");
            }
        }
        let packages = python_packages(&[home.path().to_owned()]);
        let found: Vec<_> = packages.iter().flat_map(|folder| libraries_in(&folder.join("onnxruntime/capi"))).collect();
        let names: Vec<_> = found.iter().map(|path| file_name(path)).collect();
        assert_eq!(names, ["libonnxruntime.so.1.31.1", "libonnxruntime.so.1.20.0"]);
    }

    #[test]
    fn the_setting_wins_and_a_bare_name_is_left_to_the_loader() {
        assert_eq!(named(Some(Path::new("libnowhere.so"))), Some(PathBuf::from("libnowhere.so")));
        let here = named(Some(Path::new("Cargo.toml"))).expect("named");
        assert!(here.is_absolute());
    }
}
