//! The environment of the submitter, for jobs: users expect in their tasks what they had at `up`
//! (conda, modules), and batch systems either show a copied environment to everybody or leave parts
//! out. So it is written to a file that only the user can read, which the job script sources.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Variables of one session, machine or job: wrong or harmful anywhere else.
const DROPPED: [&str; 34] = [
    "CUDA_VISIBLE_DEVICES",
    "DISPLAY",
    "GPU_DEVICE_ORDINAL",
    "HIP_VISIBLE_DEVICES",
    "HOSTNAME",
    // A job's of Grid Engine (submit(1)).
    "JOB_ID",
    "JOB_NAME",
    "JOB_SCRIPT",
    "NHOSTS",
    "NQUEUES",
    "NSLOTS",
    "PE",
    "PE_HOSTFILE",
    "RESTARTED",
    // A job's of LSF: not all of `LS_`, for `LS_COLORS` is the user's.
    "LS_EXEC_T",
    "LS_JOBPID",
    "LS_SUBCWD",
    "OLDPWD",
    "PWD",
    "ROCR_VISIBLE_DEVICES",
    "SHLVL",
    "TMPDIR",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
    "XDG_RUNTIME_DIR",
    "ZE_AFFINITY_MASK",
    "_",
    // Bash does not let these be set.
    "BASHOPTS",
    "BASH_VERSINFO",
    "EUID",
    "IFS",
    "PPID",
    "SHELLOPTS",
    "UID",
];

/// Beginnings of such names.
const DROPPED_PREFIXES: [&str; 19] = [
    "BSUB_",
    "DBUS_",
    "DCLUSTER_",
    "LSB_",
    "OAR_",
    "PBS_",
    "SBATCH_",
    "SGE_JOB_",
    "SGE_O_",
    "SGE_STDERR_",
    "SGE_STDOUT_",
    "SGE_TASK_",
    "SLURM_",
    "SSH_",
    "XDG_SESSION_",
    "_CONDOR_JOB_",
    "_CONDOR_MACHINE_",
    "_CONDOR_SCRATCH_",
    "_CONDOR_SLOT",
];

/// Returns a bash file that sets these variables and functions, sorted by name. Sourcing it runs no
/// value of a variable; an exported function is code, as it was for the shell it comes from.
pub fn render(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Vec<u8> {
    let mut variables: Vec<(Vec<u8>, Vec<u8>)> =
        variables.into_iter().map(|(name, value)| (name.into_vec(), value.into_vec())).collect();
    variables.sort();
    let mut file = b"# The environment of `dcluster up`.\n".to_vec();
    for (name, value) in &variables {
        if let Some(function) = function_name(name) {
            render_function(&mut file, function, value);
        } else if is_identifier(name) && is_taken(OsStr::from_bytes(name)) {
            file.extend_from_slice(b"export ");
            file.extend_from_slice(name);
            file.push(b'=');
            quote(&mut file, value);
            file.push(b'\n');
        }
    }
    file
}

/// Returns whether jobs get the variable of this name.
pub fn is_taken(name: &OsStr) -> bool {
    let name = name.as_bytes();
    !DROPPED.iter().any(|dropped| dropped.as_bytes() == name)
        && !DROPPED_PREFIXES.iter().any(|prefix| name.starts_with(prefix.as_bytes()))
}

/// Returns the function's name of `BASH_FUNC_name%%`, the form in which bash exports functions.
fn function_name(variable: &[u8]) -> Option<&[u8]> {
    let name = variable.strip_prefix(b"BASH_FUNC_")?.strip_suffix(b"%%")?;
    // Bash allows more in names; these are the ones that need no quoting (`ml`, `which`, `a-b::c`).
    let good = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.:+".contains(byte);
    let begins_well = name.first().is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_');
    (begins_well && name.iter().all(good)).then_some(name)
}

/// Defines and exports a function. The definition stands in an `eval`, so that one that this bash
/// cannot read is lost alone and does not end a script that runs with `set -e`.
fn render_function(file: &mut Vec<u8>, name: &[u8], body: &[u8]) {
    if !body.starts_with(b"() {") {
        return;
    }
    let definition = [b"function ", name, b" ", body].concat();
    file.extend_from_slice(b"eval ");
    quote(file, &definition);
    file.extend_from_slice(b" && export -f ");
    file.extend_from_slice(name);
    file.extend_from_slice(b" || :\n");
}

fn is_identifier(name: &[u8]) -> bool {
    let begins_well = name.first().is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_');
    begins_well && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

/// Writes a word in single quotes, in which only the quote itself means anything to the shell.
fn quote(file: &mut Vec<u8>, value: &[u8]) {
    file.push(b'\'');
    for byte in value {
        match byte {
            b'\'' => file.extend_from_slice(b"'\\''"),
            _ => file.push(*byte),
        }
    }
    file.push(b'\'');
}

#[cfg(test)]
mod tests;
