//! The command: parse, run, exit code.
#![forbid(unsafe_code)]

/// Long-lived nodes allocate and free many small buffers on many threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    ringraft::cli::main()
}
