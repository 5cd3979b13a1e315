//! Python with packages of its own, for tests that need other people's implementations. There is
//! no substitute for those, so that without them the tests fail and say what is missing.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Written into an environment that is complete, with what it holds.
const COMPLETE: &str = "packages.txt";

/// The interpreter of an environment with these packages, made once for the whole workspace.
pub(crate) fn interpreter(name: &str, packages: &[&str]) -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target"),
        PathBuf::from,
    );
    fs::create_dir_all(&target).expect("a target directory");
    let venv = target.join(name);
    let python = venv.join("bin/python");
    let wanted = packages.join("\n");
    // Tests run at once, in processes of their own: one makes it, the others wait.
    let lock = fs::File::create(target.join(format!("{name}.lock"))).expect("a lock file");
    lock.lock().expect("a file can be locked");
    if fs::read_to_string(venv.join(COMPLETE)).is_ok_and(|found| found == wanted) {
        return python;
    }
    run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&venv));
    run(Command::new(&python)
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ])
        .args(packages));
    fs::write(venv.join(COMPLETE), wanted).expect("a note in the environment");
    python
}

fn run(command: &mut Command) {
    let failure = match command.output() {
        Ok(output) if output.status.success() => return,
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    panic!("this test needs python3 with venv, and a package index; {command:?} failed: {failure}");
}
