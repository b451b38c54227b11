//! Keeps glibc from loading code out of the image.
//!
//! After `pivot_root` the first name lookup reads the image's `/etc/nsswitch.conf` and loads
//! `libnss_NAME.so.2` from the image for every service it names, even in a static program: a `.wasm`
//! image would run native code. `files` and `dns` are part of libc itself since 2.34, so with the
//! databases fixed to them nothing is loaded. Lookups still use the image's `hosts` and
//! `resolv.conf`.

use crate::failure::Error;

/// Every database of nsswitch.conf(5).
const DATABASES: [(&str, &str); 14] = [
    ("aliases", "files"),
    ("ethers", "files"),
    ("group", "files"),
    ("gshadow", "files"),
    ("hosts", "files dns"),
    ("initgroups", "files"),
    ("netgroup", "files"),
    ("networks", "files"),
    ("passwd", "files"),
    ("protocols", "files"),
    ("publickey", "files"),
    ("rpc", "files"),
    ("services", "files"),
    ("shadow", "files"),
];

/// Fixes the name service of this process and all that are forked from it.
///
/// # Errors
/// When glibc does not know one of the databases.
pub(crate) fn fix() -> Result<(), Error> {
    #[cfg(target_env = "gnu")]
    for (database, services) in DATABASES {
        glibc::configure(database, services)?;
    }
    Ok(())
}

#[cfg(target_env = "gnu")]
mod glibc {
    use std::ffi::{CString, c_char, c_int};

    use crate::failure::Error;

    unsafe extern "C" {
        /// glibc, `nss.h`: overrides the configuration file for one database.
        fn __nss_configure_lookup(database: *const c_char, services: *const c_char) -> c_int;
    }

    pub(super) fn configure(database: &'static str, services: &str) -> Result<(), Error> {
        let error = || Error::NameService { database };
        let name = CString::new(database).map_err(|_| error())?;
        let services = CString::new(services).map_err(|_| error())?;
        // SAFETY: both are strings that live through the call; glibc copies what it keeps.
        let result = unsafe { __nss_configure_lookup(name.as_ptr(), services.as_ptr()) };
        if result == 0 { Ok(()) } else { Err(error()) }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn glibc_knows_every_database() {
        super::fix().expect("all databases are known");
    }
}
