//! A Debian root with the packages installed by apt, as a file system in a file.

use crate::{package, run};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// What the box has beside what the package asks for.
const INCLUDED: &str = "systemd-sysv,udev,kmod,linux-image-cloud-amd64,initramfs-tools,libtss2-rc0";

/// What the machine boots.
pub(super) struct Image {
    pub(super) kernel: PathBuf,
    pub(super) initrd: PathBuf,
    /// An ext4 file system; it is never written to.
    pub(super) disk: PathBuf,
}

impl Image {
    /// Makes it in `work`, without a loop device.
    pub(super) fn make(work: &Path) -> Result<(), String> {
        let image = Self::paths(work);
        fs::create_dir_all(work).map_err(|error| error.to_string())?;
        let here = env::current_dir().map_err(|error| error.to_string())?;
        let root = here.join(work).join("root");
        fs::create_dir_all(&root).map_err(|error| error.to_string())?;
        let files = root.join("trial");
        let mut make = Command::new("mmdebstrap");
        make.args(["--quiet", "--variant=apt", "--include", INCLUDED]);
        make.arg(format!("--customize-hook=mkdir {}", quoted(&files)));
        for package in package::built()? {
            let package = here.join(package);
            make.arg(format!("--customize-hook=cp {} {}", quoted(&package), quoted(&files)));
        }
        let ours = quoted(&here.join("packaging/boot"));
        make.arg(format!("--customize-hook=cp {ours}/* {}", quoted(&files)));
        make.arg("--customize-hook=chroot \"$1\" /trial/prepare");
        make.arg(package::distribution()?).arg(&root);
        run("box with the packages", make)?;
        for (from, to) in [("vmlinuz-", &image.kernel), ("initrd.img-", &image.initrd)] {
            let boot = fs::read_dir(root.join("boot")).map_err(|error| error.to_string())?;
            let file =
                boot.flatten().find(|file| file.file_name().to_string_lossy().starts_with(from));
            let file = file.ok_or(format!("the root has no {from}*"))?;
            fs::copy(file.path(), to).map_err(|error| format!("{from}: {error}"))?;
        }
        let mut disk = Command::new("mke2fs");
        disk.args(["-q", "-F", "-t", "ext4", "-d"]).arg(&root).arg(&image.disk).arg("3G");
        run("its disk", disk)?;
        fs::remove_dir_all(&root).map_err(|error| error.to_string())
    }

    /// The one that was made in `work`.
    pub(super) fn of(work: &Path) -> Result<Self, String> {
        let image = Self::paths(work);
        if image.disk.is_file() {
            return Ok(image);
        }
        Err(format!("{} is missing: run without --same-image", image.disk.display()))
    }

    fn paths(work: &Path) -> Self {
        let at = |name: &str| work.join(name);
        Self { kernel: at("vmlinuz"), initrd: at("initrd.img"), disk: at("root.ext4") }
    }
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.display())
}
