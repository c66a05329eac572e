//! `watchfire install-links DIR`: links by whose names this binary acts as another member of the family.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::cli::{EXIT_FAILURE, EXIT_USAGE};

/// Names that are linked: the members that are built.
const NAMES: [&str; 2] = ["prometheus", "promtool"];

const USAGE: &str = "usage: watchfire install-links DIR\n\nMakes links to this program in DIR, named after the members of \
                     the family that it can act as. What else\nhas such a name there is left alone, and is an error.";

/// Makes the links; gives the exit code.
pub(super) fn run(args: &[String]) -> u8 {
    let dir = match args {
        [help] if help == "-h" || help == "--help" => {
            let _ = writeln!(io::stdout(), "{USAGE}");
            return 0;
        }
        [dir] if !dir.starts_with('-') => Path::new(dir),
        _ => {
            let _ = writeln!(io::stderr(), "{USAGE}");
            return EXIT_USAGE;
        }
    };
    let own = match std::env::current_exe() {
        Ok(own) => own,
        Err(error) => {
            let _ = writeln!(io::stderr(), "cannot find this program: {error}");
            return EXIT_FAILURE;
        }
    };
    let mut code = 0;
    for name in NAMES {
        let path = dir.join(name);
        match link(&own, &path) {
            Ok(done) => drop(writeln!(io::stdout(), "{} {done}", path.display())),
            Err(reason) => {
                let _ = writeln!(io::stderr(), "{}: {reason}", path.display());
                code = EXIT_FAILURE;
            }
        }
    }
    code
}

/// Makes one link unless it is there; says what was done.
fn link(own: &Path, path: &Path) -> Result<&'static str, String> {
    match symlink(own, path) {
        Ok(()) => Ok("made"),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match fs::read_link(path) {
            Ok(target) if target == own => Ok("is there"),
            _ => Err("something else has this name".to_owned()),
        },
        Err(error) => Err(error.to_string()),
    }
}
