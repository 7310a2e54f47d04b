//! The file session keys are written to, for those who look at packets. Debug builds only.

use std::env;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use tracing::{error, warn};

use crate::engine::export::ExportedKeys;

/// Names the file. Without it no key leaves the process.
const VARIABLE: &str = "CORELAY_EXPORT_KEYS";

/// Where keys go: a file that only its owner can read, or nowhere.
#[derive(Debug)]
pub(super) struct KeyFile(Option<File>);

impl KeyFile {
    /// What the environment asks for.
    pub(super) fn from_environment() -> Self {
        let Some(path) = env::var_os(VARIABLE) else {
            return Self(None);
        };
        let path = Path::new(&path);
        match open(path) {
            Ok(file) => {
                warn!(
                    "session keys are written to {} ({VARIABLE}): whoever reads it can decrypt \
                     every call",
                    path.display()
                );
                Self(Some(file))
            }
            Err(error) => {
                error!(
                    "{VARIABLE}: {} cannot be opened, no keys are written: {error}",
                    path.display()
                );
                Self(None)
            }
        }
    }

    /// Adds a connection's keys.
    pub(super) fn push(&mut self, client: SocketAddr, keys: &ExportedKeys) {
        let Some(file) = &mut self.0 else { return };
        if let Err(error) = file.write_all(keys.line(client).as_bytes()) {
            error!("{VARIABLE}: session keys cannot be written any more: {error}");
            self.0 = None;
        }
    }
}

/// Opens for adding, closed to everyone else also when it was there before.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options.create(true).append(true).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process;

    use super::*;

    #[test]
    fn only_its_owner_can_read_the_file_whoever_made_it() {
        let path = env::temp_dir().join(format!("corelay-key-file-{}", process::id()));
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        drop(open(&path).unwrap());
        assert_eq!(mode(), 0o600);
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        drop(open(&path).unwrap());
        assert_eq!(mode(), 0o600);
        fs::remove_file(&path).unwrap();
    }
}
