//! Network devices whose other end is a file: Linux's TUN.
//! Linux kernel documentation, "Universal TUN/TAP device driver".

use std::fs::File;
use std::io;

use rustix::ioctl::{Opcode, Setter, ioctl};

/// `TUNSETIFF`: `_IOW('T', 202, int)`.
const SET_INTERFACE: Opcode = 0x4004_54ca;

/// `IFF_TUN`: packets of the internet protocol, without a link layer.
const TUN: i16 = 0x0001;
/// `IFF_NO_PI`: packets as they are, without a header of the driver's.
const BARE: i16 = 0x1000;

/// `struct ifreq` of `linux/if.h`, as far as the call reads it, and as long.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: i16,
    rest: [u8; 22],
}

/// Makes a device of this name in the network namespace that we are in. It is gone when the file is closed
/// for the last time, however that comes about. What is read are the packets sent to the device.
///
/// # Errors
/// It is not allowed, or there is no such driver.
#[expect(unsafe_code, reason = "no safe wrapper knows this call")]
pub(super) fn open(name: &str) -> io::Result<File> {
    let mut request = InterfaceRequest { name: [0; 16], flags: TUN | BARE, rest: [0; 22] };
    let (kept, _terminator) = request.name.split_at_mut(15);
    kept.get_mut(..name.len())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a device's name is short"))?
        .copy_from_slice(name.as_bytes());
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: the kernel reads a `struct ifreq` for this code, 40 bytes on all platforms, and writes back
    // no more than that; `InterfaceRequest` is as long and lives in the setter during the call.
    unsafe { ioctl(&file, Setter::<SET_INTERFACE, _>::new(request)) }?;
    Ok(file)
}

const _: () = assert!(size_of::<InterfaceRequest>() == 40, "as long as the kernel's");
