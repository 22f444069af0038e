//! argv → command → exit code.

use std::process::ExitCode;

// Buffers of a request are kept and used again: glibc maps and unmaps each, which costs half of what large HTTP/2 frames gain.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    weir::cli::execute(weir::cli::Arguments::read(std::env::args_os()))
}
