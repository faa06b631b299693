//! Small disks that fill up or turn read-only: file systems in memory, mounted for one test.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use faceflow_core::testing::require;

/// A file system of its own size, unmounted when dropped.
pub struct Disk(PathBuf);

impl Disk {
    /// `None` (and a word about it) where this user may not mount.
    pub fn mount(at: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(at).expect("makes");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(at).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(at.to_owned())),
            Ok(output) => {
                require::skip(
                    "disks",
                    format_args!("none can be mounted: {}", String::from_utf8_lossy(&output.stderr)),
                );
                None
            }
            Err(error) => {
                require::skip("disks", format_args!("none can be mounted: {error}"));
                None
            }
        }
    }

    pub fn resize(&self, size: &str) {
        assert!(self.remount(&format!("size={size}")));
    }

    /// Mounts it again with this option; whether that went well. It cannot be made read-only while a file is written.
    pub fn remount(&self, option: &str) -> bool {
        let mut mount = Command::new("mount");
        mount.args(["-o", &format!("remount,{option}")]).arg(&self.0).stderr(Stdio::null());
        mount.status().expect("mount can be run").success()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}
