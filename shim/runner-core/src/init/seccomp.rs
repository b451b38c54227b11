//! No new executable memory once the guest runs.
//!
//! The runner has no compiler, so after the artifact is mapped nothing in the process has a reason
//! to make memory executable or to execute a file. On top of the pod's own profile.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

/// Why the filter could not be set.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FilterError {
    #[error("this processor architecture has no filter")]
    Architecture(#[source] BackendError),
    #[error("the filter cannot be built: {0}")]
    Build(#[from] BackendError),
    #[error("the kernel refuses the filter: {0}; does the pod's seccomp profile allow seccomp(2)?")]
    Apply(#[from] seccompiler::Error),
}

/// Sets the filter on every thread of this process.
///
/// # Errors
/// When the kernel refuses it.
pub(crate) fn forbid_new_code() -> Result<(), FilterError> {
    seccompiler::apply_filter_all_threads(&program()?)?;
    Ok(())
}

fn program() -> Result<BpfProgram, FilterError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(FilterError::Architecture)?;
    let filter = SeccompFilter::new(
        rules()?,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM.unsigned_abs()),
        arch,
    )?;
    Ok(filter.try_into()?)
}

fn rules() -> Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError> {
    let executable = |argument: u8, flag: libc::c_int| -> Result<Vec<SeccompRule>, BackendError> {
        let flag = u64::from(flag.unsigned_abs());
        Ok(vec![SeccompRule::new(vec![SeccompCondition::new(
            argument,
            SeccompCmpArgLen::Dword,
            SeccompCmpOp::MaskedEq(flag),
            flag,
        )?])?])
    };
    let mut rules = BTreeMap::from([
        (libc::SYS_execve, vec![]),
        (libc::SYS_execveat, vec![]),
        // READ_IMPLIES_EXEC would make the rules below void.
        (libc::SYS_personality, vec![]),
        (libc::SYS_mmap, executable(2, libc::PROT_EXEC)?),
        (libc::SYS_mprotect, executable(2, libc::PROT_EXEC)?),
        (libc::SYS_pkey_mprotect, executable(2, libc::PROT_EXEC)?),
        (libc::SYS_shmat, executable(2, libc::SHM_EXEC)?),
    ]);
    // The x32 numbers reach the same system calls where the kernel has them switched on.
    #[cfg(target_arch = "x86_64")]
    {
        const X32: i64 = 0x4000_0000;
        let same: Vec<(i64, Vec<SeccompRule>)> = rules
            .iter()
            .map(|(number, rules)| (number | X32, rules.clone()))
            .collect();
        rules.extend(same);
        // These two have numbers of their own there.
        rules.insert(X32 | 520, vec![]);
        rules.insert(X32 | 545, vec![]);
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Runs in a thread of its own: a filter cannot be taken off again.
    #[test]
    fn memory_cannot_be_made_executable() {
        let program = program().expect("this architecture is known");
        let result = std::thread::spawn(move || {
            let map = |protection| {
                // SAFETY: a fresh anonymous mapping that is not used.
                unsafe {
                    libc::mmap(
                        std::ptr::null_mut(),
                        4096,
                        protection,
                        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                        -1,
                        0,
                    )
                }
            };
            let protect = |at, protection| {
                // SAFETY: the page was mapped just above and holds nothing.
                let result = unsafe { libc::mprotect(at, 4096, protection) };
                (result, std::io::Error::last_os_error().raw_os_error())
            };
            let plain = map(libc::PROT_READ | libc::PROT_WRITE);
            seccompiler::apply_filter(&program).expect("the kernel takes it");
            let page = map(libc::PROT_READ | libc::PROT_WRITE);
            let code = map(libc::PROT_READ | libc::PROT_EXEC);
            let errno = std::io::Error::last_os_error().raw_os_error();
            let read = protect(plain, libc::PROT_READ);
            let exec = protect(plain, libc::PROT_READ | libc::PROT_EXEC);
            let run = Command::new("/bin/true")
                .status()
                .map_err(|e| e.raw_os_error());
            (
                page != libc::MAP_FAILED,
                code == libc::MAP_FAILED,
                errno,
                read.0,
                exec,
                run,
            )
        })
        .join()
        .expect("the thread ends");
        let (page, no_code, errno, read, exec, run) = result;
        assert!(page, "plain memory still works");
        assert!(no_code && errno == Some(libc::EPERM));
        assert_eq!(read, 0, "other protections still work");
        assert_eq!(exec, (-1, Some(libc::EPERM)));
        assert_eq!(run.expect_err("nothing is executed"), Some(libc::EPERM));
    }
}
