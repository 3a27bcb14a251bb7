//! A small disk for a node's tables, which can be filled up: a tmpfs of its own, as the database's
//! default tablespace. Where it can't be mounted, disks are never full.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::chown;
use std::os::unix::fs::MetadataExt;
use tokio_postgres::Client;

use super::world::DATABASE;

/// A tmpfs. Unmounted when dropped.
pub struct TinyDisk {
    folder: PathBuf,
}

impl TinyDisk {
    /// Mounts one and gives it to a node's database; `None` if that can't be done here.
    pub async fn give(client: &Client, folder: &Path) -> Option<Self> {
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=96m", "none"])
            .arg(folder)
            .output()
            .ok()?;
        if !mount.status.success() {
            return None;
        }
        let disk = Self { folder: folder.to_owned() };
        let row = client.query_one("SHOW data_directory", &[]).await.unwrap();
        let owner = fs::metadata(row.get::<_, &str>(0)).unwrap();
        let space = folder.join("space");
        fs::create_dir(&space).unwrap();
        for path in [folder, &space] {
            chown(path, Some(owner.uid().into()), Some(owner.gid().into())).unwrap();
        }
        let sql = format!("CREATE TABLESPACE tiny LOCATION '{}'", space.display());
        client.batch_execute(&sql).await.unwrap();
        let sql = format!("ALTER DATABASE {DATABASE} SET default_tablespace = tiny");
        client.batch_execute(&sql).await.unwrap();
        Some(disk)
    }

    /// Fills it to the last byte.
    pub fn fill(&self) {
        let chunk = vec![0; 1 << 20];
        let mut file = fs::File::create(self.filler()).unwrap();
        while std::io::Write::write_all(&mut file, &chunk).is_ok() {}
    }

    /// Takes away what filled it.
    pub fn empty(&self) {
        let _not_full = fs::remove_file(self.filler());
    }

    fn filler(&self) -> PathBuf {
        self.folder.join("filler")
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        let _gone = Command::new("umount").arg("-l").arg(&self.folder).output();
    }
}
