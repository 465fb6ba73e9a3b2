//! File systems of their own for a test: an image file on a loop device, mounted, shut down as a power cut would, and
//! mounted again. Needs root, loop devices, and the programs of the file system.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// How long a file system may stay busy after the last process on it was killed.
const BUSY: Duration = Duration::from_secs(20);

/// A mounted image.
pub(crate) struct Image {
    directory: tempfile::TempDir,
}

/// Where programs for file systems are; an ordinary PATH may lack the first two.
const PLACES: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

fn program(name: &str) -> Option<PathBuf> {
    PLACES.iter().map(|place| Path::new(place).join(name)).find(|path| path.exists())
}

/// Says why a test cannot run on this machine, if so. In CI that is a failure.
pub(crate) fn unavailable(test: &str, programs: &[&str]) -> bool {
    let mut missing: Vec<&str> = Vec::new();
    if !rustix::process::geteuid().is_root() {
        missing.push("root");
    }
    if !Path::new("/dev/loop-control").exists() {
        missing.push("loop devices");
    }
    missing.extend(programs.iter().filter(|name| program(name).is_none()));
    if missing.is_empty() {
        return false;
    }
    let message = format!("{test} did not run: it needs {} (packages xfsprogs, e2fsprogs)", missing.join(", "));
    assert!(std::env::var("CI").is_err(), "{message}");
    eprintln!("{message}");
    true
}

impl Image {
    /// A new file system (`ext4` or `xfs`) of so many bytes.
    pub(crate) fn new(file_system: &str, bytes: u64) -> Self {
        let image = Self { directory: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory") };
        std::fs::File::create(image.file()).and_then(|file| file.set_len(bytes)).expect("an image");
        std::fs::create_dir(image.path()).expect("a mount point");
        let force = if file_system == "xfs" { "-qf" } else { "-qF" };
        must(command(&format!("mkfs.{file_system}")).arg(force).arg(image.file()));
        image.mount();
        image
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("mounted")
    }

    /// Drops whatever is not on its disk yet, and refuses everything from then on.
    pub(crate) fn shut_down(&self) {
        must(command("xfs_io").args(["-x", "-c", "shutdown"]).arg(self.path()));
    }

    /// Takes no writes from now on.
    pub(crate) fn make_read_only(&self) {
        must(command("mount").args(["-o", "remount,ro"]).arg(self.path()));
    }

    /// Unmounts it, waiting for what the kernel still closes, and mounts it again.
    pub(crate) fn remount(&self) {
        self.unmount().unwrap_or_else(|said| panic!("it cannot be unmounted: {said}"));
        self.mount();
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("image")
    }

    fn mount(&self) {
        must(command("mount").args(["-o", "loop"]).arg(self.file()).arg(self.path()));
    }

    fn unmount(&self) -> Result<(), String> {
        let deadline = Instant::now() + BUSY;
        loop {
            let output = output(command("umount").arg(self.path()));
            if output.status.success() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(String::from_utf8_lossy(&output.stderr).into_owned());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if let Err(said) = self.unmount() {
            eprintln!("{} stays mounted: {said}", self.path().display());
        }
    }
}

fn command(name: &str) -> Command {
    Command::new(program(name).unwrap_or_else(|| PathBuf::from(name)))
}

fn output(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn must(command: &mut Command) {
    let output = output(command);
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
