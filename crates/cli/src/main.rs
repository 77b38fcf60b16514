//! The binary `palmgate`.

use mimalloc::MiMalloc;

// As in `palmgated`: `demo`, `bench` and `simulate` run it from here.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> std::process::ExitCode {
    palmgate_cli::main()
}
