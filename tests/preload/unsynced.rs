//! A library that is preloaded into a process (LD_PRELOAD) and writes down what the process does to the files below one directory: each
//! write with its bytes, each sync, each change of a name, in their order. From that a test makes the files that a power cut would leave.
//!
//! sled opens its files itself, so there is no trait to put a modelled disk behind: between it and the C library is the only place for one.
//! Writes go on to the files, so that the process reads what it wrote; syncs of them are only written down, which is quicker, and nobody looks
//! at the files after the cut. `sync_file_range` counts as nothing: it neither writes sizes down nor empties a disk's cache.
//!
//! `MALLE_UNSYNCED_BELOW` names the directory, in full, and `MALLE_UNSYNCED_TRACE` the file that is appended to; without them everything is as
//! ever. `harness::unsynced` reads the records. What is not seen, and so must not be used below the directory: relative paths, memory maps,
//! calls past the C library, and what is not here.

#![allow(unsafe_code, reason = "what stands in for functions of the C library has their form")]

use std::ffi::{CStr, CString, OsString, c_char, c_int, c_long, c_void};
use std::os::unix::ffi::OsStringExt;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use libc::{iovec, mode_t, off_t, size_t, ssize_t};

struct Watch {
    below: Vec<u8>,
    trace: c_int,
}

/// One call at a time: the records have the order of what they tell.
static TURN: Mutex<()> = Mutex::new(());

fn watch() -> Option<&'static Watch> {
    static WATCH: OnceLock<Option<Watch>> = OnceLock::new();
    let begin = || {
        let of = |name| std::env::var_os(name).map(OsString::into_vec);
        let below = of("MALLE_UNSYNCED_BELOW")?;
        let path = CString::new(of("MALLE_UNSYNCED_TRACE")?).ok()?;
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND | libc::O_CLOEXEC;
        // SAFETY: the path ends with a zero. The system is called by number here and below: by name it would come back here.
        let trace = unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, 0o644) } as c_int;
        (trace >= 0).then_some(Watch { below, trace })
    };
    WATCH.get_or_init(begin).as_ref()
}

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    fn covers(&self, path: &[u8]) -> bool {
        let rest = path.strip_prefix(self.below.as_slice());
        rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    }

    /// The whole record in one call: a process that is killed leaves at most a last one that is cut short.
    fn note(&self, kind: u8, path: &[u8], number: u64, data: &[u8]) {
        let mut record = Vec::with_capacity(17 + path.len() + data.len());
        record.push(kind);
        record.extend((path.len() as u32).to_le_bytes());
        record.extend(number.to_le_bytes());
        record.extend((data.len() as u32).to_le_bytes());
        record.extend(path);
        record.extend(data);
        // SAFETY: the bytes are there.
        let written = unsafe { libc::syscall(libc::SYS_write, self.trace, record.as_ptr(), record.len()) };
        if written != record.len() as c_long {
            // A record that is missing would make a sound file look damaged, or worse, the other way round.
            std::process::abort();
        }
    }
}

/// What a descriptor is open on, if it lies below the directory.
fn watched(file: c_int) -> Option<(&'static Watch, Vec<u8>)> {
    let watch = watch()?;
    let link = CString::new(format!("/proc/self/fd/{file}")).ok()?;
    let mut path = vec![0u8; 4096];
    // SAFETY: the link ends with a zero, and the buffer has the length that is said.
    let length = unsafe {
        libc::syscall(
            libc::SYS_readlinkat,
            libc::AT_FDCWD,
            link.as_ptr(),
            path.as_mut_ptr(),
            path.len(),
        )
    };
    path.truncate(usize::try_from(length).ok()?);
    watch.covers(&path).then_some((watch, path))
}

/// A path as it was given, if it lies below the directory.
///
/// # Safety
/// `path` ends with a zero.
unsafe fn watched_path(path: *const c_char) -> Option<(&'static Watch, Vec<u8>)> {
    let watch = watch()?;
    // SAFETY: by the caller.
    let path = unsafe { CStr::from_ptr(path) }.to_bytes();
    watch.covers(path).then(|| (watch, path.to_vec()))
}

/// # Safety
/// `bytes` points to `length` bytes.
unsafe fn wrote(file: c_int, offset: Option<off_t>, bytes: *const c_void, length: size_t) -> ssize_t {
    let real = || match offset {
        // SAFETY: by the caller.
        Some(offset) => unsafe { libc::syscall(libc::SYS_pwrite64, file, bytes, length, offset) },
        // SAFETY: by the caller.
        None => unsafe { libc::syscall(libc::SYS_write, file, bytes, length) },
    };
    let Some((watch, path)) = watched(file) else {
        return real() as ssize_t;
    };
    let _turn = turn();
    let written = real() as ssize_t;
    if written > 0 {
        let at = offset.unwrap_or_else(|| position(file) - written as off_t);
        // SAFETY: by the caller; no more was written than is there.
        let data = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), written as usize) };
        watch.note(b'w', &path, at as u64, data);
    }
    written
}

fn position(file: c_int) -> off_t {
    // SAFETY: numbers only.
    unsafe { libc::syscall(libc::SYS_lseek, file, 0, libc::SEEK_CUR) }
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn write(file: c_int, bytes: *const c_void, length: size_t) -> ssize_t {
    // SAFETY: by the caller.
    unsafe { wrote(file, None, bytes, length) }
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwrite64(file: c_int, bytes: *const c_void, length: size_t, offset: off_t) -> ssize_t {
    // SAFETY: by the caller.
    unsafe { wrote(file, Some(offset), bytes, length) }
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwrite(file: c_int, bytes: *const c_void, length: size_t, offset: off_t) -> ssize_t {
    // SAFETY: by the caller.
    unsafe { wrote(file, Some(offset), bytes, length) }
}

/// # Safety
/// As the C library's. The parts are written one after the other, so fewer may be written than are there, which the caller expects.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn writev(file: c_int, parts: *const iovec, count: c_int) -> ssize_t {
    if watched(file).is_none() {
        // SAFETY: by the caller.
        return unsafe { libc::syscall(libc::SYS_writev, file, parts, count) } as ssize_t;
    }
    let mut all = 0;
    for part in 0..count as usize {
        // SAFETY: by the caller.
        let part = unsafe { &*parts.add(part) };
        // SAFETY: by the caller.
        let written = unsafe { wrote(file, None, part.iov_base, part.iov_len) };
        if written < 0 {
            return if all > 0 { all } else { written };
        }
        all += written;
        if (written as usize) < part.iov_len {
            break;
        }
    }
    all
}

fn cut(file: c_int, length: off_t) -> c_int {
    // SAFETY: numbers only.
    let real = || unsafe { libc::syscall(libc::SYS_ftruncate, file, length) } as c_int;
    let Some((watch, path)) = watched(file) else {
        return real();
    };
    let _turn = turn();
    let answer = real();
    if answer == 0 {
        watch.note(b'l', &path, length as u64, &[]);
    }
    answer
}

#[unsafe(no_mangle)]
pub extern "C" fn ftruncate64(file: c_int, length: off_t) -> c_int {
    cut(file, length)
}

#[unsafe(no_mangle)]
pub extern "C" fn ftruncate(file: c_int, length: off_t) -> c_int {
    cut(file, length)
}

fn sync(file: c_int, call: c_long) -> c_int {
    let Some((watch, path)) = watched(file) else {
        // SAFETY: numbers only.
        return unsafe { libc::syscall(call, file) } as c_int;
    };
    let _turn = turn();
    watch.note(b's', &path, 0, &[]);
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn fsync(file: c_int) -> c_int {
    sync(file, libc::SYS_fsync)
}

#[unsafe(no_mangle)]
pub extern "C" fn fdatasync(file: c_int) -> c_int {
    sync(file, libc::SYS_fdatasync)
}

#[unsafe(no_mangle)]
pub extern "C" fn sync_file_range(file: c_int, offset: off_t, length: off_t, flags: u32) -> c_int {
    match watched(file) {
        Some(_) => 0,
        // SAFETY: numbers only.
        None => unsafe { libc::syscall(libc::SYS_sync_file_range, file, offset, length, flags) as c_int },
    }
}

/// # Safety
/// As the C library's; the third argument is there whenever it is looked at.
unsafe fn opened(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: by the caller.
    let real = || unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, flags, mode) } as c_int;
    if flags & libc::O_TRUNC == 0 {
        return real();
    }
    // SAFETY: by the caller.
    let Some((watch, path)) = (unsafe { watched_path(path) }) else {
        return real();
    };
    let _turn = turn();
    let file = real();
    if file >= 0 {
        watch.note(b'l', &path, 0, &[]);
    }
    file
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: by the caller.
    unsafe { opened(path, flags, mode) }
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: by the caller.
    unsafe { opened(path, flags, mode) }
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    let real = || {
        let here = libc::AT_FDCWD;
        // SAFETY: by the caller.
        unsafe { libc::syscall(libc::SYS_renameat2, here, from, here, to, 0) as c_int }
    };
    // SAFETY: by the caller.
    let Some((watch, old)) = (unsafe { watched_path(from) }) else {
        return real();
    };
    // SAFETY: by the caller.
    let new = unsafe { CStr::from_ptr(to) }.to_bytes();
    let _turn = turn();
    let answer = real();
    if answer == 0 {
        watch.note(b'r', &old, 0, new);
    }
    answer
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    // SAFETY: by the caller.
    unsafe { unlinkat(libc::AT_FDCWD, path, 0) }
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unlinkat(dir: c_int, path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: by the caller.
    let real = || unsafe { libc::syscall(libc::SYS_unlinkat, dir, path, flags) } as c_int;
    let found = match dir {
        // SAFETY: by the caller.
        libc::AT_FDCWD => unsafe { watched_path(path) },
        dir => watched(dir).map(|(watch, mut full)| {
            full.push(b'/');
            // SAFETY: by the caller.
            full.extend(unsafe { CStr::from_ptr(path) }.to_bytes());
            (watch, full)
        }),
    };
    let Some((watch, path)) = found else {
        return real();
    };
    let _turn = turn();
    let answer = real();
    if answer == 0 && flags & libc::AT_REMOVEDIR == 0 {
        watch.note(b'x', &path, 0, &[]);
    }
    answer
}
