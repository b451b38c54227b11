//! Functions of the C library that this program answers in the C library's place.
//!
//! A program's own functions come before those of the libraries it is linked to, for the libraries too:
//! that is how allocators are replaced. WasmEdge leaves to its caller neither how files are opened nor how
//! memory grows, faults are caught and connections are accepted; it does all of that through the C
//! library, and here each of these calls is answered or passed on. None of them is changed for threads
//! and names that are not the guest's.
//!
//! | function | what for |
//! |---|---|
//! | `stat`, `open`, `dlopen` | the name of the artifact while it is loaded (`artifact`) |
//! | `mmap` | the cap on linear memory (`memory`) |
//! | `operator new`, `operator delete` | the same cap for tables (`memory`) |
//! | `sigaction` | faults on the guest's stack (`fault`) |
//! | `accept`, `close`, `epoll_wait` | connections of the listening socket (`sockets`) |

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering};

use super::{fault, memory, sockets};

/// What the library calls the artifact. No container can have a file of that name: it is longer than
/// file names get (NAME_MAX is 255).
const ARTIFACT: &CStr = {
    const TEXT: &[u8; 301] = &{
        let mut text = [b'_'; 301];
        text[0] = b'/';
        text[300] = 0;
        text
    };
    match CStr::from_bytes_with_nul(TEXT) {
        Ok(path) => path,
        Err(_) => panic!("ends with its only NUL"),
    }
};

/// The artifact while it is loaded.
pub(super) struct Loading {
    pub(super) fd: i32,
    pub(super) handle: NonNull<c_void>,
}

static FD: AtomicI32 = AtomicI32::new(-1);
static HANDLE: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

thread_local! {
    /// This thread runs the guest.
    static IS_GUEST: Cell<bool> = const { Cell::new(false) };
}

/// From here on this thread's calls are the guest's.
pub(super) fn enter_guest() {
    IS_GUEST.set(true);
}

fn is_guest() -> bool {
    IS_GUEST.get()
}

/// Runs `load` with a path that stands for the artifact.
pub(super) fn while_loading<T>(artifact: Loading, load: impl FnOnce(&CStr) -> T) -> T {
    HANDLE.store(artifact.handle.as_ptr(), Ordering::SeqCst);
    FD.store(artifact.fd, Ordering::SeqCst);
    let loaded = load(ARTIFACT);
    FD.store(-1, Ordering::SeqCst);
    loaded
}

/// The artifact's descriptor, if this is its name and it is being loaded.
///
/// # Safety
/// The path must be a string.
unsafe fn artifact(path: *const c_char) -> Option<i32> {
    let fd = FD.load(Ordering::SeqCst);
    // SAFETY: the caller vouches for it.
    (fd >= 0 && unsafe { libc::strcmp(path, ARTIFACT.as_ptr()) } == 0).then_some(fd)
}

/// Checks that the library calls the functions below and not the C library's.
///
/// # Errors
/// With the first one that is not called.
pub(super) fn check() -> Result<(), String> {
    let own: [(&CStr, *const c_void); 10] = [
        (c"stat", stat as *const c_void),
        (c"open", open as *const c_void),
        (c"dlopen", dlopen as *const c_void),
        (c"mmap", mmap as *const c_void),
        (c"_Znwm", operator_new as *const c_void),
        (c"_ZdlPvm", operator_delete as *const c_void),
        (c"sigaction", sigaction as *const c_void),
        (c"accept", accept as *const c_void),
        (c"close", close as *const c_void),
        (c"epoll_wait", epoll_wait as *const c_void),
    ];
    for (name, address) in own {
        // SAFETY: the name is a string. This is the search that resolves the library's calls.
        let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
        if !std::ptr::eq(found, address) {
            return Err(format!(
                "this program is linked wrongly: its {} is not the one that libwasmedge calls",
                name.to_string_lossy()
            ));
        }
    }
    Ok(())
}

unsafe extern "C" {
    /// glibc's other name of `sigaction`.
    fn __sigaction(signal: c_int, new: *const libc::sigaction, old: *mut libc::sigaction) -> c_int;
    /// glibc's other name of `close`.
    fn __close(fd: c_int) -> c_int;
}

/// # Safety
/// As stat(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn stat(path: *const c_char, result: *mut libc::stat) -> c_int {
    // SAFETY: what the caller vouches for is what the calls want.
    unsafe {
        match artifact(path) {
            Some(fd) => libc::fstat(fd, result),
            None => libc::fstatat(libc::AT_FDCWD, path, result, 0),
        }
    }
}

/// The third argument is only read with flags that make a file.
///
/// # Safety
/// As open(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: libc::mode_t) -> c_int {
    // SAFETY: what the caller vouches for is what the calls want. A mode that was not passed is any
    // number, and is passed on to where it is not looked at.
    unsafe {
        match artifact(path) {
            Some(fd) => libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3),
            None => libc::openat(libc::AT_FDCWD, path, flags, mode),
        }
    }
}

/// # Safety
/// As dlopen(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void {
    type Dlopen = unsafe extern "C" fn(*const c_char, c_int) -> *mut c_void;
    // SAFETY: what the caller vouches for is what the calls want; the C library's function has this type.
    unsafe {
        if !path.is_null() && artifact(path).is_some() {
            return HANDLE.load(Ordering::SeqCst);
        }
        let next = libc::dlsym(libc::RTLD_NEXT, c"dlopen".as_ptr());
        if next.is_null() {
            return std::ptr::null_mut();
        }
        std::mem::transmute::<*mut c_void, Dlopen>(next)(path, flags)
    }
}

/// # Safety
/// As mmap(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn mmap(
    address: *mut c_void,
    length: usize,
    protection: c_int,
    flags: c_int,
    fd: c_int,
    offset: libc::off_t,
) -> *mut c_void {
    let map = || {
        // SAFETY: what the caller vouches for is what the call wants.
        let result = unsafe {
            libc::syscall(
                libc::SYS_mmap,
                address,
                length,
                protection,
                flags,
                fd,
                offset,
            )
        };
        result as *mut c_void
    };
    if is_guest() && flags & libc::MAP_ANONYMOUS != 0 {
        memory::map(length, protection, flags, map)
    } else {
        map()
    }
}

/// `operator new` by the name it has for linkers.
#[unsafe(export_name = "_Znwm")]
extern "C" fn operator_new(size: usize) -> *mut c_void {
    if is_guest() {
        memory::allocate(size);
    }
    // SAFETY: malloc has no preconditions. Nothing of size 0 still has an address of its own.
    let address = unsafe { libc::malloc(size.max(1)) };
    if address.is_null() {
        if is_guest() {
            memory::exhausted(size);
        }
        // Where the C++ library would throw what nobody of ours catches.
        std::process::abort();
    }
    address
}

/// `operator delete` with a size, by the name it has for linkers.
///
/// # Safety
/// The address must be one of `operator new`, and the size that which was asked for.
#[unsafe(export_name = "_ZdlPvm")]
unsafe extern "C" fn operator_delete(address: *mut c_void, size: usize) {
    if is_guest() && !address.is_null() {
        memory::release(size);
    }
    // SAFETY: the caller vouches for the address, and the C++ library's own of the other kinds are
    // malloc's, too.
    unsafe { libc::free(address) };
}

/// # Safety
/// As sigaction(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn sigaction(
    signal: c_int,
    new: *const libc::sigaction,
    old: *mut libc::sigaction,
) -> c_int {
    // SAFETY: what the caller vouches for is what the calls want.
    unsafe {
        if is_guest() && !new.is_null() && fault::is_fault(signal) {
            let ours = fault::in_front_of(&*new);
            return __sigaction(signal, &raw const ours, old);
        }
        __sigaction(signal, new, old)
    }
}

/// # Safety
/// As accept(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn accept(
    fd: c_int,
    address: *mut libc::sockaddr,
    length: *mut libc::socklen_t,
) -> c_int {
    if is_guest() && sockets::is_listener(fd) {
        return sockets::accept();
    }
    // SAFETY: what the caller vouches for is what the call wants.
    unsafe { libc::accept4(fd, address, length, 0) }
}

/// # Safety
/// As close(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn close(fd: c_int) -> c_int {
    if is_guest() && sockets::close(fd) {
        return 0;
    }
    // SAFETY: what the caller vouches for is what the call wants.
    unsafe { __close(fd) }
}

/// # Safety
/// As epoll_wait(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn epoll_wait(
    epoll: c_int,
    events: *mut libc::epoll_event,
    capacity: c_int,
    timeout: c_int,
) -> c_int {
    if is_guest() {
        sockets::before_waiting();
    }
    // SAFETY: what the caller vouches for is what the call wants.
    unsafe { libc::epoll_pwait(epoll, events, capacity, timeout, std::ptr::null()) }
}
