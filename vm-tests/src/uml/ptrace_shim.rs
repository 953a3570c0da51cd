//! Preloaded into `linux.uml`: lets it run on processors whose extended register state is bigger than it knows, and keeps its
//! disks from waiting for those of the machine outside.
//!
//! UML up to 6.3 saves a process's registers with `PTRACE_GETREGSET(NT_X86_XSTATE)` into a buffer of fixed size, and
//! kernels refuse `PTRACE_SETREGSET` with less than the processor's whole state (`xstateregs_set` in
//! arch/x86/kernel/fpu/regset.c): "ptrace set fp regs failed, errno = 14" on processors with AMX. Here a refused part is
//! laid over the state that the process has at that moment.
//!
//! UML writes the registers back at every system call, mostly unchanged. What equals the last reading, with no resume in
//! between, is not written: copying 11 KiB each time would make the machine several times slower.

//!
//! UML makes a hole in the disk's image for every 32 KiB that are discarded (`UBD_MAX_REQUEST` in ubd_kern.c), a mkfs discards
//! a whole disk, and the filesystem outside writes out what is dirty there first, each time: on a busy disk, minutes in
//! which the machine says nothing. Here a discard does nothing, as on many disks; what was there stays readable.

use std::ffi::{c_int, c_long, c_void};

/// `struct iovec` of sys/uio.h.
#[repr(C)]
struct IoVec {
    base: *mut c_void,
    length: usize,
}

// Built by rustc alone, without crates.
unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn __errno_location() -> *mut c_int;
}

const EFAULT: c_int = 14;
const SYS_PTRACE: c_long = 101;
const SYS_FALLOCATE: c_long = 285;
/// `FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE` of linux/falloc.h.
const PUNCH_HOLE: c_int = 1 | 2;
const PTRACE_GETREGSET: c_long = 0x4204;
const PTRACE_SETREGSET: c_long = 0x4205;
const NT_X86_XSTATE: usize = 0x202;
/// AMX brings the state to 11 KiB.
const STATE: usize = 64 << 10;
/// Not on the stack: UML's kernel stacks have a few KiB. There is one processor, and no interrupt comes in between.
static mut BUFFER: [u8; STATE] = [0; STATE];

/// Requests that let the process run: CONT, SINGLESTEP, SYSCALL, SYSEMU, SYSEMU_SINGLESTEP.
const RESUME: [c_long; 5] = [7, 9, 24, 31, 32];

/// The last reading: process (0: none) and bytes.
static mut LAST_PID: c_int = 0;
static mut LAST_LENGTH: usize = 0;
static mut LAST: [u8; STATE] = [0; STATE];

/// glibc's `fallocate64`, which makes no holes.
///
/// # Safety
/// As fallocate(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fallocate64(fd: c_int, mode: c_int, offset: i64, length: i64) -> c_int {
    if mode == PUNCH_HOLE {
        return 0;
    }
    // SAFETY: the caller's arguments. The result is 0 or -1.
    unsafe { syscall(SYS_FALLOCATE, fd, mode, offset, length) as c_int }
}

/// glibc's `ptrace`, which returns what the PEEK requests store.
///
/// # Safety
/// As ptrace(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ptrace(
    request: c_long,
    pid: c_int,
    addr: *mut c_void,
    data: *mut c_void,
) -> c_long {
    let call = |request: c_long, data: *mut c_void| -> c_long {
        // SAFETY: the caller's arguments, or buffers of the right size below.
        unsafe { syscall(SYS_PTRACE, request, c_long::from(pid), addr, data) }
    };
    if (1..=3).contains(&request) {
        let mut word: c_long = 0;
        if call(request, (&raw mut word).cast()) < 0 {
            return -1;
        }
        // SAFETY: the thread's own errno; a word of -1 is told from an error by it.
        unsafe { *__errno_location() = 0 };
        return word;
    }
    let registers = addr as usize == NT_X86_XSTATE;
    // SAFETY: there is one thread; for these requests `data` points to an iovec whose buffer has its length.
    unsafe {
        let last: *mut u8 = (&raw mut LAST).cast();
        if RESUME.contains(&request) && pid == LAST_PID {
            LAST_PID = 0;
        } else if request == PTRACE_GETREGSET && registers {
            let result = call(request, data);
            let part = &*data.cast::<IoVec>();
            LAST_PID = 0;
            if result >= 0 && part.length <= STATE {
                std::ptr::copy_nonoverlapping(part.base.cast::<u8>(), last, part.length);
                (LAST_PID, LAST_LENGTH) = (pid, part.length);
            }
            return result;
        } else if request == PTRACE_SETREGSET && registers {
            let part = &*data.cast::<IoVec>();
            let same = |length: usize| {
                std::slice::from_raw_parts(part.base.cast::<u8>(), length)
                    == std::slice::from_raw_parts(last, length)
            };
            if pid == LAST_PID && part.length == LAST_LENGTH && same(LAST_LENGTH) {
                return 0;
            }
            LAST_PID = 0;
        }
    }
    let result = call(request, data);
    // SAFETY: the thread's own errno.
    let errno = unsafe { *__errno_location() };
    if result >= 0 || request != PTRACE_SETREGSET || !registers || errno != EFAULT {
        return result;
    }
    let state: *mut u8 = (&raw mut BUFFER).cast();
    let mut whole = IoVec {
        base: state.cast(),
        length: STATE,
    };
    if call(PTRACE_GETREGSET, (&raw mut whole).cast()) < 0 {
        return -1;
    }
    // SAFETY: for this request `data` points to an iovec.
    let part = unsafe { &*data.cast::<IoVec>() };
    let length = part.length.min(whole.length);
    // SAFETY: both buffers have at least `length` bytes.
    unsafe { std::ptr::copy_nonoverlapping(part.base.cast::<u8>(), state, length) };
    call(PTRACE_SETREGSET, (&raw mut whole).cast())
}
