//! What a guest finds around it: arguments, environment, folders, standard streams.

use std::ffi::CString;

use wasmlet_runner_core::{Access, Program, Surroundings};

use crate::ffi;
use crate::library::{Wasi, WasiSettings};

use super::sockets;

/// A WASI instance for the program.
///
/// A folder that the container's user cannot open is left out by the library, as a Linux process could not
/// open it either.
///
/// # Errors
/// What cannot be told to the library, and what it did not do.
pub(super) fn prepare(program: &Program, surroundings: Surroundings) -> Result<Wasi, String> {
    let stdin = match surroundings.listener {
        None => 0,
        Some(listener) => sockets::give(listener)
            .map_err(|error| format!("the listening socket cannot be handed over: {error}"))?,
    };
    let mut preopens = Vec::new();
    for preopen in &surroundings.preopens {
        preopens.push(folder(
            &preopen.guest,
            &preopen.host.to_string_lossy(),
            preopen.access,
        )?);
    }
    let env = program
        .env
        .iter()
        .map(|(name, value)| format!("{name}={value}"));
    let wasi = Wasi::new(&WasiSettings {
        args: strings("argument", program.args.iter().cloned())?,
        env: strings("environment variable", env)?,
        preopens: strings("folder", preopens.into_iter())?,
        stdin,
    })
    .ok_or("the library has no WASI")?;
    // It says nothing when it could not take one of them.
    for fd in 0..3 {
        let mut handle = 0;
        // SAFETY: the instance lives, and there is room for the handle.
        let missing = unsafe {
            ffi::WasmEdge_ModuleInstanceWASIGetNativeHandler(wasi.as_ptr(), fd, &raw mut handle)
        };
        if missing != 0 {
            return Err(format!("the standard stream {fd} cannot be handed over"));
        }
    }
    Ok(wasi)
}

/// A folder in the library's own way of writing, which has no way to write a colon.
fn folder(guest: &str, host: &str, access: Access) -> Result<String, String> {
    if guest.contains(':') || host.contains(':') {
        return Err(format!(
            "wasmedge cannot open the folder {guest:?} because of the colon in its name; rename it, or \
             choose another engine with wasmlet.dev/engine"
        ));
    }
    Ok(match access {
        Access::ReadOnly => format!("{guest}:{host}:readonly"),
        Access::ReadWrite => format!("{guest}:{host}"),
    })
}

fn strings(what: &str, list: impl Iterator<Item = String>) -> Result<Vec<CString>, String> {
    list.map(|text| {
        CString::new(text).map_err(|error| {
            let text = String::from_utf8_lossy(&error.into_vec()).into_owned();
            format!("the {what} {text:?} has a NUL in it")
        })
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_written_with_what_may_be_done_in_them() {
        assert_eq!(
            folder("/data", "/mnt", Access::ReadOnly).as_deref(),
            Ok("/data:/mnt:readonly")
        );
        assert_eq!(
            folder(".", "/app", Access::ReadWrite).as_deref(),
            Ok(".:/app")
        );
    }

    #[test]
    fn a_folder_that_cannot_be_written_down_is_no_other_folder() {
        let error = folder("/a:/etc", "/a:/etc", Access::ReadWrite).expect_err("a colon");
        assert!(
            error.contains("/a:/etc") && error.contains("colon"),
            "{error}"
        );
    }
}
